"""One training: its data, its settings, and what its model records about them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray
import torch
from ray.train import ScalingConfig
from upath import UPath

from jobs.cli.config_file import resolved
from jobs.cli.console import console, plural, with_flags
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.model_cache import PROCESS_BYTES
from jobs.training.embeddings import embed_genes
from jobs.training.resources import scaling_config
from jobs.training.tracking import TrackedRun, Tracking
from jobs.training.warm_start import InitModel
from promoter import checkpoint, storage
from promoter.checkpoint import ModelInfo
from promoter.dataset.log_values import counts_in_log_units
from promoter.dataset.promoters import LIBRARY_SCHEMA, Promoters, locate, read_promoters
from promoter.errors import InputError, listed, note
from promoter.model_argument import announce_code
from promoter.models.code import ModelCode
from promoter.models.config import CNNConfig, NetworkConfig
from promoter.models.external_training import require_learnable
from promoter.models.weights import SerializedTrunk, fetch_trunk
from promoter.splits.assign import SplitAssignment
from promoter.splits.config import SPLITS, SplitConfig
from promoter.training import TrainingConfig
from promoter.training.batches import doubt_constant_targets, require_enough_genes, require_values, weights_of
from promoter.training.losses import standardisation

_COPIES_OF_DATA = 2  # in the memory of a worker: its sets, and what it sends to the device
_COPIES_OF_TRUNK = 4  # as sent, as read, in the network, and its gradients
_SEQUENCES_TRIED = 4


@dataclass(frozen=True)
class Pretrained:
    """The weights that a pretrained network starts from.

    Attributes:
        trunk: the network below the head.
        embedded: embeddings of the genes by a frozen trunk, float32, shape (genes, 1 or 2, dim); None for a trunk
            that is trained too.
    """

    trunk: SerializedTrunk
    embedded: np.ndarray | None


@dataclass(frozen=True)
class TrainingJob:
    """The settings and data of one training; the settings are those of `jobs.train`.

    Attributes:
        promoters: the data set in `data`.
        model: the network, with as many outputs as the data has targets.
        pretrained: weights that a pretrained network starts from; None: not loaded yet, or no such network.
        init: earlier models that the training starts from; None for new weights.
        code: code of an external network; None for any other.
        tracking: trackers that follow the training; None: none.
    """

    data: str
    promoters: Promoters
    split: SplitConfig
    model: NetworkConfig
    training: TrainingConfig
    workers: int
    baselines: bool
    gpus_per_worker: float | None
    cpus_per_worker: int | None
    accelerator_type: str | None = None
    min_workers: int | None = None
    embeddings: str | None = None
    learning_curve: list[int] | None = None
    pretrained: Pretrained | None = None
    init: InitModel | None = None
    code: ModelCode | None = None
    tracking: Tracking | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What `jobs.train --config` takes to do the same."""
        # which earlier versions did not write
        names = ("accelerator_type", "embeddings", "learning_curve")
        optional = {name for name in names if getattr(self, name) is None}
        left_out = {"promoters", "pretrained", "init", "code", "tracking"} | optional
        settings = {name: value for name, value in vars(self).items() if name not in left_out}
        if self.init is not None:
            settings |= {"init": self.init.path, "allow_seen": self.init.allow_seen}
        if self.tracking is not None and self.tracking.trackers:
            settings["track"] = list(self.tracking.trackers)
        return resolved(settings | {"split": self.split.settings()})

    @property
    def inputs(self) -> dict[str, str]:
        """Path of each input -> its SHA-256."""
        models = self.init.inputs if self.init is not None else {}
        return inputs_of(self.data, self.promoters, self.code) | models

    @property
    def crop(self) -> int:
        """Number of bases at the end of the windows that the network sees."""
        return self.promoters.length - self.model.outside(self.promoters.length)

    def on(self, cluster: Cluster) -> TrainingJob:
        """Return the job with the number of GPUs that a worker has on this cluster, if none was given."""
        return replace(self, gpus_per_worker=cluster.choose_gpus(self.gpus_per_worker, self.accelerator_type))

    def follow(self, folder: UPath) -> AbstractContextManager[TrackedRun]:
        """Give the run by which the trackers follow this training, which writes to `folder`."""
        return (self.tracking or Tracking(folder, ())).follow(folder, self.settings)

    def scaling_config(self, cluster: Cluster) -> ScalingConfig:
        """Return what `scaling_config` makes of the workers on this cluster."""
        return scaling_config(
            cluster,
            self.workers,
            gpus_per_worker=self.gpus_per_worker,
            cpus_per_worker=self.cpus_per_worker,
            min_workers=self.min_workers,
            accelerator_type=self.accelerator_type,
            memory=self.memory,
        )

    @property
    def memory(self) -> int:
        """About how many bytes of memory a worker needs, for Ray to pack nodes by."""
        trunk = self.pretrained.trunk.weights if self.pretrained else b""
        arrays = self.promoters.tokens.nbytes + self.promoters.targets.nbytes
        return PROCESS_BYTES + _COPIES_OF_DATA * arrays + _COPIES_OF_TRUNK * len(trunk)


