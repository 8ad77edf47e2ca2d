"""Published tables: what a training reaches beside the predictions of the authors, on the same rows.

    python -m benchmarks.published TABLE [--data FOLDER] [--on test] [--fold 1] [--config FILE] [--seeds 2]
        [--out FOLDER]

TABLE: `ecoli`, `plants`, `yeast_mpra`, `salt` or `scrambles`; published.md says what each holds. Without `--data`
the files are downloaded and checked. By default a fold of the training data is judged, so that settings can be
chosen; only `--on test` looks at the test set. Other flags go to `jobs.train`, such as `--model.bins 4`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.published_data import FOLDS, TRAINED_ON, Table, read_ecoli, read_plants, read_yeast_mpra
from benchmarks.published_salt import FOLD_FLAGS, TEST_FLAGS, YEAST_ORIGINALS, salt_ceiling
from benchmarks.published_scrambles import SHUFFLED, WAYS, predict_effects, read_scrambles
from benchmarks.published_sources import Files
from jobs.training.metrics_table import format_interval
from promoter.bootstrap import Samples, interval
from promoter.dataset.promoters import read_promoters
from promoter.errors import InputError, counted
from promoter.evaluation.predictions import read_predictions, separate_baselines
from promoter.metrics import evaluate_predictions
from promoter.splits.config import By, SplitConfig
from promoter.splits.units import find_groups
from promoter.storage import read_json

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CONFIG = CONFIGS / "mpra.yaml"  # of libraries of short sequences
GENOME_CONFIG = CONFIGS / "small-genome.yaml"  # of the table salt, whose windows are longer
READERS: dict[str, Callable[[Files, str | None], Table]] = {
    "ecoli": read_ecoli,
    "plants": read_plants,
    "yeast_mpra": read_yeast_mpra,
    "scrambles": read_ecoli,  # the same training
}
SEEDS = 2  # at a time on two cores: within ten minutes
_RESAMPLES = 1000
_OF_CLASSES = {"AUROC": roc_auc_score, "average precision": average_precision_score}


def main(words: Sequence[str] | None = None) -> None:
    """Prepare, train and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0], allow_abbrev=False)
    parser.add_argument("table", choices=[*READERS, "salt"])
    parser.add_argument(
        "--data", type=Path, help="folder with ecoli_mpra, plant_core and so on; by default download"
    )
    parser.add_argument("--config", type=Path, help="settings of the training")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="number of networks")
    parser.add_argument("--on", choices=["validation", "test"], default="validation", help="what is judged")
    parser.add_argument("--fold", help=f"fold of the training data: 1 to {FOLDS}; for yeast_mpra also a library")
    parser.add_argument("--out", type=Path, help="folder to keep data and networks in; by default nothing is kept")
    options, more = parser.parse_known_args(words)
    try:
        fold = chosen_fold(options.table, options.on, options.fold)
        with tempfile.TemporaryDirectory() as temporary:
            measure(options, fold, Path(options.out or temporary), more)
    except InputError as error:
        sys.exit(f"error: {error}")


def chosen_fold(table: str, on: str, fold: str | None) -> str | None:
    """Return the fold of the training data that is judged; None for the test set."""
    if on == "test":
        if fold is not None:
            raise InputError("--fold: goes with --on validation")
        return None
    folds = ["1"] if table == "salt" else [*map(str, range(1, FOLDS + 1)), *(TRAINED_ON * (table == "yeast_mpra"))]
    if fold is not None and fold not in folds:
        raise InputError(f"--fold {fold}: the folds of {table} are {', '.join(folds)}")
    return fold or folds[0]


@dataclass(frozen=True)
class Comparison:
    """What stands in a table.

    Attributes:
        rows: values and predictions, in the columns that `compare` wants.
        first: what is judged.
        others: names of the columns of what it is compared with.
        shown: metrics that are shown, beside those of classes.
        notes: sentences that stand before the table.
        left_out: what was left out of the data, or counted.
        ceiling: what is known of the best possible result.
    """

    rows: pd.DataFrame
    first: str
    others: Sequence[str]
    shown: Sequence[str]
    notes: Sequence[str]
    left_out: Sequence[str]
    ceiling: str


