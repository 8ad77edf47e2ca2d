"""Score every substitution in a model's input, by the fastest exact method that suits the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from promoter.ism import forward_passes, incremental, self_check, via_tangermeme
from promoter.ism.sequences import average_strands, checked_tokens, within_memory
from promoter.models.cnn import PromoterCNN
from promoter.models.precision import full_float32
from promoter.models.pretrained import PretrainedModel
from promoter.models.trainable import device_of
from promoter.sequence import BASES

_log = logging.getLogger(__name__)
# Sequences are scored a few at a time, so that memory does not grow with their number: a CPU's cache holds
# the layers of few, a GPU wants many.
_BASES_AT_A_TIME = {"cpu": 1 << 11, "cuda": 1 << 18}
_BYTES_AT_A_TIME = 1 << 28  # of their scores, which a CPU keeps beside those of the sequences before


def saturation_mutagenesis(
    model: nn.Module,
    tokens: np.ndarray | Tensor | Sequence[str],
    *,
    positions: tuple[int, int] | None = None,
    targets: Sequence[int] | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    both_strands: bool = False,
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
        targets: numbers of the model's outputs to score, from 0, in the order of the result; all by default. A
            `PromoterCNN` computes no others.
        device: the device to compute on; by default that of the model's parameters.
        batch_size: number of mutants computed together; by default chosen by model, length, device and its free
            memory.
        precision: fp32 (the default) is exact to 1e-5 of a sequence's largest |score|. bf16 computes the matrix
            products of a `PromoterCNN` with an error of some 1e-2 of it, and a pretrained network in mixed
            precision with an error of 1e-2 of a prediction. Any other model is exact to 1e-4 of a target's largest
            |score| with fp32: what float32 rounds by more is computed in float64. With bf16 it is not.
        both_strands: True scores the mean of the predictions of a sequence and of the reverse complement of what
            the model sees of it, each strand by the same method; False is the default. A network that reads both
            strands itself is scored once.

    Returns:
        float32, shape (N, targets, 4, end - start): f(sequence with base at position) - f(sequence), bases in
        the order ACGT. 0 at the reference base; where the reference is N, all four bases are scored.

    Raises:
        ValueError: tokens of another shape, sequences of several lengths, positions outside them, no target, or
            one twice.
        IndexError: the model has no output of a number in `targets`.
        InputError: sequences shorter than a `PromoterCNN` needs.
    """
    tokens_NL = checked_tokens(tokens, positions, targets)
    device = device_of(model, device)
    model.to(device)

    def score_strand(strand_NL: np.ndarray, region: tuple[int, int] | None) -> np.ndarray:
        options = {"device": device, "targets": targets, "precision": precision}
        return _score(model, strand_NL, batch_size, positions=region, **options)

    with full_float32():
        return average_strands(score_strand, model, tokens_NL, positions, both_strands=both_strands)


def _score(
    model: nn.Module,
    tokens_NL: np.ndarray,
    batch_size: int | None,
    *,
    device: torch.device,
    positions: tuple[int, int] | None,
    targets: Sequence[int] | None,
    precision: Literal["fp32", "bf16"],
) -> np.ndarray:
    """Score one strand by the method that suits the model, as many sequences at a time as memory holds."""
    length = tokens_NL.shape[1]
    at_a_time: int | None = max(1, _BASES_AT_A_TIME.get(device.type, 1 << 13) // length)
    method, score = _choose_method(
        model, length, device=device, positions=positions, targets=targets, precision=precision
    )
    _log.info("saturation mutagenesis: %s", method)
    if method == "through tangermeme":
        at_a_time = None  # its fast path is prepared anew in each call, and only where the call is long enough
    elif isinstance(model, PromoterCNN | PretrainedModel):
        start, end = positions or (0, length)
        outputs = model.config.n_targets if targets is None else len(targets)
        at_a_time = max(1, min(at_a_time, _BYTES_AT_A_TIME // (4 * outputs * len(BASES) * (end - start))))

    def score_tokens(some_NL: np.ndarray, size: int | None) -> np.ndarray:
        return score(torch.tensor(some_NL, device=device), size).cpu().numpy()

    scores: np.ndarray | None = None
    for rows, some in within_memory(score_tokens, tokens_NL, at_a_time, batch_size):
        if scores is None:
            scores = np.empty((len(tokens_NL), *some.shape[1:]), some.dtype)
        scores[rows] = some  # a list of them, put together at the end, would need the memory twice
    assert scores is not None  # noqa: S101 # for the type checker: there is a sequence
    return scores


def _choose_method(
    model: nn.Module,
    length: int,
    *,
    device: torch.device,
    positions: tuple[int, int] | None,
    targets: Sequence[int] | None,
    precision: Literal["fp32", "bf16"],
) -> tuple[str, Callable[[Tensor, int | None], Tensor]]:
    """Return the name of the fastest exact method for a model, and a function of tokens and batch size."""
    # the class decides, since any module may be given: a subclass of PromoterCNN may compute anything
    if type(model) is PromoterCNN and self_check.engine_matches(model, length, device):
        return "incremental", lambda x_NL, size: incremental.score_substitutions(
            model, x_NL, batch_size=size, positions=positions, targets=targets, precision=precision
        )
    if type(model) is PromoterCNN or isinstance(model, PretrainedModel):
        # in bf16 a CNN's forward pass rounds the prediction itself, by more than many a base changes it
        rounding = "fp32" if type(model) is PromoterCNN else precision
        return "whole passes", lambda x_NL, size: forward_passes.score_substitutions(
            model, x_NL, batch_size=size, positions=positions, targets=targets, precision=rounding
        )
    return "through tangermeme", lambda x_NL, size: via_tangermeme.score_substitutions(
        model, x_NL, size, positions=positions, targets=targets, exact=precision == "fp32"
    )
