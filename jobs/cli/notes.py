"""What a job takes for granted about its inputs, and what looks wrong in them: printed, and kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from jobs.cli.console import console, with_flags, with_relative_paths
from promoter.errors import InputNote, InputWarning


def printed_notes() -> AbstractContextManager[None]:
    """Print each note and warning of the library once, as a line that begins with `note:` or `warning:`."""
    return _each_note(_print)


@contextmanager
def kept_notes() -> Iterator[list[InputNote]]:
    """Collect the notes and warnings of the library in a list, which is yielded; they are printed as before."""
    kept: list[InputNote] = []
    with _each_note(kept.append, passed_on=True):
        yield kept


@contextmanager
def _each_note(use: Callable[[InputNote], None], *, passed_on: bool = False) -> Iterator[None]:
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputNote)
        show = warnings.showwarning

        def show_or_use(message: Warning | str, *details: object, **more: object) -> None:
            is_note = isinstance(message, InputNote)
            if is_note and str(message) in seen:  # a file may be read twice
                return
            if is_note:
                seen.add(str(message))
                use(message)
            if passed_on or not is_note:
                show(message, *details, **more)  # type: ignore[arg-type] # as they came

        warnings.showwarning = show_or_use
        yield


def _print(message: InputNote) -> None:
    kind = "warning" if isinstance(message, InputWarning) else "note"
    console.print(f"{kind}: {with_flags(with_relative_paths(' '.join(str(message).split())))}")