def measure(options: argparse.Namespace, fold: str | None, out: Path, more: Sequence[str]) -> None:
    """Prepare and train in a folder, and print the table."""
    began = time.perf_counter()
    files = Files(options.data, lambda name: print(f"downloading {name}", file=sys.stderr))
    is_salt = options.table == "salt"
    # the tables of one data set share data and networks
    folder = out / f"{'ecoli' if options.table == 'scrambles' else options.table}_{fold or 'test'}"
    folder.mkdir(parents=True, exist_ok=True)
    table = None if is_salt else READERS[options.table](files, fold)
    inputs, flags = salt_flags(options.data, fold) if table is None else library_flags(table, folder)
    job("prepare", *inputs, "--out", folder / "data")
    config = options.config or (GENOME_CONFIG if is_salt else CONFIG)
    started, is_new = time.perf_counter(), not (folder / "run" / "metrics.json").exists()
    settings = ["--config", config, "--seeds", options.seeds, "--cpus_per_worker", 1, *flags, *more]
    job("train", "--data", folder / "data", "--out", folder / "run", *settings)
    seconds = time.perf_counter() - started
    judged, metrics = read_judged(folder, by="chromosome" if is_salt else "column")
    networks = f"this model, {counted(options.seeds, 'network')}"
    if table is None:
        others = baselines_of(judged)
        ceiling = salt_ceiling(files, judged["id"])
        comparison = Comparison(judged, networks, others, ["r", "rho"], [], ["nothing"], ceiling)
    elif options.table == "scrambles":
        comparison = compare_scrambles(files, table, folder)
    else:
        comparison = compare_with_authors(table, judged, networks)
    print(f"## {options.table}, {'test set' if fold is None else f'fold {fold} of the training data'}\n")
    print(" ".join([f"{config.name}, {counted(options.seeds, 'seed')}", *map(str, more)]) + ".")
    print("\n".join([*describe_training(metrics), *comparison.notes]))
    compared = compare(comparison.rows, comparison.first, comparison.others)
    print(
        f"A difference is that of '{comparison.first}' minus the row's.\n\n" + markdown(compared, comparison.shown)
    )
    print("\n".join(["\nLeft out or counted:", *(f"- {line}" for line in comparison.left_out)]))
    print(f"\nCeiling: {comparison.ceiling}.")
    training = f"{seconds:.0f} of them training" if is_new else "the training of an earlier run"
    print(f"{time.perf_counter() - began:.0f} s, {training}.")


def library_flags(table: Table, folder: Path) -> tuple[list[Any], list[Any]]:
    """Write the table of sequences; return the flags of `jobs.prepare`, and those of `jobs.train`."""
    path = folder / "sequences.tsv"
    columns = [name for name in ("id", "sequence", "value", "split", "group") if name in table.rows]
    table.rows[columns].to_csv(path, sep="\t", index=False)
    # nothing is chosen by them: the last epoch's weights count
    few_to_validate = ["--split.val_fraction", 0.02] * ("val" not in set(table.rows["split"]))
    return ["--sequences", path], ["--split.by", "column", *few_to_validate]


def salt_flags(data: Path | None, fold: str | None) -> tuple[list[Any], list[Any]]:
    """Return the flags of `jobs.prepare` for yeast's response to salt, and those of `jobs.train`."""
    excluded = "chrM" if fold is None else "chrM,chrIV,chrXV"
    cache = [] if data is None else ["--cache", data / YEAST_ORIGINALS]
    inputs = ["--dataset", "yeast", "--upstream", 500, "--exclude_chroms", excluded, *cache]
    return inputs, TEST_FLAGS if fold is None else FOLD_FLAGS


def job(name: str, *words: object) -> None:
    """Run a command of the project; what it prints goes to standard error."""
    command = [sys.executable, "-m", f"jobs.{name}", *map(str, words)]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise InputError(f"jobs.{name} failed; its message stands above")


