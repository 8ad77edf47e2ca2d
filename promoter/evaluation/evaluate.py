"""Evaluate a model on its own data or on others: its metrics, beside those of baselines, and without homologs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypeAlias

import numpy as np
import pandas as pd
from typing_extensions import TypedDict

from promoter import storage
from promoter.baselines import UNCORRELATED, apply_baselines
from promoter.checkpoint import ModelInfo, SerializedModel
from promoter.dataset.promoters import Promoters, near_tss
from promoter.errors import InputError, doubt, listed, note
from promoter.evaluation.verdict import verdict
from promoter.kept_baselines import load_baselines
from promoter.metrics import OF_NO_GENES, evaluate_predictions
from promoter.splits.config import SplitConfig
from promoter.splits.units import find_groups
from promoter.storage import AnyPath
from promoter.storage.records import require_intact
from promoter.storage.schema import read_json_as

NEW = "new"  # rows of other data, which were in no set of the model
Interval: TypeAlias = tuple[float, float]
HELD_OUT = ("val", "test", NEW)  # the sets that no network was fitted to


class Summary(TypedDict):
    """Metrics of one target, and their 95% intervals; None where undefined or of too few genes or groups."""

    n: int
    groups: NotRequired[int]
    mse: float | None
    mse_ci95: Interval | None
    pearson: float | None
    pearson_ci95: Interval | None
    spearman: float | None
    spearman_ci95: Interval | None


class Comparison(TypedDict):
    """A baseline beside the network."""

    mse: float | None
    pearson: float | None
    pearson_ci95: NotRequired[Interval | None]
    pearson_difference: float | None
    pearson_difference_ci95: Interval | None
    spearman: NotRequired[float | None]
    spearman_ci95: NotRequired[Interval | None]
    spearman_difference: NotRequired[float | None]
    spearman_difference_ci95: NotRequired[Interval | None]
    pearson_without_extremes: NotRequired[float | None]


class TargetMetrics(Summary, total=False):
    """The metrics of one target in one set, as `evaluate` returns them; earlier versions wrote fewer."""

    sd: float | None
    sd_predicted: float | None
    pearson_without_extremes: float | None
    verdict: str
    weighted: Summary
    without_homologs: Summary
    baselines: dict[str, Comparison]
    interval_coverage: float | None


Metrics: TypeAlias = dict[str, dict[str, TargetMetrics]]


def read_metrics(path: AnyPath, targets: Sequence[str] = ()) -> Metrics:
    """Read a `metrics.json`: split -> target -> metrics.

    Args:
        path: local or remote.
        targets: names of targets that the test set must have.

    Raises:
        InputError: it is missing or damaged, or of other targets.
    """
    fix = "train again into another folder"
    require_intact(storage.require_file(path, "JSON file"), fix)
    metrics = read_json_as(path, Metrics, fix)
    if missing := [name for name in targets if name not in metrics.get("test", {})]:
        raise InputError(f"{storage.resolve(path)}: lacks test.{missing[0]}; {fix}")
    return metrics


def evaluate(
    predictions: pd.DataFrame,
    targets: list[str],
    *,
    leaking: np.ndarray | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    noun: str = "gene",
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute the metrics of a model's predictions by split and target.

    Args:
        predictions: table of predictions, as `promoter.evaluation.predictions.predictions_table` returns it.
        targets: names of the targets.
        leaking: bool, shape (genes,): held-out genes that share sequence with training genes; None (default) if
            that is not known.
        baselines: name -> predictions of a baseline: shape (genes, targets); None (default) compares with none.
        weights: weights of the genes, shape (genes,); None (default): there are none.
        groups: group of each gene, which the bootstrap draws whole, as
            `promoter.splits.units.resampling_groups` returns them; None (default): each gene is a group.
        noun: what a row is called in the verdict (default "gene").
        seed: random seed of the bootstrap (default 0).

    Returns:
        The metrics, as `promoter.metrics.evaluate_predictions` returns them, with baselines for `HELD_OUT`; a
        constant baseline has no correlation. For `HELD_OUT` also `verdict`, and `without_homologs` if genes leak
        that have a value of the target.
    """
    metrics = evaluate_predictions(
        predictions, targets, seed, weights=weights, groups=groups, baselines=baselines, compared=HELD_OUT
    )
    held_out = [name for name in HELD_OUT if name in metrics]
    for split in held_out:
        for of_target in metrics[split].values():
            for name in UNCORRELATED:  # pooled over folds, a mean differs by fold
                if of_name := of_target.get("baselines", {}).get(name):
                    of_name.update({key: None for key in of_name if key != "mse"})
            of_target["verdict"] = verdict(of_target, noun)
    if leaking is not None and leaking.any():
        of_clean = [None if values is None else values[~leaking] for values in (weights, groups)]
        clean = evaluate_predictions(predictions[~leaking], targets, seed, weights=of_clean[0], groups=of_clean[1])
        for split in held_out:
            for target in targets:
                known = (predictions["split"] == split) & predictions[target].notna()
                if (leaking & known.to_numpy()).any():
                    without = clean.get(split, {}).get(target)
                    metrics[split][target]["without_homologs"] = without or dict(OF_NO_GENES)
    return metrics


