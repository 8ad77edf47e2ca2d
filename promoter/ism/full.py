"""Saturation mutagenesis by whole forward passes, batched: works for any model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from promoter.model import evaluating
from promoter.sequence import BASES, encode, one_hot

# Bases in one forward pass when no batch size is given. On a CPU larger batches leave the cache and
# are slower; a GPU is busy with this many too.
_BASES_PER_BATCH = {"cpu": 1 << 15, "cuda": 1 << 21}


@torch.inference_mode()
def saturation_mutagenesis(
    model: nn.Module,
    tokens: np.ndarray | Tensor | Sequence[str],
    device: str | torch.device | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Score every single-base substitution of every sequence.

    Args:
        model: one-hot (batch, 4, length) -> (batch, targets), or (batch,) for one target. It is moved to
            `device`, run in evaluation mode and left in the mode it had.
        tokens: uint8, shape (N, length), or strings of one length.
        device: to compute on; by default where the model's parameters are.
        batch_size: mutants in one forward pass; by default chosen by length and device.

    Returns:
        float32, shape (N, targets, 4, length): f(sequence with base at position) - f(sequence), bases in
        the order ACGT. 0 at the reference base; where the reference is N, all four bases are scored.

    Raises:
        ValueError: tokens of another shape, or sequences of several lengths.
    """
    tokens_NL = _as_tokens(tokens)
    parameter = next(model.parameters(), None)
    device = torch.device(device or (parameter.device if parameter is not None else "cpu"))
    n, length = tokens_NL.shape
    if n == 0 or length == 0:
        raise ValueError(f"no sequence given: tokens has shape {tokens_NL.shape}")
    if batch_size is None:
        batch_size = max(1, _BASES_PER_BATCH.get(device.type, 1 << 15) // length)
    with evaluating(model.to(device)):
        return np.stack([_score_one(model, torch.tensor(one, device=device), batch_size) for one in tokens_NL])


def _score_one(model: nn.Module, reference_L: Tensor, batch_size: int) -> np.ndarray:
    """Score one sequence -> (targets, 4, length)."""
    reference_T = _outputs(model, reference_L[None])[0]
    bases, positions = torch.nonzero(
        reference_L[None] != torch.arange(len(BASES), device=reference_L.device)[:, None], as_tuple=True
    )
    scores = torch.zeros(len(reference_T), len(BASES), len(reference_L), device=reference_L.device)
    for base_B, position_B in zip(bases.split(batch_size), positions.split(batch_size), strict=True):
        mutants_BL = reference_L.repeat(len(base_B), 1)
        mutants_BL[torch.arange(len(base_B)), position_B] = base_B.to(mutants_BL.dtype)
        scores[:, base_B, position_B] = (_outputs(model, mutants_BL) - reference_T).T
    return scores.cpu().numpy()


def _outputs(model: nn.Module, tokens_BL: Tensor) -> Tensor:
    """Return predictions as (batch, targets), float32."""
    return model(one_hot(tokens_BL)).float().reshape(len(tokens_BL), -1)


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
