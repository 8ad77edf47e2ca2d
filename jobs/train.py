"""Train a model on a prepared data set by DDP under Ray Train; or one a fold and seed."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from jobs.cli.model_flags import Model, ModelFlags, find_trusted, resolve_model
from jobs.cli.run import given_settings, run
from jobs.ray_runtime.capacity import require_resources
from promoter import storage
from promoter.errors import InputError
from promoter.splits.config import SplitConfig
from promoter.training.config import TrainingConfig


def train(
    data: str,
    out: str,
    split: SplitConfig = SplitConfig(),
    model: Model = ModelFlags(),
    training: TrainingConfig = TrainingConfig(),
    folds: int = 1,
    seeds: int = 1,
    learning_curve: list[int] | None = None,
    baselines: bool = True,
    embeddings: str | None = None,
    init: str | None = None,
    allow_seen: bool = False,
    trust_code: bool = False,
    workers: int = 1,
    gpus_per_worker: float | None = None,
    accelerator_type: str | None = None,
    cpus_per_worker: int | None = None,
    min_workers: int | None = None,
    track: list[Literal["tensorboard", "mlflow"]] | None = None,
    overwrite: bool = False,
) -> None:
    """Train a network on some genes, choose its best epoch on others, and evaluate it on yet others.

    By default these are on other chromosomes; --split.by says what is never divided instead.

    Rerun after an interruption, it resumes after the last finished epoch.

    Args:
        data: folder that promoter prepare wrote.
        out: folder to write model/, history.csv, predictions.parquet, leakage.csv, metrics.json and config.yaml
            to.
        split: genes held out for validation and test.
        model: the network.
        training: the training recipe.
        folds: number of folds of chromosomes, or of what --split.by names: one network is trained per fold and
            tested on it, so that every gene is predicted by networks that have not seen its chromosome; they are
            written to folds/, an ensemble.
        seeds: number of networks per fold, or for the one split, that differ in their random seed: their mean is
            evaluated, and their spread tells how sure it is.
        learning_curve: numbers of training genes or sequences, ascending, such as 100,300,1000: a network more is
            trained on a part of the training set of each size, and r by size is written to learning_curve.csv; it
            tells how many are worth measuring.
        baselines: compare the network with baselines on the same genes.
        embeddings: folder that keeps the embeddings of --model.adapt head for several runs; by default
            embeddings/ in the output folder.
        init: model to start from instead of new weights: a model directory, or for the same --folds and --seeds
            the folder of a run with these. The network is that of the model; outputs of targets that it does not
            have are new.
        allow_seen: train although the model of --init has learned from genes that are held out here; their metrics
            are then no test. For a model of another genome, whose chromosomes have the same names.
        trust_code: run the code of --model.name external, here and on all nodes; false by default: refuse it.
        workers: number of processes that share each batch by DDP; 0 trains in this process, on its machine, which
            saves the start of others: for small sets and debuggers.
        gpus_per_worker: number of GPUs for each worker; by default 1 where the cluster has GPUs or may start some,
            else 0.
        accelerator_type: name of the card for each worker, as Ray has it, such as L4; by default any.
        cpus_per_worker: number of CPUs for each worker; by default an equal share of a machine without GPUs, else
            1.
        min_workers: minimum number of workers: training continues with this many after losing nodes, and scales
            back up when nodes return; by default it waits until there is room for all.
        track: tensorboard, mlflow or both: follow each epoch there; by default neither. Logs for TensorBoard go to
            tensorboard/ in the output folder. MLflow is an extra, and its address MLFLOW_TRACKING_URI.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced. A finished run
            that is damaged starts anew.
    """
    require_resources(workers or 1, cpus_per_worker, gpus_per_worker, accelerator_type)
    if allow_seen and init is None:
        raise InputError("--allow_seen true: there is no --init whose genes it is about; leave it out")
    _require_workers(workers, min_workers, cpus_per_worker, accelerator_type)
    if learning_curve is not None:
        _require_curve(learning_curve, folds, seeds)
        if init is not None:
            raise InputError(
                "--learning_curve with --init: its smaller training sets would start from weights that have seen "
                "more; leave one out"
            )
    network, start = resolve_model(model), None
    code = find_trusted(network, trust_code)

    from jobs.training.folds import train_folds
    from jobs.training.job import TrainingJob, network_for, note_schedule, read_training_data, try_code
    from jobs.training.learning_curve import train_curve
    from jobs.training.run import train_once
    from jobs.training.tracking import start_tracking
    from jobs.training.warm_start import given_names, note_start, read_init
    from promoter.splits.units import choose_unit

    out_dir = storage.require_writable(out)
    tracking = start_tracking(out_dir, track)
    promoters = read_training_data(data, training.loss)
    note_schedule(training)
    if init is not None:
        start = read_init(init, allow_seen)
        if folds == seeds == 1:
            start = start.member("")
        names = given_names([setting.name for setting in given_settings()], network)
        network = start.network(network, names, promoters)
        note_start(start, promoters)
    network = network_for(network, promoters)
    try_code(code, promoters)
    job = TrainingJob(
        data=data,
        promoters=promoters,
        split=choose_unit(split, promoters),
        model=network,
        training=training,
        workers=workers,
        baselines=baselines,
        gpus_per_worker=gpus_per_worker,
        accelerator_type=accelerator_type,
        cpus_per_worker=cpus_per_worker,
        min_workers=min_workers,
        embeddings=embeddings,
        init=start,
        learning_curve=learning_curve,
        code=code,
        tracking=tracking,
    )
    if learning_curve is not None:
        train_curve(job, out_dir, overwrite=overwrite)
    elif folds == 1 and seeds == 1:
        train_once(job, out_dir, overwrite=overwrite)
    else:
        train_folds(job, out_dir, folds=folds, seeds=seeds, overwrite=overwrite)


def _require_workers(workers: int, least: int | None, cpus: int | None, accelerator_type: str | None) -> None:
    """Raise InputError for settings of workers where there is none, and a minimum that is no part of them."""
    if workers == 0 and (least, cpus, accelerator_type) != (None, None, None):
        raise InputError(
            "--workers 0: this process trains, with what its machine has; leave out --min_workers, "
            "--cpus_per_worker and --accelerator_type"
        )
    if least is not None and not 1 <= least <= workers:
        raise InputError(f"--min_workers {least}: must be from 1 to --workers {workers}")


def _require_curve(sizes: list[int], folds: int, seeds: int) -> None:
    """Refuse sizes that do not ascend, and what has no single test set."""
    if folds > 1 or seeds > 1:
        raise InputError(
            "--learning_curve with --folds or --seeds: its networks share one test set and one seed; leave one out"
        )
    if not sizes or any(second <= first for first, second in pairwise(sizes)):
        given = ",".join(map(str, sizes))
        raise InputError(f"--learning_curve {given}: must be ascending numbers, such as 100,300,1000")


if __name__ == "__main__":
    run(train)
