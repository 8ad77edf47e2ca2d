"""Saturation mutagenesis of any other model, through tangermeme, in this package's axes and units.

tangermeme 1.6 captures a convolutional model and computes only the region of each layer that a mutation
can reach (fastISM: Nair et al. 2022, doi:10.1093/bioinformatics/btac135), once that is worth it and
agrees with whole forward passes; else it runs these.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from promoter.ism.forward_passes import mutants_per_batch
from promoter.sequence import one_hot


def score_substitutions(
    model: nn.Module,
    tokens_NL: Tensor,
    batch_size: int | None = None,
    *,
    positions: tuple[int, int] | None = None,
    targets: Sequence[int] | None = None,
) -> Tensor:
    """Score every single-base substitution.

    Arguments and result are those of `promoter.ism.forward_passes.score_substitutions`. Scores are differences of
    two float32 predictions, hence less exact than those of `promoter.ism.incremental`.

    Raises:
        ValueError: the model returns several tensors.
    """
    # takes seconds to import, which those with a PromoterCNN need not wait for
    from tangermeme.saturation_mutagenesis import saturation_mutagenesis  # noqa: PLC0415

    n, length = tokens_NL.shape
    start, end = positions or (0, length)
    parameter = next(model.parameters(), None)
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
            dtype=torch.float32 if parameter is None else parameter.dtype,
            device=tokens_NL.device,
        )
    if not isinstance(mutants, Tensor) or not isinstance(reference, Tensor):
        raise ValueError("the model returns several tensors; wrap it so that it returns one, (batch, targets)")
    chosen = slice(None) if targets is None else list(targets)
    scores_NALT = (mutants.reshape(n, 4, end - start, -1) - reference.reshape(n, 1, 1, -1))[..., chosen]
    return scores_NALT.permute(0, 3, 1, 2).float().contiguous()
