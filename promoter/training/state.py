"""What a training knows of itself: all that a later process needs to resume it.

Shapes: P processes, T targets.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from promoter.training.batches import mix_seed
from promoter.training.config import TrainingConfig
from promoter.training.distributed import DistributedContext


@dataclass
class TrainingState:
    """Hold all that a later process needs to resume a training as if it had not been interrupted.

    Attributes:
        epoch: number of finished epochs.
        history: one record per epoch: `epoch`, `learning_rate`, `train_mse`, `val_mse` and `val_pearson` (means
            over targets, in their units, whatever the loss and the weights; r of targets with at least
            `metrics.MIN_GENES_FOR_R` validation genes, NaN if there is none), `val_loss` (the mean over targets of
            the loss on the scale of training, weighted as the validation genes are, which chooses the best epoch;
            for the squared error the standardised MSE),
            `genes_per_second` of the training pass, `seconds` since the end of the epoch before (validation and
            `on_epoch` included).
        best_epoch: number of the epoch with the lowest `val_loss`; 0 before the first.
        model: weights after `epoch`, on the scale of training.
        best_model: weights after `best_epoch`, on the scale of training.
        optimizer: state of Adam.
        scheduler: state of the learning-rate schedule.
        partial: how far the epoch after `epoch` has come, as `PartialEpoch.gather` returns it; `model`,
            `optimizer` and `scheduler` are then those of that moment. Empty (the default) between two epochs.
    """

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    best_model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    partial: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialize; `from_bytes` reads it without unpickling code."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainingState:
        """Read what `to_bytes` wrote, onto the CPU."""
        return cls(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))

    @property
    def position(self) -> str:
        """How far the training has come, for messages: `epoch 3`, or `batch 20 of epoch 4`."""
        if self.partial:
            return f"batch {self.partial['batches']} of epoch {self.epoch + 1}"
        return f"epoch {self.epoch}"

    def is_finished(self, config: TrainingConfig) -> bool:
        """Tell whether the epochs are used up or early stopping has ended the training."""
        stalled = config.patience is not None and self.epoch - self.best_epoch >= config.patience
        return self.epoch >= config.epochs or stalled


@dataclass
class PartialEpoch:
    """Hold what this process has computed of an epoch.

    Attributes:
        batches: number of batches done.
        totals_2T: sums of loss and squared error over this process's genes so far, float64 (2, targets).
        values_T: number of values of each target so far, over all processes, int64 (targets,).
    """

    batches: int
    totals_2T: Tensor
    values_T: Tensor

    @classmethod
    def resume(
        cls, state: TrainingState, targets: int, device: torch.device, *, context: DistributedContext, seed: int
    ) -> PartialEpoch:
        """Return how far the next epoch of `state` has come, and set torch's generators as they were then.

        Args:
            state: state to resume.
            targets: number of targets.
            device: device of this process.
            context: this process among the others. If there are as many as there were, each has its own sums and
                generators again; if not, the first has the sums of all, and generators are seeded anew.
            seed: random seed of the training.
        """
        torch.manual_seed(mix_seed(seed, state.epoch + 1, context.rank))
        if not state.partial:
            zeros = torch.zeros(2, targets, dtype=torch.float64, device=device)
            return cls(0, zeros, torch.zeros(targets, dtype=torch.int64, device=device))
        batches, totals_P2T = state.partial["batches"], state.partial["totals"]
        generators_P = state.partial["generators"]
        if len(totals_P2T) == context.size and len(generators_P[0]) == len(_generators(device)):
            totals_2T = totals_P2T[context.rank]
            _set_generators(generators_P[context.rank], device)
        else:
            totals_2T = totals_P2T.sum(dim=0) * (context.rank == 0)
            torch.manual_seed(mix_seed(seed, state.epoch + 1, context.rank, batches))
        return cls(batches, totals_2T.to(device, copy=True), state.partial["values"].to(device, copy=True))

    def gather(self, context: DistributedContext) -> dict[str, Any]:
        """Return what all processes know of the epoch, for `TrainingState.partial`; each must call it."""
        device = self.totals_2T.device
        return {
            "batches": self.batches,
            "totals": context.gather(self.totals_2T).cpu(),
            "values": self.values_T.cpu(),
            "generators": context.gather(_generators(device).to(device)).cpu(),
        }


def _generators(device: torch.device) -> Tensor:
    """Return the states of torch's global generators on the CPU and on the device, uint8."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return torch.cat([torch.get_rng_state(), *on_gpu])


def _set_generators(states: Tensor, device: torch.device) -> None:
    size = len(torch.get_rng_state())
    torch.set_rng_state(states[:size].clone())  # torch 2.13 reads from the beginning of a tensor's storage
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[size:].clone(), device)