def measured_targets(promoters: Promoters, info: ModelInfo) -> list[str]:
    """Return the model's targets of which a data set has values; a note tells of those that it lacks.

    Targets are the same if their names are. Values of another transform are doubted.
    """
    there = promoters.target_names
    missing = [name for name in info.targets if name not in there]
    if missing and len(there) == len(info.targets) == 1:
        note(
            f"the data's target is called {there[0]}, the model's {missing[0]}, so they are not compared; if they "
            f"are the same measurement, rename the column {there[0]} to {missing[0]} in the table, and prepare "
            "the data again"
        )
    elif missing and there:
        note(
            f"the data has no target {listed(missing, 5)} (it has {listed(there, 5)}), so there are no metrics of "
            f"{'it' if len(missing) == 1 else 'them'}; names in the table must be those of the model"
        )
    measured = [there[index] for index in np.flatnonzero(np.isfinite(promoters.targets).any(axis=0))]
    measured = [name for name in info.targets if name in measured]
    of_model, of_data = info.transform or "none", promoters.metadata.get("transform") or "none"
    if measured and of_model != of_data:
        doubt(
            f"the data's values have the transform {of_data}, the model's {of_model}, so errors are of different "
            f"units; prepare the data with `transform={of_model!r}`"
        )
    return measured


def kept_baselines(members: Sequence[SerializedModel], promoters: Promoters) -> dict[str, np.ndarray]:
    """Read the baselines that a model's folder keeps, for the sequences of a data set.

    Args:
        members: the models of an ensemble, one for a single model. Of an ensemble the coefficients are means over
            the members that have the baseline; it is linear, so they predict the members' mean.
        promoters: the data set.

    Returns:
        Name -> coefficients; empty if no folder has any.

    Raises:
        InputError: a file is damaged, or of another model.
    """
    length = near_tss(promoters).length
    kept = [load_baselines(member.source, member.checksum, length) for member in members]
    names = dict.fromkeys(name for of_member in kept for name in of_member)
    return {name: np.mean([of_member[name] for of_member in kept if name in of_member], axis=0) for name in names}


def evaluate_data(
    predictions: pd.DataFrame,
    promoters: Promoters,
    info: ModelInfo,
    *,
    targets: Sequence[str],
    baselines: Mapping[str, np.ndarray],
    crop: int | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute the metrics of a model on any data set, beside baselines.

    Args:
        predictions: table of predictions of the data set, as
            `promoter.evaluation.predictions.predictions_table` returns it.
        promoters: the data set.
        info: description of the model or ensemble.
        targets: targets to evaluate, as `measured_targets` returns them.
        baselines: name -> coefficients, as `kept_baselines` returns them.
        crop: number of bases at the end of the windows that the model sees; None (default): all.

    Returns:
        The metrics as `evaluate` returns them, by the split that each row was in when the model was trained; `NEW`
        for rows that were in none.
    """
    table = predictions.assign(split=predictions["split"].fillna(NEW))
    unit = SplitConfig(
        by=info.data.get("split_by"), block_size=info.data.get("block_size", SplitConfig.block_size)
    )
    columns = [info.targets.index(target) for target in targets]
    if any(of_name.shape[1] != len(info.targets) for of_name in baselines.values()):
        raise InputError("the model's baselines are of other targets; copy the whole model directory again")
    coefficients = {name: of_name[:, columns] for name, of_name in baselines.items()}
    return evaluate(
        table,
        list(targets),
        baselines=apply_baselines(coefficients, near_tss(promoters).tokens),
        weights=promoters.weights,
        groups=find_groups(promoters, unit, table["split"], crop),
        noun=promoters.noun,
        seed=int(info.training.get("seed", 0)),  # of the metrics after training
    )
