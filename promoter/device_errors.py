"""Errors of a GPU, told from those of a model or of data: PyTorch raises all of them as RuntimeErrors."""

from __future__ import annotations

import re

import torch

# as PyTorch before 2.8 words what AcceleratorError is now, and what has no class of its own
_TEXTS = re.compile(
    r"CUDA (driver )?error|CUDA driver|CUDA unknown error|No CUDA GPUs|no kernel image|HIP error|NCCL error"
    r"|cuDNN error|CUBLAS_STATUS|CUSOLVER_STATUS|CUFFT_STATUS"
)
_KINDS: tuple[type[BaseException], ...] = (
    torch.OutOfMemoryError,
    *([torch.AcceleratorError] if hasattr(torch, "AcceleratorError") else []),
)


def is_device_error(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it was raised from, is one of a GPU, a full one included."""
    while error is not None:
        if isinstance(error, _KINDS) or (isinstance(error, RuntimeError) and _TEXTS.search(str(error))):
            return True
        error = error.__cause__
    return False


def is_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it was raised from, says that the memory of a GPU or a CPU is full."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and re.search("out of memory|can't allocate memory", str(error)):
            return True
        error = error.__cause__
    return False
