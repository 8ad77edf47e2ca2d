"""Run the trials of a search by Ray Tune, or those that an interrupted run has left."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import ray.tune
from ray.tune import CheckpointConfig, ResumeConfig
from ray.tune.experiment import Trial
from upath import UPath

from jobs.cli.console import console
from jobs.ray_runtime.environment import is_debug
from jobs.tuning.asha import ScheduleAwareASHA
from jobs.tuning.live_table import SearchScreen, error_of
from jobs.tuning.sampler import KnownTrials, Sampler, TrialSource
from jobs.tuning.trials import MAX_FAILURES, CrossValidationTrial, TrialJob
from promoter import storage
from promoter.training.search_space import SearchSpace

SEARCH_FOLDER = "search"  # Ray's folder in --out; removed when the search is done
# a trial in error is one whose process was lost, or could not save: it may succeed now
_RESUME = ResumeConfig(errored=ResumeConfig.ResumeType.RESUME)  # type: ignore[arg-type] # annotated as text


class DiskWatch(ray.tune.Callback):
    """Ends the search where a trial could not save for a full disk, for which no setting is to blame."""

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Raise the error of the disk, if that is what the trial ended by."""
        if (error := storage.find_disk_error(RuntimeError(error_of(trial)))) is not None:
            raise error


def run_trials(
    job: TrialJob,
    out_dir: UPath,
    *,
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
    _configure_tune(max_concurrent_trials)
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
        checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_frequency=1, checkpoint_at_end=True),
        trial_dirname_creator=trial_folder,
        max_failures=MAX_FAILURES,
    )
    known, screen = KnownTrials(), SearchScreen(count, job.metric)
    sampler = Sampler(
        job.space, algorithm, points=points, known=known, larger_is_better=job.larger_is_better, seed=seed
    )
    source = TrialSource(sampler, max_concurrent_trials)
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
            callbacks=[known, screen, DiskWatch()],
            verbose=0,
        )
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


def _configure_tune(max_concurrent_trials: int | None) -> None:
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is to end the job, not to pass for the search's end
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max_concurrent_trials or "auto")  # these start side by side
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # what a kill can cost of the trials' progress
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