def inputs_of(data: str, promoters: Promoters, code: ModelCode | None) -> dict[str, str]:
    """Return the path of the data set, and the name of the code of an external network -> its SHA-256."""
    return {str(locate(data)): promoters.checksum} | ({f"external:{code.factory}": code.sha256} if code else {})


def read_training_data(data: str, loss: str = "mse") -> Promoters:
    """Read a data set that has targets; genes without a value of any are left out, and counted in a note.

    Args:
        data: folder of the data set.
        loss: name of the loss; the targets are in the unit in which a network with it predicts.

    Raises:
        InputError: it is missing or damaged, holds sequences alone, an infinite value, or values that are not for
            the loss.
    """
    promoters = read_promoters(data)
    if not promoters.target_names:
        raise InputError(f"{data}: has sequences but no expression; prepare it with promoter prepare")
    infinite = np.argwhere(np.isinf(promoters.targets))
    if len(infinite):
        gene, target = infinite[0]
        raise InputError(
            f"{data}: gene {promoters.genes['gene_id'].iloc[gene]} has the value "
            f"{promoters.targets[gene, target]} of target {promoters.target_names[target]}, and "
            f"{plural(len(infinite), 'value')} in all are infinite; leave them empty in the expression table, and "
            "prepare the data again"
        )
    empty = np.isnan(promoters.targets).all(axis=1)
    if empty.all():
        raise InputError(f"{data}: no gene has a value of any target; prepare it again from a table with values")
    if empty.any():
        note(f"{data}: {plural(int(empty.sum()), 'gene')} without a value of any target left out")
        genes = promoters.genes[~empty].reset_index(drop=True)
        promoters = replace(promoters, genes=genes, targets=promoters.targets[~empty])
    return counts_in_log_units(promoters, data) if loss == "poisson" else promoters


def note_schedule(training: TrainingConfig) -> None:
    """Say that one_cycle trains all epochs, if early stopping is set, as it is by default."""
    if training.schedule == "one_cycle" and training.early_stopping is not None:
        note(
            f"`TrainingConfig.schedule='one_cycle'`: all {training.epochs:,} epochs are trained, since the rate "
            f"falls until the last; `TrainingConfig.early_stopping={training.early_stopping}` has no effect"
        )


def require_trainable(job: TrainingJob, held_out: SplitAssignment) -> None:
    """Check that the genes, and the values of each target, are enough to train on; warn of constant targets.

    Raises:
        InputError: too few genes, too few values of a target, or a batch size too small for the workers.
    """
    promoters, train, val = job.promoters, held_out.rows("train"), held_out.rows("val")
    weights = weights_of(promoters.weights, train), weights_of(promoters.weights, val)
    require_enough_genes(len(train), len(val), job.training, max(1, job.workers))
    require_values(promoters.targets[train], promoters.targets[val], promoters.target_names, weights=weights)
    train = _learned(promoters, held_out)
    require_enough_genes(len(train), len(val), job.training, max(1, job.workers))  # of weight above 0
    doubt_constant_targets(promoters.targets[train], promoters.target_names)


def _learned(promoters: Promoters, held_out: SplitAssignment) -> np.ndarray:
    """Return the row numbers of the training genes that have a weight above 0."""
    rows = held_out.rows("train")
    weights = weights_of(promoters.weights, rows)
    return rows if weights is None else rows[weights > 0]


def held_out_genes(promoters: Promoters, split: SplitAssignment, name: str) -> str:
    """Return how many genes a set holds, and on which chromosomes where it holds complete ones, for messages."""
    chroms = split.chroms[name]
    return plural(len(split.rows(name)), promoters.noun) + (f" of {listed(chroms, 12)}" if chroms else "")


def show_split(job: TrainingJob, held_out: SplitAssignment) -> None:
    """Print what is held out, and what there is to say about it."""
    console.print(f"split by {job.split.by}")
    for name in SPLITS:
        console.print(f"{name:>5}: {held_out_genes(job.promoters, held_out, name)}")
    for remark in held_out.remarks:
        console.print(with_flags(remark))


