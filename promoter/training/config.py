"""How a network is trained; imports nothing heavy, so that a command line with these settings starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

from promoter.errors import InputError
from promoter.limits import require_limits


@dataclass(frozen=True)
class TrainingConfig:
    """Set how a network is trained; the defaults are the published recipe.

    Args:
        epochs: maximum number of passes over the training genes.
        batch_size: number of genes in one step of the optimiser, over all workers together.
        learning_rate: step size of Adam: the initial one under the schedule plateau, the maximum under one_cycle.
        weight_decay: L2 penalty of Adam.
        schedule: plateau (the default) lowers the learning rate when the validation loss stops falling; one_cycle
            raises it over the first 30% of all steps and lowers it to almost 0 over the rest, whatever the
            validation loss does, and trains all epochs.
        loss: mse (the default), the squared error of standardised targets; poisson, the Poisson deviance of
            counts, TPM and other values of at least 0 that are not logarithms: the network predicts
            ln(1 + expected value), and predictions, scores, metrics and baselines are in this unit.
        lr_patience: number of epochs without a lower validation loss before plateau lowers the learning rate.
        lr_factor: factor by which plateau multiplies the learning rate, between 0 and 1.
        early_stopping: number of epochs without a lower validation loss before training ends; null never stops
            early. Under the schedule one_cycle it has no effect: the network is at its best where the learning
            rate has fallen, which is at the end.
        gradient_clip: maximum norm of the gradient; a larger gradient is scaled down to it.
        reverse_complement: probability that a promoter is shown reverse-complemented, 0 to 1.
        jitter: maximum shift of a promoter in bases, in either direction; 0 (the default) shifts nothing.
        mixup: largest part of another promoter that is mixed into each one, 0 to 0.5, sequence and targets alike;
            0 (the default) mixes nothing. A target that either lacks counts as missing. It helps where values are
            noisy and promoters few. Zhang et al. 2018, arXiv:1710.09412, with a uniform part.
        precision: fp32 (the default), or bf16 for mixed precision.
        compile: compile the network with torch.compile, which needs a C++ compiler on CPUs; off by default.
        seed: random seed of initial weights, order of genes, augmentation, dropout and bootstrap.

    Raises:
        InputError: a value is out of its range; the message names the setting and the value.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    loss: Literal["mse", "poisson"] = "mse"
    lr_patience: int = 5
    lr_factor: float = 0.5
    early_stopping: int | None = 20
    gradient_clip: float = 1.0
    reverse_complement: float = 0.5
    jitter: int = 0
    mixup: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise InputError if a value is out of its range."""
        require_limits(vars(self), "TrainingConfig")
        if self.schedule not in ("plateau", "one_cycle"):
            self._refuse("schedule", "must be plateau or one_cycle")
        if self.loss not in ("mse", "poisson"):
            self._refuse("loss", "must be mse or poisson")
        if self.precision not in ("fp32", "bf16"):
            self._refuse("precision", "must be fp32 or bf16")
        if self.mixup and self.loss == "poisson":
            self._refuse("mixup", "goes with the loss mse: the mean of two logarithms is not that of the counts")

    @property
    def patience(self) -> int | None:
        """Number of epochs without a lower validation loss that ends the training; None where all are trained."""
        return None if self.schedule == "one_cycle" else self.early_stopping

    def _refuse(self, name: str, problem: str) -> NoReturn:
        raise InputError(problem, setting=f"TrainingConfig.{name}", value=getattr(self, name))
