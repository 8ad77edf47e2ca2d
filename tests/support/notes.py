"""Collects what the library tells about inputs, since a warning would fail a test."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from promoter.errors import InputNote

T = TypeVar("T")


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


def with_notes(call: Callable[[], T]) -> tuple[T, list[str]]:
    """Return what a call returns, and its notes and warnings, each with the kind before it."""
    with told() as kept:
        result = call()
    return result, [f"{type(one).__name__}: {one}" for one in kept]
