"""Collect what the library says of its inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from promoter.errors import InputNote

T = TypeVar("T")


def with_notes(call: Callable[[], T]) -> tuple[T, list[str]]:
    """Return what a call returns, and its notes and warnings, each with the kind before it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", InputNote)
        result = call()
    return result, [f"{type(warning.message).__name__}: {warning.message}" for warning in caught]
