"""When a search stops a trial early: ASHA, and the epochs at which it compares the trials."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from promoter.training.config import TrainingConfig
from promoter.training.search_space import SearchSpace

_REDUCTION_FACTOR = 3  # ASHA keeps the best third at each rung


class NanSafeASHA(ASHAScheduler):
    """ASHA (Li et al. 2020, arXiv:1810.05934) that leaves out trials without a score, which have failed.

    Ray does not save its schedulers: a resumed search compares with the scores that its trials bring along.
    """

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Enter a trial, with its scores up to the epoch that an interrupted run has saved."""
        super().on_trial_add(tune_controller, trial)
        saved = trial.latest_checkpoint_result
        for epoch, score in enumerate(saved.metrics.get("scores", ()) if saved else (), start=1):
            self.on_trial_result(tune_controller, trial, {"epoch": epoch, "score": score})

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide whether a trial continues."""
        scored = np.isfinite(result["score"])
        return super().on_trial_result(tune_controller, trial, result) if scored else ASHAScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enter the score of a trial that has ended by itself."""
        if np.isfinite(result["score"]):
            super().on_trial_complete(tune_controller, trial, result)


class ScheduleAwareASHA(FIFOScheduler):
    """ASHA among trials that are equally far in the same learning-rate schedule.

    A network is worth less while its learning rate is high. Under plateau, trials are compared at a ninth and a
    third of the epochs. Under one_cycle the rate peaks at 30% of them: a trial is compared once, after two thirds,
    with those of as many epochs. Compared with plateau, such a trial would lose before its rate has fallen.

    Args:
        space: space of the search, which says what schedule a trial has.
        max_epochs: largest number of epochs that a trial of the search can have.
    """

    def __init__(self, space: SearchSpace, max_epochs: int) -> None:
        super().__init__()
        self.space, self.max_epochs = space, max_epochs
        self._metric_and_mode: tuple[str | None, str | None] = (None, None)
        self._groups: dict[tuple[str, int], NanSafeASHA | None] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Keep what the trials are compared by."""
        self._metric_and_mode = metric, mode
        return super().set_search_properties(metric, mode, **spec)

    def _group(self, trial: Trial) -> NanSafeASHA | None:
        """Return the ASHA of the trials that this one is compared with; None where there is nothing to stop."""
        training = self.space.settings(trial.config).training
        one_cycle = training.schedule == "one_cycle"
        key = training.schedule, training.epochs if one_cycle else self.max_epochs
        if key not in self._groups:
            metric, mode = self._metric_and_mode
            self._groups[key] = _new_asha(training, key[1], metric=metric, mode=mode)
        return self._groups[key]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Enter a trial among those of its schedule."""
        if (asha := self._group(trial)) is not None:
            asha.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide whether a trial continues."""
        asha = self._group(trial)
        return TrialScheduler.CONTINUE if asha is None else asha.on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enter the score of a trial that has ended by itself."""
        if (asha := self._group(trial)) is not None:
            asha.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Forget a trial that never ran."""
        if (asha := self._group(trial)) is not None:
            asha.on_trial_remove(tune_controller, trial)


def _new_asha(
    training: TrainingConfig, max_epochs: int, *, metric: str | None, mode: str | None
) -> NanSafeASHA | None:
    """Return ASHA for the trials of a schedule; None where there is one epoch only."""
    if max_epochs <= 1:
        return None
    first = max_epochs * 2 // 3 if training.schedule == "one_cycle" else max_epochs // _REDUCTION_FACTOR**2
    return NanSafeASHA(
        time_attr="epoch",
        metric=metric,
        mode=mode,
        max_t=max_epochs + 1,  # the last epoch ends a trial by itself, not by ASHA
        grace_period=max(1, first),
        reduction_factor=_REDUCTION_FACTOR,
    )
