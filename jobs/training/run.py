"""One training by DDP under Ray Train, in a folder of its own: run it, resume it, write its results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer
from upath import UPath

from jobs.cli.console import as_clock, console, plural
from jobs.cli.outputs import own_folder
from jobs.ray_runtime.connect import connect
from jobs.ray_runtime.process_group import PrivateTorchConfig
from jobs.ray_runtime.shared_disk import require_shared
from jobs.ray_runtime.train_controller import Run
from jobs.training.in_process import require_not_begun_in_process, train_in_process
from jobs.training.job import TrainingJob, describe, require_trainable, show_split, with_pretrained
from jobs.training.metrics_table import show_metrics
from jobs.training.resources import max_workers
from jobs.training.worker import PREDICTIONS, STATE, train_on_worker
from promoter import checkpoint, storage
from promoter.baselines import fit_coefficients
from promoter.checkpoint import ModelInfo, serialize_model
from promoter.dataset.promoters import near_tss
from promoter.evaluation.evaluate import evaluate, read_metrics
from promoter.evaluation.predictions import baselines_table, predictions_table, write_predictions
from promoter.kept_baselines import save_baselines
from promoter.splits.assign import SplitAssignment, assign_splits
from promoter.splits.homology import Related
from promoter.training import TrainingState
from promoter.training.allocator import KEEP_FREED_MEMORY, expandable_segments
from promoter.training.batches import require_orientation

_RAY_FOLDER = "checkpoints"  # in --out, Ray's but with --workers 0; removed when the model is written
METRICS = "metrics.json"
RESULTS = ("history.csv", "leakage.csv", "predictions.parquet", "baselines.parquet", METRICS)  # beside model/
PATHS = ("data", "embeddings", "init")  # settings that do not change what comes out
_BASELINES = threading.Lock()  # they take some GB in this process: those of one training at a time


@dataclass(frozen=True)
class Shared:
    """What trainings have in common: their workers, and the data, which are in Ray's object store once.

    Attributes:
        scaling: number of workers and their resources.
        tokens: sequences, or embeddings by a frozen trunk.
        trunk: weights of a pretrained network; None for any other.
        targets: values of the targets.
        weights: weights of the sequences.
    """

    scaling: ScalingConfig
    tokens: ray.ObjectRef
    trunk: ray.ObjectRef | None
    targets: ray.ObjectRef
    weights: ray.ObjectRef


def share(job: TrainingJob, scaling: ScalingConfig) -> Shared:
    """Put the data of a training into Ray's object store."""
    pretrained, promoters = job.pretrained, job.promoters
    embedded = pretrained and pretrained.embedded
    return Shared(
        scaling=scaling,
        tokens=ray.put(promoters.tokens if embedded is None else embedded),
        trunk=pretrained and ray.put(pretrained.trunk),
        targets=ray.put(promoters.targets),
        weights=ray.put(promoters.weights),
    )


