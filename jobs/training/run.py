"""One training by DDP under Ray Train, in a folder of its own: resumed, published, never mixed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
from upath import UPath

from jobs.cli.config_file import require_same, resolved, write_config
from jobs.cli.run import console, plural
from jobs.ray_runtime import cluster
from jobs.ray_runtime.train_controller import Run, read_checkpoint, report
from jobs.training.embeddings import embed_genes
from jobs.training.metrics_table import metrics_table, show_metrics
from promoter import checkpoint, storage
from promoter.baselines import fit_baselines
from promoter.checkpoint import ModelInfo, load_info
from promoter.dataset.promoters import Promoters, locate, near_tss
from promoter.errors import InputError
from promoter.evaluation.evaluate import evaluate
from promoter.evaluation.predictions import baselines_table, predictions_table, write_predictions
from promoter.models.build import Learner, NetworkConfig, new_learner, require_length, whole_network
from promoter.models.pretrained import PackedTrunk, PretrainedConfig, fetch_trunk
from promoter.splits.assign import HeldOut, hold_out
from promoter.splits.split import SPLITS, SplitConfig
from promoter.training import (
    Examples,
    TrainingConfig,
    TrainingDivergedError,
    TrainingState,
    fit,
    predict,
    require_enough_genes,
    require_orientation,
    standardisation,
)
from promoter.training.allocator import KEEP_FREED_MEMORY

_RUN = "checkpoints"  # Ray's folder in --out; removed when the model is written
_STATE = "state.pt"
_PREDICTIONS = "predictions.npy"
METRICS = "metrics.json"
_OUTPUTS = (
    "model/model.yaml",
    "model/model.safetensors",
    "history.csv",
    "leakage.csv",
    "predictions.parquet",
    METRICS,
)
# may change between a run and its resumption
RESOURCES = ("workers", "min_workers", "gpus_per_worker", "cpus_per_worker", "embeddings")
_MAX_FAILURES = 3  # worker deaths before the run gives up


@dataclass(frozen=True)
class Pretrained:
    """What a pretrained network is trained from: its trunk, and of a frozen one the genes' embeddings."""

    trunk: PackedTrunk
    embedded: np.ndarray | None


@dataclass(frozen=True)
class TrainingJob:
    """What one training is given; `model` with the data's number of targets."""

    data: str
    promoters: Promoters
    split: SplitConfig
    model: NetworkConfig
    training: TrainingConfig
    workers: int
    baselines: bool
    gpus_per_worker: float | None
    cpus_per_worker: int | None
    min_workers: int | None = None
    embeddings: str | None = None
    pretrained: Pretrained | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What `jobs.train --config` takes to do the same."""
        left_out = {"promoters", "pretrained"} | ({"embeddings"} if self.embeddings is None else set())
        return resolved({name: value for name, value in vars(self).items() if name not in left_out})


def train_once(
    job: TrainingJob,
    where: UPath,
    related: pd.DataFrame | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Train, or go on with what an earlier run has left, unless it is finished.

    Args:
        job: what to train on what.
        where: folder for model/, history.csv, predictions.parquet, leakage.csv, metrics.json and config.yaml.
        related: pairs of genes with homologous promoters, where they are known already.
        on_epoch: given each epoch's record instead of the terminal, to which nothing is printed then.
    """
    quiet = on_epoch is not None
    promoters = job.promoters
    # these fail here, not on a worker
    require_length(job.model, promoters.length, promoters.metadata["window"])
    require_orientation(job.model, job.training)
    held_out = hold_out(promoters, job.split, related)
    require_enough_genes(len(held_out.rows("train")), len(held_out.rows("val")), job.training, job.workers)
    info = describe(promoters, held_out, job.training)
    settings = job.settings | {"out": str(where)}
    inputs = {str(locate(job.data)): promoters.checksum}
    require_same(where, settings, inputs, {*RESOURCES, "out", "data"}, (_RUN, "model", *_OUTPUTS))
    if _is_finished(where):
        storage.remove_folder(where / _RUN)  # a crash after metrics.json was written leaves it
        if not quiet:
            console.print(f"{where}: this run is finished already; nothing to do")
            show_metrics(storage.read_json(where / METRICS))
        return

    place = cluster.connect()
    cluster.require_shared(where)
    scaling = scaling_config(place, job.workers, job.gpus_per_worker, job.cpus_per_worker, job.min_workers)
    job = with_pretrained(job, where, place)
    write_config(where / "config.yaml", settings, inputs)
    if not quiet:
        _show_start(held_out, scaling)
    finished = _run_workers(where, job, info, held_out, scaling, on_epoch or _Narrator(job.training.epochs))
    state, metrics = _publish(where, finished, job, info, held_out)
    if not quiet:
        console.print(f"best epoch {state.best_epoch} of {state.epoch}")
        show_metrics(metrics)
        console.print(f"model, predictions and metrics in {where}")


