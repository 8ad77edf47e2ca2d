"""Write what a search found: tables, figures, logs, the networks of the folds, and the best configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from ray.tune.experiment import Trial
from typing_extensions import TypedDict
from upath import UPath

from jobs.cli.config_file import resolved
from jobs.cli.console import console, new_table, with_flags
from jobs.cli.model_flags import ModelFlags
from jobs.training.folds import fold_name
from jobs.training.job import Pretrained, TrainingJob, describe, held_out_genes, with_targets
from jobs.training.run import RESULTS, train_once
from jobs.tuning.live_table import format_value, number_of, trials_table
from jobs.tuning.search import trial_folder
from jobs.tuning.trials import TrialJob, last_states
from promoter import checkpoint, plots, storage
from promoter.dataset.promoters import Promoters
from promoter.models.build import network_with_trunk
from promoter.splits.config import SplitConfig
from promoter.splits.folds import SearchFolds, remarks_on_folds
from promoter.splits.homology import Related
from promoter.storage.records import PROVENANCE
from promoter.storage.schema import read_yaml_as
from promoter.training.config import TrainingConfig
from promoter.training.study import importance

BEST = "best.yaml"
TRIALS = "trials.csv"
FINAL = "training"  # folder in --out of the best configuration's training; its files are moved up in the end


class _Best(TypedDict):
    """What is read of `best.yaml`."""

    split: SplitConfig
    model: ModelFlags
    training: TrainingConfig
    workers: int
    gpus_per_worker: float | None
    cpus_per_worker: int | None


@dataclass(frozen=True)
class SearchResult:
    """A finished search, and the data that it ran on.

    Attributes:
        trials: all trials, as Ray Tune left them.
        job: data and settings that the trials shared.
        promoters: all genes, those of the test set too.
        folds: genes of each fold and of the test set.
        pretrained: weights that a pretrained network started from; None for any other.
    """

    trials: list[Trial]
    job: TrialJob
    promoters: Promoters
    folds: SearchFolds
    pretrained: Pretrained | None


def show_folds(promoters: Promoters, held_out: SearchFolds) -> None:
    """Print what each fold of a search validates on, and the test set that none looks at."""
    console.print(f"split by {held_out.by}")
    for number, fold in enumerate(held_out.folds, start=1):
        console.print(f"fold {number}: validates on {held_out_genes(promoters, fold, 'val')}")
    console.print(f" test: {held_out_genes(promoters, held_out.final, 'test')}, not looked at by the search")
    for remark in remarks_on_folds(held_out.folds, "val", held_out.by) if len(held_out.folds) > 1 else ():
        console.print(with_flags(remark))


def write_results(out_dir: UPath, result: SearchResult, given: dict[str, Any], keep_folds: bool) -> None:
    """Write what a search found; best.yaml comes last, so that it stands for a finished search.

    Args:
        out_dir: output folder of the command.
        result: the finished search.
        given: entries of best.yaml that the search did not choose: data and resources.
        keep_folds: true to save the networks of the best trial, one for each fold and seed, in folds/.

    Raises:
        RuntimeError: all trials failed.
    """
    job = result.job
    table = trials_table(result.trials, job.larger_is_better)
    storage.write_text(out_dir / TRIALS, table.to_csv(index=False))
    scored = table[table["status"] != "failed"]
    if scored.empty:
        raise RuntimeError(
            f"all {len(table)} trials failed; the first: {table['reason'].iloc[0]}; see {out_dir / TRIALS}"
        )
    by_number = {number_of(trial): trial for trial in result.trials}
    best = by_number[int(scored["trial"].iloc[0])]
    drawn = [by_number[int(number)].config for number in scored["trial"]]
    importances = importance(job.space, drawn, scored["score"].tolist())
    storage.write_text(out_dir / "importance.csv", importances.to_csv(index=False))
    _write_figures(out_dir / "figures", job, table, importances)
    if keep_folds:
        _write_folds(out_dir / "folds", best, result)
    _keep_logs(out_dir, result)
    _show_results(scored, importances, best.config)
    _write_best(out_dir / BEST, best, result, given)


def _write_figures(folder: UPath, job: TrialJob, table: pd.DataFrame, importances: pd.DataFrame) -> None:
    label = "Pearson r" if job.metric == "pearson" else "MSE"
    label += ", validation"
    is_log = {name: bool(domain.get("log")) for name, domain in job.space.space.items() if "low" in domain}
    plots.write_figure(folder, "search_progress", plots.search_progress(table, label, job.larger_is_better))
    settings = [name for name in importances["setting"] if name in table]  # of these, what a trial has drawn
    if settings:
        plots.write_figure(folder, "score_by_setting", plots.score_by_setting(table, settings, is_log, label))


def _write_folds(folder: UPath, best: Trial, result: SearchResult) -> None:
    """Save the best trial's networks, one for each fold and seed."""
    job, promoters = result.job, result.promoters
    training = last_states(best, job)
    recipe = training.training
    for index, network in enumerate(training.best_networks()):
        fold, seed = divmod(index, job.seeds)
        info = describe(promoters, result.folds.folds[fold], replace(recipe, seed=recipe.seed + seed))
        info = replace(info, training={**info.training, "best_epoch": training.states[index].best_epoch})
        complete = network_with_trunk(network, promoters.length, result.pretrained and result.pretrained.trunk)
        checkpoint.save_model(folder / fold_name(fold + 1, seed, job.seeds), complete, info)


