"""Draw the configurations of a search, and tell optuna what came of them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune.search import Searcher

from promoter.training.search_space import SearchSpace, new_study


class Sampler(Searcher):
    """Draws configurations by optuna, and only valid ones, which `OptunaSearch` of Ray cannot.

    Args:
        space: space that the configurations are drawn from.
        algorithm: `tpe` or `random`; without effect where `points` are given.
        points: configurations to try one after the other; None: drawn by `algorithm`.
        larger_is_better: true if the score is to be maximised.
        seed: random seed of the draws.
    """

    def __init__(
        self,
        space: SearchSpace,
        algorithm: str,
        *,
        points: list[dict[str, Any]] | None,
        larger_is_better: bool,
        seed: int,
    ) -> None:
        super().__init__(metric="score", mode="max" if larger_is_better else "min")
        self.space, self.points = space, points
        self.study = new_study(
            "random" if algorithm == "random" else "tpe", "maximize" if larger_is_better else "minimize", seed
        )
        self.open_trials: dict[str, optuna.Trial] = {}
        self.last_epochs: dict[str, int] = {}  # trial -> the last epoch that optuna knows of
        self.points_drawn = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is text
        """Draw the next configuration."""
        if self.points is not None:
            if self.points_drawn == len(self.points):
                return Searcher.FINISHED
            self.points_drawn += 1
            return dict(self.points[self.points_drawn - 1])
        self.open_trials[trial_id], settings = self.space.ask(self.study)
        return settings.drawn

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report the score so far to optuna."""
        epoch = result.get("epoch", 0)
        if (
            trial_id in self.open_trials
            and np.isfinite(result["score"])
            and epoch > self.last_epochs.get(trial_id, 0)
        ):
            self.open_trials[trial_id].report(result["score"], epoch)
            self.last_epochs[trial_id] = epoch

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report the end of a trial to optuna."""
        trial = self.open_trials.pop(trial_id, None)
        if trial is None:
            return
        if error or not result or not np.isfinite(result["score"]):
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif result["complete"]:
            self.study.tell(trial, result["score"])
        else:  # stopped: optuna ranks it by how far it came, then by its score there
            self.on_trial_result(trial_id, result)
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Write the state, with which an interrupted search is resumed."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        """Read the state that `save` wrote."""
        # Ray keeps its searchers so, beside its own pickles of the run
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))  # noqa: S301
