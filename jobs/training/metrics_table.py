"""metrics.json as a person reads it on a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from jobs.cli.console import console, new_table
from promoter.metrics import METRICS
from promoter.splits.config import SPLITS

_TARGETS_SHOWN = 8


def show_metrics(metrics: dict[str, Any]) -> None:
    """Print the metrics by split, and those of the test genes beside baselines and without homologs."""
    console.print(metrics_table(metrics))
    compared = _table_of_baselines(metrics["test"])
    if compared.row_count:
        console.print("\nbaselines on the same test genes, and by how much the network's r exceeds theirs")
        console.print(compared)
    for target, values in list(metrics["test"].items())[:_TARGETS_SHOWN]:
        clean = values.get("without_homologs")
        if clean:
            shown = _with_interval(clean["pearson"], clean["pearson_ci95"])
            console.print(
                f"{target} without test genes that share sequence with others: r = {shown}, {clean['n']:,} genes"
            )
    more = len(metrics["test"]) - _TARGETS_SHOWN
    if more > 0:
        console.print(f"and {more} more targets in metrics.json")


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Return a row a split and target: genes, and each metric with its interval.

    Raises:
        LookupError: these are no metrics.
    """
    if "test" not in metrics:
        raise LookupError("no metrics of the test genes")
    table = new_table("split", "target", "genes", *METRICS, right={"genes", *METRICS}, collapse_padding=True)
    for split in (name for name in SPLITS if name in metrics):
        shown: dict[str, Any] = metrics[split]
        for target, values in list(shown.items())[:_TARGETS_SHOWN]:
            cells = [_with_interval(values[name], values[f"{name}_ci95"]) for name in METRICS]
            table.add_row(split, target, f"{values['n']:,}", *cells)
    return table


def _table_of_baselines(of_target: dict[str, Any]) -> Table:
    numbers = ("mse", "pearson", "difference")
    table = new_table("target", "model", *numbers, right=numbers, collapse_padding=True)
    for target, values in list(of_target.items())[:_TARGETS_SHOWN]:
        for name, other in values.get("baselines", {}).items():
            cells = (_number(other["mse"]), _number(other["pearson"]))
            difference, interval = other["pearson_difference"], other["pearson_difference_ci95"]
            table.add_row(target, name.replace("_", " "), *cells, _with_interval(difference, interval, "+"))
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _with_interval(value: float | None, interval: list[float] | None, sign: str = "") -> str:
    if value is None or interval is None:
        return "–"
    return f"{value:{sign}.3f} [{interval[0]:{sign}.2f}, {interval[1]:{sign}.2f}]"
