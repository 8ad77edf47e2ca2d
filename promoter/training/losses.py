"""What training minimises. To add a loss, write a subclass of `Loss`; nothing else in the library changes.

    class AbsoluteError(Loss):
        '''Absolute error of standardised targets.'''

        name = "absolute_error"

        def sum(self, output_BT, target_BT):
            return (output_BT - target_BT).abs().sum(dim=0)

    fit(model, train, val, loss=AbsoluteError())

Shapes: B genes of a batch, N genes of a data set, T targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from promoter import metrics

LOSSES: dict[str, type[Loss]] = {}  # every subclass of Loss by its name; a later one of the same name replaces it


class TargetScale(NamedTuple):
    """Mean and SD by which each target is standardised, float64 (targets,)."""

    mean: np.ndarray
    sd: np.ndarray


class Loss(ABC):
    """Compare a network's output with the targets, each target by itself.

    The output is compared as it is and later predicted as it is: a loss that reads it through a link (the
    logarithm of a rate, say) leaves a network that predicts on the scale of that link.

    Attributes:
        name: key in `LOSSES`; a subclass without a name of its own is not registered.
        standardises_targets: True (the default) compares the output with targets of mean 0 and SD 1, and rescales
            the network's last layer to original units when training ends. False compares it with the targets in
            original units, as a loss of counts needs, and leaves the last layer as it is.
    """

    name: ClassVar[str] = ""
    standardises_targets: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register a subclass that has a name of its own."""
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            LOSSES[cls.name] = cls

    @abstractmethod
    def sum(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
        """Add up the loss over the genes of a batch.

        Args:
            output_BT: output of the network, float, shape (batch, targets).
            target_BT: targets on the same scale, float, shape (batch, targets).

        Returns:
            The sum of each target, shape (targets,), differentiable in `output_BT`. A sum of at least 0 is best:
            the schedule plateau compares losses by their ratio.
        """

    def scale(self, targets: np.ndarray) -> TargetScale:
        """Return the scale on which the network is trained; mean 0 and SD 1 leave targets in original units.

        Args:
            targets: targets of the training genes in original units, shape (genes, targets).
        """
        if self.standardises_targets:
            return standardisation(targets)
        return TargetScale(np.zeros(targets.shape[1]), np.ones(targets.shape[1]))

    def mean(self, predicted: np.ndarray, observed: np.ndarray, scale: TargetScale) -> np.ndarray:
        """Return the mean loss over genes on the scale of training; it chooses the best epoch.

        Args:
            predicted: predictions in original units, shape (genes, targets).
            observed: targets in original units, shape (genes, targets).
            scale: scale on which the network is trained.

        Returns:
            The mean of each target, float64, shape (targets,).
        """
        output_NT, target_NT = (
            torch.from_numpy((values.astype(np.float64) - scale.mean) / scale.sd)
            for values in (predicted, observed)
        )
        return (self.sum(output_NT, target_NT) / len(output_NT)).numpy()


class SquaredError(Loss):
    """Squared error of standardised targets."""

    name = "squared_error"

    def sum(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
        """Add up the squared errors of each target."""
        return (output_BT - target_BT).square().sum(dim=0)

    def mean(self, predicted: np.ndarray, observed: np.ndarray, scale: TargetScale) -> np.ndarray:
        """Return the MSE of each target in units of its variance: of one target, `val_mse` over the variance."""
        return metrics.mse(observed, predicted) / scale.sd**2


SQUARED_ERROR = SquaredError()  # the published recipe's, and the default of `fit`


def standardisation(targets: np.ndarray) -> TargetScale:
    """Compute mean and SD of each target; a constant target keeps its scale (SD 1).

    Args:
        targets: targets in original units, shape (genes, targets).
    """
    sd = targets.std(axis=0, dtype=np.float64)
    return TargetScale(targets.mean(axis=0, dtype=np.float64), np.where(sd > 0, sd, 1.0))
