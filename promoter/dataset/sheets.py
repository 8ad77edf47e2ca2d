"""Read sheets that say something of each sample or transcript, in two columns of text."""

from __future__ import annotations

import re

import pandas as pd

from promoter.dataset.tables import read_table
from promoter.errors import InputError
from promoter.storage import AnyPath


def read_two_columns(
    path: AnyPath, what: str, *, names: tuple[str, str], patterns: tuple[str, str], only_two: bool
) -> pd.DataFrame:
    """Read two columns of a sheet, which its header names; without a header, the first two.

    Args:
        path: text with any separator.
        what: name of the file's kind, for messages.
        names: names of the two columns, for the result and for messages.
        patterns: what a header calls the two, in lower case and without other signs than letters and digits.
        only_two: whether a sheet without a header may have no further columns.

    Returns:
        The columns `names`, text without spaces around it, and `line`, what messages call the row.

    Raises:
        InputError: the columns cannot be told, or a cell is empty.
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
    return chosen


def _find(words: list[str], pattern: str) -> int:
    """Return the position of the word that a pattern matches, best one with letters; -1 if there is none."""
    found = [at for at, word in enumerate(words) if re.fullmatch(pattern, word)]
    return next((at for at in found if words[at]), found[0] if found else -1)
