"""Read sheets that say something of each sample or transcript, in two columns of text."""

from __future__ import annotations

import re

import pandas as pd

from promoter.dataset.tables import read_table
from promoter.errors import InputError
from promoter.storage import AnyPath


def read_mapping(
    path: AnyPath, what: str, *, names: tuple[str, str], patterns: tuple[str, str], only_two: bool, conflict: str
) -> dict[str, str]:
    """Read two columns of a sheet, which its header names; without a header, the first two.

    Args:
        path: text with any separator.
        what: name of the file's kind, for messages.
        names: names of the two columns, for messages.
        patterns: what a header calls the two, in lower case and without other signs than letters and digits.
        only_two: whether a sheet without a header may have no further columns.
        conflict: message for a cell of the first column that has two values in the second, with `{}` for each.

    Returns:
        First column -> second, in the order of the sheet, text without spaces around it.

    Raises:
        InputError: the columns cannot be told, a cell is empty, or one of the first column has two values.
    """
    table = read_table(path, what, header=False)
    rows = table.read(table.columns).set_axis(range(len(table.columns)), axis=1)
    rows["line"] = [table.line(row) for row in range(len(rows))]
    if table.has_header:
        header = ["" if name in table.nameless else name for name in table.columns]
        rows = pd.concat([pd.DataFrame([[*header, "line 1"]], columns=rows.columns), rows], ignore_index=True)
    rows = rows.fillna("").apply(lambda column: column.astype(str).str.strip())
    words = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in rows.iloc[0].drop("line")]
    named = [_find(words, pattern) for pattern in patterns]
    has_names = -1 not in named and named[0] != named[1]
    if not has_names and (len(words) < 2 or (only_two and len(words) > 2)):
        raise InputError(f"{table.path}: has {len(words)} columns; call two of them '{names[0]}' and '{names[1]}'")
    chosen = rows.iloc[int(has_names) :, [*(named if has_names else (0, 1)), len(words)]]
    chosen = chosen.set_axis([*names, "line"], axis=1)
    empty = (chosen == "").any(axis=1)
    if empty.any():
        raise InputError(
            f"{table.path}: {chosen['line'][empty].iloc[0]} has an empty cell; fill it or delete the line"
        )
    if chosen.empty:
        raise InputError(f"{table.path}: has a header but no rows; is it the right file?")
    mapping: dict[str, str] = {}
    for key, value, line in chosen.itertuples(index=False):
        if mapping.setdefault(key, value) != value:
            raise InputError(f"{table.path}: {line}: {conflict.format(key, mapping[key], value)}")
    return mapping


def _find(words: list[str], pattern: str) -> int:
    """Return the position of the word that a pattern matches, best one with letters; -1 if there is none."""
    found = [at for at, word in enumerate(words) if re.fullmatch(pattern, word)]
    return next((at for at in found if words[at]), found[0] if found else -1)
