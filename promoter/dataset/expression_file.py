"""Read one expression table: which column holds the ids, which columns are targets, which rows are genes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from upath import UPath

from promoter.dataset.cells import mask_infinite, read_numbers, require_transformable
from promoter.dataset.config import Layout, Missing, Transform
from promoter.dataset.layouts import (
    LAYOUTS,
    SUMMARY_ROW,
    TableLayout,
    Unit,
    column_names,
    find_unit,
    is_alignment,
    recognise,
)
from promoter.dataset.tables import RawTable, is_id_name, read_table
from promoter.dataset.targets import unlikely_targets
from promoter.dataset.transcripts import gencode_genes, sum_rows
from promoter.errors import InputError, counted, doubt, listed, note

_GENE_LABELS = re.compile(
    r"((ext(ernal)?|hgnc|mgi|associated|common|standard|preferred)[ _.]?)?(gene)?[ _.]?(short[ _.]?)?"
    r"(name|symbol)s?|(\w+_)?gene_symbol",
    re.IGNORECASE,
)
_TRANSCRIPT_IDS = re.compile(r"tx|(tx|transcript|target)([ _.]?(id|name))?", re.IGNORECASE)
_GENE_IDS = re.compile(r"(ensembl[ _.]?)?gene([ _.]?id)?", re.IGNORECASE)
_SPREADSHEET_DATE = re.compile(
    r"\d{1,2}[-. ]+(jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sept?|oct|okt|nov|dec|dez)"
    r"|(mar|sept?|oct|dec)-\d{1,2}|\d{4}-\d\d-\d\d( 00:00:00)?|\d{1,2}/\d{1,2}/\d{2,4}|\d\.\d+E\+\d+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ExpressionFile:
    """Hold the values of one file, before any transform.

    Attributes:
        path: path of the file.
        layout: layout of the table.
        unit: unit of the values; None if the layout does not say.
        values: float64, a row a gene (or transcript) in file order, ids unique; a column a target, as in the file.
        totals: sum of each column over all rows, those of ids that occur again among them.
        columns: names of all columns.
        has_header: whether these come from the file.
        is_summed: whether rows of transcripts have been summed to genes.
        gene_names: gene id -> name of the gene, for the ids that have another.
        ignored_columns: columns without a single number.
        left_out: other columns that are no targets.
        n_duplicates: number of rows dropped because a row of that id is kept.
    """

    path: UPath
    layout: Layout
    unit: Unit | None
    values: pd.DataFrame
    totals: pd.Series
    columns: list[str]
    has_header: bool = True
    is_summed: bool = False
    gene_names: dict[str, str] = field(default_factory=dict)
    ignored_columns: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    n_duplicates: int = 0


def read_expression_file(
    path: UPath,
    *,
    targets: Sequence[str] | None,
    transform: Transform,
    gene_column: str | None,
    missing: Missing,
    layout: Layout | None,
) -> ExpressionFile:
    """Read the values of one file.

    Args:
        path: path of the file.
        targets: columns to take; if it has none of them, and if None, those that the layout says.
        transform: transform that the values will get, here for what it refuses.
        gene_column: column with the gene ids; None goes by the layout.
        missing: whether a missing value is an error.
        layout: layout of the table; None goes by header and shape.

    Raises:
        InputError: the table cannot be used; the message names line and column.
    """
    table = read_table(path)
    name = recognise(table, layout)
    entry = LAYOUTS[name]
    columns = list(table.columns if table.has_header or not entry.columns else entry.columns)
    if not table.has_header and entry.tool == "plain":
        note(
            f"{path}: has no header: its first line is a gene, its columns are {', '.join(columns[1:6]) or 'none'}"
        )
    id_column = _find_id_column(table, entry, columns, gene_column)
    gene_of_row = _find_gene_of_row(entry, columns, id_column)
    others = [column for column in columns if column not in (id_column, gene_of_row)]
    labels = [column for column in others if _GENE_LABELS.fullmatch(column) or column in table.annotation]
    as_text = {id_column, *labels, *([gene_of_row] if gene_of_row else [])}
    position = {column: table.columns[at] for at, column in enumerate(columns)}
    frame = table.read({position[column] for column in as_text}).set_axis(pd.Index(columns), axis=1)
    if frame.empty:
        raise InputError(f"{path}: has a header but no rows; is it the right file?")
    ids = _clean_ids(table, frame[id_column], id_column)
    if entry.rows == "transcript" and gene_of_row is None and (of_gencode := gencode_genes(ids)) is not None:
        frame, gene_of_row = frame.assign(**{"\0gene": of_gencode}), "\0gene"
    frame, ids = _drop_summaries(path, frame, ids)
    chosen, explicit = _choose_columns(entry, columns, targets, as_text)
    by_layout = explicit or entry.value is not None
    unlikely = {} if by_layout else _unlikely_by_name(table, frame, chosen)
    likely = [column for column in chosen if column not in unlikely]
    numbers, texts = read_numbers(table, frame, likely, required=by_layout)
    unlikely |= {} if explicit else _unlikely_by_value(numbers)
    numbers = numbers.drop(columns=[column for column in numbers if column in unlikely])
    used = {*numbers, *labels, *texts}
    left_out = [column for column in others if column not in used]
    _require_numbers(table, numbers, others, unlikely)
    if (is_total := _are_totals(numbers)).any():
        note(f"{path}: rows that are the sum of all others do not count: {', '.join(ids[is_total])}")
        frame, ids, numbers = frame[~is_total], ids[~is_total], numbers[~is_total]
    unit = find_unit(entry, list(numbers.columns))
    _tell_columns(path, entry, list(numbers.columns), unlikely, is_open=entry.is_one_sample and not explicit)
    mask_infinite(table, numbers, ids, missing)
    require_transformable(table, numbers, ids, unit=unit, transform=transform)
    totals = numbers.sum()
    genes = ids if gene_of_row is None else frame[gene_of_row].astype(str)
    names = _gene_names(frame, genes, labels)
    n_duplicates, is_summed = 0, entry.rows == "part" or gene_of_row is not None
    if is_summed:
        values = sum_rows(path, numbers, genes)
    else:
        values, n_duplicates = _one_row_each(path, numbers, ids, complete=missing == "drop")
    return ExpressionFile(
        path,
        name,
        unit,
        values,
        totals,
        columns,
        has_header=table.has_header,
        is_summed=is_summed,
        gene_names=names,
        ignored_columns=[column for column in [*labels, *texts] if column != gene_of_row],
        left_out=left_out,
        n_duplicates=n_duplicates,
    )


def _find_id_column(table: RawTable, entry: TableLayout, columns: list[str], gene_column: str | None) -> str:
    if gene_column is not None:
        if gene_column not in columns:
            raise InputError(
                f"{table.path}: has no column '{gene_column}'; `gene_column` may be one of {columns[:10]}"
            )
        return gene_column
    lower = {column.lower(): column for column in reversed(columns)}
    named = next((lower[name] for name in entry.ids if name in lower), None)
    if named is not None:
        return named
    first, second = ([row[at] for row in table.rows if at < len(row)] for at in (0, 1))
    is_index = columns[0] in table.nameless or columns[0].lower() in ("unnamed: 0", "index", "x", "")
    if is_index and len(columns) > 1 and _are_row_numbers(first) and not _are_numbers(second):
        note(f"{table.path}: the gene ids are taken from column '{columns[1]}', as the first numbers the rows")
        return columns[1]
    if any("." in cell.removesuffix(".0") for cell in first) and _are_numbers(first):
        named = next((column for column in columns[1:] if is_id_name(column)), None)
        if named is None:
            raise InputError(
                f"{table.path}: column '{columns[0]}', the first, holds numbers, not gene ids; name the column of "
                f"the ids in `gene_column`: {columns[:10]}"
            )
        note(f"{table.path}: the gene ids are taken from column '{named}', as the first holds measurements")
        return named
    return columns[0]


def _are_numbers(cells: Sequence[str]) -> bool:
    return bool(pd.to_numeric(pd.Series(list(cells), dtype="object"), errors="coerce").notna().all())


def _are_row_numbers(cells: Sequence[str]) -> bool:
    return all(cell.strip().isdecimal() for cell in cells) and len(set(cells)) == len(cells)


def _find_gene_of_row(entry: TableLayout, columns: list[str], id_column: str) -> str | None:
    """Return the column that names the gene of each transcript."""
    if entry.rows == "gene" and not (entry is LAYOUTS["plain"] and _TRANSCRIPT_IDS.fullmatch(id_column)):
        return None
    others = [column for column in columns if _GENE_IDS.fullmatch(column) and column != id_column]
    return others[0] if others and entry.rows != "part" else None


def _clean_ids(table: RawTable, column: pd.Series, name: str) -> pd.Series:
    ids = column.fillna("").astype(str)
    stripped = ids.str.strip()
    empty = stripped == ""
    if empty.any():
        line = table.line(int(empty.index[empty][0]))
        raise InputError(f"{table.path}: {line} has no gene id in column '{name}'; add one or delete the row")
    if stripped.str.fullmatch(r"\d+\.0").all():  # as pandas writes them where it has met a missing value
        note(f"{table.path}: gene ids like {stripped.iloc[0]} are whole numbers, read without the '.0'")
        return stripped.str.removesuffix(".0")
    if trimmed := int((stripped != ids).sum()):
        note(f"{table.path}: spaces dropped around {counted(trimmed, 'gene id')}")
    dates = stripped[stripped.str.fullmatch(_SPREADSHEET_DATE.pattern, flags=re.IGNORECASE)]
    if len(dates):
        doubt(
            f"{table.path}: {counted(len(dates), 'gene id')} like {dates.iloc[0]}: a spreadsheet made dates or "
            "numbers of names; take the table from before that"
        )
    if stripped.iloc[0] == "Assigned" and stripped.str.startswith("Unassigned_").any():
        raise InputError(f"{table.path}: is the summary of featureCounts; name the table of counts beside it")
    return stripped


def _drop_summaries(path: UPath, frame: pd.DataFrame, ids: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
    summary = ids.str.fullmatch(SUMMARY_ROW.pattern, flags=re.IGNORECASE)
    if summary.all():
        raise InputError(f"{path}: has no rows but summaries ({', '.join(ids[:3])}); is it the right file?")
    if summary.any():
        note(f"{path}: rows that are summaries do not count: {', '.join(dict.fromkeys(ids[summary]))}")
    return frame[~summary], ids[~summary]


def _are_totals(numbers: pd.DataFrame) -> pd.Series:
    """Tell which rows are the sum of all others in every column; in a table of a few rows, chance would do it."""
    is_total = (numbers > 0) & np.isclose(numbers, numbers.sum() - numbers)
    return is_total.all(axis=1) & (len(numbers) >= 10)


def _choose_columns(
    entry: TableLayout, columns: list[str], targets: Sequence[str] | None, as_text: set[str]
) -> tuple[list[str], bool]:
    """Return the columns that may be targets, and whether the user named them."""
    if targets:
        short = dict(zip(column_names(columns), columns, strict=True))
        found = [
            target if target in columns else short[target] for target in targets if target in {*columns, *short}
        ]
        if found:
            return list(dict.fromkeys(found)), True
    if entry.value is not None:
        return [column for column in columns if re.fullmatch(entry.value, column, re.IGNORECASE)], False
    others = [column for column in columns if column not in as_text]
    aligned = [column for column in others if is_alignment(column)]
    return aligned if aligned and entry is LAYOUTS["featurecounts"] else others, False


def _unlikely_by_name(table: RawTable, frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Return the columns with numbers that are no measurements by their names, and what they are."""
    kinds = unlikely_targets([column for column in columns if not is_alignment(column)])
    kinds |= {column: "a column without a name" for column in columns if column in table.nameless}
    return {
        column: kind
        for column, kind in kinds.items()
        if pd.to_numeric(frame[column], errors="coerce").notna().any()
    }


