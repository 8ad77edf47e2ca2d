"""Settings of the allocators of memory: of C (glibc's malloc), and of PyTorch on GPUs.

Those of C keep freed memory for the next large tensor.

By default glibc maps each activation of some megabytes anew, and the system faults it in page by page:
about a third of a training step on a CPU, and half of one that runs outside the main thread, whose own
arena gives memory back even sooner (`benchmarks/train.py`). The settings here keep freed memory for the
next tensor, in one arena for all threads. They are for processes that do nothing but train or predict:
they hold for the entire process, whose memory then stays at its peak.
"""

from __future__ import annotations

import ctypes
import os
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # constants of <malloc.h>
_NEVER = 2**31 - 1
# The same settings as environment variables, which glibc reads when a process starts. Needed if the work runs in a
# thread, since a thread keeps the arena that it began with.
KEEP_FREED_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_NEVER)}
# PyTorch's setting for GPUs, by its name before version 2.10 and since
_GPU_SETTINGS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


def expandable_segments() -> dict[str, str]:
    """Return the environment variable by which blocks of GPU memory grow, and are given back in parts.

    It takes effect in a process that has not used its GPU yet. Networks of many sizes one after the other, such as
    the trials of a search, would else leave the memory in pieces that fit none.

    Returns:
        Nothing if the user has set the variable, to whatever value.
    """
    if any(name in os.environ for name in _GPU_SETTINGS):
        return {}
    is_new = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 10)
    return {_GPU_SETTINGS[is_new]: "expandable_segments:True"}


def keep_freed_memory() -> bool:
    """Make this process keep freed memory from now on; call it in the main thread, which must do the work.

    Returns:
        True if it took effect; False without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_ARENA_MAX, 1) and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
