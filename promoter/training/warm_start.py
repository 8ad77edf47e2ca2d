"""A warm start: training begins with the weights of an earlier model instead of new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch

from promoter.models.build import Learner
from promoter.training.batches import Examples
from promoter.training.losses import Loss


@dataclass(frozen=True)
class WarmStart:
    """Weights to start from.

    Attributes:
        weights: content of `model.safetensors` of a network of the same architecture that returns original units.
        rows: for each target, the index of the output of that network to start from; None for a new output.
    """

    weights: bytes
    rows: Sequence[int | None]


@torch.no_grad()
def start_from(model: Learner, start: WarmStart, train: Examples, loss: Loss) -> None:
    """Put the weights of an earlier network into `model`, on the scale on which it is to be trained.

    The layers below the head are taken over, with the statistics of their batch norms. The head is taken over if
    at least one of its outputs is: its hidden layer, and of its last layer those outputs; the others keep the
    weights that `model` has. Otherwise all of the head keeps them.

    Args:
        model: network with new weights, before its training begins.
        start: weights of the earlier network.
        train: training genes, as `fit` is given them; their scale is that of the new training.
        loss: loss of the new training.
    """
    names = {id(module): name for name, module in model.named_modules()}
    last = names[id(model.output_layer())]
    head = last.rpartition(".")[0]
    kept = [index for index, row in enumerate(start.rows) if row is not None]
    state, earlier = model.state_dict(), safetensors.torch.load(start.weights)
    for name, values in earlier.items():
        if name.rpartition(".")[0] == last:
            state[name] = state[name].clone()
            state[name][kept] = values[[row for row in start.rows if row is not None]]
        elif kept or not name.startswith(f"{head}."):
            state[name] = values
    model.load_state_dict(state)
    scale = loss.scale(train.for_training().targets)
    is_kept = np.isin(np.arange(len(start.rows)), kept)
    # the inverse of what ends a training; new outputs are on the scale of training already
    mean, sd = np.where(is_kept, -scale.mean / scale.sd, 0), np.where(is_kept, 1 / scale.sd, 1)
    model.rescale_output(mean.tolist(), sd.tolist())