def with_pretrained(job: TrainingJob, out_dir: UPath, cluster: Cluster) -> TrainingJob:
    """Return the job with the weights of a pretrained network, and for a frozen trunk the genes' embeddings.

    Args:
        job: the training, or one of several that differ in seed and fold.
        out_dir: folder of the run.
        cluster: cluster that computes the embeddings.

    Raises:
        InputError: the weights are missing, or do not fit the network.
    """
    config = job.model.pretrained
    if config is None or job.pretrained is not None:
        return job
    trunk = fetch_trunk(config)
    if config.adapt != "head":
        return replace(job, pretrained=Pretrained(trunk, None))
    one_worker = replace(job, workers=1, cpus_per_worker=job.cpus_per_worker or 1, min_workers=None)
    resources: Any = one_worker.scaling_config(cluster).resources_per_worker
    limits = TaskLimits(None, int(resources.get("CPU", 1)), resources.get("GPU", 0), job.accelerator_type)
    limits = limits.on(cluster, PROCESS_BYTES + _COPIES_OF_TRUNK * len(trunk.weights))
    folder = storage.require_writable(job.embeddings) if job.embeddings else out_dir / "embeddings"
    both_strands = job.training.reverse_complement > 0
    embedded = embed_genes(
        config,
        trunk,
        job.promoters,
        folder=folder,
        precision=job.training.precision,
        both_strands=both_strands,
        limits=limits,
        cluster=cluster,
    )
    return replace(job, pretrained=Pretrained(trunk, embedded))


def with_targets(model: NetworkConfig, targets: list[str]) -> NetworkConfig:
    """Return the network with one output for each target; `n_targets` 1, the default, counts as not given.

    Raises:
        InputError: `n_targets` is another number than that of the targets.
    """
    if model.n_targets not in (1, len(targets)):
        raise InputError(
            f"--model.n_targets {model.n_targets}: the data has {plural(len(targets), 'target')} "
            f"({', '.join(targets[:3])}{', …' * (len(targets) > 3)}); leave it out, the data tells it"
        )
    return replace(model, n_targets=len(targets))


def network_for(model: NetworkConfig, promoters: Promoters) -> NetworkConfig:
    """Return the network with an output for each target, and with the crop and bins that the windows allow.

    Says in a note which settings of `model` the windows do not allow.

    Raises:
        InputError: the windows are too short for the network, or `n_targets` is another number.
    """
    model = with_targets(model, promoters.target_names)
    fitted = model.for_window(promoters.length, promoters.metadata.get("window"))
    if isinstance(model, CNNConfig) and isinstance(fitted, CNNConfig):
        if model.crop != fitted.crop:
            note(f"`CNNConfig.crop={model.crop}`: the windows have {promoters.length} bases, all of them are used")
        if model.bins != fitted.bins:
            note(
                f"`CNNConfig.bins={model.bins}`: {fitted.crop or promoters.length} bases leave "
                f"{plural(fitted.bins, 'position')} after pool_sizes {list(model.pool_sizes)}, so the network has "
                f"{plural(fitted.bins, 'bin')}"
            )
    return fitted


def try_code(code: ModelCode | None, promoters: Promoters) -> None:
    """Try a user's network on a few sequences of the data before anything is trained, and say what code it is.

    Args:
        code: its code; None (no such network) tries nothing.
        promoters: the data set.

    Raises:
        InputError: it cannot be built, run or trained on such sequences.
    """
    if code is not None:
        require_learnable(code, torch.from_numpy(promoters.tokens[:_SEQUENCES_TRIED]), promoters.target_names)
        announce_code(code, "weights drawn anew")


def describe(promoters: Promoters, held_out: SplitAssignment, training: TrainingConfig) -> ModelInfo:
    """Return what `model.yaml` records about a model trained on this data with this split and recipe."""
    scale = standardisation(promoters.targets[_learned(promoters, held_out)])
    window = promoters.metadata.get("window") or {}
    data: dict[str, Any] = {"sha256": promoters.checksum, "genes": len(promoters), **held_out.made_of}
    if not promoters.located:  # which of these a library has; the report tells
        data["library"] = [name for name in LIBRARY_SCHEMA.names if name in promoters.genes]
    return ModelInfo(
        targets=promoters.target_names,
        window={side: window.get(side) for side in ("upstream", "downstream")} | {"length": promoters.length},
        standardisation={"mean": scale.mean.tolist(), "sd": scale.sd.tolist()},
        transform=promoters.metadata.get("transform"),
        split=held_out.chroms,
        split_of_gene=held_out.split_of_gene,
        data=data,
        training=asdict(training),
        versions=checkpoint.versions() | {"ray": ray.__version__},
    )
