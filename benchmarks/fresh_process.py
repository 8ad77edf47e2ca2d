"""Time and peak memory of a step in a process of its own, so that the peak is the step's."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from typing import Any


def measured(step: Callable[..., tuple[float, Any]], *arguments: Any) -> tuple[float, float, Any]:
    """Run `step(*arguments)` in a fresh process.

    Args:
        step: of a module, not nested; returns its seconds, imports and inputs apart, and what it has to tell.
        *arguments: for the step.

    Returns:
        Its seconds; peak RSS in bytes of the process or of one that it ran, imports and inputs included; what it
        told.
    """
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_measure, args=(step, arguments, results))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{step.__name__} failed with exit code {process.exitcode}")
    return results.get()


def _measure(step: Callable[..., tuple[float, Any]], arguments: tuple[Any, ...], results: Any) -> None:
    seconds, result = step(*arguments)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    results.put((seconds, max(peaks) * 1024, result))  # Linux counts in KiB
