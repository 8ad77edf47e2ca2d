"""Score every substitution in a model's input, by the fastest exact method that suits the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from promoter.ism import forward_passes, incremental, self_check, via_tangermeme
from promoter.models.cnn import PromoterCNN
from promoter.models.precision import full_float32
from promoter.models.pretrained import PretrainedModel
from promoter.sequence import encode

_log = logging.getLogger(__name__)
# Sequences are scored a few at a time, so that memory does not grow with their number: a CPU's cache holds
# the layers of few, a GPU wants many.
_BASES_AT_A_TIME = {"cpu": 1 << 11, "cuda": 1 << 18}
_MUTANTS_AFTER_OOM = 4096  # assumed size of a batch that did not fit into memory, where none was given


def saturation_mutagenesis(
    model: nn.Module,
    tokens: np.ndarray | Tensor | Sequence[str],
    *,
    positions: tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> np.ndarray:
    """Score every single-base substitution of every sequence.

    A `PromoterCNN` is scored incrementally (`promoter.ism.incremental`), a pretrained network by whole forward
    passes (`promoter.ism.forward_passes`: a mutation reaches all that its attention reads), any other model, a
    subclass of `PromoterCNN` among them, by tangermeme (`promoter.ism.via_tangermeme`). The method is logged.
    Whole passes also score a `PromoterCNN` with hooks or a replaced layer, and one whose incremental scores
    differ from theirs (`promoter.ism.self_check`). Where a GPU runs out of memory, fewer are scored at a time.

    Args:
        model: one-hot (batch, 4, length) -> (batch, targets), or (batch,) for one target. It is moved to
            `device`, run in evaluation mode and left in the mode it had.
        tokens: uint8, shape (N, length), or strings of one length.
        positions: (start, end) of the bases to change, 0-based, half-open; all by default.
        device: the device to compute on; by default that of the model's parameters.
        batch_size: number of mutants computed together; by default chosen by model, length, device and its free
            memory.
        precision: fp32 (the default) is exact to 1e-5 of a sequence's largest |score|. bf16 computes the matrix
            products of a `PromoterCNN` with an error of some 1e-2 of it, and a pretrained network in mixed
            precision with an error of 1e-2 of a prediction. Any other model is computed as it is.

    Returns:
        float32, shape (N, targets, 4, end - start): f(sequence with base at position) - f(sequence), bases in
        the order ACGT. 0 at the reference base; where the reference is N, all four bases are scored.

    Raises:
        ValueError: tokens of another shape, sequences of several lengths, or positions outside them.
        InputError: sequences shorter than a `PromoterCNN` needs.
    """
    tokens_NL = _as_tokens(tokens)
    parameter = next(model.parameters(), None)
    device = torch.device(device or (parameter.device if parameter is not None else "cpu"))
    n, length = tokens_NL.shape
    if n == 0 or length == 0:
        raise ValueError(f"no sequence given: tokens has shape {tokens_NL.shape}")
    if positions is not None and not 0 <= positions[0] < positions[1] <= length:
        raise ValueError(f"positions {positions} must be (start, end) with 0 <= start < end <= {length}")
    model.to(device)
    at_a_time: int | None = max(1, _BASES_AT_A_TIME.get(device.type, 1 << 13) // length)
    with full_float32():
        method, score = _choose_method(model, length, device=device, positions=positions, precision=precision)
        _log.info("saturation mutagenesis: %s", method)
        if method == "through tangermeme":
            at_a_time = None  # its fast path is prepared anew in each call, and only where the call is long enough

        def score_tokens(some_NL: np.ndarray, size: int | None) -> np.ndarray:
            return score(torch.tensor(some_NL, device=device), size).cpu().numpy()

        return _within_memory(score_tokens, tokens_NL, at_a_time, batch_size)


def _choose_method(
    model: nn.Module,
    length: int,
    *,
    device: torch.device,
    positions: tuple[int, int] | None,
    precision: Literal["fp32", "bf16"],
) -> tuple[str, Callable[[Tensor, int | None], Tensor]]:
    """Return the name of the fastest exact method for a model, and a function of tokens and batch size."""
    # the class decides, since any module may be given: a subclass of PromoterCNN may compute anything
    if type(model) is PromoterCNN and self_check.engine_matches(model, length, device):
        return "incremental", lambda x_NL, size: incremental.score_substitutions(
            model, x_NL, batch_size=size, positions=positions, precision=precision
        )
    if type(model) is PromoterCNN or isinstance(model, PretrainedModel):
        # in bf16 a CNN's forward pass rounds the prediction itself, by more than many a base changes it
        rounding = "fp32" if type(model) is PromoterCNN else precision
        return "whole passes", lambda x_NL, size: forward_passes.score_substitutions(
            model, x_NL, batch_size=size, positions=positions, precision=rounding
        )
    return "through tangermeme", lambda x_NL, size: via_tangermeme.score_substitutions(
        model, x_NL, size, positions
    )


def _within_memory(
    score: Callable[[np.ndarray, int | None], np.ndarray],
    tokens_NL: np.ndarray,
    at_a_time: int | None,
    batch_size: int | None,
) -> np.ndarray:
    """Score a few sequences at a time; fewer, then with smaller batches, each time that memory runs out.

    All sequences are scored together where `at_a_time` is None; then only the batches get smaller.
    """
    parts: list[np.ndarray] = []
    start = 0
    while start < len(tokens_NL):
        try:
            parts.append(score(tokens_NL[start : start + (at_a_time or len(tokens_NL))], batch_size))
        except torch.cuda.OutOfMemoryError:  # memory of a CPU is not refused: the system kills
            if at_a_time is not None and at_a_time > 1:
                at_a_time //= 2
            elif batch_size != 1:
                batch_size = (batch_size or _MUTANTS_AFTER_OOM) // 2
            else:
                raise
            torch.cuda.empty_cache()
            _log.warning("out of memory: %s sequences at a time, batch size %s", at_a_time or "all", batch_size)
            continue
        start += at_a_time or len(tokens_NL)
    return np.concatenate(parts)


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
