"""The trials of a search, and what draws their configurations: what runs in Tune's processes."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import ray
import ray.train
import ray.tune
import torch
from ray import ActorID, PlacementGroupID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined] # generated, untyped
from ray.train import Checkpoint, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer, get_device
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import PlacementGroup, remove_placement_group

from jobs.ray_runtime.train_controller import Run, read_checkpoint, report
from promoter import storage
from promoter.models.pretrained import PackedTrunk
from promoter.training import Examples, TrainingDivergedError
from promoter.training.allocator import KEEP_FREED_MEMORY, keep_freed_memory
from promoter.training.cross_validation import CrossValidation
from promoter.training.search_space import SearchSpace, new_study

MAX_FAILURES = 2  # deaths of a trial's worker before the trial counts as failed
_STATE = "states.pt"


@dataclass(frozen=True)
class TrialJob:
    """What every trial needs; `search` is the folder of the trials, `trunk` of a pretrained network not frozen."""

    examples: Examples
    fold_of_gene: np.ndarray
    space: SearchSpace
    metric: Literal["pearson", "mse"]
    seeds: int
    scaling: ScalingConfig
    search: str
    trunk: PackedTrunk | None = None

    @property
    def in_one_process(self) -> bool:
        """Tell whether a trial needs no DDP."""
        return self.scaling.num_workers == 1

    @property
    def larger_is_better(self) -> bool:
        """Tell which way the metric goes."""
        return self.metric == "pearson"

    def begin(self, drawn: Mapping[str, Any], device: str | torch.device, saved: bytes | None) -> CrossValidation:
        """Start or go on with the training of a configuration."""
        chosen = self.space.settings(drawn)
        return CrossValidation(
            self.examples,
            self.fold_of_gene,
            chosen.model,
            chosen.training,
            self.metric,
            self.seeds,
            device,
            saved,
            self.trunk,
        )


def _record(trial: CrossValidation) -> dict[str, Any]:
    """Return what a trial reports after an epoch."""
    scores = trial.fold_scores()
    return {
        "score": float(np.mean(scores)),
        "epoch": trial.epoch,
        "complete": trial.is_finished(),
        **{f"fold_{i}": score for i, score in enumerate(scores, start=1)},
    }


def _failure(error: Exception) -> dict[str, Any]:
    """Return what a trial reports that would fail again.

    Raises:
        Exception: the error itself, if another try may succeed.
    """
    out_of_memory = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)  # GPU, CPU
    if not out_of_memory and not isinstance(error, TrainingDivergedError):
        raise error
    return {"score": float("nan"), "complete": False, "reason": " ".join(str(error).split())[:300]}


class TrialInOneProcess(ray.tune.Trainable):
    """A trial in a process of its own; Tune calls `step` for each epoch."""

    def setup(self, config: dict[str, Any], job: TrialJob | None = None) -> None:
        """Keep what is to be tried; `config` holds the values drawn."""
        keep_freed_memory()
        assert job is not None  # noqa: S101 # given by with_parameters
        self.job, self.drawn = job, config
        self.device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
        self.training: CrossValidation | None = None
        self.saved: bytes | None = None

    def step(self) -> dict[str, Any]:
        """Train for an epoch."""
        try:
            if self.training is None:
                self.training = self.job.begin(self.drawn, self.device, self.saved)
            self.training.advance()
        except Exception as error:  # _failure raises it again unless that is of no use
            return {**_failure(error), "done": True}
        record = _record(self.training)
        return {**record, "done": record["complete"]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write all states, if it has come so far."""
        if self.training is not None:
            _write(Path(checkpoint_dir), self.training)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from what `save_checkpoint` wrote."""
        self.training, self.saved = None, (Path(checkpoint) / _STATE).read_bytes()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial in the same process, whose start would cost seconds."""
        self.setup(new_config)  # with_parameters adds the job
        return True


class TrialByDDP(ray.tune.Trainable):
    """A trial on several workers of Ray Train's, started from here; each `step` waits for their next report."""

    def setup(self, config: dict[str, Any], job: TrialJob | None = None) -> None:
        """Start the workers, or go on from the checkpoint that earlier ones of the same trial have left."""
        assert job is not None  # noqa: S101 # given by with_parameters

        filesystem, folder = storage.arrow_filesystem(f"{job.search}/ddp")

        def build(callback: UserCallback) -> TorchTrainer:
            return TorchTrainer(
                _train_on_worker,
                train_loop_config={"job": job, "drawn": config},
                scaling_config=job.scaling,
                run_config=ray.train.RunConfig(
                    name=self.trial_id,
                    storage_path=folder,
                    storage_filesystem=filesystem,
                    failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
                    checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
                    callbacks=[callback],
                    worker_runtime_env={"env_vars": KEEP_FREED_MEMORY},
                ),
            )

        self.run = Run(build)

    def step(self) -> dict[str, Any]:
        """Wait for an epoch."""
        record = self.run.next()
        done = record is None or record["complete"] or "reason" in record
        try:
            if done:
                self.run.result()
        except Exception as error:  # _failure raises it again unless that is of no use
            return {**_failure(error), "done": True}
        if record is None:
            raise RuntimeError("its workers ended before the last epoch")
        return {**record, "done": done}

    def cleanup(self) -> None:
        """Take the workers down with the trial."""
        self.run.stop()


