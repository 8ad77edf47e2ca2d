"""The memory of a GPU that several trials share: who has taken it, and how it is given back."""

from __future__ import annotations

import gc
import time

import torch

_CONTEXT_BYTES = 1 << 30  # what CUDA itself takes of a GPU for a process, at most
_WAIT_SECONDS = 60


def release_memory() -> None:
    """Give back the GPU memory that PyTorch keeps for this process although nothing uses it."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def memory_is_taken(share: float) -> bool:
    """Tell whether the memory of the GPU is full because of other processes, and not of this one.

    Args:
        share: share of the GPU that this process has reserved; one that holds more is to blame itself.
    """
    if share >= 1 or not torch.cuda.is_available():
        return False
    (free, total), own = torch.cuda.mem_get_info(), torch.cuda.memory_reserved()
    return own <= share * total and total - free - own > _CONTEXT_BYTES


def wait_for_memory(share: float) -> str:
    """Release this process's memory, wait a minute at most for its share of the GPU, and say who had it."""
    release_memory()
    free, total = torch.cuda.mem_get_info()
    problem = (
        f"other processes held {(total - free) / 2**30:.1f} of the {total / 2**30:.1f} GiB of the GPU when this "
        "one needed its share"
    )
    until = time.monotonic() + _WAIT_SECONDS
    while free < share * total - _CONTEXT_BYTES and time.monotonic() < until:
        time.sleep(1)
        free, total = torch.cuda.mem_get_info()
    return problem
