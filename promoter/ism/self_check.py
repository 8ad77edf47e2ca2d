"""Check that the incremental engine computes the network that it is given.

`promoter.ism.incremental` holds a second copy of the arithmetic of `promoter.models.cnn`. A network whose layers
were replaced, patched or hooked computes something else, and the engine's scores of it would be silently wrong. So
before the engine is used, some mutants are compared with full forward passes in float64. A kind of pooling that
the engine does not handle is refused by the engine itself.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from promoter.ism import forward_passes, incremental
from promoter.models.cnn import PromoterCNN, is_unmodified
from promoter.sequence import BASES, N_TOKEN, one_hot

_TOLERANCE = 1e-4  # of the largest |score|: ten times what the engine promises
_ROUNDINGS = 8  # of the prediction, in units of the last place: what the layers before it may have added up to
_MUTANTS_PER_PASS = 4  # float64 takes twice the memory
_checked: WeakKeyDictionary[nn.Module, dict[Any, bool]] = WeakKeyDictionary()


def engine_matches(model: PromoterCNN, length: int, device: torch.device) -> bool:
    """Tell whether the incremental engine may score a network; tested once per network, length and process.

    The network is tested again when the code of one of its layers has changed since. Call this inside
    `full_float32()`.

    Args:
        model: the network, on `device`.
        length: length of the window in bases.
        device: the device to score on.

    Returns:
        False for a network with hooks or replaced layers, and for one of which the engine's scores differ from
        those of full passes by more than 1e-4 of the largest |score| and by more than float32's rounding of the
        prediction; for the latter a RuntimeWarning is issued.

    Raises:
        InputError: the window is shorter than the network's pools need.
        NotImplementedError: a block has a kind of pooling that the engine does not handle.
    """
    model.config.require_length(length)
    if not is_unmodified(model):
        return False
    results = _checked.setdefault(model, {})
    case = (length, device.type, tuple(type(module).forward for module in model.modules()))
    if case not in results:
        problem, conclusive = _compare(model, length, device)
        if problem:
            warnings.warn(
                f"PromoterCNN: {problem}; scoring it by whole forward passes, which takes many times as long. Has "
                "the code of a layer been changed? promoter/ism/incremental.py must compute the same",
                RuntimeWarning,
                stacklevel=3,
            )
        if not conclusive:
            return not problem
        results[case] = not problem
    return results[case]


def _compare(model: PromoterCNN, length: int, device: torch.device) -> tuple[str | None, bool]:
    """Compare the engine with full passes; return the problem, and whether the comparison was conclusive."""
    exact = copy.deepcopy(model).double().eval()
    tokens_1L = _sequence(length, model.config.outside(length)).to(device)
    largest = error = 0.0
    for positions in _positions(length, model.config.outside(length)):
        expected = forward_passes.score_substitutions(
            exact, tokens_1L, batch_size=_MUTANTS_PER_PASS, positions=positions
        )
        if not expected.isfinite().all():
            return None, False  # the weights are not finite, nor will any scores be
        scores = incremental.score_substitutions(model, tokens_1L, positions=positions)
        largest = max(largest, float(expected.abs().max()))
        error = max(error, float((scores - expected).abs().nan_to_num(torch.inf).max()))
    with torch.inference_mode():
        prediction = float(exact(one_hot(tokens_1L, torch.float64)).abs().max())
    rounding = _ROUNDINGS * torch.finfo(next(model.parameters()).dtype).eps * prediction
    if error <= max(_TOLERANCE * largest, rounding):
        return None, largest > rounding
    return (
        f"the incremental engine's scores of {length} bases are off by {error:.2g}, where the largest |score| of "
        f"the mutants compared is {largest:.2g}",
        True,
    )


def _positions(length: int, outside: int) -> list[tuple[int, int]]:
    """Return the ranges to mutate: two bases at each end of what the network sees, and two in the middle."""
    middle = (outside + length) // 2
    if length - outside <= 6:
        return [(outside, length)]
    return [(outside, outside + 2), (middle - 1, middle + 1), (length - 2, length)]


def _sequence(length: int, outside: int) -> Tensor:
    """Make a random sequence with each base and an N at the positions to be mutated."""
    generator = torch.Generator().manual_seed(0)
    tokens_1L = torch.randint(len(BASES), (1, length), dtype=torch.uint8, generator=generator)
    mutated = torch.cat([torch.arange(start, end) for start, end in _positions(length, outside)])
    letters = torch.tensor([0, 1, 2, N_TOKEN, 3, 0], dtype=torch.uint8)
    tokens_1L[0, mutated] = letters[: len(mutated)]
    return tokens_1L