def _train_on_worker(given: dict[str, Any]) -> None:
    job: TrialJob = given["job"]
    training = job.begin(given["drawn"], get_device(), read_checkpoint(_STATE))
    finished = training.is_finished()  # and the process that was to hear of it is lost
    try:
        while finished or training.advance():
            report(_record(training), lambda folder: _write(folder, training))
            finished = False
    except TrainingDivergedError as error:  # which all workers see; one that lacks memory ends alone
        ray.train.report(_failure(error))


class Reclaim(ray.tune.Callback):
    """Takes back the CPUs of a trial's workers when the process that started them is lost.

    Ray Train has a guard for that, but it needs the dashboard, and gives up where several clusters run on the
    machine; the next trial would wait for ever.
    """

    _looked = 0.0  # in the class: Ray pickles the object, and another machine's clock counts from elsewhere

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look now and then; Tune comes by several times a second."""
        if time.monotonic() - Reclaim._looked < 1:
            return
        Reclaim._looked = time.monotonic()
        for group in _abandoned():
            remove_placement_group(PlacementGroup(group))


def _abandoned() -> list[PlacementGroupID]:
    """Return this job's placement groups whose creator, an actor, is dead.

    What Ray offers for it in public asks the dashboard.
    """
    job = ray.get_runtime_context().get_job_id()
    found = []
    for raw in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(raw)
        removed = group.state == PlacementGroupTableData.PlacementGroupState.REMOVED
        by_actor = group.creator_actor_id != ActorID.nil().binary()
        if group.creator_job_id.hex() == job and by_actor and group.creator_actor_dead and not removed:
            found.append(PlacementGroupID(group.placement_group_id))
    return found


def _write(folder: Path, training: CrossValidation) -> None:
    (folder / _STATE).write_bytes(training.to_bytes())


class Halving(ASHAScheduler):
    """ASHA (Li et al. 2020, arXiv:1810.05934) among the trials that have a score: one that failed sets no mark."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide whether a trial goes on."""
        scored = np.isfinite(result["score"])
        return super().on_trial_result(tune_controller, trial, result) if scored else ASHAScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enter a trial that has ended by itself."""
        if np.isfinite(result["score"]):
            super().on_trial_complete(tune_controller, trial, result)


class Sampler(Searcher):
    """Asks optuna for configurations; only for valid ones, which `OptunaSearch` of Ray cannot."""

    def __init__(
        self, space: SearchSpace, algorithm: str, points: list[dict[str, Any]] | None, larger: bool, seed: int
    ) -> None:
        super().__init__(metric="score", mode="max" if larger else "min")
        self.space, self.points = space, points
        self.study = new_study(
            "random" if algorithm == "random" else "tpe", "maximize" if larger else "minimize", seed
        )
        self.asked: dict[str, optuna.Trial] = {}
        self.reported: dict[str, int] = {}  # the last epoch of each
        self.given = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is text
        """Draw the next configuration."""
        if self.points is not None:
            if self.given == len(self.points):
                return Searcher.FINISHED
            self.given += 1
            return dict(self.points[self.given - 1])
        self.asked[trial_id], settings = self.space.ask(self.study)
        return settings.drawn

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Let optuna know the score so far."""
        epoch = result.get("epoch", 0)
        if trial_id in self.asked and np.isfinite(result["score"]) and epoch > self.reported.get(trial_id, 0):
            self.asked[trial_id].report(result["score"], epoch)
            self.reported[trial_id] = epoch

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Let optuna know the end."""
        trial = self.asked.pop(trial_id, None)
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
        """Write the state, for a search that is interrupted."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        """Read what `save` wrote."""
        # Ray keeps its searchers so, beside its own pickles of the run
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))  # noqa: S301


def last_states(trial: Trial, job: TrialJob) -> CrossValidation:
    """Return the networks of a trial as its last checkpoint has them.

    Raises:
        RuntimeError: there is none.
    """
    last: dict[str, Any] = trial.last_result
    filesystem, _ = storage.arrow_filesystem(job.search)  # the path is one on it
    by_ddp = CHECKPOINT_PATH_KEY in last
    kept = Checkpoint(last[CHECKPOINT_PATH_KEY], filesystem) if by_ddp else trial.checkpoint
    if kept is None:
        raise RuntimeError(f"trial {trial.trial_id} has left no checkpoint in {job.search}")
    with kept.as_directory() as held:
        return job.begin(trial.config, "cpu", (Path(held) / _STATE).read_bytes())
