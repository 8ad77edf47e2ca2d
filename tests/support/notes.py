"""Collects what the library tells about inputs, since a warning would fail a test."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from promoter.errors import InputNote


@contextmanager
def told() -> Iterator[list[InputNote]]:
    """Collect the notes and warnings about inputs; any other warning stays an error."""
    kept: list[InputNote] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputNote)
        show = warnings.showwarning

        def keep(message: Warning | str, *details: object, **more: object) -> None:
            if isinstance(message, InputNote):
                kept.append(message)
            else:
                show(message, *details, **more)  # type: ignore[arg-type] # as they came

        warnings.showwarning = keep
        yield kept
