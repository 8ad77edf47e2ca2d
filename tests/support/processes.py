"""The processes that a run has started, some of which end while a test looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


def read_children(read: Callable[[psutil.Process], T], pid: int | None = None) -> dict[psutil.Process, T]:
    """Return what `read` says of each descendant of a process; those that have ended are left out.

    Args:
        read: function that asks a process for something, such as `psutil.Process.name`.
        pid: id of the process whose descendants are read; by default this one.
    """
    results = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            results[process] = read(process)
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):  # a zombie is a NoSuchProcess too
            continue
    return results


def command_lines(pid: int | None = None) -> dict[psutil.Process, str]:
    """Return the command line of each living descendant of a process, this one by default."""
    return read_children(lambda process: " ".join(process.cmdline()), pid)