def _unlikely_by_value(numbers: pd.DataFrame) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for name, column in numbers.items():
        if column.isna().all():
            kinds[str(name)] = "a column without values"
        elif str(name).lower() in ("p", "q") and column.between(0, 1).all():
            kinds[str(name)] = "a p-value"
    return kinds


def _require_numbers(
    table: RawTable, numbers: pd.DataFrame, others: Sequence[str], unlikely: Mapping[str, str]
) -> None:
    if len(numbers.columns):
        return
    if unlikely:
        found = listed([f"{name} ({kind})" for name, kind in unlikely.items()])
        raise InputError(
            f"{table.path}: no column looks like expression: {found}; if one is meant, name it in `targets`"
        )
    raise InputError(
        f"{table.path}: no column of numbers beside the gene ids (other columns: {listed(others) or 'none'}); is "
        "it separated by tabs, commas, semicolons or spaces?"
    )


def _tell_columns(
    path: UPath, entry: TableLayout, taken: list[str], unlikely: Mapping[str, str], *, is_open: bool
) -> None:
    if entry.tool != "plain":
        unit = f" ({unit})" if (unit := find_unit(entry, taken)) else ""
        columns = "" if is_open and len(taken) > 1 else f"; taken: {listed(column_names(taken))}"
        note(f"{path}: has the layout of {entry.tool}{unit}{columns}; see `layout` and `targets`")
    elif unlikely:
        found = listed([f"{column} ({kind})" for column, kind in unlikely.items()])
        note(f"{path}: not taken as targets: {found}; name in `targets` what is meant")