def with_pretrained(job: TrainingJob, where: UPath, place: cluster.Cluster) -> TrainingJob:
    """Return the job with what a pretrained network is trained from; for a frozen trunk, the embeddings.

    Args:
        job: the training, or one of those that differ in seed and fold.
        where: folder of the run.
        place: to compute on.

    Raises:
        InputError: weights that are not there, or do not fit.
    """
    if not isinstance(job.model, PretrainedConfig) or job.pretrained is not None:
        return job
    trunk = fetch_trunk(job.model)
    if job.model.adapt != "head":
        return replace(job, pretrained=Pretrained(trunk, None))
    scaling: Any = scaling_config(place, 1, job.gpus_per_worker, job.cpus_per_worker or 1).resources_per_worker
    limits = cluster.TaskLimits(None, int(scaling.get("CPU", 1)), scaling.get("GPU", 0))
    folder = storage.require_writable(job.embeddings) if job.embeddings else where / "embeddings"
    both = job.training.reverse_complement > 0
    embedded = embed_genes(job.model, trunk, job.promoters, folder, job.training.precision, both, limits, place)
    return replace(job, pretrained=Pretrained(trunk, embedded))


def with_targets(model: NetworkConfig, targets: list[str]) -> NetworkConfig:
    """Return the network with an output a target; 1, the default, counts as not given."""
    if model.n_targets not in (1, len(targets)):
        raise InputError(
            f"--model.n_targets {model.n_targets}: the data has {plural(len(targets), 'target')} "
            f"({', '.join(targets[:3])}{', …' * (len(targets) > 3)}); leave it out, the data tells it"
        )
    return replace(model, n_targets=len(targets))


def describe(promoters: Promoters, held_out: HeldOut, training: TrainingConfig) -> ModelInfo:
    """Return what is to be known of a model that is trained so."""
    scale = standardisation(promoters.targets[held_out.rows("train")])
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
        split=held_out.chroms,
        split_of_gene=held_out.split_of_gene,
        data={"sha256": promoters.checksum, "genes": len(promoters)},
        training=asdict(training),
        versions=checkpoint.versions() | {"ray": ray.__version__},
    )


def _is_finished(where: UPath) -> bool:
    """Tell whether all results are there.

    Raises:
        InputError: metrics.json, which is written last, is there, but another result is not, or one is damaged.
    """
    if not (where / METRICS).exists():
        return False
    mend = "delete the folder and train again, or choose another --out"
    lost = [name for name in _OUTPUTS if not (where / name).is_file()]
    if lost:
        raise InputError(f"{where}: holds a finished run without its {', '.join(lost)}; {mend}")
    try:
        load_info(where / "model")
        with storage.open_table(where / "predictions.parquet", "table of predictions"):
            pass
        metrics_table(storage.read_json(where / METRICS))
    except InputError as error:
        reason = str(error).rsplit("; ", 1)[0]  # without its own mend
        raise InputError(f"{where}: holds a finished run that is damaged ({reason}); {mend}") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: holds a finished run that is damaged ({where / METRICS} holds no metrics); {mend}"
        ) from error
    return True


