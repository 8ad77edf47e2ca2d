"""Train a model on a prepared data set by DDP under Ray Train; or one a fold and seed."""

from __future__ import annotations

from jobs.cli.model_flags import Model, ModelFlags, chosen
from jobs.cli.run import run
from jobs.ray_runtime import cluster
from jobs.training.folds import train_folds
from jobs.training.run import TrainingJob, train_once, with_targets
from promoter import storage
from promoter.dataset.promoters import read_promoters
from promoter.errors import InputError
from promoter.splits.split import SplitConfig
from promoter.training import TrainingConfig


def train(
    data: str,
    out: str,
    split: SplitConfig = SplitConfig(),
    model: Model = ModelFlags(),
    training: TrainingConfig = TrainingConfig(),
    folds: int = 1,
    seeds: int = 1,
    baselines: bool = True,
    embeddings: str | None = None,
    workers: int = 1,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
    min_workers: int | None = None,
) -> None:
    """Train a network on some chromosomes, choose its best epoch on others, and evaluate it on yet others.

    Run again after an interruption it goes on from the last epoch.

    Args:
        data: folder that jobs.prepare wrote.
        out: folder for model/, history.csv, predictions.parquet, leakage.csv, metrics.json and config.yaml.
        split: genes held out for validation and test.
        model: the network.
        training: the recipe.
        folds: train a network a fold of chromosomes, each tested on its own fold, so that every gene is predicted
            by networks that have not seen its chromosome; they go to folds/, an ensemble.
        seeds: networks a fold, or of the one split, that differ in their seed: their mean is evaluated, and their
            spread tells how sure it is.
        baselines: set plain models beside the network, on the same genes.
        embeddings: folder to keep the embeddings of --model.adapt head in, for several runs; out/embeddings by
            default.
        workers: processes that share each batch by DDP.
        gpus_per_worker: 1 where the cluster has GPUs, else 0, by default.
        cpus_per_worker: an equal share of a machine without GPUs, else 1, by default.
        min_workers: go on with so few when nodes are lost, and with more again when there are; by default the
            training waits until there is room for all.
    """
    cluster.require_resources(workers, cpus_per_worker, gpus_per_worker)
    if min_workers is not None and not 1 <= min_workers <= workers:
        raise InputError(f"--min_workers {min_workers}: must be from 1 to --workers {workers}")
    for flag, value in (("folds", folds), ("seeds", seeds)):
        if value < 1:
            raise InputError(f"--{flag} {value}: must be at least 1")
    promoters = read_promoters(data)
    if not promoters.target_names:
        raise InputError(f"{data}: has sequences but no expression; prepare it with jobs.prepare")
    job = TrainingJob(
        data,
        promoters,
        split,
        with_targets(chosen(model), promoters.target_names),
        training,
        workers,
        baselines,
        gpus_per_worker,
        cpus_per_worker,
        min_workers=min_workers,
        embeddings=embeddings,
    )
    where = storage.require_writable(out)
    if folds == 1 and seeds == 1:
        train_once(job, where)
    else:
        train_folds(job, where, folds, seeds)


if __name__ == "__main__":
    run(train)
