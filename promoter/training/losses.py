"""What training minimises. To add a loss, write a subclass of `Loss`; nothing else in the library changes.

    class AbsoluteError(Loss):
        '''Absolute error of standardised targets.'''

        name = "absolute_error"

        def elementwise(self, output_BT, target_BT):
            return (output_BT - target_BT).abs()

    fit(model, train, val, loss=AbsoluteError())

Missing targets are NaN. A loss never sees them: `Loss.sum` and `Loss.mean` leave them out.

Shapes: B genes of a batch, N genes of a data set, T targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from promoter import metrics

_STAND_IN = 1.0  # for a missing target while its loss is computed: a valid count, probability and positive number
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
    def elementwise(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
        """Return the loss of each gene and target.

        Args:
            output_BT: output of the network, float, shape (batch, targets).
            target_BT: targets on the same scale, float, shape (batch, targets), without NaN.

        Returns:
            The losses, shape (batch, targets), differentiable in `output_BT`. Losses of at least 0 are best: the
            schedule plateau compares them by their ratio.
        """

    def sum(self, output_BT: Tensor, target_BT: Tensor, weights_B: Tensor | None = None) -> Tensor:
        """Add up the loss of each target over the genes that have a value.

        Args:
            output_BT: output of the network, float, shape (batch, targets).
            target_BT: targets on the same scale, float, shape (batch, targets), NaN where missing.
            weights_B: what each gene's loss is multiplied by, float, shape (batch,); None (the default) is 1.

        Returns:
            The sum of each target, shape (targets,); 0 for a target without any value.
        """
        known_BT = ~target_BT.isnan()
        loss_BT = self.elementwise(output_BT, torch.where(known_BT, target_BT, _STAND_IN))
        if weights_B is not None:
            loss_BT = loss_BT * weights_B[:, None]
        return torch.where(known_BT, loss_BT, 0.0).sum(dim=0)

    def scale(self, targets: np.ndarray) -> TargetScale:
        """Return the scale on which the network is trained; mean 0 and SD 1 leave targets in original units.

        Args:
            targets: targets of the training genes in original units, shape (genes, targets), NaN where missing.
        """
        if self.standardises_targets:
            return standardisation(targets)
        return TargetScale(np.zeros(targets.shape[1]), np.ones(targets.shape[1]))

    def mean(
        self,
        predicted: np.ndarray,
        observed: np.ndarray,
        scale: TargetScale,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the mean loss over observed genes on the scale of training; it chooses the best epoch.

        Args:
            predicted: predictions in original units, shape (genes, targets).
            observed: targets in original units, shape (genes, targets), NaN where missing.
            scale: scale on which the network is trained.
            weights: weights of the genes in the mean, shape (genes,); None (the default) weighs all alike.

        Returns:
            The mean of each target, float64, shape (targets,); NaN for a target without any value.
        """
        output_NT, target_NT = (
            torch.from_numpy((values.astype(np.float64) - scale.mean) / scale.sd)
            for values in (predicted, observed)
        )
        known_NT = ~target_NT.isnan()
        if weights is None:
            return (self.sum(output_NT, target_NT) / known_NT.sum(dim=0)).numpy()
        weights_N = torch.from_numpy(weights.astype(np.float64))
        total_T = (known_NT * weights_N[:, None]).sum(dim=0)
        return (self.sum(output_NT, target_NT, weights_N) / total_T).numpy()


class SquaredError(Loss):
    """Squared error of standardised targets."""

    name = "mse"

    def elementwise(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
        """Return the squared error of each gene and target."""
        return (output_BT - target_BT).square()

    def mean(
        self,
        predicted: np.ndarray,
        observed: np.ndarray,
        scale: TargetScale,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the MSE of each target in units of its variance: of one target, `val_mse` over the variance."""
        return metrics.mse(observed, predicted, weights) / scale.sd**2


SQUARED_ERROR = SquaredError()  # the published recipe's


class Poisson(Loss):
    """Poisson deviance: the network learns the expected value of counts, TPM and the like.

    Targets and output are in units of ln(1 + value), and the deviance is that of 1 + value from the exponential of
    the output. So the network predicts ln(1 + expected value), whatever the distribution: the estimate is
    consistent if the mean is right (Gourieroux, Monfort and Trognon 1984, doi:10.2307/1913472), and a value of 0
    needs no other rule. Predictions, scores, metrics and baselines share the unit, that of `transform='log1p'`.
    Compared with the likelihood of the counts themselves, expected values well below 1 weigh less.

    The values are divided by their mean, so that each target weighs alike, gradient clipping does not depend on
    the unit, and an untrained network starts from the mean.
    """

    name = "poisson"

    def elementwise(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
        """Return the deviance of each gene and target."""
        value_BT = target_BT.exp()
        return 2 * (value_BT * (target_BT - output_BT - 1) + output_BT.exp())

    def scale(self, targets: np.ndarray) -> TargetScale:
        """Return the logarithm of the mean of 1 + value, and an SD of 1; arguments as for `Loss.scale`."""
        mean = np.nanmean(np.exp(targets.astype(np.float64)), axis=0)
        return TargetScale(np.log(mean), np.ones(targets.shape[1]))


def standardisation(targets: np.ndarray) -> TargetScale:
    """Compute mean and SD of each target over the genes that have a value.

    Args:
        targets: targets in original units, shape (genes, targets), NaN where missing.

    Returns:
        The scale; a constant target keeps its own (SD 1), one without any value has mean 0 and SD 1.
    """
    mean, sd = np.zeros(targets.shape[1]), np.ones(targets.shape[1])
    for rows, columns in metrics.observed_groups(targets):
        observed = targets[rows][:, columns]
        mean[columns] = observed.mean(axis=0, dtype=np.float64)
        spread = observed.std(axis=0, dtype=np.float64)
        sd[columns] = np.where(spread > 0, spread, 1.0)
    return TargetScale(mean, sd)
