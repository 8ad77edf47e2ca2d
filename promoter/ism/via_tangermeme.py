"""Saturation mutagenesis of any other model, through tangermeme, in this package's axes and units.

tangermeme 1.6 captures a convolutional model and computes only the region of each layer that a mutation
can reach (fastISM: Nair et al. 2022, doi:10.1093/bioinformatics/btac135), once that is worth it and
agrees with whole forward passes; else it runs these.

Scores are differences of two predictions. Where float32 is too coarse for these, they are computed in float64.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from promoter.ism.forward_passes import mutants_per_batch
from promoter.ism.rounding import too_coarse, unchecked
from promoter.models.trainable import dtype_of
from promoter.sequence import one_hot


def score_substitutions(
    model: nn.Module,
    tokens_NL: Tensor,
    batch_size: int | None = None,
    *,
    positions: tuple[int, int] | None = None,
    targets: Sequence[int] | None = None,
    exact: bool = True,
) -> Tensor:
    """Score every single-base substitution.

    Arguments and result are those of `promoter.ism.forward_passes.score_substitutions`, and one more.

    Args:
        model: one-hot (batch, 4, length) -> (batch, targets).
        tokens_NL: the sequences, uint8.
        batch_size: number of mutants in a forward pass; None (the default): chosen by length and device.
        positions: (start, end) of the bases to change; None (the default): all.
        targets: numbers of the outputs to score; None (the default): all.
        exact: True, the default, computes those sequences again in float64 whose scores may be off by more than
            1e-4 of the largest of their target (`promoter.ism.rounding`); False leaves float32's rounding.

    Raises:
        ValueError: the model returns several tensors.
    """
    start, end = positions or (0, tokens_NL.shape[1])
    dtype = dtype_of(model)
    options = {"batch_size": batch_size, "start": start, "targets": None if targets is None else list(targets)}
    scores_NTAL = _differences(model, tokens_NL, end=end, dtype=dtype, **options)
    if not exact or dtype == torch.float64:
        return scores_NTAL
    try:
        double = copy.deepcopy(model).double().eval()
        again_N = too_coarse(double, tokens_NL, scores_NTAL, **options)
        if again_N.any():
            rows_NL = tokens_NL[again_N.to(tokens_NL.device)]
            scores_NTAL[again_N] = _differences(double, rows_NL, end=end, dtype=torch.float64, **options)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a network written for float32 alone raises
        warnings.warn(unchecked(type(model).__name__, error), RuntimeWarning, stacklevel=2)
    return scores_NTAL


def _differences(
    model: nn.Module,
    tokens_NL: Tensor,
    *,
    batch_size: int | None,
    start: int,
    end: int,
    targets: list[int] | None,
    dtype: torch.dtype,
) -> Tensor:
    """Subtract the prediction of each sequence from those of its mutants, all in one number type."""
    # takes seconds to import, which those with a PromoterCNN need not wait for
    from tangermeme.saturation_mutagenesis import saturation_mutagenesis  # noqa: PLC0415

    n, length = tokens_NL.shape
    with warnings.catch_warnings():
        # a model that cannot be captured is scored by whole passes: slower, and no fault of the user's
        warnings.filterwarnings("ignore", category=UserWarning, module=r"tangermeme\..*|torch\..*")
        reference, mutants = saturation_mutagenesis(
            model,
            one_hot(tokens_NL, torch.int8),
            start=start,
            end=end,
            batch_size=batch_size or mutants_per_batch(length, tokens_NL.device),
            raw_outputs=True,
            dtype=dtype,
            device=tokens_NL.device,
        )
    if not isinstance(mutants, Tensor) or not isinstance(reference, Tensor):
        raise ValueError("the model returns several tensors; wrap it so that it returns one, (batch, targets)")
    chosen = slice(None) if targets is None else targets
    scores_NALT = (mutants.reshape(n, 4, end - start, -1) - reference.reshape(n, 1, 1, -1))[..., chosen]
    return scores_NALT.permute(0, 3, 1, 2).float().contiguous()
