"""What jobs print: one console for all of them, and a few ways to word numbers and errors.

Imports neither PyTorch, Ray, pandas nor PyArrow, so that `--help` is quick.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from promoter.errors import InputError
from promoter.labels import shown_lines

_NETWORKS = ("CNNConfig", "PretrainedConfig", "ExternalConfig")
_GROUPS = {"SplitConfig": "split", **dict.fromkeys(_NETWORKS, "model"), "TrainingConfig": "training"}
_SETTING = re.compile(rf"`(?:({'|'.join(_GROUPS)})\.)?([a-z]\w*)(?:=([^`]*))?`")  # as promoter.errors names one
_MAX_LENGTH = 400  # characters of an error message that is not ours: some libraries print whole arrays


class _SafeConsole(Console):
    """Print names from files as they can be seen: an escape sequence in one would command the terminal."""

    def render_str(
        self, text: str, **options: Any
    ) -> Text:  # all that is printed passes here, cells of tables too
        return super().render_str(shown_lines(text), **options)


# No markup, since gene names may hold [brackets]. A pipe or file has no width: take one that fits tables.
console = _SafeConsole(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def plural(amount: float, unit: str) -> str:
    """Return `1 gene`, `6,164 genes`, `0.5 GPUs`."""
    return f"{amount:,.10g} {unit}{'s' * (amount != 1)}"


def as_clock(seconds: float) -> str:
    """Return `1:02:03` for 3,723 seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def new_table(*columns: str, right: Collection[str], **options: Any) -> Table:
    """Return a printable table without lines, in which the columns named in `right` are aligned to the right."""
    headers = [Column(name, justify="right" if name in right else "left") for name in columns]
    return Table(*headers, box=None, pad_edge=False, **options)


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line, with its type where the message alone says too little."""
    text = " ".join(str(error).split())
    if type(error).__module__.startswith(("promoter.", "jobs.")):
        text = with_flags(text)
    else:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MAX_LENGTH or isinstance(error, InputError) else text[:_MAX_LENGTH] + " …"


def with_relative_paths(message: str) -> str:
    """Return a message with paths below the working directory relative to it, as they are mostly given."""
    here = re.escape(str(Path.cwd()).rstrip("/") + "/")
    return message if here == "/" else re.sub(rf"(?<![^\s'\"(=,]){here}(?=\S)", "", message)


def with_flags(message: str) -> str:
    """Return a message of the library with each setting as the command line writes it.

    Args:
        message: text that names settings as `promoter.errors` describes; `SplitConfig.val=['1', 'X']` between
            backticks becomes `--split.val 1,X`.
    """
    return _SETTING.sub(_as_flag, message)


def _as_flag(setting: re.Match[str]) -> str:
    config, name, value = setting.groups()
    flag = f"--{_GROUPS[config]}.{name}" if config else f"--{name}"
    return flag if value is None else f"{flag} {_as_argument(value)}"


def _as_argument(value: str) -> str:
    """Write a Python value as it is given to a flag."""
    try:
        parsed = ast.literal_eval(value)
    except (SyntaxError, ValueError):  # a description of a value
        return value
    if parsed is None or isinstance(parsed, bool):
        return {None: "null", True: "true", False: "false"}[parsed]
    if isinstance(parsed, float):
        return f"{parsed:.15g}"  # -1, as it was given, and not -1.0
    return ",".join(map(str, parsed)) or "[]" if isinstance(parsed, list | tuple) else str(parsed)
