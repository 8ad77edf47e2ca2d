"""Attributions of any network in the axes and units of saturation mutagenesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from promoter.attribution.completeness import doubt_incomplete, unexplained_share
from promoter.attribution.deeplift import deeplift_multipliers, shuffled_references
from promoter.attribution.gradients import baseline_of, differentiable, path_gradients, predictions_of
from promoter.attribution.methods import Method, MethodName
from promoter.errors import InputError
from promoter.ism.forward_passes import mutants_per_batch
from promoter.ism.sequences import average_strands, checked_tokens, within_memory
from promoter.models.cnn import evaluating
from promoter.models.precision import full_float32
from promoter.models.pretrained import PretrainedModel
from promoter.models.trainable import device_of, dtype_of
from promoter.sequence import BASES, one_hot

_MEMORY_OF_BACKWARD = (
    4  # a pass that goes back keeps what every layer gave, beside gradients: this many times more
)
_ROUNDINGS = 8  # of a prediction, in units of the last place: what the layers before it may have added up to
_BYTES_AT_A_TIME = 1 << 28  # of multipliers, of all targets or all references


class Attributions(NamedTuple):
    """Attributions of some sequences, and how far they add up.

    Attributes:
        scores: float32, shape (N, targets, 4, end - start).
        sums: sum of the attributions of all bases of a sequence, and what it should be, f(sequence) -
            f(reference), mean over the references: float32, (N, 2, targets); None for gradients.
    """

    scores: np.ndarray
    sums: np.ndarray | None


def attribute(
    model: nn.Module,
    tokens: np.ndarray | Tensor | Sequence[str],
    *,
    method: MethodName,
    positions: tuple[int, int] | None = None,
    targets: Sequence[int] | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    both_strands: bool = False,
    steps: int | None = None,
    shuffles: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Estimate the score of every single-base substitution from gradients.

    The attribution of a base that is not there is hypothetical: what the base would contribute in place of the one
    that is. A score is this less the attribution of the base that is there, so that it estimates the difference of
    predictions that `promoter.ism.saturation_mutagenesis` computes; of a linear network they are equal.
    Contributions (scores less their mean over the bases) are then gradients without the component that no
    sequence can have (Majdandzic et al. 2023, doi:10.1186/s13059-023-02956-3).

    Args:
        model: one-hot (batch, 4, length) -> (batch, targets), or (batch,) for one target. It is moved to
            `device`, run in evaluation mode and left in the mode it had.
        tokens: uint8, shape (N, length), or strings of one length.
        method: gradient (at the sequence), integrated_gradients (mean along the path from 0.25 of each base), or
            deeplift (between the sequence and dinucleotide shuffles of it).
        positions: (start, end) of the bases to score, 0-based, half-open; all by default.
        targets: numbers of the model's outputs to score, from 0, in the order of the result; all by default.
        device: the device to compute on; by default that of the model's parameters.
        batch_size: number of sequences, points or pairs in a pass; by default chosen by length and device.
        both_strands: True scores the mean of the predictions of both strands, as saturation mutagenesis does.
        steps: number of points of integrated_gradients; 20 by default.
        shuffles: number of references of deeplift; 20 by default.
        seed: random seed of the shuffles; 0 by default. The shuffles of a sequence depend on it and the sequence.

    Returns:
        float32, shape (N, targets, 4, end - start), bases in the order ACGT, target units. 0 at the reference
        base; where the reference is N, all four bases are scored. An InputWarning tells where the attributions do
        not add up to the difference that they explain.

    Raises:
        ValueError: as of saturation mutagenesis.
        InputError: a setting of another method; or a model that has no gradients, or that DeepLIFT cannot explain.
    """
    how = Method.of(method, steps=steps, shuffles=shuffles, seed=seed)
    options = {"positions": positions, "targets": targets, "batch_size": batch_size, "both_strands": both_strands}
    result = explain(model, tokens, how, device=device, **options)
    if result.sums is not None:
        shares = unexplained_share(result.sums)
        doubt_incomplete(method, shares, [f"output {index}" for index in targets or range(len(shares))])
    return result.scores


