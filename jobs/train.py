"""Train a model on a prepared data set by DDP under Ray Train."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import ray.train
import torch
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from ray.train.torch import TorchTrainer, get_device
from rich.table import Table
from upath import UPath

from jobs import cluster
from jobs.cli import console, run
from jobs.config import require_same, resolved, write_config
from jobs.reports import Run, read_checkpoint, report
from promoter import checkpoint, storage
from promoter.checkpoint import ModelInfo, load_info
from promoter.dataset import Promoters, locate, read_promoters
from promoter.errors import InputError
from promoter.memory import KEEP_FREED_MEMORY
from promoter.metrics import METRICS, evaluate_predictions
from promoter.model import CNNConfig, PromoterCNN
from promoter.predictions import predictions_table, write_predictions
from promoter.splits import SPLITS, SplitConfig, assign, split_by_chromosome
from promoter.training import (
    Examples,
    TrainingConfig,
    TrainingDivergedError,
    TrainingState,
    fit,
    predict,
    require_enough_genes,
    standardisation,
)

_RUN = "checkpoints"  # Ray's folder in --out; removed when the model is written
_STATE = "state.pt"
_PREDICTIONS = "predictions.npy"
_METRICS = "metrics.json"
_OUTPUTS = ("model/model.yaml", "model/model.safetensors", "history.csv", "predictions.parquet", _METRICS)
_RESOURCES = ("workers", "gpus_per_worker", "cpus_per_worker")  # may change between a run and its resumption
_MAX_FAILURES = 3  # worker deaths before the run gives up


def train(
    data: str,
    out: str,
    split: SplitConfig = SplitConfig(),
    model: CNNConfig = CNNConfig(),
    training: TrainingConfig = TrainingConfig(),
    workers: int = 1,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
) -> None:
    """Train a CNN on some chromosomes, choose its best epoch on others, and evaluate it on yet others.

    Run again after an interruption it goes on from the last epoch.

    Args:
        data: folder that jobs.prepare wrote.
        out: folder for model/, history.csv, predictions.parquet, metrics.json and config.yaml.
        split: chromosomes held out for validation and test.
        model: the network.
        training: the recipe.
        workers: processes that share each batch by DDP.
        gpus_per_worker: 1 where the cluster has GPUs, else 0, by default.
        cpus_per_worker: an equal share of a machine without GPUs, else 1, by default.
    """
    settings = resolved(locals())
    cluster.require_resources(workers, cpus_per_worker, gpus_per_worker)
    promoters = read_promoters(data)
    if not promoters.target_names:
        raise InputError(f"{data}: has sequences but no expression; prepare it with jobs.prepare")
    model = with_targets(model, promoters.target_names)
    settings |= resolved({"model": model})
    split_of_chrom = split_by_chromosome(promoters.genes["chrom"], split)
    # these fail here, not on a worker
    PromoterCNN(model, promoters.length)
    counts = assign(promoters.genes["chrom"], split_of_chrom).value_counts()
    require_enough_genes(counts["train"], counts["val"], training, workers)
    info = describe(promoters, split_of_chrom, training)
    where = storage.require_writable(out)
    inputs = {str(locate(data)): promoters.checksum}
    require_same(where, settings, inputs, {*_RESOURCES, "out", "data"}, (_RUN, "model", *_OUTPUTS))
    if _is_finished(where):
        console.print(f"{where}: this run is finished already; nothing to do")
        storage.remove_folder(where / _RUN)  # a crash after metrics.json was written leaves it
        _show_metrics(storage.read_json(where / _METRICS))
        return

    place = cluster.connect()
    scaling = scaling_config(place, workers, gpus_per_worker, cpus_per_worker)
    write_config(where / "config.yaml", settings, inputs)
    _show_start(promoters, info, scaling)
    finished = _run_workers(where, promoters, info, model, training, scaling)
    _publish(where, finished, promoters, info, training)
    console.print(f"model, predictions and metrics in {where}")


def with_targets(model: CNNConfig, targets: list[str]) -> CNNConfig:
    """Return the network with an output a target; 1, the default, counts as not given."""
    if model.n_targets not in (1, len(targets)):
        raise InputError(
            f"--model.n_targets {model.n_targets}: the data has {_plural(len(targets), 'target')} "
            f"({', '.join(targets[:3])}{', …' * (len(targets) > 3)}); leave it out, the data tells it"
        )
    return replace(model, n_targets=len(targets))


def describe(promoters: Promoters, split_of_chrom: dict[str, str], training: TrainingConfig) -> ModelInfo:
    """Return what is to be known of a model that is trained so."""
    split = {name: [c for c, assigned in split_of_chrom.items() if assigned == name] for name in SPLITS}
    learned = assign(promoters.genes["chrom"], split_of_chrom) == "train"
    scale = standardisation(promoters.targets[learned.to_numpy()])
    window = promoters.metadata["window"]
    return ModelInfo(
        targets=promoters.target_names,
        window={
            "upstream": window["upstream"],
            "downstream": window["downstream"],
            "length": promoters.length,
        },
        standardisation={"mean": scale.mean.tolist(), "sd": scale.sd.tolist()},
        transform=promoters.metadata.get("transform"),
        split=split,
        data={"sha256": promoters.checksum, "genes": len(promoters)},
        training=asdict(training),
        versions=checkpoint.versions() | {"ray": ray.__version__},
    )


def _is_finished(where: UPath) -> bool:
    """Tell whether all results are there.

    Raises:
        InputError: metrics.json, which is written last, is there, but another result is not, or one is damaged.
    """
    if not (where / _METRICS).exists():
        return False
    mend = "delete the folder and train again, or choose another --out"
    lost = [name for name in _OUTPUTS if not (where / name).is_file()]
    if lost:
        raise InputError(f"{where}: holds a finished run without its {', '.join(lost)}; {mend}")
    try:
        load_info(where / "model")
        with storage.open_table(where / "predictions.parquet", "table of predictions"):
            pass
        _metrics_table(storage.read_json(where / _METRICS))
    except InputError as error:
        reason = str(error).rsplit("; ", 1)[0]  # without its own mend
        raise InputError(f"{where}: holds a finished run that is damaged ({reason}); {mend}") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: holds a finished run that is damaged ({where / _METRICS} holds no metrics); {mend}"
        ) from error
    return True


def scaling_config(
    place: cluster.Cluster, workers: int, gpus_per_worker: float | None = None, cpus_per_worker: int | None = None
) -> ScalingConfig:
    """Return what Ray Train is to give the workers; None leaves a number to the machine.

    Raises:
        InputError: this machine has less.
    """
    gpus = float(place.gpus > 0) if gpus_per_worker is None else gpus_per_worker
    cpus = cpus_per_worker or (1 if gpus else max(1, place.cpus // workers))
    if place.local and (workers * cpus > place.cpus or workers * gpus > place.gpus):
        wanted = f"{_plural(workers * cpus, 'CPU')} and {_plural(workers * gpus, 'GPU')}"
        raise InputError(
            f"--workers {workers}: {'it wants' if workers == 1 else 'they want'} {wanted}, this machine has "
            f"{place.cpus} and {place.gpus}; lower --workers, --cpus_per_worker or --gpus_per_worker"
        )
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    return ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources)


def _run_workers(
    where: UPath,
    promoters: Promoters,
    info: ModelInfo,
    model: CNNConfig,
    training: TrainingConfig,
    scaling: ScalingConfig,
) -> Checkpoint:
    """Train until done, resuming what Ray finds in the run's folder, and return the last checkpoint."""
    split = assign(promoters.genes["chrom"], info.split_of_chrom).to_numpy()
    job = {
        "tokens": ray.put(promoters.tokens),
        "targets": ray.put(promoters.targets),
        "split": split,
        "info": info,
        "model": model,
        "training": training,
    }

    def build(callback: UserCallback) -> TorchTrainer:
        return TorchTrainer(
            _train_on_worker,
            train_loop_config=job,
            scaling_config=scaling,
            run_config=RunConfig(
                name=_RUN,
                storage_path=str(where),
                failure_config=FailureConfig(max_failures=_MAX_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                callbacks=[callback],
                worker_runtime_env={"env_vars": KEEP_FREED_MEMORY},  # Ray Train runs the loop in a thread
            ),
        )

    narrate = _Narrator(training.epochs)
    at_work = Run(build)
    while (record := at_work.next()) is not None:
        narrate(record)
    result = at_work.result()
    if narrate.diverged:
        raise TrainingDivergedError(narrate.diverged)
    if result.checkpoint is None:
        raise RuntimeError(f"Ray Train ended without a checkpoint: {result.error}")
    return result.checkpoint


class _Narrator:
    """Prints a line for each epoch; keeps what the workers said of a loss that is no number."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seconds: list[float] = []
        self.diverged: str | None = None

    def __call__(self, record: dict[str, Any]) -> None:
        self.diverged = record.get("diverged")
        if "restored" in record:
            console.print(f"going on after epoch {record['restored']}")
        if "epoch" in record:
            if not self.seconds:
                console.print(_HEADER, style="dim")
            self.seconds.append(record["seconds"])
            console.print(_epoch_line(record, self.epochs, float(np.median(self.seconds))))


def _train_on_worker(job: dict[str, Any]) -> None:
    """Train on one of the workers (runs in its process)."""
    tokens: np.ndarray = ray.get(job["tokens"])
    targets: np.ndarray = ray.get(job["targets"])
    split: np.ndarray = job["split"]
    training: TrainingConfig = job["training"]
    info: ModelInfo = job["info"]
    examples = {name: Examples(tokens[split == name], targets[split == name]) for name in ("train", "val")}
    torch.manual_seed(training.seed)
    model = PromoterCNN(job["model"], length=tokens.shape[1])
    device = get_device()

    def on_epoch(state: TrainingState) -> None:
        record = state.history[-1] | {"best_epoch": state.best_epoch}
        report(record, lambda folder: _write_state(folder, state))

    saved = read_checkpoint(_STATE)
    restored = None if saved is None else TrainingState.from_bytes(saved)
    if restored is not None:
        ray.train.report({"restored": restored.epoch})
    try:
        state = fit(model, examples["train"], examples["val"], training, device, restored, on_epoch)
    except TrainingDivergedError as error:  # would fail again: end the run instead of having it repeated
        ray.train.report({"diverged": str(error)})
        return
    predicted = predict(model, tokens, device, training.precision, together=True)

    def write(folder: Path) -> None:
        _write_state(folder, state)
        np.save(folder / _PREDICTIONS, predicted, allow_pickle=False)
        best = replace(info, training={**info.training, "best_epoch": state.best_epoch})
        checkpoint.save_model(folder / "model", model, best)

    report({"finished": True}, write)


def _write_state(folder: Path, state: TrainingState) -> None:
    (folder / _STATE).write_bytes(state.to_bytes())


_HEADER = "  epoch  train MSE    val MSE  val r  learning rate  genes/s  time left"


def _epoch_line(record: dict[str, float], epochs: int, seconds: float) -> str:
    left = round((epochs - record["epoch"]) * seconds)
    return (
        f"{record['epoch']:>3.0f}/{epochs:<3d} {record['train_mse']:>10.4f} {record['val_mse']:>10.4f} "
        f"{record['val_pearson']:>6.3f} {record['learning_rate']:>14.2g} {record['genes_per_second']:>8,.0f} "
        f"{left // 3600:>4d}:{left // 60 % 60:02d}:{left % 60:02d}"
        + ("  best" if record["best_epoch"] == record["epoch"] else "")
    )


def _publish(
    where: UPath, finished: Checkpoint, promoters: Promoters, info: ModelInfo, training: TrainingConfig
) -> None:
    """Write the results; metrics.json comes last, so that it stands for a finished run."""
    with finished.as_directory() as folder:
        state = TrainingState.from_bytes((Path(folder) / _STATE).read_bytes())
        predicted = np.load(Path(folder) / _PREDICTIONS, allow_pickle=False)
        checkpoint.copy_model(Path(folder) / "model", where / "model")
    storage.write_text(where / "history.csv", pd.DataFrame(state.history).to_csv(index=False))
    table = predictions_table(promoters, info, predicted)
    write_predictions(where / "predictions.parquet", table)
    metrics = evaluate_predictions(table, info.targets, training.seed)
    storage.write_json(where / _METRICS, metrics)
    storage.remove_folder(where / _RUN)
    console.print(f"best epoch {state.best_epoch} of {state.epoch}")
    _show_metrics(metrics)


def _show_start(promoters: Promoters, info: ModelInfo, scaling: ScalingConfig) -> None:
    counts = assign(promoters.genes["chrom"], info.split_of_chrom).value_counts()
    for name in SPLITS:
        chroms = info.split[name]
        shown = ", ".join(chroms[:12]) + (f" and {len(chroms) - 12} more" if len(chroms) > 12 else "")
        console.print(f"{name:>5}: {counts[name]:,} genes on {shown}")
    workers: Any = scaling.num_workers  # typed as a search space, too
    resources: Any = scaling.resources_per_worker or {}
    each = ", ".join(_plural(amount, kind) for kind, amount in resources.items())
    console.print(f"{_plural(workers, 'worker')} with {each}{' each' * (workers != 1)}")


def _plural(amount: float, unit: str) -> str:
    return f"{amount:g} {unit}{'s' * (amount != 1)}"


def _show_metrics(metrics: dict[str, Any]) -> None:
    console.print(_metrics_table(metrics))
    more = len(next(iter(metrics.values()), {})) - _TARGETS_SHOWN
    if more > 0:
        console.print(f"and {more} more targets in metrics.json")


def _metrics_table(metrics: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for name in ("split", "target", "genes", *METRICS):
        table.add_column(name, justify="left" if name in ("split", "target") else "right")
    for split in SPLITS:
        shown: dict[str, Any] = metrics[split]
        for target, values in list(shown.items())[:_TARGETS_SHOWN]:
            cells = [_with_interval(values[name], values[f"{name}_ci95"]) for name in METRICS]
            table.add_row(split, target, f"{values['n']:,}", *cells)
    return table


_TARGETS_SHOWN = 8


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None or interval is None:
        return "–"
    return f"{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"


if __name__ == "__main__":
    run(train)
