"""When a search stops a trial early: ASHA, and the epochs at which it compares the trials."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

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


def new_scheduler(max_epochs: int) -> NanSafeASHA | None:
    """Return ASHA with rungs at a ninth and a third of the epochs; None where there is one epoch only.

    Args:
        max_epochs: largest number of epochs that a trial of the search can have.
    """
    if max_epochs <= 1:
        return None
    return NanSafeASHA(
        time_attr="epoch",
        max_t=max_epochs + 1,  # the last epoch ends a trial by itself, not by ASHA
        grace_period=max(1, max_epochs // _REDUCTION_FACTOR**2),
        reduction_factor=_REDUCTION_FACTOR,
    )
