"""Train the same configuration on several folds side by side, one epoch of each per step."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from promoter.errors import InputError
from promoter.metrics import MIN_GENES_FOR_R
from promoter.models.build import Learner, NetworkConfig, build_learner
from promoter.models.code import ModelCode
from promoter.models.weights import SerializedTrunk
from promoter.training.batches import Examples
from promoter.training.config import TrainingConfig
from promoter.training.loop import restore_best_weights, train_epochs
from promoter.training.losses import LOSSES, Loss
from promoter.training.state import TrainingState

Metric = Literal["pearson", "mse"]


def require_scorable(
    targets: np.ndarray, splits: Sequence[np.ndarray], metric: Metric, names: Sequence[str]
) -> None:
    """Check that each fold has enough values of each target to be scored by.

    Args:
        targets: targets of the genes, shape (genes, targets), NaN where missing.
        splits: for each fold the split of each gene, as for `CrossValidation`.
        metric: score of a configuration.
        names: names of the targets, for the message.

    Raises:
        InputError: a correlation is to be computed of fewer than `MIN_GENES_FOR_R` genes.
    """
    if metric != "pearson":
        return
    for fold, split in enumerate(splits):
        values = (~np.isnan(targets[split == "val"])).sum(axis=0)
        if (fewest := int(values.min())) < MIN_GENES_FOR_R:
            raise InputError(
                f"fold {fold + 1} validates on {fewest} values of target {names[int(values.argmin())]}, and r of "
                f"fewer than {MIN_GENES_FOR_R} says nothing",
                setting="metric",
                value=metric,
                fix="give `metric='mse'`, or make fewer and larger folds",
            )


class CrossValidation:
    """Train one network for each fold and seed, all at the same epoch.

    The scores after an epoch are those of the networks that training would have delivered had it ended there: of
    each network the metric of its best epoch so far by validation loss.

    Args:
        examples: all genes that may take part.
        splits: for each fold the split of each gene, `train` or `val`; None for a gene that it leaves out.
        model: config of the network.
        training: how to train; seed s of `seeds` trains with `training.seed + s`.
        metric: `pearson` (the default) or `mse`; a mean over targets, in original units.
        seeds: number of networks per fold (default 1).
        device: device that holds all networks (default "cpu").
        saved: bytes that `to_bytes` returned, to resume; None (the default) starts anew.
        trunk: weights of a pretrained network; None (the default) for a CNN, or for a head that is trained on
            embeddings.
        code: code of an external network; None (the default) for any other.
        loss: what is minimised; None (the default) is the one that `training` names.
    """

    def __init__(
        self,
        examples: Examples,
        splits: Sequence[np.ndarray],
        model: NetworkConfig,
        *,
        training: TrainingConfig,
        metric: Metric = "pearson",
        seeds: int = 1,
        device: str | torch.device = "cpu",
        saved: bytes | None = None,
        trunk: SerializedTrunk | None = None,
        code: ModelCode | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.folds, self.seeds, self.metric = len(splits), seeds, metric
        self.training, self.loss = training, loss or LOSSES[training.loss]()
        members = [(fold, seed) for fold in range(self.folds) for seed in range(seeds)]
        states = (
            torch.load(io.BytesIO(saved), weights_only=True, map_location="cpu") if saved else [{}] * len(members)
        )
        self.states = [TrainingState(**values) for values in states]
        self.networks: list[Learner] = []
        self._train: list[Examples] = []
        self._steps: list[Iterator[TrainingState]] = []
        for (fold, seed), state in zip(members, self.states, strict=True):
            config = replace(training, seed=training.seed + seed)
            torch.manual_seed(config.seed)
            network = build_learner(model, examples.tokens.shape[-1], trunk, code)
            train, val = (examples.rows(splits[fold] == name) for name in ("train", "val"))
            self.networks.append(network)
            self._train.append(train)
            self._steps.append(
                train_epochs(network, train, val, config, device=device, state=state, loss=self.loss)
            )

    @property
    def epoch(self) -> int:
        """Number of epochs of the network that has trained longest."""
        return max(state.epoch for state in self.states)

    def advance(self) -> bool:
        """Train each unfinished network for one epoch; tell whether any was unfinished.

        Raises:
            TrainingDivergedError: a loss is no longer a number.
        """
        advanced = [next(steps, None) is not None for steps in self._steps]
        return any(advanced)

    def is_finished(self) -> bool:
        """Tell whether every network has finished training."""
        return all(state.is_finished(self.training) for state in self.states)

    def fold_scores(self) -> list[float]:
        """Return the metric of each fold, a mean over its seeds."""
        scores = [state.history[state.best_epoch - 1][f"val_{self.metric}"] for state in self.states]
        return np.reshape(scores, (self.folds, self.seeds)).mean(axis=1).tolist()

    def to_bytes(self) -> bytes:
        """Serialize all states; read back without unpickling code."""
        buffer = io.BytesIO()
        torch.save([vars(state) for state in self.states], buffer)
        return buffer.getvalue()

    def best_networks(self) -> list[Learner]:
        """Return each network with its best epoch's weights, in original units; ends the training."""
        for network, state, train in zip(self.networks, self.states, self._train, strict=True):
            restore_best_weights(network, state, train, self.loss)
        return self.networks
