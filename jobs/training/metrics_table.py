"""metrics.json as a person reads it on a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from jobs.cli.console import console, new_table
from promoter.evaluation.evaluate import NEW
from promoter.metrics import METRICS
from promoter.splits.config import SPLITS

TARGETS_SHOWN = 8
_JUDGED = ("test", NEW)  # the splits that a model is judged by


def show_metrics(metrics: dict[str, Any], noun: str = "gene") -> None:
    """Print the metrics by split, and those of test genes and new ones beside baselines and without homologs.

    Args:
        metrics: metrics as `promoter.evaluation.evaluate.evaluate` returns them.
        noun: what a row is called (default "gene").
    """
    console.print(metrics_table(metrics, noun))
    for split in _JUDGED:
        if split in metrics:
            _show_judged(metrics[split], f"{split} {noun}s")
    more = max(len(of_split) for of_split in metrics.values()) - TARGETS_SHOWN
    if more > 0:
        console.print(f"and {more} more targets in metrics.json")


def _show_judged(of_target: dict[str, Any], rows: str) -> None:
    for target, values in list(of_target.items())[:TARGETS_SHOWN]:
        if weighted := values.get("weighted"):
            shown = ", ".join(f"{name} {_interval_of(weighted, name)}" for name in METRICS)
            console.print(f"{target} of {rows} by their weights: {shown}")
    compared = _table_of_baselines(of_target)
    if compared.row_count:
        console.print(f"\nbaselines on the same {rows}, and by how much the network's r exceeds theirs")
        console.print(compared)
    for target, values in list(of_target.items())[:TARGETS_SHOWN]:
        if clean := values.get("without_homologs"):
            shown = _interval_of(clean, "pearson")
            console.print(
                f"{target} without {rows} that share sequence with others: r = {shown}, n = {clean['n']:,}"
            )


def metrics_table(metrics: dict[str, Any], noun: str = "gene") -> Table:
    """Return a row a split and target: genes, and each metric with its interval; arguments as for `show_metrics`.

    Raises:
        LookupError: these are no metrics.
    """
    rows = f"{noun}s"
    table = new_table("split", "target", rows, *METRICS, right={rows, *METRICS}, collapse_padding=True)
    for split in (name for name in (*SPLITS, NEW) if name in metrics):
        shown: dict[str, Any] = metrics[split]
        for target, values in list(shown.items())[:TARGETS_SHOWN]:
            cells = [_interval_of(values, name) for name in METRICS]
            table.add_row(split, target, f"{values['n']:,}", *cells)
    return table


def _table_of_baselines(of_target: dict[str, Any]) -> Table:
    numbers = ("mse", "pearson", "difference")
    table = new_table("target", "model", *numbers, right=numbers, collapse_padding=True)
    for target, values in list(of_target.items())[:TARGETS_SHOWN]:
        for name, other in values.get("baselines", {}).items():
            cells = (format_number(other["mse"]), format_number(other["pearson"]))
            difference = _interval_of(other, "pearson_difference", "+")
            table.add_row(target, name.replace("_", " "), *cells, difference)
    return table


def format_number(value: float | None) -> str:
    """Return a metric as the tables show it; a dash for one that is undefined or of too few genes."""
    return "–" if value is None else f"{value:.3f}"


def format_interval(value: float, low: float, high: float, sign: str = "") -> str:
    """Return a metric with its interval as the tables show it; a dash for NaN."""
    return f"{value:{sign}.3f} [{low:{sign}.2f}, {high:{sign}.2f}]" if value == value else "–"  # noqa: PLR0124 # NaN


def _interval_of(values: dict[str, Any], name: str, sign: str = "") -> str:
    value, interval = values[name], values[f"{name}_ci95"]
    return "–" if value is None or interval is None else format_interval(value, interval[0], interval[1], sign)
