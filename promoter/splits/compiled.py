"""Compile loops over bases with numba, and run them on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")
_MAX_THREADS = 4  # a table of words takes some 200 MB a thread for 20,000 windows of 2 kb


def compiled(function: Function) -> Function:
    """Compile a function at its first call, and keep the machine code for later processes where a disk takes it.

    The code kept is compiled anew only when the function's own file changes. So a compiled function calls others
    of its own file only.
    """
    dispatcher: Any
    try:
        dispatcher = numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # neither the package's folder nor the user's is writable
        dispatcher = numba.njit(function, nogil=True)
    return dispatcher


def threads() -> int:
    """Return the number of threads: the cores that this process may use, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_THREADS)


def in_threads(function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]) -> list[Result]:
    """Call a compiled function, which lets go of Python's lock, with each tuple of arguments; results in order."""
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(lambda values: function(*values), arguments))


def bit_planes(tokens: np.ndarray) -> np.ndarray:
    """Spread bases over three bits each, 64 bases in a number.

    Args:
        tokens: the windows: uint8, shape (N, length).

    Returns:
        The lower bit of each token, the upper one, and whether it is a base: uint64, shape (3, 2 + N * numbers),
        one number of zeros before and after. Each window begins a number; at least 64 zeros follow it.
    """
    return _bit_planes(tokens, tokens.shape[1] // 64 + 2)


@compiled
def _bit_planes(tokens, words):  # numba finds the types
    n, length = tokens.shape
    planes = np.zeros((3, n * words + 2), np.uint64)  # a number before and one after, which no window fills
    for row in range(n):
        for at in range(length):
            token = tokens[row, at]
            if token < 4:
                number, shift = 1 + row * words + (at >> 6), np.uint64(at & 63)
                planes[0, number] |= np.uint64(token & 1) << shift
                planes[1, number] |= np.uint64(token >> 1) << shift
                planes[2, number] |= np.uint64(1) << shift
    return planes
