"""Training the same configuration on several folds side by side, an epoch of each at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from promoter.models.build import Learner, NetworkConfig, new_learner
from promoter.models.pretrained import PackedTrunk
from promoter.training import Examples, TrainingConfig, TrainingState, epochs, take_best

Metric = Literal["pearson", "mse"]


class CrossValidation:
    """One network for each fold and seed, trained in step.

    What is reported after an epoch is what `jobs.train` would have delivered had it ended there: of each
    network the metric of its best epoch so far by validation loss.

    Args:
        examples: all genes that may be looked at.
        fold_of_gene: int, shape (genes,): the fold that validates on the gene; -1 for genes that all learn from.
        model: the network.
        training: the recipe; seed s of `seeds` trains with `training.seed + s`.
        metric: `pearson` or `mse`; a mean over targets, in original units.
        seeds: networks a fold.
        device: of all.
        saved: what `to_bytes` returned, to go on from.
        trunk: of a pretrained network; None for a head that is trained on embeddings.
    """

    def __init__(
        self,
        examples: Examples,
        fold_of_gene: np.ndarray,
        model: NetworkConfig,
        training: TrainingConfig,
        metric: Metric = "pearson",
        seeds: int = 1,
        device: str | torch.device = "cpu",
        saved: bytes | None = None,
        trunk: PackedTrunk | None = None,
    ) -> None:
        self.folds, self.seeds, self.metric = int(fold_of_gene.max()) + 1, seeds, metric
        self.training = training
        members = [(fold, seed) for fold in range(self.folds) for seed in range(seeds)]
        self.states = [TrainingState() for _ in members] if saved is None else _unpack(saved)
        self.networks: list[Learner] = []
        self._learned: list[Examples] = []
        self._steps: list[Iterator[TrainingState]] = []
        for (fold, seed), state in zip(members, self.states, strict=True):
            recipe = replace(training, seed=training.seed + seed)
            torch.manual_seed(recipe.seed)
            network = new_learner(model, examples.tokens.shape[-1], trunk)
            held_out = fold_of_gene == fold
            learned, validated = (
                Examples(examples.tokens[some], examples.targets[some]) for some in (~held_out, held_out)
            )
            self.networks.append(network)
            self._learned.append(learned)
            self._steps.append(epochs(network, learned, validated, recipe, device, state))

    @property
    def epoch(self) -> int:
        """Epochs of the network that has trained longest."""
        return max(state.epoch for state in self.states)

    def advance(self) -> bool:
        """Train each network that is not finished for an epoch; tell whether any was not.

        Raises:
            TrainingDivergedError: a loss is no longer a number.
        """
        moved = [next(steps, None) is not None for steps in self._steps]
        return any(moved)

    def is_finished(self) -> bool:
        """Tell whether every network is."""
        return all(state.is_finished(self.training) for state in self.states)

    def fold_scores(self) -> list[float]:
        """Return the metric of each fold, a mean over its seeds."""
        found = [state.history[state.best_epoch - 1][f"val_{self.metric}"] for state in self.states]
        return np.reshape(found, (self.folds, self.seeds)).mean(axis=1).tolist()

    def to_bytes(self) -> bytes:
        """Serialise all states; read back without unpickling code."""
        buffer = io.BytesIO()
        torch.save([vars(state) for state in self.states], buffer)
        return buffer.getvalue()

    def best_networks(self) -> list[Learner]:
        """Return each network with its best epoch's weights, in original units; ends the training."""
        for network, state, learned in zip(self.networks, self.states, self._learned, strict=True):
            take_best(network, state, learned)
        return self.networks


def _unpack(saved: bytes) -> list[TrainingState]:
    held = torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
    return [TrainingState(**values) for values in held]
