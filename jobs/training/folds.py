"""Several trainings of one recipe: a fold of the genes each, or a seed each; together an ensemble."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from ray.train import ScalingConfig
from upath import UPath

from jobs.cli.console import console, one_line, plural, with_flags
from jobs.cli.outputs import own_folder
from jobs.ray_runtime.capacity import Cluster
from jobs.ray_runtime.connect import connect
from jobs.ray_runtime.progress import progress
from jobs.training.job import TrainingJob, held_out_genes, require_trainable, show_split, with_pretrained
from jobs.training.metrics_table import format_number, show_metrics
from jobs.training.resources import is_elastic, max_concurrent_trainings, trainings_that_fit
from jobs.training.run import METRICS, PATHS, describe_event, share, train_once
from promoter import storage
from promoter.checkpoint import serialize_model
from promoter.errors import InputError
from promoter.evaluation.evaluate import evaluate, read_metrics
from promoter.evaluation.intervals import add_intervals, calibrate, coverage, write_calibration
from promoter.evaluation.predictions import read_predictions, separate_baselines, write_predictions
from promoter.splits import homology
from promoter.splits.assign import SplitAssignment, assign_splits
from promoter.splits.config import MIN_FOLDS, SplitConfig
from promoter.splits.folds import remarks_on_folds
from promoter.splits.homology import Related, find_once
from promoter.splits.units import find_units, resampling_groups
from promoter.training.batches import require_orientation, weights_of

_FOLDS = "folds"


def train_folds(job: TrainingJob, out_dir: UPath, *, folds: int, seeds: int, overwrite: bool = False) -> None:
    """Train a network a fold and seed, as many at a time as fit, and judge what they predict together.

    With several folds each network is tested on its own and chooses its epoch on the next: each gene is predicted
    by networks that saw nothing of its chromosome, or of what else the split never divides. With one fold all have
    the split of the job.

    Args:
        job: settings and data that all trainings share.
        out_dir: folder for folds/fold_N/ or folds/fold_N_seed_M/, each as a training of its own leaves it,
            predictions.parquet (means over seeds), folds.csv, leakage.csv, metrics.json and config.yaml.
        folds: number of folds; 1 or at least 3.
        seeds: number of networks per fold.
        overwrite: true to take over a folder that another run has filled.

    Raises:
        InputError: settings that make no folds of this data.
    """
    splits = _splits(job, folds)
    settings = job.settings | {"out": str(out_dir), "folds": folds, "seeds": seeds}
    names = [[fold_name(fold, seed, seeds) for seed in range(seeds)] for fold in range(1, len(splits) + 1)]
    init_of = {name: job.init and job.init.member(name) for of_fold in names for name in of_fold}
    with own_folder("train", out_dir, settings, job.inputs, paths=PATHS, overwrite=overwrite) as output:
        if output.is_finished(METRICS, overwrite=overwrite):
            console.print(f"{out_dir}: this run is finished already; nothing to do")
            show_metrics(read_metrics(out_dir / METRICS, job.promoters.target_names), job.promoters.noun)
            return
        require_orientation(job.model, job.training, job.promoters.length)
        related = find_once(job.promoters)
        assigned = []
        for fold, split in enumerate(splits, start=1):
            assigned.append(assign_splits(job.promoters, split, related, job.crop))
            try:
                require_trainable(job, assigned[-1])
                for init in {id(init_of[name]): init_of[name] for name in names[fold - 1]}.values():
                    if init is not None:
                        init.require_unseen(job.promoters, assigned[-1])
            except InputError as error:
                raise InputError(f"fold {fold}: {error}" if folds > 1 else str(error)) from error
        cluster = connect()
        job = job.on(cluster)
        scaling = job.scaling_config(cluster)
        output.begin()
        job = with_pretrained(job, out_dir, cluster)
        if folds > 1:
            _show_folds(job, assigned)
        else:
            show_split(job, assigned[0])
        trainings = _trainings(job, splits, seeds)
        train_all(trainings, out_dir / _FOLDS, related, cluster=cluster, scaling=scaling)
        _publish(job, out_dir, folds, seeds, groups=_groups(job, assigned, related))
        output.finish()
    console.print(f"networks in {out_dir / _FOLDS}, their predictions and metrics in {out_dir}")


def _trainings(job: TrainingJob, splits: list[SplitConfig], seeds: int) -> dict[str, TrainingJob]:
    """Return the training of each fold and seed, by the name of its folder."""
    trainings: dict[str, TrainingJob] = {}
    for fold, split in enumerate(splits, start=1):
        for seed in range(seeds):
            training = replace(job.training, seed=job.training.seed + seed)
            # the baselines of a fold are the same for all seeds
            baselines = job.baselines and seed == 0
            name = fold_name(fold, seed, seeds)
            init = job.init and job.init.member(name)
            trainings[name] = replace(job, split=split, training=training, baselines=baselines, init=init)
    return trainings


def fold_name(fold: int, seed: int, seeds: int) -> str:
    """Return the folder name of a network, for a fold counted from 1 and a seed from 0 of so many."""
    return f"fold_{fold}" + (f"_seed_{seed + 1}" if seeds > 1 else "")


def _show_folds(job: TrainingJob, assigned: list[SplitAssignment]) -> None:
    console.print(f"split by {job.split.by}")
    for number, split in enumerate(assigned, start=1):
        console.print(f"fold {number}: tests on {held_out_genes(job.promoters, split, 'test')}")
    remarks = remarks_on_folds(assigned, "test", str(job.split.by))
    for number, split in enumerate(assigned, start=1):
        others = [other.remarks for other in assigned]
        for remark in split.remarks:  # what all folds have in common is said once
            shared = all(remark in of_fold for of_fold in others)
            remarks.append(remark if shared else f"fold {number}: {remark}")
    for remark in dict.fromkeys(remarks):
        console.print(with_flags(remark))


def _splits(job: TrainingJob, folds: int) -> list[SplitConfig]:
    """Return the split of each fold."""
    if folds == 1:
        return [job.split]
    if folds < MIN_FOLDS:
        raise InputError(
            f"--folds {folds}: at least {MIN_FOLDS} are needed, to test on, to choose epochs by, to learn from"
        )
    if job.split.by == "column":
        raise InputError(
            f"--folds {folds}: the column split has one test set; hold out by --split.by group or family"
        )
    for name in ("val", "test", "fold"):
        if getattr(job.split, name) is not None:
            raise InputError(f"--split.{name}: with --folds {folds} every gene is tested once; leave it out")
    return [replace(job.split, fold=[fold, folds]) for fold in range(1, folds + 1)]


def train_all(
    trainings: dict[str, TrainingJob], folder: UPath, related: Related, *, cluster: Cluster, scaling: ScalingConfig
) -> None:
    """Run all trainings, each in a folder of its name, and raise the first error.

    An error is printed when it happens. Trainings that have begun then run to their end, and no other is begun.

    Args:
        trainings: name -> training; they have their data in common.
        folder: folder for a folder of each name.
        related: function that finds the related genes, as for `train_once`.
        cluster: cluster that trains them.
        scaling: workers of each.
    """
    max_concurrent = min(max_concurrent_trainings(cluster, scaling), len(trainings))
    console.print(f"{plural(len(trainings), 'network')}, {_at_a_time(cluster, scaling, max_concurrent)}")
    shared = share(next(iter(trainings.values())), scaling)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in trainings:
        waiting.put(name)
    errors: list[BaseException] = []
    with progress("train", sum(job.training.epochs for job in trainings.values()), "epochs") as shown:

        def train_one(name: str) -> None:
            epochs = 0

            def on_record(record: dict[str, Any]) -> None:
                nonlocal epochs
                if event := describe_event(record):
                    console.print(f"{name}: {event}")
                if "epoch" in record:
                    epochs += 1
                    shown.advance(1)

            train_once(trainings[name], folder / name, related=related, on_epoch=on_record, shared=shared)
            shown.advance(trainings[name].training.epochs - epochs)  # stopped early, or finished by an earlier run
            metrics = read_metrics(folder / name / METRICS, trainings[name].promoters.target_names)["test"]
            scores = [f"{target} {format_number(values['pearson'])}" for target, values in metrics.items()]
            console.print(f"{name}: test r {', '.join(scores[:4])}{', …' * (len(scores) > 4)}")

        def work() -> None:
            while not errors:
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    train_one(name)
                except BaseException as error:  # whatever it is, the main thread raises it
                    errors.append(error)
                    console.print(
                        f"{name}: {one_line(error)}; networks in training run to their end, no other begins"
                    )

        # the main thread stays free for Ctrl-C
        threads = [threading.Thread(target=work, daemon=True) for _ in range(max_concurrent)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _at_a_time(cluster: Cluster, scaling: ScalingConfig, max_concurrent: int) -> str:
    """Return how many networks train at the same time, for a message."""
    now = min(trainings_that_fit(cluster.nodes, scaling), max_concurrent)
    if is_elastic(scaling):
        return "one at a time, each on as many workers as find room"
    if now == max_concurrent:
        return f"{now} at a time"
    return f"as many at a time as find room (now {now}, at most {max_concurrent})"


def _groups(job: TrainingJob, assigned: list[SplitAssignment], related: Related) -> np.ndarray:
    """Return the group of each gene that a bootstrap draws whole; over several folds all genes are test genes."""
    if len(assigned) == 1:
        return assigned[0].group
    units = find_units(job.promoters, job.split, lambda: related(None))
    return resampling_groups(units, lambda: related(job.crop), ["test"] * len(job.promoters))


def _publish(job: TrainingJob, out_dir: UPath, folds: int, seeds: int, *, groups: np.ndarray) -> None:
    """Put together what the networks predict; `groups` are those of the genes in the data set's order."""
    targets = job.promoters.target_names
    parts, leaks, scores, models = [], [], [], []
    for fold in range(1, folds + 1):
        folders = [out_dir / _FOLDS / fold_name(fold, seed, seeds) for seed in range(seeds)]
        models.append([serialize_model(folder / "model").checksum for folder in folders])
        parts.append(_fold_table(folders, targets, fold=fold, baselines=job.baselines, only_test=folds > 1))
        leaks.append(homology.read_leaks(folders[0] / "leakage.csv"))
        for seed, folder in enumerate(folders, start=1):
            for target, values in read_metrics(folder / METRICS, targets)["test"].items():
                of_target = {name: values[name] for name in ("n", "mse", "pearson", "spearman")}
                scores.append({"fold": fold, "seed": seed, "target": target} | of_target)
    order = {gene: row for row, gene in enumerate(job.promoters.genes["gene_id"])}
    table = pd.concat(parts, ignore_index=True)
    table = table.sort_values("gene_id", key=lambda ids: ids.map(order)).reset_index(drop=True)
    table, others = separate_baselines(table, targets)
    leaked = pd.concat(leaks, ignore_index=True)
    # of several folds the table holds each gene as a test gene, so only leaks of such count
    relevant = leaked[leaked["split"] == "test"] if folds > 1 else leaked
    leaking = homology.leaking_genes(relevant, table["gene_id"])
    write_calibration(out_dir / _FOLDS, calibrate(table, targets, models))
    table = add_intervals(table, targets, folds)
    rows = table["gene_id"].map(order).to_numpy()
    metrics = evaluate(
        table,
        targets,
        leaking=leaking,
        baselines=others,
        weights=weights_of(job.promoters.weights, rows),
        groups=groups[rows],
        noun=job.promoters.noun,
        seed=job.training.seed,
    )
    for target in targets:
        metrics["test"][target]["interval_coverage"] = coverage(table[table["split"] == "test"], target)
    storage.write_text(out_dir / "folds.csv", pd.DataFrame(scores).to_csv(index=False))
    storage.write_text(out_dir / "leakage.csv", leaked.to_csv(index=False))
    write_predictions(out_dir / "predictions.parquet", table)
    storage.write_json(out_dir / METRICS, metrics)
    show_metrics(metrics, job.promoters.noun)


def _fold_table(
    folders: list[UPath], targets: list[str], *, fold: int, baselines: bool, only_test: bool
) -> pd.DataFrame:
    """Return the mean predictions of a fold's networks, their spread, and the baselines' predictions."""
    columns = [column for target in targets for column in (target, f"{target}_predicted")]
    tables = [read_predictions(folder / "predictions.parquet", columns) for folder in folders]
    mean = tables[0].copy()
    for target in targets:
        column = f"{target}_predicted"
        values = np.stack([table[column].to_numpy() for table in tables])
        mean[column] = values.mean(axis=0)
        if len(tables) > 1:
            mean[f"{column}_sd"] = values.std(axis=0, ddof=1)
    if baselines:
        baseline_table = read_predictions(folders[0] / "baselines.parquet")
        mean = pd.concat(
            [mean, baseline_table[baseline_table.columns.difference(mean.columns, sort=False)]], axis=1
        )
    mean.insert(3, "fold", fold)
    return mean[mean["split"] == "test"] if only_test else mean
