"""Run the trials of a search by Ray Tune, or those that an interrupted run has left."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray.tune
from ray.tune import CheckpointConfig, FailureConfig
from ray.tune.experiment import Trial
from upath import UPath

from jobs.cli.console import console
from jobs.ray_runtime.connect import is_debug
from jobs.tuning.asha import new_scheduler
from jobs.tuning.live_table import SearchScreen
from jobs.tuning.sampler import Sampler
from jobs.tuning.trials import MAX_FAILURES, CrossValidationTrial, TrialJob
from promoter import storage
from promoter.training.search_space import SearchSpace

SEARCH_FOLDER = "search"  # Ray's folder in --out; removed when the search is done


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
        RuntimeError: Ray Tune ended before the trials did.
    """
    _configure_tune()
    trainable = ray.tune.with_resources(ray.tune.with_parameters(CrossValidationTrial, job=job), job.resources)
    filesystem, storage_path = storage.arrow_filesystem(out_dir)
    tuner = _restored(job.folder, trainable)
    if tuner is None:
        storage.remove_folder(storage.resolve(job.folder))
        tuner = ray.tune.Tuner(
            trainable,
            tune_config=ray.tune.TuneConfig(
                metric="score",
                mode="max" if job.larger_is_better else "min",
                num_samples=count,
                search_alg=Sampler(
                    job.space, algorithm, points=points, larger_is_better=job.larger_is_better, seed=seed
                ),
                scheduler=new_scheduler(_max_epochs(job.space)) if asha else None,
                max_concurrent_trials=max_concurrent_trials,
                reuse_actors=True,
                trial_dirname_creator=trial_folder,
            ),
            run_config=ray.tune.RunConfig(
                name=SEARCH_FOLDER,
                storage_path=storage_path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_frequency=1),
                callbacks=[SearchScreen(count, job.metric)],
                verbose=0,
            ),
        )
    try:
        tuner.fit()
    finally:
        SearchScreen.close()
    trials = SearchScreen.trials  # the results that `fit` returns have no numbers and status of the trials
    unfinished = [trial for trial in trials if not trial.is_finished()]
    if unfinished:
        raise RuntimeError(f"Ray Tune ended with {len(unfinished)} trials unfinished; run the same command again")
    return trials


def trial_folder(trial: Trial) -> str:
    """Return the name of a trial's folder in Ray's folder of the search."""
    return f"trial_{trial.trial_id}"


def _configure_tune() -> None:
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is to end the job, not to pass for the search's end
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # what a kill can cost of the searcher's memory
    if not is_debug():
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints each failure whatever `verbose` says
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # trials.csv tells why a trial failed


def _max_epochs(space: SearchSpace) -> int:
    """Return the largest number of epochs that a trial can have."""
    domain = space.space.get("training.epochs")
    if domain is None:
        return space.training.epochs
    return max(domain["choices"]) if "choices" in domain else int(domain["high"])


def _restored(folder: str, trainable: Any) -> ray.tune.Tuner | None:
    """Return the search that an earlier run has left, None if it left too little."""
    search_dir = storage.resolve(folder)
    if not search_dir.is_dir() or not any("experiment_state" in path.name for path in search_dir.iterdir()):
        return None
    filesystem, path = storage.arrow_filesystem(search_dir)
    if not ray.tune.Tuner.can_restore(path, filesystem):
        return None
    console.print("resuming the search that was interrupted")
    # a trial in error is one whose process was lost, or could not save: it may succeed now
    return ray.tune.Tuner.restore(
        path, trainable, resume_unfinished=True, resume_errored=True, storage_filesystem=filesystem
    )
