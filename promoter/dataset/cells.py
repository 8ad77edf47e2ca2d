"""Turn the cells of a table into numbers: decimal commas, separators of thousands, words for a missing value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from promoter.dataset.config import Missing, Transform
from promoter.dataset.layouts import Unit
from promoter.dataset.tables import NO_VALUE, RawTable
from promoter.errors import InputError, counted, doubt, listed, note

_DECIMAL_COMMA = r"(?=.*\d)[+-]?(?:\d*|[1-9]\d{0,2}(?:\.\d{3})+)(?:,\d+)?(?:[eE][+-]?\d+)?"
_THOUSANDS_COMMA = r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?"
_LIKE_A_NUMBER = r"[+\-\u2212]?\d+([\s'\u2019,]\d+)*([.,]\d+)?\s?%?"  # 1 234, 1'234, 5%: for people only
_Style = Literal["point", "decimal comma", "thousands comma", "text"]


def read_numbers(
    table: RawTable, frame: pd.DataFrame, names: Sequence[str], *, required: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Read columns as numbers; say which have decimal commas.

    Args:
        table: table that the columns are of, for messages.
        frame: content of the table.
        names: columns to read.
        required: whether text in a column is an error; else only a column of mostly numbers makes it one.

    Returns:
        The numbers, float64, NaN where a value is missing; and the names of columns that hold text.

    Raises:
        InputError: a cell is no number, or may be read in two ways; the message names line and column.
    """
    numbers: dict[str, np.ndarray] = {}
    styles: dict[str, _Style] = {}
    for name in names:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            numbers[name], styles[name] = column.to_numpy(dtype="float64"), "point"
        else:
            numbers[name], styles[name] = _read_text(table, column, name, required=required)
    for style in ("decimal comma", "thousands comma"):
        found = [name for name in names if styles[name] == style]
        if found:
            what = "1,5 is 1.5" if style == "decimal comma" else "1,500.0 is 1500"
            note(f"{table.path}: has {style}s ({what}) in {listed(found)}")
        if found and style == "decimal comma":
            _refuse_points(table, numbers, [name for name in names if styles[name] == "point"], found[0])
    taken = [name for name in names if styles[name] != "text"]
    return pd.DataFrame({name: numbers[name] for name in taken}, index=frame.index), [
        name for name in names if styles[name] == "text"
    ]


def _read_text(table: RawTable, column: pd.Series, name: str, *, required: bool) -> tuple[np.ndarray, _Style]:
    cells = column.astype("object").where(column.notna(), "").astype(str).str.strip()
    numbers = pd.to_numeric(cells, errors="coerce")
    known = ~cells.str.lower().isin(NO_VALUE)
    bad = numbers.isna() & known
    if not bad.any():
        return numbers.to_numpy(dtype="float64"), "point"
    texts = cells[known]
    row = int(cells.index[bad][0])  # summaries are gone, but rows keep their numbers
    decimal = table.separator != "," and bool(texts.str.fullmatch(_DECIMAL_COMMA).all())
    thousands = bool(texts[bad].str.fullmatch(_THOUSANDS_COMMA).all())
    if decimal and thousands and table.separator != ";":  # which is what programs write where the comma is decimal
        raise InputError(
            f"{table.path}: {table.line(row)}, column '{name}': '{cells[row]}' may have a decimal comma or one "
            "that separates thousands; write the numbers with a decimal point alone"
        )
    if decimal:
        plain = cells.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
        return pd.to_numeric(plain, errors="coerce").to_numpy(dtype="float64"), "decimal comma"
    if thousands:
        plain = cells.str.replace(",", "", regex=False)
        return pd.to_numeric(plain, errors="coerce").to_numpy(dtype="float64"), "thousands comma"
    is_text = bad.sum() * 2 > known.sum() and not texts[bad].str.fullmatch(_LIKE_A_NUMBER).all()
    if is_text and not required:
        return np.empty(0), "text"
    raise InputError(
        f"{table.path}: {table.line(row)}, column '{name}': '{cells[row]}' is no number; fix it (NA is a missing "
        "value), or choose columns with `targets`"
    )


def _refuse_points(table: RawTable, numbers: dict[str, np.ndarray], names: Sequence[str], other: str) -> None:
    """Refuse decimal points beside decimal commas: there `1.234` may be a thousand."""
    for name in names:
        finite = numbers[name][np.isfinite(numbers[name])]
        if (finite != np.round(finite)).any():
            raise InputError(
                f"{table.path}: column '{other}' has decimal commas, column '{name}' points, which may separate "
                "thousands; write all numbers in one way, or choose columns with `targets`"
            )


def mask_infinite(table: RawTable, numbers: pd.DataFrame, ids: pd.Series, missing: Missing) -> None:
    """Set infinite values to NaN, with a warning, and refuse missing ones if asked.

    Args:
        table: table that the numbers are of, for messages.
        numbers: a column a target; changed in place.
        ids: id of each row, aligned with `numbers`; its index counts the rows of the table.
        missing: whether a missing value is an error.

    Raises:
        InputError: a value is missing, and `missing` is `error`.
    """
    array = numbers.to_numpy()
    bad = ~np.isfinite(array)
    if missing == "error" and bad.any():
        row, column = (int(at) for at in np.argwhere(bad)[0])
        raise InputError(
            f"{table.path}: {row_name(table, ids, row)}, column '{numbers.columns[column]}': the value is "
            f"missing, NaN or infinite ({int(bad.any(axis=1).sum())} such rows); fix it, or keep such rows with "
            "`missing='keep'`"
        )
    infinite = np.isinf(array)
    if not infinite.any():
        return
    numbers.mask(infinite, inplace=True)
    row = int(np.argwhere(infinite)[0][0])
    doubt(
        f"{table.path}: {counted(int(infinite.sum()), 'infinite value')}, the first on "
        f"{row_name(table, ids, row)}, taken as missing; if they are logarithms of 0, add 1 before the logarithm"
    )


def require_transformable(
    table: RawTable, numbers: pd.DataFrame, ids: pd.Series, *, unit: Unit | None, transform: Transform
) -> None:
    """Check that a transform can take all values.

    Args:
        table: table that the numbers are of, for messages.
        numbers: a column a target.
        ids: id of each row, aligned with `numbers`; its index counts the rows of the table.
        unit: unit of the values; None if nothing says it.
        transform: the transform.

    Raises:
        InputError: a value is negative, or the values are logarithms.
    """
    if transform == "none":
        return
    advice = f"`transform={transform!r}` cannot take; use `transform='none'` if it is a log already"
    array = numbers.to_numpy()
    if (array < 0).any():
        row, column = (int(at) for at in np.argwhere(array < 0)[0])
        raise InputError(
            f"{table.path}: {row_name(table, ids, row)}, column '{numbers.columns[column]}': "
            f"{array[row, column]:g} is negative, which {advice}"
        )
    if unit == "log2 fold change":
        raise InputError(f"{table.path}: holds logarithms ({numbers.columns[0]}), which {advice}")


def row_name(table: RawTable, ids: pd.Series, position: int) -> str:
    """Name a row by its line and its gene."""
    return f"{table.line(int(ids.index[position]))} ({ids.iloc[position]})"
