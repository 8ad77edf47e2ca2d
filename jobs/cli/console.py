"""What jobs print: one console for all of them, and a few ways to word numbers and errors.

Imports neither PyTorch, Ray, pandas nor PyArrow, so that `--help` is quick.
"""

from __future__ import annotations

import sys

from rich.console import Console

from promoter.errors import InputError

_MAX_LENGTH = 400  # characters of an error message that is not ours: some libraries print whole arrays
# No markup, since gene names may hold [brackets]. A pipe or file has no width: take one that fits tables.
console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def plural(amount: float, unit: str) -> str:
    """Return `1 gene`, `6,164 genes`, `0.5 GPUs`."""
    return f"{amount:,.10g} {unit}{'s' * (amount != 1)}"


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line, with its type where the message alone says too little."""
    text = " ".join(str(error).split())
    if not type(error).__module__.startswith("promoter."):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MAX_LENGTH or isinstance(error, InputError) else text[:_MAX_LENGTH] + " …"