def _gene_names(frame: pd.DataFrame, ids: pd.Series, labels: Sequence[str]) -> dict[str, str]:
    if not labels:
        return {}
    names = frame[labels[0]].fillna("").astype(str).str.strip()
    table = pd.DataFrame({"id": ids.to_numpy(), "name": names.to_numpy()})
    table = table[~table["name"].isin(["", "-", ".", "NA"]) & (table["name"] != table["id"])]
    return dict(table.drop_duplicates("id").itertuples(index=False))


def _one_row_each(
    path: UPath, numbers: pd.DataFrame, ids: pd.Series, *, complete: bool
) -> tuple[pd.DataFrame, int]:
    """Keep of each id the first row that has a value, or that has all of them, or else the first."""
    values = numbers.set_axis(pd.Index(ids, name="gene_id"), axis=0)
    if values.index.is_unique:
        return values, 0
    has = values.notna()
    usable = (has.all(axis=1) if complete else has.any(axis=1)).to_numpy()
    order = np.argsort(~usable, kind="stable")
    kept = np.sort(order[~values.index[order].duplicated()])
    if len(kept) * 2 <= len(values):
        raise InputError(
            f"{path}: {counted(len(kept), 'id')} in {counted(len(values), 'row')} (like {values.index[0]}): not "
            "one row a gene; name the column of the gene ids in `gene_column`, or make a row a gene and "
            "a column a sample"
        )
    again = values.index.duplicated(keep=False)
    differ = (values[again & usable].groupby(level=0).nunique() > 1).any(axis=1)
    n_dropped = len(values) - len(kept)
    if differ.any():
        shown = ", ".join(differ[differ].index[:3])
        doubt(
            f"{path}: rows with different values for {counted(int(differ.sum()), 'gene id')} ({shown}): the first "
            f"counts, {counted(n_dropped, 'row')} dropped; make one row a gene"
        )
    else:
        note(f"{path}: rows dropped because their gene id occurs again: {n_dropped:,}")
    return values.iloc[kept], n_dropped
