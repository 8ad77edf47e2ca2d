"""Names as they are shown to people, and as they stand in the tables of genome tools.

Names of genes, targets, chromosomes and folders come from files, where they may hold anything: GFF3 decodes %1B to
an escape. What is kept and computed with are the names themselves; they are escaped here and nowhere else.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from urllib.parse import quote


def is_visible(letter: str) -> bool:
    """Tell whether a letter can be seen, or is a space: not a control or direction mark."""
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def shown(text: str, keep: str = "") -> str:
    """Return a text in which each letter that cannot be seen is written as in GFF3: an escape is %1B.

    Args:
        text: text from a file, or with names from files.
        keep: letters that are kept as they are (default: none).
    """
    return text if text.isprintable() else _escaped(text, lambda letter: letter in keep or is_visible(letter))


def shown_lines(text: str) -> str:
    """Return a text of several lines, for a terminal, as `shown`; line ends and tabs stay."""
    return shown(text, keep="\n\t")


def bed_field(text: str) -> str:
    """Return a name as `shown`, and without what ends or quotes a field of BED: a space is %20.

    `urllib.parse.unquote` gives the name again, since % is escaped too.
    """
    return _escaped(text, lambda letter: not (letter.isspace() or letter in '%"') and is_visible(letter))


def _escaped(text: str, is_kept: Callable[[str], bool]) -> str:
    return "".join(
        letter if is_kept(letter) else quote(letter, safe="", errors="surrogatepass") for letter in text
    )
