"""Saturation mutagenesis of any model, by the fastest exact way there is for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from promoter.ism import full, incremental
from promoter.model import PromoterCNN
from promoter.sequence import encode

_log = logging.getLogger(__name__)
# Sequences are scored some at a time, so that memory does not grow with their number: a CPU's cache holds
# the layers of few, a GPU wants many.
_BASES_AT_A_TIME = {"cpu": 1 << 13, "cuda": 1 << 17}


def saturation_mutagenesis(
    model: nn.Module,
    tokens: np.ndarray | Tensor | Sequence[str],
    device: str | torch.device | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Score every single-base substitution of every sequence.

    A `PromoterCNN` is scored incrementally (`promoter.ism.incremental`), any other model by a whole
    forward pass a mutant.

    Args:
        model: one-hot (batch, 4, length) -> (batch, targets), or (batch,) for one target. It is moved to
            `device`, run in evaluation mode and left in the mode it had.
        tokens: uint8, shape (N, length), or strings of one length.
        device: to compute on; by default where the model's parameters are.
        batch_size: mutants computed together; by default chosen by model, length and device.

    Returns:
        float32, shape (N, targets, 4, length): f(sequence with base at position) - f(sequence), bases in
        the order ACGT. 0 at the reference base; where the reference is N, all four bases are scored.

    Raises:
        ValueError: tokens of another shape, or sequences of several lengths.
        InputError: sequences shorter than a `PromoterCNN` needs.
    """
    tokens_NL = _as_tokens(tokens)
    parameter = next(model.parameters(), None)
    device = torch.device(device or (parameter.device if parameter is not None else "cpu"))
    n, length = tokens_NL.shape
    if n == 0 or length == 0:
        raise ValueError(f"no sequence given: tokens has shape {tokens_NL.shape}")
    model.to(device)
    at_a_time = max(1, _BASES_AT_A_TIME.get(device.type, 1 << 13) // length)
    _log.info(
        "saturation mutagenesis: %s", "incremental" if isinstance(model, PromoterCNN) else "whole forward passes"
    )

    def score(some_NL: Tensor) -> Tensor:
        if isinstance(model, PromoterCNN):
            return incremental.score_substitutions(model, some_NL, batch_size)
        return full.score_substitutions(model, some_NL, batch_size)

    parts = [tokens_NL[start : start + at_a_time] for start in range(0, n, at_a_time)]
    return np.concatenate([score(torch.tensor(part, device=device)).cpu().numpy() for part in parts])


def _as_tokens(tokens: np.ndarray | Tensor | Sequence[str]) -> np.ndarray:
    if isinstance(tokens, Tensor):
        tokens = tokens.cpu().numpy()
    if isinstance(tokens, str):
        raise ValueError(f"tokens is one string of {len(tokens)} letters; give a list of strings")
    if not isinstance(tokens, np.ndarray):
        tokens = encode(list(tokens))
    if tokens.ndim != 2 or tokens.dtype != np.uint8:
        raise ValueError(f"tokens must be uint8 of shape (N, length), not {tokens.dtype} of shape {tokens.shape}")
    return np.ascontiguousarray(tokens)
