"""How good networks and baselines are by the number of training sequences, on the same test sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from promoter.evaluation.predictions import separate_baselines
from promoter.metrics import METRICS, evaluate_predictions
from promoter.storage import AnyPath
from promoter.storage.schema import read_csv

CURVE = "learning_curve.csv"
NETWORK = "network"
_BEFORE = "before"  # the same model, trained on the size before
_BOUNDS = ("low", "high")
_NUMBERS = (
    *("sequences", "n"),
    *(f"{metric}{end}" for metric in METRICS for end in ("", *(f"_{bound}" for bound in _BOUNDS))),
    *("gain", *(f"gain_{bound}" for bound in _BOUNDS)),
)


def learning_curve(
    points: Sequence[tuple[int, pd.DataFrame]],
    targets: Sequence[str],
    seed: int = 0,
    *,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """Evaluate networks that were trained on more and more sequences, and baselines fitted on the same.

    Args:
        points: for each training its number of training sequences, ascending, and its predictions, as
            `promoter.evaluation.predictions.predictions_table` returns them, with the columns of `baselines_table`
            where there are baselines; all have the same rows and the same test set.
        targets: names of the targets.
        seed: random seed of the bootstrap (default 0).
        groups: group of each row, which the bootstrap draws whole, as for `evaluate_predictions`.

    Returns:
        One row per training, target and model: `sequences`, `target`, `model` (`network`, or a baseline's name),
        `n` test sequences, each of `METRICS` with the bounds of its 95% bootstrap interval over them, METRIC_low
        and METRIC_high; `gain`: r less that of the same model at the point before, with its paired interval; NaN
        where undefined.
    """
    rows: list[dict[str, Any]] = []
    columns = [f"{target}_predicted" for target in targets]
    before: dict[str, np.ndarray] = {}
    for sequences, table in points:
        test = (table["split"] == "test").to_numpy()
        network, baselines = separate_baselines(table[test], targets)
        drawn = None if groups is None else groups[test]
        for model, values in {NETWORK: network[columns].to_numpy(), **baselines}.items():
            of_model = network.assign(**dict(zip(columns, values.T, strict=True)))
            earlier = {_BEFORE: before[model]} if model in before else None
            metrics = evaluate_predictions(of_model, targets, seed, groups=drawn, baselines=earlier)["test"]
            before[model] = values
            for target, found in metrics.items():
                gained = found.get("baselines", {}).get(_BEFORE, {})
                row = {"sequences": sequences, "target": target, "model": model, "n": found["n"]}
                for metric in METRICS:
                    row |= {metric: found[metric]} | _bounds(metric, found[f"{metric}_ci95"])
                row |= {"gain": gained.get("pearson_difference")}
                rows.append(row | _bounds("gain", gained.get("pearson_difference_ci95")))
    return pd.DataFrame(rows).astype(dict.fromkeys(_NUMBERS[2:], float))  # None becomes NaN


def read_curve(path: AnyPath) -> pd.DataFrame:
    """Read a table that `learning_curve` made; InputError if it is missing or damaged."""
    table = read_csv(path, "train again into another folder", text=("target", "model"), numbers=_NUMBERS)
    return table.astype({"sequences": int, "n": int})


def describe_gain(curve: pd.DataFrame, target: str, noun: str = "gene") -> str:
    """Say in a sentence what the last step of a target's curve gained the network.

    Args:
        curve: table of `learning_curve`.
        target: name of the target.
        noun: what a row is called (default "gene").
    """
    of_network = curve[(curve["target"] == target) & (curve["model"] == NETWORK)]
    last, before = of_network.iloc[-1], of_network.iloc[-2]
    step = f"from {before['sequences']:,.0f} to {last['sequences']:,.0f} training {noun}s"
    if not np.isfinite(last["gain_low"]):
        return f"{target}: r is undefined, or of too few test {noun}s to compare"
    interval = f"{last['gain']:+.3f} [{last['gain_low']:+.2f}, {last['gain_high']:+.2f}]"
    if last["gain_low"] > 0:
        return (
            f"{target}: r rose by {interval} {step}: it had not levelled off, so more {noun}s may well help (one "
            "network a size; other seeds move r, too)"
        )
    if last["gain_high"] < 0:
        return f"{target}: r changed by {interval} {step}: it fell; look at other seeds before you trust either"
    return f"{target}: r changed by {interval} {step}: no gain is shown"


def _bounds(name: str, interval: Sequence[float] | None) -> dict[str, float]:
    low, high = interval or (np.nan, np.nan)
    return {f"{name}_low": low, f"{name}_high": high}