def train_once(
    job: TrainingJob,
    out_dir: UPath,
    *,
    related: Related | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    before_end: Callable[[TrainingJob], None] | None = None,
    overwrite: bool = False,
    shared: Shared | None = None,
) -> None:
    """Train a network, or resume an interrupted run; do nothing if it is finished.

    Args:
        job: settings and data of the training.
        out_dir: folder for model/, history.csv, predictions.parquet, leakage.csv, metrics.json and config.yaml.
        related: function that finds homologous promoters, as `promoter.splits.homology.find_once` returns it; None
            (default): one made here.
        on_epoch: function called with each epoch's record, in which case nothing is printed; None: a line is
            printed for each epoch.
        before_end: function called with the job once its results are written, and before they are recorded as
            finished; None (default): there is nothing more to do.
        overwrite: true to take over a folder that another run has filled.
        shared: what it has in common with other trainings; None (default): nothing.

    Raises:
        InputError: settings that do not suit the data, or a folder that holds another run or a damaged one.
        TrainingDivergedError: the loss is no longer a number.
        NoProgressError: the workers have failed three times at the same point.
    """
    quiet = on_epoch is not None
    promoters = job.promoters
    require_orientation(job.model, job.training, promoters.length)  # fails here, not on a worker
    held_out = assign_splits(promoters, job.split, related, job.crop)
    require_trainable(job, held_out)
    info = describe(promoters, held_out, job.training)
    if job.init is not None:
        if not quiet:
            job.init.require_unseen(promoters, held_out)
        info = replace(job.init.extend(info, promoters), init=job.init.describe(promoters, held_out))
    settings = job.settings | {"out": str(out_dir)}
    with (
        own_folder("train", out_dir, settings, job.inputs, paths=PATHS, overwrite=overwrite) as output,
        job.follow(out_dir) as tracked,
    ):
        if output.is_finished(METRICS, overwrite=overwrite):
            storage.remove_folder(out_dir / _RAY_FOLDER)  # a crash at the very end leaves it
            if not quiet:
                console.print(f"{out_dir}: this run is finished already; nothing to do")
                show_metrics(read_metrics(out_dir / METRICS, promoters.target_names), promoters.noun)
            return
        cluster = connect()
        if job.workers:
            require_shared(out_dir)
        job = job.on(cluster)
        scaling = job.scaling_config(cluster) if shared is None else shared.scaling
        output.begin()
        job = with_pretrained(job, out_dir, cluster)
        if not quiet:
            _show_start(job, held_out, scaling)
        on_epoch = tracked.before(on_epoch or EpochLogger(job.training.epochs))
        shared = shared or share(job, scaling)
        finished = _run_workers(out_dir, job, shared, info=info, held_out=held_out, on_epoch=on_epoch)
        state, metrics = _publish(out_dir, finished, job=job, info=info, held_out=held_out)
        tracked.finish(metrics["test"])
        if before_end is not None:
            before_end(job)
        output.finish(without=[_RAY_FOLDER])
        storage.remove_folder(out_dir / _RAY_FOLDER)
    if not quiet:
        console.print(f"best epoch {state.best_epoch} of {state.epoch}")
        show_metrics(metrics, promoters.noun)
        console.print(f"model, predictions and metrics in {out_dir}")


def _run_workers(
    out_dir: UPath,
    job: TrainingJob,
    shared: Shared,
    *,
    info: ModelInfo,
    held_out: SplitAssignment,
    on_epoch: Callable[[dict[str, Any]], None],
) -> Checkpoint:
    """Train until done, resuming what Ray finds in the run's folder, and return the last checkpoint."""
    loop = {
        "tokens": shared.tokens,
        "trunk": shared.trunk,
        "targets": shared.targets,
        "weights": shared.weights,
        "length": job.promoters.length,
        "split": held_out.split,
        "info": info,
        "model": job.model,
        "code": job.code,
        "training": job.training,
        "max_workers": max(1, job.workers),
        "start": job.init and ray.put(job.init.warm_start(job.promoters)),
    }

    if not job.workers:
        return train_in_process(loop, out_dir / _RAY_FOLDER, on_epoch, _device_here(job))
    require_not_begun_in_process(out_dir / _RAY_FOLDER)
    filesystem, folder = storage.arrow_filesystem(out_dir)

    def build(callback: UserCallback) -> TorchTrainer:
        return TorchTrainer(
            train_on_worker,
            train_loop_config=loop,
            scaling_config=shared.scaling,
            torch_config=PrivateTorchConfig(),
            run_config=RunConfig(
                name=_RAY_FOLDER,
                storage_path=folder,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=-1),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                callbacks=[callback],
                # Ray Train runs the loop in a thread
                worker_runtime_env={"env_vars": KEEP_FREED_MEMORY | expandable_segments()},
            ),
        )

    run = Run(build, max_workers(shared.scaling), out_dir / _RAY_FOLDER)
    while (record := run.next()) is not None:
        on_epoch(record)
    result = run.result()
    if result.checkpoint is None:
        raise RuntimeError(f"Ray Train ended without a checkpoint: {result.error}")
    return result.checkpoint


def _device_here(job: TrainingJob) -> torch.device:
    return torch.device("cuda" if job.gpus_per_worker and torch.cuda.is_available() else "cpu")


