"""The trials of a search, as they run in Tune's processes: a configuration on all folds, epoch by epoch."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray.tune
import torch
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT

from jobs.cli.console import with_flags
from jobs.ray_runtime.model_cache import task_device
from jobs.tuning.shared_gpu import memory_is_taken, release_memory, wait_for_memory
from promoter.device_errors import is_device_error, is_out_of_memory
from promoter.errors import InputError, NetworkError, TrainingDivergedError
from promoter.models.code import ModelCode
from promoter.models.external_training import explained
from promoter.models.weights import SerializedTrunk
from promoter.training import Examples
from promoter.training.allocator import keep_freed_memory
from promoter.training.cross_validation import CrossValidation
from promoter.training.search_space import SearchSpace

DEVICE_ERROR = "GPU error on node "  # begins the message of a trial that failed by its GPU
_STATE = "states.pt"
_SCORES = "scores.json"


@dataclass(frozen=True)
class TrialJob:
    """What all trials of a search share.

    Attributes:
        examples: genes that the search may look at, without those of the test set.
        splits: for each fold the split of these genes, `train` or `val`; None for a gene that it leaves out.
        space: space that configurations are drawn from.
        metric: score of a configuration, a mean over folds and targets.
        seeds: number of networks for each fold.
        resources: CPUs and GPUs of a trial, as Ray names them.
        folder: Ray's folder of the trials.
        seconds_per_checkpoint: minimum time between two checkpoints of a trial; 0 (default): one an epoch.
        trunk: weights of a pretrained network whose trunk is trained too; None for any other.
        code: code of an external network; None for any other.
    """

    examples: Examples
    splits: list[np.ndarray]
    space: SearchSpace
    metric: Literal["pearson", "mse"]
    seeds: int
    resources: dict[str, float]
    folder: str
    seconds_per_checkpoint: float = 0
    trunk: SerializedTrunk | None = None
    code: ModelCode | None = None

    @property
    def larger_is_better(self) -> bool:
        """Tell whether the metric is to be maximised."""
        return self.metric == "pearson"

    def begin(self, drawn: Mapping[str, Any], device: str | torch.device, saved: bytes | None) -> CrossValidation:
        """Start training a configuration, or resume it.

        Args:
            drawn: values of the settings that the space has.
            device: device to train on.
            saved: states of an earlier process, as `CrossValidation.to_bytes` returns them; None: start.
        """
        settings = self.space.settings(drawn)
        return CrossValidation(
            self.examples,
            self.splits,
            settings.model,
            training=settings.training,
            metric=self.metric,
            seeds=self.seeds,
            device=device,
            saved=saved,
            trunk=self.trunk,
            code=self.code,
        )


class CrossValidationTrial(ray.tune.Trainable):
    """A trial in a process of its own; Tune calls `step` for each epoch."""

    def setup(self, config: dict[str, Any], job: TrialJob | None = None) -> None:
        """Keep the configuration; `config` holds the values drawn."""
        keep_freed_memory()
        assert job is not None  # noqa: S101 # given by with_parameters
        self.job, self.drawn = job, config
        self.device = task_device()
        self.training: CrossValidation | None = None
        release_memory()  # of the trial before, for those that share the GPU
        self.checkpointed = time.monotonic()
        self.saved: bytes | None = None
        self.scores: list[float] = []  # by epoch; with these a resumed search knows what ASHA compared

    @property
    def share(self) -> float:
        """The trial's share of a GPU; 1 for one or more of its own."""
        return min(1.0, self.job.resources.get("GPU", 0) or 1.0)

    def step(self) -> dict[str, Any]:
        """Train for an epoch."""
        try:
            with explained(self.job.code):
                if self.training is None:
                    self.training = self.job.begin(self.drawn, self.device, self.saved)
                self.training.advance()
        except Exception as error:  # _permanent_failure raises it again if a retry may succeed
            if isinstance(error, torch.OutOfMemoryError) and memory_is_taken(self.share):
                self.training = error.__traceback__ = None  # whose frames hold tensors
                raise RuntimeError(
                    f"{wait_for_memory(self.share)} ({' '.join(str(error).split())[:150]})"
                ) from None
            return {**_permanent_failure(error), "scores": tuple(self.scores), "done": True}
        scores, complete = self.training.fold_scores(), self.training.is_finished()
        epoch, score = self.training.epoch, float(np.mean(scores))
        self.scores[epoch - 1 :] = [score]  # no epoch is new where the process was lost after the last
        return {
            "score": score,
            "scores": tuple(self.scores),  # a list would become a histogram of TensorBoard
            "epoch": epoch,
            "complete": complete,
            "done": complete,
            SHOULD_CHECKPOINT: time.monotonic() - self.checkpointed >= self.job.seconds_per_checkpoint,
            **{f"fold_{i}": score for i, score in enumerate(scores, start=1)},
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the states of all networks, if training has begun."""
        if self.training is not None:
            (Path(checkpoint_dir) / _STATE).write_bytes(self.training.to_bytes())
            (Path(checkpoint_dir) / _SCORES).write_text(json.dumps(self.scores))
        self.checkpointed = time.monotonic()

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Resume from what `save_checkpoint` wrote."""
        self.training, self.saved = None, (Path(checkpoint) / _STATE).read_bytes()
        self.scores = json.loads((Path(checkpoint) / _SCORES).read_text())

    def restore(self, checkpoint_path: Any) -> None:
        """Resume from a checkpoint; where it is gone, begin anew.

        Ray removes a checkpoint as soon as there is a newer one, and only then writes down that there is. A kill
        in between leaves a search that looks for the older one.
        """
        try:
            super().restore(checkpoint_path)
        except (FileNotFoundError, ValueError):  # the latter is Ray's, for a folder that is not there
            self.training, self.saved, self.scores = None, None, []

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process, since a new process would cost seconds."""
        self.setup(new_config)  # with_parameters adds the job
        return True


def _permanent_failure(error: Exception) -> dict[str, Any]:
    """Return the report for a failure that a retry would not fix; re-raise any other.

    Ray Tune ends the process of a trial that raises, and starts another for it.
    """
    out_of_memory = is_out_of_memory(error)
    if is_device_error(error) and not out_of_memory:
        raise RuntimeError(f"{DEVICE_ERROR}{platform.node()}: {' '.join(str(error).split())}") from error
    if not out_of_memory and not isinstance(error, TrainingDivergedError | NetworkError | InputError):
        raise error
    return {"score": float("nan"), "complete": False, "reason": " ".join(with_flags(str(error)).split())[:300]}


def last_states(trial: Trial, job: TrialJob) -> CrossValidation:
    """Return the networks of a trial as its last checkpoint has them.

    Raises:
        RuntimeError: the trial has no checkpoint.
    """
    if trial.checkpoint is None:
        raise RuntimeError(f"trial {trial.trial_id} has left no checkpoint in {job.folder}")
    with trial.checkpoint.as_directory() as folder:
        return job.begin(trial.config, "cpu", (Path(folder) / _STATE).read_bytes())