def _keep_logs(out_dir: UPath, result: SearchResult) -> None:
    """Keep the logs that TensorBoard reads."""
    for trial in result.trials:
        logs = storage.resolve(result.job.folder) / trial_folder(trial)
        if not logs.is_dir():
            continue
        for path in logs.iterdir():
            if path.name.startswith("events.out."):
                storage.copy_file(path, out_dir / "tensorboard" / f"trial_{number_of(trial)}" / path.name)


def _show_results(scored: pd.DataFrame, importances: pd.DataFrame, best: Mapping[str, Any]) -> None:
    row = scored.iloc[0]
    folds = ", ".join(f"{row[str(name)]:.4f}" for name in scored.columns if str(name).startswith("fold_"))
    console.print(f"best: trial {row['trial']}, {row['score']:.4f} (by fold {folds}) after {row['epochs']} epochs")
    table = new_table("setting", "best value", "importance", right={"importance"})
    for name, share in zip(importances["setting"], importances["importance"], strict=True):
        if name in best:
            table.add_row(name, format_value(best[name]), f"{share:.2f}" if np.isfinite(share) else "–")
    console.print(table)


def _write_best(path: UPath, best: Trial, result: SearchResult, given: dict[str, Any]) -> None:
    """Write the configuration as `jobs.train --config` takes it: on the split that it has without a search."""
    settings = result.job.space.settings(best.config)
    last: dict[str, Any] = best.last_result
    # a shorter cycle would be another recipe, so one_cycle keeps its epochs
    epochs = settings.training.epochs if settings.training.schedule == "one_cycle" else int(last["epoch"])
    storage.write_yaml(
        path,
        {
            "data": given["data"],
            "split": given["split"],
            "model": resolved(asdict(settings.model)),
            "training": resolved(asdict(replace(settings.training, epochs=epochs))),
            **{name: given[name] for name in ("workers", "gpus_per_worker")},
            "cpus_per_worker": given["cpus_per_worker"] if given["workers"] else None,  # else it was a trial's
            PROVENANCE: {"trial": number_of(best), "metric": result.job.metric, "score": last["score"]},
        },
    )


def train_best(out_dir: UPath, base: TrainingJob, related: Related) -> None:
    """Train the best configuration as `jobs.train --config best.yaml` does, and look at the test set once.

    Args:
        out_dir: output folder of the command, with best.yaml; an earlier run may have ended after the search.
        base: data and settings of the training that best.yaml does not hold.
        related: function that finds the related genes, as `promoter.splits.homology.find_once` returns it.
    """
    best = read_yaml_as(out_dir / BEST, _Best, "delete it and run the same command again")
    console.print("training the best configuration; then the test genes are looked at, once")
    job = replace(
        base,
        split=best["split"],
        model=with_targets(best["model"].config, base.promoters.target_names),
        training=best["training"],
        workers=best["workers"],
        gpus_per_worker=best["gpus_per_worker"],
        cpus_per_worker=best["cpus_per_worker"],
    )
    final = storage.require_writable(out_dir / FINAL)
    train_once(job, final, related=related)
    checkpoint.copy_model(final / "model", out_dir / "model")
    for name in RESULTS:
        storage.copy_file(final / name, out_dir / name)
