"""Gradients at a sequence, or averaged along the path from a baseline to it (Sundararajan et al. 2017).

The baseline has 0.25 of each base at every position: the mean of all sequences, which prefers none and lies in the
plane of the one-hot vectors. Where a sequence has an N, four zeros, so has the baseline: nothing is
attributed to what is unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from promoter.errors import InputError
from promoter.sequence import BASES

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Let gradients of a network in evaluation mode reach its input and not its weights, while the block runs."""
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    cudnn = torch.backends.cudnn.enabled
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        torch.backends.cudnn.enabled = cudnn and not recurrent  # whose RNNs have gradients in training mode alone
        yield
    finally:
        torch.backends.cudnn.enabled = cudnn
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def outputs_of(model: nn.Module, x_BCL: Tensor, targets: Sequence[int] | None) -> Tensor:
    """Return predictions of the wanted targets, (batch, targets); a model of one target may return (batch,)."""
    outputs: Tensor = model(x_BCL)
    if outputs.shape[0] != len(x_BCL) or outputs.ndim > 2:
        raise ValueError(
            f"the model returns {tuple(outputs.shape)} for {len(x_BCL)} sequences, not (batch, targets)"
        )
    outputs = outputs.reshape(len(x_BCL), -1)
    return outputs if targets is None else outputs[:, list(targets)]


@torch.no_grad()
def predictions_of(model: nn.Module, x_NCL: Tensor, batch_size: int, targets: Sequence[int] | None) -> Tensor:
    """Return the predictions of many sequences, (N, targets), a batch at a time."""
    return torch.cat([outputs_of(model, x_BCL, targets).double() for x_BCL in x_NCL.split(batch_size)])


def baseline_of(x_NCL: Tensor) -> Tensor:
    """Return the baseline of one-hot sequences: 0.25 of each base, and 0 at an N."""
    return x_NCL.sum(dim=1, keepdim=True).expand_as(x_NCL) / len(BASES)


def path_gradients(
    model: nn.Module,
    x_NCL: Tensor,
    *,
    steps: int | None,
    batch_size: int,
    targets: Sequence[int] | None,
) -> Tensor:
    """Return the gradient of each target at the sequences, or its mean along the path: (N, targets, 4, length).

    Args:
        model: network in evaluation mode, one-hot (batch, 4, length) -> (batch, targets).
        x_NCL: one-hot sequences.
        steps: number of points on the path, of Gauss-Legendre quadrature; None takes the gradient at the sequence.
        batch_size: number of points in one pass.
        targets: numbers of the outputs; None for all.

    Raises:
        InputError: the predictions have no gradient with respect to the sequence.
    """
    nodes, weights = (np.ones(1), np.full(1, 2.0)) if steps is None else np.polynomial.legendre.leggauss(steps)
    fractions, shares = ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
    baseline_NCL = baseline_of(x_NCL)
    total: Tensor | None = None
    points = list(itertools.product(range(len(x_NCL)), range(len(fractions))))
    for start in range(0, len(points), batch_size):
        rows, steps_B = zip(*points[start : start + batch_size], strict=True)
        fraction_B, share_B = (
            torch.tensor([values[step] for step in steps_B], dtype=x_NCL.dtype, device=x_NCL.device)
            for values in (fractions, shares)
        )
        there_BCL, from_BCL = x_NCL[list(rows)], baseline_NCL[list(rows)]
        point_BCL = (from_BCL + fraction_B[:, None, None] * (there_BCL - from_BCL)).requires_grad_()
        gradient_BTCL = _gradients(model, point_BCL, targets) * share_B[:, None, None, None]
        if total is None:
            total = gradient_BTCL.new_zeros(len(x_NCL), *gradient_BTCL.shape[1:])
        total.index_add_(0, torch.tensor(rows, device=x_NCL.device), gradient_BTCL)
    assert total is not None  # noqa: S101 # for the type checker: there is a sequence
    return total


def _gradients(model: nn.Module, point_BCL: Tensor, targets: Sequence[int] | None) -> Tensor:
    with torch.enable_grad():
        outputs_BT = outputs_of(model, point_BCL, targets)
        require_gradient(outputs_BT)
        sums = outputs_BT.sum(dim=0).unbind()
        return torch.stack(
            [torch.autograd.grad(one, point_BCL, retain_graph=one is not sums[-1])[0] for one in sums], dim=1
        )


def require_gradient(outputs: Tensor) -> None:
    """Raise InputError if predictions have no gradient with respect to the sequence."""
    if not outputs.requires_grad:
        raise InputError(
            "the model's predictions have no gradient with respect to the sequence (its forward runs without "
            "autograd or makes letters of the one-hot); score it with ism"
        )