def describe_event(record: dict[str, Any]) -> str | None:
    """Return a line on what happened to the workers of a training; None for a record of anything else."""
    if "failed" in record:
        return record["failed"]
    if "leaving" in record:
        return f"{record['leaving']} of its nodes will be taken away: saved after {record['position']}"
    if "started" in record and record["position"]:
        return f"resuming after {record['position']}"
    return None


class EpochLogger:
    """Prints a line for each epoch.

    Args:
        epochs: maximum number of epochs of the training, for the time left.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seconds: list[float] = []

    def __call__(self, record: dict[str, Any]) -> None:
        """Print the record of an epoch, or of what happened to the workers, as a line."""
        if event := describe_event(record):
            console.print(event)
        if "epoch" not in record:
            return
        if not self.seconds:
            console.print("  epoch  train MSE    val MSE  val r  learning rate  genes/s  time left", style="dim")
        self.seconds.append(record["seconds"])
        r = "–" if np.isnan(record["val_pearson"]) else f"{record['val_pearson']:.3f}"  # of too few genes
        left = (self.epochs - record["epoch"]) * float(np.median(self.seconds))
        console.print(
            f"{record['epoch']:>3.0f}/{self.epochs:<3d} {record['train_mse']:>10.4f} {record['val_mse']:>10.4f} "
            f"{r:>6} {record['learning_rate']:>14.2g} {record['genes_per_second']:>8,.0f} "
            f"{as_clock(left):>10}" + ("  best" if record["best_epoch"] == record["epoch"] else "")
        )


def _publish(
    out_dir: UPath, finished: Checkpoint, *, job: TrainingJob, info: ModelInfo, held_out: SplitAssignment
) -> tuple[TrainingState, dict[str, Any]]:
    """Write the results, and return the last state and the metrics."""
    promoters = job.promoters
    with finished.as_directory() as folder:
        state = TrainingState.from_bytes((Path(folder) / STATE).read_bytes())
        predicted = np.load(Path(folder) / PREDICTIONS, allow_pickle=False)
        checkpoint.copy_model(Path(folder) / "model", out_dir / "model")
    storage.write_text(out_dir / "history.csv", pd.DataFrame(state.history).to_csv(index=False))
    storage.write_text(out_dir / "leakage.csv", held_out.leaks.to_csv(index=False))
    table = predictions_table(promoters, info, predicted)
    write_predictions(out_dir / "predictions.parquet", table)
    baselines = None
    if job.baselines:
        tokens = near_tss(promoters).tokens
        with _BASELINES:
            baselines, coefficients = fit_coefficients(
                tokens,
                promoters.targets,
                held_out.unit,
                held_out.split == "train",
                embedded=job.pretrained and job.pretrained.embedded,
                weights=promoters.weights,
                crop=tokens.shape[1] - job.model.outside(tokens.shape[1]),
            )
        checksum = serialize_model(out_dir / "model").checksum
        save_baselines(out_dir / "model", coefficients, checksum, tokens.shape[1])
        write_predictions(out_dir / "baselines.parquet", baselines_table(table, info.targets, baselines))
    metrics = evaluate(
        table,
        info.targets,
        leaking=held_out.leaking,
        baselines=baselines,
        weights=promoters.weights,
        groups=held_out.group,
        noun=promoters.noun,
        seed=job.training.seed,
    )
    storage.write_json(out_dir / METRICS, metrics)
    return state, metrics


def _show_start(job: TrainingJob, held_out: SplitAssignment, scaling: ScalingConfig) -> None:
    show_split(job, held_out)
    workers = max_workers(scaling)
    if not workers:
        console.print(f"in this process, on the {'GPU' if _device_here(job).type == 'cuda' else 'CPU'}")
        return
    minimum = f"{scaling.num_workers[0]} to " if isinstance(scaling.num_workers, tuple) else ""
    resources: Any = scaling.resources_per_worker or {}
    each = ", ".join(plural(resources[kind], kind) for kind in ("CPU", "GPU") if kind in resources)
    console.print(f"{minimum}{plural(workers, 'worker')} with {each}{' each' * (workers != 1)}")
