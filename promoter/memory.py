"""The C allocator, which decides whether large tensors are made of warm or of cold memory."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next tensor instead of returning it to the system.

    By default each activation of some megabytes is mapped afresh and faulted in page by page: about a
    third of a training step on a CPU (`benchmarks/train.py`). This is for processes that do nothing but
    train or predict: it holds for the whole process, whose memory then stays at its peak.

    Returns:
        Whether it took effect; False without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