def describe_training(metrics: Mapping[str, Any]) -> list[str]:
    """Say how many sequences were learned and judged, and how many leak, from what `read_judged` returns."""
    test = metrics["test"]
    sizes = f"Trained on {metrics['train']['n']:,} sequences, {metrics['val']['n']:,} for validation;"
    clean = test.get("without_homologs")
    leaking = test["n"] - clean["n"] if clean else 0
    without = f": without these r = {format_interval(clean['pearson'], clean['pearson_ci95'])}" if clean else ""
    judged = f"{test['n']:,} judged, {leaking:,} of which share sequence with the training set{without}."
    return [f"{sizes} {judged}", *([f"metrics.json: {test['verdict']}."] if test.get("verdict") else [])]


def compare_with_authors(table: Table, judged: pd.DataFrame, networks: str) -> Comparison:
    """Set the networks beside the authors' predictions, on the rows that have one, and beside the baselines."""
    known = table.rows.set_index("id").loc[judged["id"]]
    extra = [name for name in ("active", *table.theirs) if name in known]
    rows = judged.assign(**{name: known[name].to_numpy() for name in extra})
    notes = []
    if table.theirs and (unknown := rows[[*table.theirs]].isna().any(axis=1)).any():
        rows = rows[~unknown]
        notes = [f"The table is of the {len(rows):,} sequences with a published prediction."]
    others = [*table.theirs, *baselines_of(judged)]
    return Comparison(rows, networks, others, ["r", "rho"], notes, table.left_out or ["nothing"], table.ceiling)


def compare_scrambles(files: Files, table: Table, folder: Path) -> Comparison:
    """Set ways to predict the effects of scrambling blocks beside one another."""
    blocks, left_out = read_scrambles(files, table.rows)
    rows = predict_effects(folder / "run", blocks).rename(columns={"effect": "value", SHUFFLED: "predicted"})
    notes = [
        f"{len(rows):,} effects of scrambling, in {rows['group'].nunique():,} groups of neighbouring sites, which "
        "the bootstrap draws whole. The rows below are ways to predict them; all but the last with these networks."
    ]
    ceiling = "nothing is known: the file holds one effect a site"
    return Comparison(rows, SHUFFLED, WAYS[1:], ["rho"], notes, [*table.left_out, *left_out], ceiling)


def baselines_of(rows: pd.DataFrame) -> list[str]:
    """Return the columns with predictions of baselines, as `read_judged` names them, but for the constant."""
    return [name for name in map(str, rows) if name.startswith("baseline: ") and rows[name].nunique() > 1]


def read_judged(folder: Path, *, by: By) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read what the networks and the baselines predict of the sequences that are judged.

    Args:
        folder: folder of the data set `data` and the training `run`.
        by: what the split never divides, as `SplitConfig.by` names it.

    Returns:
        Columns `id`, `value`, `predicted`, `group` for the bootstrap, and a column for each baseline; and of
        metrics.json split -> metrics.
    """
    promoters, run_folder = read_promoters(folder / "data"), folder / "run"
    (target,) = promoters.target_names
    predictions = read_predictions(run_folder / "predictions.parquet").set_index("gene_id")
    predictions = predictions.reindex(promoters.genes["gene_id"])
    of_baselines = read_predictions(next(iter(sorted(run_folder.rglob("baselines.parquet")))))
    _, baselines = separate_baselines(of_baselines.set_index("gene_id").reindex(predictions.index), [target])
    rows = pd.DataFrame(
        {
            "id": predictions.index,
            "value": promoters.targets[:, 0],
            "predicted": predictions[f"{target}_predicted"].to_numpy(),
            "group": find_groups(promoters, SplitConfig(by=by), predictions["split"].to_numpy()),
            **{f"baseline: {name.replace('_', ' ')}": values[:, 0] for name, values in baselines.items()},
        }
    )
    metrics = read_json(run_folder / "metrics.json", "train again")
    judged = (predictions["split"] == "test").to_numpy()
    return rows[judged].reset_index(drop=True), {split: metrics[split][target] for split in metrics}


def compare(rows: pd.DataFrame, first: str, others: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Compare predictions on the same rows, by bootstraps that draw whole groups, paired.

    Args:
        rows: columns `value`, `predicted`, `group` and those of the other predictions; `active` (True, False or
            missing) for the metrics of classes.
        first: how `predicted` is called in the result.
        others: names of the other predictions' columns.

    Returns:
        Name -> `r`, `rho` and with classes `AUROC` and `average precision` -> `value` and `interval`, and for the
        others `difference` (the first's minus theirs) and `difference_interval`.
    """
    table = rows.rename(columns={"predicted": "value_predicted"}).assign(split="test")
    values = {name: rows[[name]].to_numpy(np.float64) for name in others}
    groups = rows["group"].to_numpy()
    of_value = evaluate_predictions(table, ["value"], resamples=_RESAMPLES, groups=groups, baselines=values)[
        "test"
    ]["value"]
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for name, of_model in {first: of_value, **of_value.get("baselines", {})}.items():
        result[name] = {
            short: {
                "value": of_model[long],
                "interval": of_model[f"{long}_ci95"],
                "difference": of_model.get(f"{long}_difference"),
                "difference_interval": of_model.get(f"{long}_difference_ci95"),
            }
            for short, long in (("r", "pearson"), ("rho", "spearman"))
        }
    if "active" in rows and rows["active"].notna().all():
        scores = {first: rows["predicted"].to_numpy(), **{name: rows[name].to_numpy() for name in others}}
        for name, of_model in rank_metrics(rows["active"].to_numpy(bool), scores, groups).items():
            result[name] |= of_model
    return result


