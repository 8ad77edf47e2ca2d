"""Run the trials of a search by Ray Tune, or those that an interrupted run has left."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray.tune
from ray.tune import Checkpoint, CheckpointConfig, ResumeConfig
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from upath import UPath

from jobs.cli.console import console, plural
from jobs.ray_runtime.capacity import Cluster, Demand, tasks_that_fit
from jobs.ray_runtime.environment import is_debug
from jobs.training.tracking import Tracking
from jobs.tuning.asha import ScheduleAwareASHA
from jobs.tuning.live_table import SearchScreen, error_of, number_of
from jobs.tuning.sampler import MAX_PENDING, KnownTrials, Sampler, TrialSource
from jobs.tuning.trial_tracker import TrialTracker
from jobs.tuning.trials import DEVICE_ERROR, CrossValidationTrial, TrialJob
from promoter import storage
from promoter.training.search_space import SearchSpace

SEARCH_FOLDER = "search"  # Ray's folder in --out; removed when the search is done
# a trial in error is one whose process was lost, or could not save: it may succeed now
_RESUME = ResumeConfig(errored=ResumeConfig.ResumeType.RESUME)  # type: ignore[arg-type] # annotated as text
_STATE_SECONDS = os.environ.get("TUNE_GLOBAL_CHECKPOINT_S")  # what the user has set holds
_BUCKET_SECONDS = 60  # between two uploads of the search's state, and of a trial's networks
_MAX_FAILURES = 2  # losses of a trial in a row, without a checkpoint in between, before it counts as failed


class FailurePolicy(ray.tune.Callback):
    """Tells failures of a configuration from those of the machines, for which no setting is to blame.

    A trial is given up when it has failed several times without progress; over its life it may lose its process
    as often as nodes are lost. A search ends where a disk or a GPU made a trial fail.
    """

    def __init__(self) -> None:
        self._started: set[str] = set()
        self.device_error = ""  # Ray Tune makes its own error, with a traceback, of what a callback raises

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Forget the failures that an interrupted run has seen."""
        if trial.trial_id not in self._started:
            self._started.add(trial.trial_id)
            _forgive(trial)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Checkpoint, **info: Any
    ) -> None:
        """Forget the failures before this checkpoint."""
        _forgive(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Raise the error of a disk or a GPU, if that is what the trial ended by."""
        text = error_of(trial)
        if (error := storage.find_disk_error(RuntimeError(text))) is not None:
            raise error
        if DEVICE_ERROR in text:
            self.device_error = (
                f"trial {number_of(trial)} failed {_MAX_FAILURES + 1} times without progress, at last by a "
                f"{DEVICE_ERROR}{text.partition(DEVICE_ERROR)[2]}; leave that node out, and run the same "
                "command again"
            )
            raise RuntimeError(self.device_error)


def _forgive(trial: Trial) -> None:
    trial.max_failures = trial.num_failures + _MAX_FAILURES


def run_trials(
    job: TrialJob,
    out_dir: UPath,
    *,
    cluster: Cluster,
    tracking: Tracking,
    count: int,
    algorithm: str,
    points: list[dict[str, Any]] | None,
    asha: bool,
    max_concurrent_trials: int | None,
    seed: int,
) -> list[Trial]:
    """Run the trials of a search that are not finished, and return all.

    Args:
        job: data and settings that the trials share.
        out_dir: output folder of the command; Ray's files go to `job.folder`, which lies in it.
        cluster: cluster that the trials run on.
        tracking: trackers that follow the search.
        count: number of trials.
        algorithm: `tpe`, `random` or `grid`.
        points: configurations of a grid; None for the other algorithms.
        asha: true to stop trials early that do worse than others at the same epoch.
        max_concurrent_trials: maximum number of trials at the same time; None: as many as fit.
        seed: random seed of the sampler.

    Raises:
        OSError: a trial could not save for a full or failing disk.
        RuntimeError: Ray Tune ended before the trials did.
    """
    in_bucket = not storage.is_local(out_dir)
    _configure_tune(max_concurrent_trials, _BUCKET_SECONDS if in_bucket else 1)
    job = replace(job, seconds_per_checkpoint=_BUCKET_SECONDS if in_bucket else 0)
    trainable = ray.tune.with_resources(ray.tune.with_parameters(CrossValidationTrial, job=job), job.resources)
    filesystem, storage_path = storage.arrow_filesystem(out_dir)
    resumed = _was_interrupted(storage.resolve(job.folder))
    if not resumed:
        storage.remove_folder(storage.resolve(job.folder))
    experiment = ray.tune.Experiment(
        SEARCH_FOLDER,
        trainable,
        num_samples=count,
        storage_path=storage_path,
        storage_filesystem=filesystem,
        # a trial says itself when it is to be saved; Ray writes the search's state with every num_to_keep-th of a
        # trial's checkpoints, however short ago it did
        checkpoint_config=CheckpointConfig(num_to_keep=2 if in_bucket else 1, checkpoint_at_end=True),
        trial_dirname_creator=trial_folder,
        max_failures=_MAX_FAILURES,
    )
    known, screen, policy = KnownTrials(), SearchScreen(count, job.metric), FailurePolicy()
    sampler = Sampler(
        job.space, algorithm, points=points, known=known, larger_is_better=job.larger_is_better, seed=seed
    )
    source = TrialSource(sampler, max_concurrent_trials, _capacity(cluster, job.resources))
    if source.capacity is None and max_concurrent_trials is None and count > 1:
        early = min(count, sampler.independent_draws, MAX_PENDING)
        console.print(
            f"nothing tells how far this cluster can grow: {plural(early, 'trial')} may wait for nodes at first, "
            "later one; --at_once asks for more"
        )
    if resumed:
        console.print("resuming the search that was interrupted")
        source.add_configurations(experiment)  # Ray does this for a new search alone
    try:
        # not a `Tuner`, which restores the settings of the first run, such as --at_once, with the trials
        ray.tune.run(
            experiment,  # type: ignore[arg-type] # its docstring names it, its annotation does not
            metric="score",
            mode="max" if job.larger_is_better else "min",
            search_alg=source,
            scheduler=ScheduleAwareASHA(job.space, _max_epochs(job.space)) if asha else None,
            resume_config=_RESUME if resumed else None,
            reuse_actors=True,
            raise_on_failed_trial=False,
            callbacks=[known, screen, policy, TrialTracker(tracking)],
            verbose=0,
        )
    except TuneError:
        if policy.device_error:
            raise RuntimeError(policy.device_error) from None
        raise
    finally:
        screen.close()
    # Ray counts the trials that it breaks off as terminated
    ended = sum(trial.status == Trial.ERROR or bool(trial.last_result.get("done")) for trial in known.trials)
    if ended < count:
        raise RuntimeError(f"Ray Tune ended after {ended} of {count} trials; run the same command again")
    return list(known.trials)


def trial_folder(trial: Trial) -> str:
    """Return the name of a trial's folder in Ray's folder of the search."""
    return f"trial_{trial.trial_id}"


def _capacity(cluster: Cluster, resources: Mapping[str, float]) -> int | None:
    """Return how many trials the cluster runs at the same time at its largest; None if nothing tells."""
    if cluster.local:
        return 1  # it does not grow: beside what runs, one waits
    if cluster.max_nodes is None:
        return None
    demand = Demand.of(resources)
    return tasks_that_fit(cluster.largest(demand), demand)


def _configure_tune(max_concurrent_trials: int | None, state_seconds: int) -> None:
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is to end the job, not to pass for the search's end
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max_concurrent_trials or MAX_PENDING)  # `TrialSource` decides
    # what a kill can cost of the search's progress
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = _STATE_SECONDS or str(state_seconds)
    if not is_debug():
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints each failure whatever `verbose` says
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # trials.csv tells why a trial failed


def _max_epochs(space: SearchSpace) -> int:
    """Return the largest number of epochs that a trial can have."""
    domain = space.space.get("training.epochs")
    if domain is None:
        return space.training.epochs
    return max(domain["choices"]) if "choices" in domain else int(domain["high"])


def _was_interrupted(folder: UPath) -> bool:
    """Tell whether an earlier run has left trials; remove what a kill or a full disk has cut off in writing."""
    states = sorted(folder.glob("experiment_state-*.json")) if folder.is_dir() else []
    for path in states:
        try:
            json.loads(path.read_text())
        except ValueError:
            path.unlink()
    left = [path for path in states if path.exists()]
    if states and not left:
        console.print("what the interrupted search has left cannot be read; it starts anew")
    return bool(left)
