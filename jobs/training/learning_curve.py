"""Trainings of one recipe on more and more of the training set: what more sequences would gain."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from upath import UPath

from jobs.cli.console import console, new_table, plural
from jobs.ray_runtime.connect import connect
from jobs.training.folds import train_all
from jobs.training.job import TrainingJob, require_trainable
from jobs.training.metrics_table import TARGETS_SHOWN, format_interval
from jobs.training.run import train_once
from promoter import storage
from promoter.errors import InputError
from promoter.evaluation.learning_curve import CURVE, describe_gain, learning_curve, read_curve
from promoter.evaluation.predictions import read_predictions
from promoter.splits.assign import assign_splits
from promoter.splits.homology import Related, find_once

_FOLDER = "learning_curve"


def train_curve(job: TrainingJob, out_dir: UPath, *, overwrite: bool = False) -> None:
    """Train a network on the training set, as `train_once` does, and one on each smaller part of it.

    All have the same validation and test sets. Each smaller training is complete in `learning_curve/n_SIZE/`.

    Args:
        job: settings and data of the training, with the sizes of the parts in `learning_curve`.
        out_dir: folder for what `train_once` writes, learning_curve/ and learning_curve.csv.
        overwrite: true to take over a folder that another run has filled.

    Raises:
        InputError: sizes that do not ascend, that the training set does not have, or that are too few to train on.
    """
    related = find_once(job.promoters)
    complete = assign_splits(job.promoters, job.split, related, job.crop)
    parts = _parts(job, related, len(complete.rows("train")))

    def train_parts(whole: TrainingJob) -> None:
        shared = {"pretrained": whole.pretrained, "gpus_per_worker": whole.gpus_per_worker}
        pretrained = {name: replace(part, **shared) for name, part in parts.items()}
        console.print("learning curve: a network on each part of the training set")
        cluster = connect()
        scaling = whole.scaling_config(cluster)
        train_all(pretrained, out_dir / _FOLDER, related, cluster=cluster, scaling=scaling)
        folders = [*(out_dir / _FOLDER / name for name in parts), out_dir]
        targets = job.promoters.target_names
        curve = learning_curve(
            [_point(folder) for folder in folders], targets, job.training.seed, groups=complete.group
        )
        storage.write_text(out_dir / CURVE, curve.to_csv(index=False))

    train_once(job, out_dir, related=related, before_end=train_parts, overwrite=overwrite)
    _show(read_curve(out_dir / CURVE), job.promoters.noun)


def _parts(job: TrainingJob, related: Related, complete: int) -> dict[str, TrainingJob]:
    """Return the training of each size, by the name of its folder; `complete` is the size of the training set."""
    parts: dict[str, TrainingJob] = {}
    number = 0
    for size in job.learning_curve or ():
        part = replace(job, split=replace(job.split, max_train=size), learning_curve=None)
        try:
            assigned = assign_splits(job.promoters, part.split, related, job.crop)
            require_trainable(part, assigned)
        except InputError as error:
            raise InputError(f"--learning_curve {size}: {error}") from error
        before, number = number, len(assigned.rows("train"))
        if number in (before, complete):
            others = "of the size before" if number == before else "of the complete training set"
            raise InputError(
                f"--learning_curve {size}: its {plural(number, job.promoters.noun)} are those {others}, since "
                "groups are drawn complete; leave it out"
            )
        parts[f"n_{size}"] = part
    return parts


def _point(folder: UPath) -> tuple[int, pd.DataFrame]:
    """Return the number of training sequences of a run, and its predictions with those of the baselines."""
    table = read_predictions(folder / "predictions.parquet")
    if (folder / "baselines.parquet").exists():
        baselines = read_predictions(folder / "baselines.parquet")
        table = pd.concat([table, baselines[baselines.columns.difference(table.columns, sort=False)]], axis=1)
    return int((table["split"] == "train").sum()), table


def _show(curve: pd.DataFrame, noun: str) -> None:
    """Print r by the number of training sequences, and what the last step gained."""
    models = list(curve["model"].unique())
    shown = new_table("target", f"training {noun}s", *(name.replace("_", " ") for name in models), right=models)
    targets = list(curve["target"].unique())[:TARGETS_SHOWN]
    for target in targets:
        for sequences, rows in curve[curve["target"] == target].groupby("sequences"):
            of_model = rows.set_index("model")
            cells = [_cell(of_model.loc[name]) for name in models]
            shown.add_row(target, f"{sequences:,}", *cells)
    console.print(f"\nr on the same {curve['n'].max():,} test {noun}s by the number of training {noun}s")
    console.print(shown)
    for target in targets:
        console.print(describe_gain(curve, target, noun))


def _cell(values: pd.Series) -> str:
    r, interval = values["pearson"], [values["pearson_low"], values["pearson_high"]]
    return format_interval(None if pd.isna(r) else r, None if pd.isna(interval).any() else interval)
