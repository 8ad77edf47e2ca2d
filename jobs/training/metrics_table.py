"""metrics.json as a person reads it on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
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
        console.print(f"\nbaselines on the same {rows}, and by how much the network's r and rho exceed theirs")
        console.print(compared)
    for target, values in list(of_target.items())[:TARGETS_SHOWN]:
        if verdict := values.get("verdict"):
            console.print(f"{target}: {verdict}")
        if values.get("sd") is not None and values.get("sd_predicted") is not None:
            spread = (format_number(values[name]) for name in ("sd_predicted", "sd"))
            console.print(
                "{}: standard deviation of predictions {}, of observed values {}".format(target, *spread)
            )
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
    numbers = ("mse", "pearson", "spearman", "r difference", "rho difference")
    table = new_table("target", "model", *numbers, right=numbers, collapse_padding=True)
    for target, values in list(of_target.items())[:TARGETS_SHOWN]:
        for name, other in values.get("baselines", {}).items():
            cells = [format_number(other.get(metric)) for metric in METRICS]
            cells += [_interval_of(other, f"{metric}_difference", "+") for metric in ("pearson", "spearman")]
            table.add_row(target, name.replace("_", " "), *cells)
    return table


def format_number(value: float | None) -> str:
    """Return a metric as the tables show it; a dash for one that is undefined or of too few genes."""
    return "–" if value is None else f"{value:.3f}"


def format_interval(value: float | None, interval: Sequence[float] | None, sign: str = "") -> str:
    """Return a metric with its interval, if it has one, as tables show it; a dash for one that is undefined."""
    if value is None:
        return "–"
    shown = "" if interval is None else f" [{interval[0]:{sign}.2f}, {interval[1]:{sign}.2f}]"
    return f"{value:{sign}.3f}{shown}"


def _interval_of(values: dict[str, Any], name: str, sign: str = "") -> str:
    return format_interval(values.get(name), values.get(f"{name}_ci95"), sign)
