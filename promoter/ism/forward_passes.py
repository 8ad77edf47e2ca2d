"""Saturation mutagenesis by a whole forward pass a mutant, batched: the reference for the faster ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from promoter.models.cnn import evaluating
from promoter.models.trainable import dtype_of
from promoter.sequence import BASES, one_hot

# Bases in one forward pass when no batch size is given. On a CPU larger batches leave the cache and
# are slower; a GPU is busy with this many too.
_BASES_PER_BATCH = {"cpu": 1 << 15, "cuda": 1 << 21}


@torch.no_grad()  # not inference mode, whose tensors a network may keep and then use for gradients
def score_substitutions(
    model: nn.Module,
    tokens_NL: Tensor,
    *,
    batch_size: int | None = None,
    positions: tuple[int, int] | None = None,
    targets: Sequence[int] | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Tensor:
    """Score every single-base substitution.

    Arguments and result are those of `promoter.ism.incremental.score_substitutions`, but for the model: one-hot
    (batch, 4, length) of its parameters' type -> (batch, targets), or (batch,) for one target; run in evaluation
    mode and left in the mode it had. The rounding of bf16, 1e-2 of a prediction, can hide small effects.
    """
    region = positions or (0, tokens_NL.shape[1])
    batch_size = batch_size or mutants_per_batch(tokens_NL.shape[1], tokens_NL.device)
    autocast = torch.autocast(tokens_NL.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    with evaluating(model), autocast:
        return torch.stack([_score_one(model, one_L, batch_size, region, targets=targets) for one_L in tokens_NL])


def mutants_per_batch(length: int, device: torch.device) -> int:
    """Return how many sequences of `length` bases suit one forward pass on `device`."""
    return max(1, _BASES_PER_BATCH.get(device.type, 1 << 15) // length)


def _score_one(
    model: nn.Module,
    reference_L: Tensor,
    batch_size: int,
    region: tuple[int, int],
    *,
    targets: Sequence[int] | None,
) -> Tensor:
    """Score one sequence -> (targets, 4, region)."""
    start, end = region
    dtype = dtype_of(model)
    chosen = slice(None) if targets is None else list(targets)
    reference_T = _outputs(model, reference_L[None], dtype)[0, chosen]
    bases, positions = torch.nonzero(
        reference_L[None, start:end] != torch.arange(len(BASES), device=reference_L.device)[:, None], as_tuple=True
    )
    scores = torch.zeros(len(reference_T), len(BASES), end - start, device=reference_L.device)
    for base_B, position_B in zip(bases.split(batch_size), positions.split(batch_size), strict=True):
        mutants_BL = reference_L.repeat(len(base_B), 1)
        mutants_BL[torch.arange(len(base_B)), start + position_B] = base_B.to(mutants_BL.dtype)
        scores[:, base_B, position_B] = (_outputs(model, mutants_BL, dtype)[:, chosen] - reference_T).T.float()
    return scores


def _outputs(model: nn.Module, tokens_BL: Tensor, dtype: torch.dtype) -> Tensor:
    """Return predictions as (batch, targets), in float32, or float64 where that is `dtype`."""
    outputs: Tensor = model(one_hot(tokens_BL, dtype))
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32)).reshape(len(tokens_BL), -1)