def explain(
    model: nn.Module,
    tokens: np.ndarray | Tensor | Sequence[str],
    method: Method,
    *,
    positions: tuple[int, int] | None = None,
    targets: Sequence[int] | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    both_strands: bool = False,
) -> Attributions:
    """Attribute as `attribute` does, and return how far the attributions add up, without a warning.

    Arguments and errors are those of `attribute`, but for `method` with its settings.
    """
    tokens_NL = checked_tokens(tokens, positions, targets)
    require_explainable(model, method)
    device = device_of(model, device)
    model.to(device)
    sums: list[np.ndarray] = []  # of each strand

    def score_strand(strand_NL: np.ndarray, region: tuple[int, int] | None) -> np.ndarray:
        scores, sums_N2T = _explain_strand(
            model, strand_NL, method, positions=region, targets=targets, device=device, batch_size=batch_size
        )
        sums.append(sums_N2T)
        return scores

    with full_float32(), evaluating(model), differentiable(model):
        scores = average_strands(score_strand, model, tokens_NL, positions, both_strands=both_strands)
    return Attributions(scores, np.mean(sums, axis=0).astype(np.float32) if method.is_complete else None)


def require_explainable(model: nn.Module, method: Method) -> None:
    """Raise InputError for a network that a method is known to explain wrongly."""
    if method.name == "deeplift" and isinstance(model, PretrainedModel):
        raise InputError(
            f"DeepLIFT has no rules for the attention of {model.config.name}, and its attributions would be wrong",
            setting="method",
            value=method.name,
            fix="take integrated_gradients",
        )


def _explain_strand(
    model: nn.Module,
    tokens_NL: np.ndarray,
    method: Method,
    *,
    positions: tuple[int, int] | None,
    targets: Sequence[int] | None,
    device: torch.device,
    batch_size: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of one strand, and sums and differences (N, 2, targets)."""
    n, length = tokens_NL.shape
    start, end = positions or (0, length)
    dtype = dtype_of(model)

    def score(some_NL: np.ndarray, size: int | None) -> tuple[Tensor, Tensor]:
        x_NCL = one_hot(torch.tensor(some_NL, device=device), dtype)
        return _multipliers(model, x_NCL, method, batch_size=size or 1, targets=targets)

    usual = max(1, mutants_per_batch(length, device) // _MEMORY_OF_BACKWARD)
    copies = max(method.settings.get("shuffles", 1), 1 if targets is None else len(targets))
    at_a_time = max(1, _BYTES_AT_A_TIME // (4 * copies * len(BASES) * length))
    scores, sums = None, []
    for rows, (per_base, sums_N2T) in within_memory(score, tokens_NL, at_a_time, batch_size or usual):
        multipliers = per_base.cpu().float()
        x_NCL = one_hot(torch.tensor(tokens_NL[rows]), multipliers.dtype)[:, None]
        some = multipliers - (x_NCL * multipliers).sum(dim=2, keepdim=True)
        if scores is None:
            scores = np.empty((n, some.shape[1], len(BASES), end - start), np.float32)
        scores[rows] = some[..., start:end].numpy()
        sums.append(sums_N2T.cpu().float().numpy())
    assert scores is not None  # noqa: S101 # for the type checker: there is a sequence
    return scores, np.concatenate(sums)


def _multipliers(
    model: nn.Module, x_NCL: Tensor, method: Method, *, batch_size: int, targets: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Return the multiplier of each base, (N, targets, 4, length), and sums and differences (N, 2, targets)."""
    options = {"batch_size": batch_size, "targets": targets}
    if method.name == "deeplift":
        references_NSCL = shuffled_references(model, x_NCL, **method.settings)
        multipliers, explained = deeplift_multipliers(model, x_NCL, references_NSCL, **options)
        flat = references_NSCL.flatten(0, 1)
        from_references = torch.cat(
            [predictions_of(model, some.to(x_NCL.device), **options) for some in flat.split(batch_size)]
        )
        baseline = from_references.unflatten(0, references_NSCL.shape[:2]).mean(dim=1)
    else:
        multipliers = path_gradients(model, x_NCL, steps=method.settings.get("steps"), **options)
        if not method.is_complete:
            return multipliers, multipliers.new_zeros(len(x_NCL), 2, multipliers.shape[1])
        explained = ((x_NCL - baseline_of(x_NCL))[:, None] * multipliers).double().sum(dim=(2, 3))
        baseline = predictions_of(model, baseline_of(x_NCL), **options)
    predictions = predictions_of(model, x_NCL, **options)
    difference = predictions - baseline
    # what the predictions' own rounding hides is no error: of a sequence that is its own reference all is rounding
    rounding = _ROUNDINGS * torch.finfo(x_NCL.dtype).eps * (predictions.abs() + baseline.abs())
    explained = explained.to(difference)
    explained = torch.where((explained - difference).abs() > rounding, explained, difference)
    return multipliers, torch.stack([explained, difference], dim=1)
