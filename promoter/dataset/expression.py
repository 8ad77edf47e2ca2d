"""Read expression tables and transform their values into targets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

import numpy as np
import pandas as pd
from upath import UPath

from promoter.dataset.config import Layout, Missing, Transform
from promoter.dataset.expression_file import ExpressionFile, read_expression_file
from promoter.dataset.layouts import LAYOUTS, Unit, column_names, find_tables, sample_names
from promoter.dataset.samples import (
    Replicates,
    average_replicates,
    match_samples,
    parse_contrasts,
    subtract_conditions,
)
from promoter.dataset.targets import warn_of_values
from promoter.dataset.transcripts import sum_transcripts
from promoter.errors import InputError, InputNote, InputWarning, counted, doubt, note
from promoter.storage import AnyPath


@dataclass(frozen=True)
class Expression:
    """Hold expression that has been checked and transformed.

    Attributes:
        values: one float32 column per target, indexed by gene id in file order; ids are unique. NaN where a value
            is missing (`missing="keep"`).
        ignored_columns: columns without a single number (descriptions), which cannot be targets.
        without_value: ids of genes dropped because they have no value, or with `missing="drop"` lack one.
        n_duplicates: number of rows dropped because a row of their gene id is kept.
        left_out: other columns that are no targets: lengths, coordinates, p-values, identifiers.
        layout: layout of the table.
        unit: unit of the table's values, before the transform; None if the layout does not say.
        files: paths of the files that were read.
        gene_names: gene id -> name of the gene, for the ids to which the table has another name.
        replicates: condition -> its samples and their spread; empty without a sheet of replicates.
    """

    values: pd.DataFrame
    ignored_columns: list[str] = field(default_factory=list)
    without_value: list[str] = field(default_factory=list)
    n_duplicates: int = 0
    left_out: list[str] = field(default_factory=list)
    layout: Layout = "plain"
    unit: Unit | None = None
    files: list[UPath] = field(default_factory=list)
    gene_names: dict[str, str] = field(default_factory=dict)
    replicates: dict[str, Replicates] = field(default_factory=dict)


def read_expression(
    path: AnyPath | Sequence[AnyPath],
    targets: Sequence[str] | None = None,
    *,
    transform: Transform = "none",
    gene_column: str | None = None,
    missing: Missing = "keep",
    layout: Layout | None = None,
    transcripts: Callable[[], Mapping[str, str]] | None = None,
    tx2gene: Mapping[str, str] | None = None,
    replicates: Mapping[str, str] | None = None,
    contrast: str | Sequence[str] | None = None,
) -> Expression:
    """Read a table with one row per gene and numbers of one or more samples, and make targets of them.

    What tool wrote the table is known by its header or shape; what is taken for granted is said by `errors.note`,
    what looks wrong by `errors.doubt`.

    Args:
        path: table (text with any separator, optionally gzip, or `.parquet`), several of one layout, a folder of
            them, or a pattern such as `quants/*/quant.sf`; files of one sample each are joined.
        targets: columns or samples to take; None (default) takes those that the layout says, in a plain table all
            columns of numbers but lengths, coordinates, p-values and identifiers.
        transform: `none` (default); `log1p` = ln(x + 1); `log2p1` = log2(x + 1); `cpm_log2p1` for raw counts:
            log2(counts per million + 1), counted over all rows of the column that are no summaries.
        gene_column: column with the gene ids; None (default) goes by the layout: in a plain table the first.
        missing: what to do with an empty or NaN value: `keep` it as NaN and drop genes without any (default),
            `drop` the gene, or `error`. An infinite value counts as missing.
        layout: layout of the table; None (default) goes by header and shape.
        transcripts: function that returns transcript id -> gene id, from the annotation; it is called only for
            layouts with a row a transcript, whose values are then summed. None (default) leaves rows as they are.
        tx2gene: transcript id -> gene id, to sum the rows of a table of any layout; None (default) sums none.
        replicates: sample -> condition: targets are then the conditions, means over their samples after the
            transform; None (default) makes each sample a target.
        contrast: pairs of conditions or samples, as `samples.parse_contrasts` takes them. Targets are `A_vs_B`,
            A minus B after the transform, and beside them only those that `targets` names. None (default): none.

    Raises:
        InputError: the table cannot be used; the message names the line and the column.
    """
    for setting, value, known in (("transform", transform, Transform), ("missing", missing, Missing)):
        if value not in get_args(known):
            raise InputError(
                "unknown", setting=setting, value=value, fix=f"choose one of {', '.join(get_args(known))}"
            )
    if targets is not None and not targets:
        raise InputError("names no column", setting="targets", value=targets, fix="leave it out to take all")
    pairs = None if contrast is None else parse_contrasts(contrast)
    # without a sheet, contrasts are of columns
    columns = None if targets is None else [*targets, *(name for pair in pairs or () for name in pair)]
    read = partial(
        read_expression_file,
        targets=columns,
        transform=transform,
        gene_column=gene_column,
        missing=missing,
        layout=layout,
    )
    files = _read_files(find_tables(path), read)
    name = _common_layout(files)
    if name == "star":
        files = _choose_strand(files, columns)
    named = _name_samples(files, columns or ())
    raw, totals = _join(files, named, missing)
    if targets is not None:
        conditions = [*(replicates or {}).values()]
        raw = _choose_samples(files, raw, targets, conditions=conditions, pairs=pairs or [])
    raw = _sum_to_genes(files, raw, transcripts, tx2gene)
    warn_of_values(files[0].path, raw, transform, files[0].unit)
    values = transform_values(files[0].path, raw, totals, transform)
    values, spread = _make_targets(values, targets, replicates, pairs)
    kept = (values.notna().any(axis=1) if missing == "keep" else values.notna().all(axis=1)).to_numpy()
    if not kept.any():
        raise InputError(f"{files[0].path}: no row has a value in every target; choose other `targets`")
    result = as_float32(files[0].path, values[kept])
    result.index.name = "gene_id"
    return Expression(
        result,
        list(dict.fromkeys(column for file in files for column in file.ignored_columns)),
        values.index[~kept].astype(str).tolist(),
        sum(file.n_duplicates for file in files),
        left_out=list(dict.fromkeys(column for file in files for column in file.left_out)),
        layout=name,
        unit=files[0].unit,
        files=[file.path for file in files],
        gene_names={gene: label for file in reversed(files) for gene, label in file.gene_names.items()},
        replicates=spread,
    )


def _read_files(paths: Sequence[UPath], read: Callable[[UPath], ExpressionFile]) -> list[ExpressionFile]:
    """Read several files, and say once what is the same for all."""
    if len(paths) == 1:
        return [read(paths[0])]
    said: dict[tuple[type[InputNote], str], list[UPath]] = {}
    files = []
    for path in paths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputNote)
            files.append(read(path))
        for warning in caught:
            if isinstance(warning.message, InputNote):
                text = str(warning.message).removeprefix(f"{path}: ")
                said.setdefault((type(warning.message), text), []).append(path)
    for (kind, text), of_paths in said.items():
        others = f" and {counted(len(of_paths) - 1, 'other')}" if len(of_paths) > 1 else ""
        (doubt if issubclass(kind, InputWarning) else note)(f"{of_paths[0]}{others}: {text}")
    return files


def _common_layout(files: Sequence[ExpressionFile]) -> Layout:
    first = files[0]
    other = next((file for file in files if file.layout != first.layout), None)
    if other is not None:
        tools = [LAYOUTS[file.layout].tool for file in (other, first)]
        raise InputError(
            f"{other.path}: has the layout of {tools[0]}, {first.path} that of {tools[1]}; give tables of one"
        )
    return first.layout


def _choose_strand(files: Sequence[ExpressionFile], targets: Sequence[str] | None) -> list[ExpressionFile]:
    """Keep of STAR's columns the one for the library's strandedness, which the two strands show if it is clear."""
    strands = ["unstranded", "forward", "reverse"]
    if any(list(file.values.columns) != strands for file in files) or set(strands) & set(targets or ()):
        return list(files)
    shares = [
        float(file.totals["forward"] / max(file.totals["forward"] + file.totals["reverse"], 1)) for file in files
    ]
    found = {
        "unstranded": all(0.4 <= share <= 0.6 for share in shares),
        "forward": all(share >= 0.9 for share in shares),
        "reverse": all(share <= 0.1 for share in shares),
    }
    column = next((strand for strand in strands if found[strand]), None)
    seen = " to ".join(dict.fromkeys(f"{share:.0%}" for share in (min(shares), max(shares))))
    if column is None:
        raise InputError(
            f"{files[0].path}: {seen} of the reads lie on the forward strand of genes, which does not tell the "
            "library's strandedness; name the column in `targets`: unstranded, forward or reverse"
        )
    note(f"{files[0].path}: column '{column}' is taken: {seen} of the reads lie on the forward strand of genes")
    others = [strand for strand in strands if strand != column]
    return [
        replace(
            file,
            values=file.values[[column]],
            totals=file.totals[[column]],
            left_out=[*file.left_out, *others],
        )
        for file in files
    ]


def _join(
    files: Sequence[ExpressionFile], named: Sequence[Mapping[str, str]], missing: Missing
) -> tuple[pd.DataFrame, pd.Series]:
    """Return the values of all files, a column a sample, and the sum of each column."""
    names = [name for of_file in named for name in of_file.values()]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise InputError(f"{files[-1].path}: sample '{twice}' is in several files or columns; rename all but one")
    tables = [file.values.rename(columns=of_file) for file, of_file in zip(files, named, strict=True)]
    values = tables[0] if len(tables) == 1 else pd.concat(tables, axis=1, sort=False)
    absent = len(values) - min(map(len, tables))
    if absent:
        others = counted(len(files) - 1, "other")
        problem = f"{files[0].path} and {others}: up to {counted(absent, 'gene')} not in every file"
        if missing == "error":
            raise InputError(f"{problem}; keep them with `missing='keep'`")
        note(f"{problem}; where a gene is not, its value is missing")
    totals = pd.concat([file.totals.rename(of_file) for file, of_file in zip(files, named, strict=True)])
    return values, totals


def _name_samples(files: Sequence[ExpressionFile], wanted: Sequence[str]) -> list[dict[str, str]]:
    """Return the name of the sample that each column of each file holds."""
    entry = LAYOUTS[files[0].layout]
    columns = [str(column) for file in files for column in file.values.columns]
    short = column_names(columns) if len(set(columns)) == len(columns) else columns
    is_distinct = len(set(short)) == len(short)
    by_user = bool(set(wanted) & {*columns, *short})
    of_files = sample_names([str(file.path) for file in files])
    if len(files) == 1 and by_user:
        names = [column if column in wanted else name for column, name in zip(columns, short, strict=True)]
    elif len(columns) == len(files) and (
        entry.is_one_sample
        or not (files[0].has_header and is_distinct)
        or (len(files) > 1 and entry.unit == "log2 fold change")
    ):
        names = of_files
    elif by_user and not is_distinct:
        samples = [name for name, file in zip(of_files, files, strict=True) for _ in file.values.columns]
        names = [f"{sample}_{column}" for sample, column in zip(samples, columns, strict=True)]
    else:
        names = short
    rest = iter(names)
    return [{str(column): next(rest) for column in file.values.columns} for file in files]


def _choose_samples(
    files: Sequence[ExpressionFile],
    values: pd.DataFrame,
    targets: Sequence[str],
    *,
    conditions: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> pd.DataFrame:
    """Return the samples that `targets` names; columns that it names are chosen already, conditions come later."""
    columns = {column for file in files for column in (*file.columns, *column_names(file.columns))}
    unknown = [target for target in targets if target not in {*columns, *values.columns, *conditions}]
    if unknown:
        samples = [str(name) for name in values.columns if name not in columns]
        more = f", and the samples {samples[:6]}" if samples else ""
        raise InputError(
            f"{files[0].path}: `targets={unknown}`: no such column; there are {files[0].columns[:12]}{more}"
        )
    compared = [name for pair in pairs for name in pair if name in values.columns and name not in targets]
    return values[[*targets, *compared]] if set(targets) <= set(values.columns) else values


def _sum_to_genes(
    files: Sequence[ExpressionFile],
    values: pd.DataFrame,
    transcripts: Callable[[], Mapping[str, str]] | None,
    tx2gene: Mapping[str, str] | None,
) -> pd.DataFrame:
    if tx2gene is not None:
        return sum_transcripts(files[0].path, values, tx2gene)
    rows_may_be_transcripts = LAYOUTS[files[0].layout].rows == "transcript" and not all(
        file.is_summed or ".genes." in file.path.name for file in files
    )
    if transcripts is None or not rows_may_be_transcripts:
        return values
    return sum_transcripts(files[0].path, values, transcripts())


def transform_values(path: UPath, values: pd.DataFrame, totals: pd.Series, transform: Transform) -> pd.DataFrame:
    """Transform values of a table into targets.

    Args:
        path: file that the values are from, for messages.
        values: a column a target.
        totals: sum of each column over all rows of the file, for counts per million.
        transform: the transform.

    Raises:
        InputError: a column sums to 0, so that it has no counts per million.
    """
    if transform == "none":
        return values
    array = values.to_numpy()
    if transform == "cpm_log2p1":
        empty = [str(name) for name, total in totals.items() if total == 0]
        if empty:
            raise InputError(
                f"{path}: column '{empty[0]}' sums to 0, so it has no counts per million; leave it out"
            )
        array = array / totals[values.columns].to_numpy() * 1e6
    array = np.log1p(array) if transform == "log1p" else np.log2(array + 1)
    return pd.DataFrame(array, columns=values.columns, index=values.index)


def as_float32(path: UPath, values: pd.DataFrame) -> pd.DataFrame:
    """Return targets as float32.

    Args:
        path: file that the values are from, for messages.
        values: a column a target, transformed; NaN where a value is missing.

    Raises:
        InputError: a value is too large for float32.
    """
    with np.errstate(over="ignore"):
        result = values.astype("float32")
    if np.isinf(result.to_numpy()).any():
        most = np.finfo("float32").max
        raise InputError(f"{path}: values above {most:.1e} do not fit; choose a log as `transform`")
    return result


def _make_targets(
    values: pd.DataFrame,
    targets: Sequence[str] | None,
    replicates: Mapping[str, str] | None,
    pairs: Sequence[tuple[str, str]] | None,
) -> tuple[pd.DataFrame, dict[str, Replicates]]:
    """Average transformed samples by condition, subtract conditions, and choose among them."""
    spread: dict[str, Replicates] = {}
    if replicates is not None:
        conditions = match_samples(replicates, list(values.columns))
        values, spread = average_replicates(values, conditions)
    by_name = [target for target in targets or () if target in values.columns]
    if pairs is not None:
        differences = subtract_conditions(values, pairs)
        return pd.concat([values[by_name], differences], axis=1), spread
    return (values[by_name] if by_name and replicates is not None else values), spread
