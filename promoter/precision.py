"""How exactly a GPU multiplies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute convolutions in float32 as written while the block runs.

    By PyTorch's default GPUs from Ampere on round their inputs to TF32, with 10 bits for 23: right to some 1e-3,
    where scores are differences that are smaller still. (Matrix products are exact by default.) A CPU never does.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
