"""Tell whether scores that are differences of float32 predictions are exact enough.

Where a prediction is large beside the effects of single bases, or the network deep, float32 rounds by more than
what is to be measured. So some scores of each sequence are compared with those of the same network in float64.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from promoter.errors import doubt
from promoter.ism import forward_passes
from promoter.sequence import one_hot

TOLERANCE = 1e-4  # of the largest |score| of the sequence and target
_POSITIONS = 5  # compared, three mutants each: 20 passes in float64
_MARGIN = 4  # the largest of thousands of errors, by that of 15: 4 standard deviations against 1 or 2


def doubt_unchecked(model: nn.Module, tokens_NL: Tensor) -> None:
    """Warn if a network does not run in float64, so that its scores cannot be checked.

    Args:
        model: the network.
        tokens_NL: a sequence to try it on, uint8.
    """
    try:
        with torch.no_grad():
            copy.deepcopy(model).double().eval()(one_hot(tokens_NL, torch.float64))
    except Exception as error:  # whatever a network written for float32 alone raises
        doubt(unchecked("the network", error))


def unchecked(name: str, error: Exception) -> str:
    """Return what to warn of where a network does not run in float64, in a line."""
    return (
        f"{name}: does not run in float64 ({' '.join(str(error).split())[:200]}), so that its scores are "
        f"not checked: float32 may round them by more than {TOLERANCE:g} of the largest"
    )


def too_coarse(
    exact: nn.Module,
    tokens_NL: Tensor,
    scores_NTAL: Tensor,
    *,
    start: int,
    batch_size: int | None,
    targets: list[int] | None,
) -> Tensor:
    """Tell which sequences have scores that may be off by more than 1e-4 of the largest of their target.

    Args:
        exact: the network in float64.
        tokens_NL: the sequences, uint8.
        scores_NTAL: their scores from float32 predictions, (sequences, targets, 4, positions).
        start: position of the first base that was scored.
        batch_size: number of sequences in a forward pass; None: chosen by length.
        targets: numbers of the outputs that were scored; None: all.

    Returns:
        Booleans, one a sequence.
    """
    coarse_N = torch.zeros(len(tokens_NL), dtype=torch.bool)
    for row, scores_TAL in enumerate(scores_NTAL):
        error_T = torch.zeros(len(scores_TAL), device=scores_TAL.device)
        for offset in _positions(scores_TAL):
            expected_1TA1 = forward_passes.score_substitutions(
                exact,
                tokens_NL[row : row + 1],
                batch_size=batch_size,
                positions=(start + offset, start + offset + 1),
                targets=targets,
            )
            expected_TA = expected_1TA1[0, ..., 0].to(scores_TAL.device)  # which scores have left
            difference_TA = (scores_TAL[..., offset] - expected_TA).abs()
            error_T = torch.maximum(error_T, difference_TA.amax(1))
        coarse_N[row] = (_MARGIN * error_T > TOLERANCE * scores_TAL.abs().amax((1, 2))).any()
    return coarse_N


def _positions(scores_TAL: Tensor) -> list[int]:
    """Return the position with the largest score, and others evenly among those that the network sees."""
    largest_L = scores_TAL.abs().amax((0, 1))
    seen = largest_L.nonzero()[:, 0].tolist() or list(range(len(largest_L)))
    even = [seen[int((step + 0.5) * len(seen) / (_POSITIONS - 1))] for step in range(_POSITIONS - 1)]
    return sorted({int(largest_L.argmax()), *even})
