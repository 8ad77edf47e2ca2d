"""Follow the trials of a search in MLflow."""

from __future__ import annotations

from typing import Any, Literal

import ray.tune
from ray.tune.experiment import Trial

from jobs.training.tracking import TrackedRun, Tracker, Tracking
from jobs.tuning.live_table import number_of


class TrialTracker(ray.tune.Callback):
    """Follows the trials of a search in MLflow; Ray Tune itself leaves logs for TensorBoard.

    Args:
        tracking: trackers that follow the search.
    """

    def __init__(self, tracking: Tracking) -> None:
        trackers: tuple[Tracker, ...] = ("mlflow",) if "mlflow" in tracking.trackers else ()
        self._tracking = Tracking(tracking.out_dir, trackers)
        self._runs: dict[str, TrackedRun] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Write the scores of an epoch; a trial that has failed has none."""
        if "epoch" not in result:
            return
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = self._tracking.open(f"trial_{number_of(trial)}", trial.config)
        scores = {name: value for name, value in result.items() if name == "score" or name.startswith("fold_")}
        self._runs[trial.trial_id].log(result["epoch"], scores)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """End the run of a trial."""
        self._close(trial, "FAILED" if (trial.last_result or {}).get("reason") else "FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """End the run of a trial whose process failed."""
        self._close(trial, "FAILED")

    def _close(self, trial: Trial, status: Literal["FINISHED", "FAILED"]) -> None:
        if trial.trial_id in self._runs:
            self._runs.pop(trial.trial_id).close(status)
