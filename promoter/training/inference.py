"""Predict many sequences, on one device or shared among processes, and compare predictions with targets.

Shapes: B genes of a batch, T targets.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from promoter import metrics
from promoter.models.cnn import evaluating
from promoter.models.precision import full_float32
from promoter.models.pretrained import genes_per_pass
from promoter.models.strands import other_strand, reads_both_strands
from promoter.models.trainable import device_of
from promoter.training.batches import Examples, as_model_input
from promoter.training.distributed import DistributedContext

_GENES_PER_PREDICTION = 32  # small enough for a CPU's cache; fixed, so that results do not depend on it


class Evaluation(NamedTuple):
    """Predictions, float32 (N, targets), and each metric over all genes, (targets,)."""

    predictions: np.ndarray
    mse: np.ndarray
    pearson: np.ndarray
    spearman: np.ndarray


def predict(
    model: nn.Module,
    tokens: np.ndarray,
    *,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    distributed: bool = False,
    both_strands: bool = False,
) -> np.ndarray:
    """Predict every sequence, in order.

    Args:
        model: network from one-hot (batch, 4, length) to (batch, targets); run in evaluation mode.
        tokens: uint8, shape (N, length).
        device: device of the computation, which holds the model; None (the default) takes that of its parameters.
        precision: fp32 (the default), or bf16 for mixed precision.
        distributed: True shares the work among the processes of `torch.distributed`, all of which must call this
            and get the complete result; False (the default) computes all of it in this process.
        both_strands: True averages with the predictions of the reverse complements of what the model sees; False
            is the default. A network that reads both strands itself is run once.

    Returns:
        float32, shape (N, targets), in the model's units.

    Raises:
        ValueError: `tokens` holds no sequence.
    """
    device = device_of(model, device)
    with full_float32():
        context = DistributedContext() if distributed else None
        strands = [tokens]
        if both_strands and not reads_both_strands(model):
            strands.append(other_strand(model, tokens))
        of_strands = [
            predict_on(model, strand, device=device, precision=precision, context=context) for strand in strands
        ]
        return of_strands[0] if len(of_strands) == 1 else np.stack(of_strands).mean(axis=0)


def evaluate(
    model: nn.Module,
    examples: Examples,
    *,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    distributed: bool = False,
) -> Evaluation:
    """Predict all examples and compare with their targets, in the model's units, over all genes at once.

    The other arguments are those of `predict`.
    """
    predictions = predict(model, examples.tokens, device=device, precision=precision, distributed=distributed)
    observed = examples.targets
    return Evaluation(
        predictions,
        metrics.mse(observed, predictions),
        metrics.pearson(observed, predictions),
        metrics.spearman(observed, predictions),
    )


@torch.no_grad()  # not inference mode, whose tensors a network may keep and then use for gradients
def predict_on(
    model: nn.Module,
    tokens: np.ndarray,
    *,
    device: torch.device,
    precision: str,
    context: DistributedContext | None,
) -> np.ndarray:
    """Predict fixed batches, dealt to the processes in turn; adding up zeros elsewhere gathers them exactly."""
    rank, size = (context.rank, context.size) if context else (0, 1)
    outputs: Tensor | None = None
    with evaluating(model), autocast(device, precision):
        # so many, whatever the network, that results do not depend on how the genes are dealt out
        genes = (
            _GENES_PER_PREDICTION if tokens.ndim > 2 else genes_per_pass(tokens.shape[1], _GENES_PER_PREDICTION)
        )
        for index, start in enumerate(range(0, len(tokens), genes)):
            if index % size != rank and outputs is not None:
                continue  # the first batch is for all: it tells the number of targets
            rows = slice(start, start + genes)
            batch = tokens[rows, 0] if tokens.ndim > 2 else tokens[rows]
            predicted_BT = model(as_model_input(torch.tensor(batch, device=device))).float()
            if outputs is None:
                outputs = torch.zeros(len(tokens), predicted_BT.shape[-1], device=device)
            if index % size == rank:
                outputs[rows] = predicted_BT
    if outputs is None:
        raise ValueError("no sequence to predict: tokens has shape (0, ...)")
    if context:
        context.sum(outputs)
    return outputs.cpu().numpy()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a network computes: mixed precision for bf16, none for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