def rank_metrics(
    active: np.ndarray, scores: Mapping[str, np.ndarray], groups: np.ndarray, resamples: int = _RESAMPLES
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute AUROC and average precision of several scores, and paired differences of the first to each other.

    Args:
        active: class of each row.
        scores: name -> score of each row.
        groups: group of each row, which the bootstrap draws whole.
        resamples: number of bootstrap samples (default 1,000).
    """
    samples = Samples(groups, len(active), seed=0, samples=resamples)
    weights = [counts[:, samples.group_N] for counts in samples.counts()]
    drawn = {
        name: np.hstack([weighted_rank_metrics(active, score, weight) for weight in weights])
        for name, score in scores.items()
    }
    first = next(iter(scores))
    result: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in scores}
    for row, (metric, function) in enumerate(_OF_CLASSES.items()):
        points = {name: float(function(active, score)) for name, score in scores.items()}
        for name, point in points.items():
            entry: dict[str, Any] = {"value": point, "interval": interval(drawn[name][row])}
            if name != first:
                entry["difference"] = points[first] - point
                entry["difference_interval"] = interval(drawn[first][row] - drawn[name][row])
            result[name][metric] = entry
    return result


def weighted_rank_metrics(active: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute AUROC and average precision for several weights of the rows at once, as scikit-learn does for one.

    Args:
        active: class of each row.
        score: score of each row.
        weight: weights of the rows in each sample, shape (samples, rows).

    Returns:
        float64, shape (2, samples).
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # rows of one score count together
    above = np.cumsum(weight[:, order], axis=1, dtype=np.float64)[:, ends]
    hits = np.cumsum(weight[:, order] * active[order], axis=1, dtype=np.float64)[:, ends]
    misses, start = above - hits, np.zeros((len(weight), 1))
    new_hits, new_misses = (np.diff(values, axis=1, prepend=start) for values in (hits, misses))
    with np.errstate(invalid="ignore", divide="ignore"):  # of a sample with one class
        auroc = (new_misses * (hits - new_hits / 2)).sum(axis=1) / (hits[:, -1] * misses[:, -1])
        precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
        return np.stack([auroc, (new_hits * precision).sum(axis=1) / hits[:, -1]])


def markdown(compared: Mapping[str, Mapping[str, Mapping[str, Any]]], shown: Sequence[str]) -> str:
    """Return the comparison as a Markdown table; a difference is the first row's value minus the row's, paired.

    Args:
        compared: what `compare` returns.
        shown: names of the metrics that are shown, beside those of classes.
    """
    metrics = [name for name in next(iter(compared.values())) if name in {*shown, *_OF_CLASSES}]
    lines = [
        "| | " + " | ".join(cell for name in metrics for cell in (name, "difference")) + " |",
        "| --- |" + " --: | --- |" * len(metrics),
    ]
    for name, of_model in compared.items():
        cells = []
        for metric in metrics:
            entry = of_model[metric]
            cells.append(format_interval(entry["value"], entry["interval"]))
            difference = entry.get("difference")
            cells.append(
                "" if difference is None else format_interval(difference, entry["difference_interval"], "+")
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
