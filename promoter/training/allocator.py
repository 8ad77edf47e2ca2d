"""The C allocator, which decides whether large tensors are made of warm or of cold memory.

By default glibc maps each activation of some megabytes afresh, and the system faults it in page by page:
about a third of a training step on a CPU, and half of one that runs outside the main thread, whose own
arena gives memory back even sooner (`benchmarks/train.py`). The settings here have it keep what is freed
for the next tensor, in one arena for all threads. They are for processes that do nothing but train or
predict: they hold for the whole process, whose memory then stays at its peak.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of <malloc.h>
_NEVER = 2**31 - 1
# The same for a process yet to be started, of which glibc reads the environment: the way where the work
# will run in a thread, since a thread keeps the arena that it has begun with.
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(_NEVER),
}


def keep_freed_memory() -> bool:
    """Keep what is freed, from now on, in this process; call it in the main thread, which is to do the work.

    Returns:
        Whether it took effect; False without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_ARENA_MAX, 1) and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
