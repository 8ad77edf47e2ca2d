"""Read expression tables and transform their values into targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pandas as pd
from upath import UPath

from promoter import storage
from promoter.dataset.config import Missing, Transform
from promoter.errors import InputError
from promoter.storage import AnyPath

_NO_VALUE = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A")


@dataclass(frozen=True)
class Expression:
    """Hold an expression table that has been checked and transformed.

    Attributes:
        values: one float32 column per target, indexed by gene id in file order; ids are unique.
        ignored_columns: columns without a single number (descriptions), which cannot be targets.
        n_missing: number of genes dropped because a value was missing (`missing="drop"`).
        n_duplicates: number of rows dropped because their gene id had occurred before.
    """

    values: pd.DataFrame
    ignored_columns: list[str] = field(default_factory=list)
    n_missing: int = 0
    n_duplicates: int = 0


def read_expression(
    path: AnyPath,
    targets: Sequence[str] | None = None,
    *,
    transform: Transform = "none",
    gene_column: str | None = None,
    missing: Missing = "error",
) -> Expression:
    """Read a table with one row per gene and one numeric column per target, and transform its values.

    Args:
        path: `.csv`, `.parquet`, or tab-separated under any other name; text may be gzip.
        targets: columns to take; None (default) takes every column that holds numbers.
        transform: `none` (default); `log1p` = ln(x + 1); `log2p1` = log2(x + 1); `cpm_log2p1` for raw counts:
            log2(counts per million + 1), counted over all rows of the column.
        gene_column: column with the gene ids; None (default) takes the first.
        missing: what to do with an empty, NaN or infinite value: `error` (default), or `drop` the gene.

    Raises:
        InputError: the table cannot be used; the message names the row and the column.
    """
    if transform not in get_args(Transform):
        fix = f"choose one of {', '.join(get_args(Transform))}"
        raise InputError("unknown", setting="transform", value=transform, fix=fix)
    where = storage.require_file(path, "expression table")
    table = _read_table(where)
    genes, columns = _split_gene_column(where, table, gene_column)
    duplicated = genes.duplicated()
    values, ignored = _numeric_columns(where, genes, columns, targets)
    bad = ~np.isfinite(values.to_numpy())
    if bad.any() and missing == "error":
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{where}: {_row_name(genes, row)}, column '{values.columns[column]}': the value is missing, NaN or "
            f"infinite ({int(bad.any(axis=1).sum())} such rows); fix it, or drop such genes with `missing='drop'`"
        )
    complete: np.ndarray = ~np.any(bad, axis=1)
    if not complete.any():
        raise InputError(f"{where}: no row has a value in every target; choose other `targets`")
    # before rows are dropped, since counts per million are of all values of a column
    transformed = _transform(where, genes, values.mask(bad), transform)[complete]
    genes, duplicated = genes[complete], duplicated[complete]
    with np.errstate(over="ignore"):
        kept = transformed[~duplicated.to_numpy()].astype("float32")
    if np.isinf(kept.to_numpy()).any():
        raise InputError(
            f"{where}: values above {np.finfo('float32').max:.1e} do not fit; choose a log as `transform`"
        )
    kept.index = pd.Index(genes[~duplicated], name="gene_id")
    return Expression(kept, ignored, int((~complete).sum()), int(duplicated.sum()))


def looks_untransformed(values: pd.DataFrame) -> bool:
    """Return whether values look like TPM or counts: none is negative, and some exceed 50, unlike logarithms."""
    array = values.to_numpy()
    return bool(array.size and array.min() >= 0 and array.max() > 50)


def _read_table(where: UPath) -> pd.DataFrame:
    name = str(where).lower().removesuffix(".gz")
    if name.endswith((".parquet", ".pq")):
        with storage.open_table(where, "expression table") as file:
            table = file.read().to_pandas()
        return table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
    try:
        with storage.open_text(where) as file:
            head = file.read(1024)
            if head.lstrip().startswith("<"):
                raise InputError(f"{where}: is HTML or XML, not a table; download it again")
            separator = "," if name.endswith(".csv") else "\t"
            file.seek(0)
            header = pd.read_csv(file, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False)
            _require_distinct(where, [str(column) for column in header.iloc[0]])  # read_csv renames equal ones
            file.seek(0)
            # every cell as text, since "007" and "nan" are gene ids
            table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False)
            if table.index.nlevels > 1:
                raise InputError(f"{where}: its rows have more columns than its header; fix the header")
            # R's write.table writes no header for the row names, so pandas reads them as the index
            return table if isinstance(table.index, pd.RangeIndex) else table.reset_index(names="gene_id")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{where}: is not a table ({' '.join(str(error).split())}); fix it") from error


def _split_gene_column(
    where: UPath, table: pd.DataFrame, gene_column: str | None
) -> tuple[pd.Series, pd.DataFrame]:
    table.columns = table.columns.astype(str)
    names = list(table.columns)
    if gene_column is not None and gene_column not in names:
        raise InputError(f"{where}: has no column '{gene_column}'; `gene_column` may be one of {names[:10]}")
    _require_distinct(where, names)
    if len(table) == 0:
        raise InputError(f"{where}: has a header but no rows; is it the right file?")
    column = gene_column or names[0]
    genes = table[column]
    empty = genes.isna() | (genes.astype(str).str.strip() == "")
    if empty.any():
        row = int(np.flatnonzero(empty)[0])
        raise InputError(f"{where}: row {row + 2} has no gene id in column '{column}'; add one or delete the row")
    return genes.astype(str).rename("gene_id"), table.drop(columns=column)


def _require_distinct(where: UPath, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: two columns are named '{twice}'; rename one")


def _numeric_columns(
    where: UPath, genes: pd.Series, columns: pd.DataFrame, targets: Sequence[str] | None
) -> tuple[pd.DataFrame, list[str]]:
    """Return the targets as float64 (NaN where empty) and the names of the columns ignored."""
    if targets is not None:
        unknown = [name for name in targets if name not in columns.columns]
        if unknown or not targets:
            raise InputError(
                f"{where}: `targets={unknown}`: no such column; there are {list(columns.columns[:10])}"
            )
        columns = columns[list(targets)]
    numeric, ignored = {}, []
    for name, column in columns.items():
        numbers = pd.to_numeric(column, errors="coerce")
        text = numbers.isna() & column.notna() & ~column.isin(_NO_VALUE)
        if text.any() and numbers.isna().all() and targets is None:
            ignored.append(str(name))
        elif text.any():
            row = int(np.flatnonzero(text)[0])
            raise InputError(
                f"{where}: {_row_name(genes, row)}, column '{name}': '{column.iloc[row]}' is no number; "
                "fix it, or choose columns with `targets`"
            )
        else:
            numeric[str(name)] = numbers.to_numpy(dtype="float64")
    if not numeric:
        others = ", ".join(map(str, columns.columns[:10])) or "none"
        raise InputError(
            f"{where}: no column of numbers beside the gene ids (other columns: {others}); "
            "is it separated by tabs, or by commas and named .csv?"
        )
    return pd.DataFrame(numeric), ignored


def _transform(where: UPath, genes: pd.Series, values: pd.DataFrame, transform: Transform) -> pd.DataFrame:
    if transform == "none":
        return values
    array = values.to_numpy()
    if (array < 0).any():
        row, column = (int(i) for i in np.argwhere(array < 0)[0])
        raise InputError(
            f"{where}: {_row_name(genes, row)}, column '{values.columns[column]}': {array[row, column]:g} is "
            f"negative, which `transform={transform!r}` cannot take; use `transform='none'` if it is a log already"
        )
    if transform == "cpm_log2p1":
        total = np.nansum(array, axis=0)
        if (total == 0).any():
            empty = values.columns[int(np.flatnonzero(total == 0)[0])]
            raise InputError(f"{where}: column '{empty}' sums to 0, so it has no counts per million; leave it out")
        array = array / total * 1e6
    array = np.log1p(array) if transform == "log1p" else np.log2(array + 1)
    return pd.DataFrame(array, columns=values.columns, index=values.index)


def _row_name(genes: pd.Series, position: int) -> str:
    """Name a row by its line, the header being line 1, and its gene."""
    return f"row {int(genes.index[position]) + 2} ({genes.iloc[position]})"