def scaling_config(
    place: cluster.Cluster,
    workers: int,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
    min_workers: int | None = None,
) -> ScalingConfig:
    """Return what Ray Train is to give the workers; None leaves a number to the machine.

    With `min_workers` there are as many workers as find room, from that number to `workers`.

    Raises:
        InputError: there is less, and never more.
    """
    gpus = float(place.gpus > 0) if gpus_per_worker is None else gpus_per_worker
    cpus = cpus_per_worker or (1 if gpus else max(1, place.cpus // workers))
    place.require_room(min_workers or workers, cpus, gpus, "--workers, --cpus_per_worker or --gpus_per_worker")
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    if 0 < gpus < 1 and workers > 1:
        raise InputError(
            f"--gpus_per_worker {gpus:g} with --workers {workers}: by nccl, which sums up their gradients, each "
            "worker needs a GPU of its own; take --gpus_per_worker 1, or one worker"
        )
    number = workers if min_workers in (None, workers) else (min_workers, workers)
    return ScalingConfig(num_workers=number, use_gpu=gpus > 0, resources_per_worker=resources)


def at_once(place: cluster.Cluster, scaling: ScalingConfig) -> int:
    """Return how many trainings fit at a time: at least 1."""
    workers = _most_workers(scaling)
    each: Any = scaling.resources_per_worker or {}
    fitting = sum(node.fitting(each.get("CPU", 0), each.get("GPU", 0)) for node in place.nodes)
    return max(1, fitting // workers)


def _most_workers(scaling: ScalingConfig) -> int:
    number: Any = scaling.num_workers  # typed as a search space, too
    return number[1] if isinstance(number, tuple) else number


def _run_workers(
    where: UPath,
    job: TrainingJob,
    info: ModelInfo,
    held_out: HeldOut,
    scaling: ScalingConfig,
    tell: Callable[[dict[str, Any]], None],
) -> Checkpoint:
    """Train until done, resuming what Ray finds in the run's folder, and return the last checkpoint."""
    given = job.pretrained
    embedded = given and given.embedded
    loop = {
        "tokens": ray.put(job.promoters.tokens if embedded is None else embedded),
        "trunk": given and ray.put(given.trunk),
        "length": job.promoters.length,
        "targets": ray.put(job.promoters.targets),
        "split": held_out.split,
        "info": info,
        "model": job.model,
        "training": job.training,
        "most_workers": job.workers,
    }

    filesystem, folder = storage.arrow_filesystem(where)

    def build(callback: UserCallback) -> TorchTrainer:
        return TorchTrainer(
            _train_on_worker,
            train_loop_config=loop,
            scaling_config=scaling,
            run_config=RunConfig(
                name=_RUN,
                storage_path=folder,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=_MAX_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                callbacks=[callback],
                worker_runtime_env={"env_vars": KEEP_FREED_MEMORY},  # Ray Train runs the loop in a thread
            ),
        )

    diverged = ""
    at_work = Run(build)
    while (record := at_work.next()) is not None:
        if "diverged" in record:
            diverged = record["diverged"]
        else:
            tell(record)
    result = at_work.result()
    if diverged:
        raise TrainingDivergedError(diverged)
    if result.checkpoint is None:
        raise RuntimeError(f"Ray Train ended without a checkpoint: {result.error}")
    return result.checkpoint


class _Narrator:
    """Prints a line for each epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seconds: list[float] = []

    def __call__(self, record: dict[str, Any]) -> None:
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
    embedded = tokens.ndim > 2
    trunk: PackedTrunk | None = (job["trunk"] and not embedded and ray.get(job["trunk"])) or None
    model: Learner = new_learner(job["model"], tokens.shape[-1], trunk)
    device = get_device()

    def on_epoch(state: TrainingState) -> None:
        record = state.history[-1] | {"best_epoch": state.best_epoch}
        report(record, lambda folder: _write_state(folder, state))

    saved = read_checkpoint(_STATE)
    restored = None if saved is None else TrainingState.from_bytes(saved)
    if restored is not None:
        ray.train.report({"restored": restored.epoch})
    try:
        state = fit(
            model, examples["train"], examples["val"], training, device, restored, on_epoch, job["most_workers"]
        )
    except TrainingDivergedError as error:  # would fail again: end the run instead of having it repeated
        ray.train.report({"diverged": str(error)})
        return
    predicted = predict(model, tokens, device, training.precision, together=True)

    def write(folder: Path) -> None:
        _write_state(folder, state)
        np.save(folder / _PREDICTIONS, predicted, allow_pickle=False)
        best = replace(info, training={**info.training, "best_epoch": state.best_epoch})
        whole = whole_network(model, job["length"], ray.get(job["trunk"]) if embedded else None)
        checkpoint.save_model(folder / "model", whole, best)

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
    where: UPath,
    finished: Checkpoint,
    job: TrainingJob,
    info: ModelInfo,
    held_out: HeldOut,
) -> tuple[TrainingState, dict[str, Any]]:
    """Write the results; metrics.json comes last, so that it stands for a finished run."""
    promoters = job.promoters
    with finished.as_directory() as folder:
        state = TrainingState.from_bytes((Path(folder) / _STATE).read_bytes())
        predicted = np.load(Path(folder) / _PREDICTIONS, allow_pickle=False)
        checkpoint.copy_model(Path(folder) / "model", where / "model")
    storage.write_text(where / "history.csv", pd.DataFrame(state.history).to_csv(index=False))
    storage.write_text(where / "leakage.csv", held_out.leaks.to_csv(index=False))
    table = predictions_table(promoters, info, predicted)
    write_predictions(where / "predictions.parquet", table)
    others = None
    if job.baselines:
        chroms, learned = promoters.genes["chrom"], held_out.split == "train"
        embedded = job.pretrained and job.pretrained.embedded
        others = fit_baselines(near_tss(promoters).tokens, promoters.targets, chroms, learned, embedded)
        write_predictions(where / "baselines.parquet", baselines_table(table, info.targets, others))
    metrics = evaluate(table, info.targets, held_out.leaking, others, job.training.seed)
    storage.write_json(where / METRICS, metrics)
    storage.remove_folder(where / _RUN)
    return state, metrics


def _show_start(held_out: HeldOut, scaling: ScalingConfig) -> None:
    for name in SPLITS:
        chroms = held_out.chroms.get(name, [])
        shown = ", ".join(chroms[:12]) + (f" and {len(chroms) - 12} more" if len(chroms) > 12 else "")
        console.print(f"{name:>5}: {len(held_out.rows(name)):,} genes" + f" on {shown}" * bool(shown))
    for line in held_out.remarks:
        console.print(line)
    workers = _most_workers(scaling)
    least = f"{scaling.num_workers[0]} to " if isinstance(scaling.num_workers, tuple) else ""
    resources: Any = scaling.resources_per_worker or {}
    each = ", ".join(plural(amount, kind) for kind, amount in resources.items())
    console.print(f"{least}{plural(workers, 'worker')} with {each}{' each' * (workers != 1)}")
