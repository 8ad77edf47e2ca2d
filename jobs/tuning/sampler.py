"""Draw the configurations of a search from the trials that there are, the only memory of a search."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray.tune
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.search import Searcher, SearchGenerator

from jobs.tuning.live_table import number_of
from promoter.training.search_space import SearchSpace
from promoter.training.study import RANDOM_DRAWS, new_study

MAX_PENDING = 64  # trials that wait for a node at the same time: each holds a placement group open


class KnownTrials(ray.tune.Callback):
    """Holds Ray Tune's list of the trials: those of an interrupted run, and those drawn since."""

    def __init__(self) -> None:
        self.trials: Sequence[Trial] = ()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Take the list, which Ray Tune extends; it does so before it asks for the first trial."""
        self.trials = trials


class Sampler(Searcher):
    """Draws configurations by optuna, and only valid ones, which `OptunaSearch` of Ray cannot.

    A draw depends on the trials before it and their results alone, so an interrupted search draws what it would
    have drawn anyway.

    Args:
        space: space that the configurations are drawn from.
        algorithm: `tpe` or `random`; without effect where `points` are given.
        points: configurations to try one after the other; None: drawn by `algorithm`.
        known: trials of the search.
        larger_is_better: true if the score is to be maximised.
        seed: random seed of the draws.
    """

    def __init__(
        self,
        space: SearchSpace,
        algorithm: str,
        *,
        points: list[dict[str, Any]] | None,
        known: KnownTrials,
        larger_is_better: bool,
        seed: int,
    ) -> None:
        super().__init__(metric="score", mode="max" if larger_is_better else "min")
        self.space, self.algorithm, self.points = space, algorithm, points
        self.known, self.larger_is_better, self.seed = known, larger_is_better, seed

    @property
    def independent_draws(self) -> int:
        """Number of draws from the first on that look at no results, so that nothing is lost by drawing early."""
        return RANDOM_DRAWS if self.points is None and self.algorithm == "tpe" else sys.maxsize

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Draw the next configuration."""
        trials = sorted(self.known.trials, key=number_of)
        if self.points is not None:
            return dict(self.points[len(trials)])
        direction = "maximize" if self.larger_is_better else "minimize"
        study = new_study(self.algorithm, direction, self.seed, draws=len(trials))
        for trial in trials:
            last, state = trial.last_result, _state(trial)
            scores = {last["epoch"]: last["score"]} if state in (TrialState.COMPLETE, TrialState.PRUNED) else {}
            study.add_trial(self.space.past_trial(trial.config, scores, state))
        return self.space.ask(study)[1].drawn

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the next draw looks at the trial itself."""


def _state(trial: Trial) -> TrialState:
    """Return how optuna calls what has become of a trial."""
    if not trial.is_finished():
        return TrialState.RUNNING
    last = trial.last_result
    if trial.status == Trial.ERROR or not np.isfinite(last.get("score", float("nan"))):
        return TrialState.FAIL
    return TrialState.COMPLETE if last["complete"] else TrialState.PRUNED


class TrialSource(SearchGenerator):
    """Gives Ray Tune the trials of a search, and counts by the trials that there are.

    Ray's own generator and concurrency limiter count by files of theirs. A kill or a failed upload can leave them
    older or newer than the trials: a search then ran more trials than asked for, fewer, or waited for ever.

    An autoscaler starts nodes for the trials that wait. But each of these was drawn before the results that came
    since, so no more are drawn than may start once the cluster has grown.

    Args:
        sampler: draws the configurations.
        max_concurrent_trials: maximum number of unfinished trials; None: as many as fit.
        capacity: number of trials that the cluster runs at the same time at its largest, without effect under
            `max_concurrent_trials`; None: not known, in which case only draws that look at no results are made
            early.
    """

    def __init__(self, sampler: Sampler, max_concurrent_trials: int | None, capacity: int | None) -> None:
        super().__init__(sampler)
        self.known, self.sampler = sampler.known, sampler
        self.max_concurrent_trials, self.capacity = max_concurrent_trials, capacity

    def add_configurations(self, experiments: Any) -> None:
        """Take what the trials have in common; Ray asks for it again if it has failed to restore the trials.

        Raises:
            RuntimeError: the trials could not be restored.
        """
        if self.total_samples:
            raise RuntimeError(
                "Ray Tune could not restore the trials of the interrupted search; to start anew, remove the "
                "folder search in --out"
            )
        super().add_configurations(experiments)

    def is_finished(self) -> bool:
        """Tell whether there are as many trials as asked for."""
        self.set_state({**self.get_state(), "counter": len(self.known.trials)})
        return super().is_finished()

    def next_trial(self) -> Trial | None:
        """Return the next trial; None where all are drawn, or where the next would be drawn too early."""
        return super().next_trial() if self._may_draw() else None

    def _may_draw(self) -> bool:
        unfinished = [trial for trial in self.known.trials if not trial.is_finished()]
        if self.max_concurrent_trials is not None:
            return len(unfinished) < self.max_concurrent_trials
        if all(trial.status != Trial.PENDING for trial in unfinished):
            return True  # one waits at any time, and starts as soon as another ends
        if self.capacity is not None:
            return len(unfinished) < self.capacity
        return len(self.known.trials) < self.sampler.independent_draws

    def has_checkpoint(self, dirpath: str) -> bool:
        """Return False: nothing is restored."""
        return False

    def save_to_dir(self, dirpath: str, session_str: str) -> None:
        """Write nothing: Ray Tune writes the trials."""
