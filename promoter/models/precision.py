"""Disable TF32 so that convolutions and matrix products run in full float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import backends


class _Setting(NamedTuple):
    """One of PyTorch's process-wide settings."""

    read: Callable[[], Any]  # raises RuntimeError where its value contradicts a setting of the newer kind
    write: Callable[[Any], None]
    full: Any  # value for full float32


def _attribute(owner: Any, name: str, full: Any) -> _Setting:
    return _Setting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), full)


def _settings() -> list[_Setting]:
    """List what decides how float32 is multiplied; the older settings first, since they write the newer ones.

    PyTorch 2.9 added `fp32_precision` for each kind of operation; releases before it have the older ones alone.
    """
    older = [
        _Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        _attribute(backends.cudnn, "allow_tf32", False),
    ]
    kinds = [(backends.cuda, "matmul")]
    kinds += [(owner, kind) for owner in (backends.cudnn, backends.mkldnn) for kind in ("matmul", "conv", "rnn")]
    owners = [getattr(owner, kind, None) for owner, kind in kinds]
    newer = [owner for owner in owners if hasattr(owner, "fp32_precision")]
    return older + [_attribute(owner, "fp32_precision", "ieee") for owner in newer]


@contextmanager
def full_float32() -> Iterator[None]:
    """Run convolutions and matrix products in full float32 while the block runs.

    TF32 keeps 10 of each input's 23 bits: right to some 1e-3, where scores are differences that are smaller still.
    PyTorch uses it for convolutions on GPUs from Ampere on, unless told otherwise. Some images and scripts add
    matrix products by `torch.set_float32_matmul_precision("high")`; "medium" rounds those of some CPUs to bf16.
    Whatever was set, by PyTorch's older names or its newer ones, is put back at the end.
    """
    changed: list[tuple[_Setting, Any]] = []
    for setting in _settings():
        with suppress(RuntimeError):  # set by its newer name, which comes later in the list
            changed.append((setting, setting.read()))
    try:
        for setting, _ in changed:
            setting.write(setting.full)
        yield
    finally:
        for setting, before in changed:
            setting.write(before)
