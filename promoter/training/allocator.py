"""Settings of the C allocator (glibc's malloc) that keep freed memory for the next large tensor.

By default glibc maps each activation of some megabytes anew, and the system faults it in page by page:
about a third of a training step on a CPU, and half of one that runs outside the main thread, whose own
arena gives memory back even sooner (`benchmarks/train.py`). The settings here keep freed memory for the
next tensor, in one arena for all threads. They are for processes that do nothing but train or predict:
they hold for the entire process, whose memory then stays at its peak.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # constants of <malloc.h>
_NEVER = 2**31 - 1
# The same settings as environment variables, which glibc reads when a process starts. Needed if the work runs in a
# thread, since a thread keeps the arena that it began with.
KEEP_FREED_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_NEVER)}


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
