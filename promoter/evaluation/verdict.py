"""Say in a sentence whether a network is better than the baselines, and what that rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promoter.errors import counted
from promoter.metrics import EXTREME, MIN_GENES_FOR_R, MIN_GROUPS

BETTER, NOT_SHOWN, WORSE = "better than every baseline", "not shown to be better", "worse than a baseline"
_SYMBOLS = {"pearson": "r", "spearman": "rho"}


def verdict(metrics: Mapping[str, Any], noun: str = "gene") -> str:
    """Judge the metrics of one target in one set.

    A network is better if the paired intervals of both differences, in r and in rho, lie above 0 for every
    baseline, and if its r is larger also without the extreme 5% of the genes: one strong motif of a few genes can
    carry r, and many small differences rho. It is worse if an interval lies below 0, and that of the other
    measure, with the same baseline, not above.

    Args:
        metrics: metrics of the target, as `promoter.metrics.evaluate_predictions` returns them, with `baselines`.
        noun: what a row is called (default "gene").

    Returns:
        One sentence, which begins with `BETTER`, `NOT_SHOWN` or `WORSE`.
    """
    rows = f"{noun}s"
    others = {name: of_name for name, of_name in (metrics.get("baselines") or {}).items() if _judges(of_name)}
    if reason := _cannot_judge(metrics, others, rows):
        return f"{NOT_SHOWN}: {reason}"
    best = {measure: max(others, key=lambda name: others[name][measure]) for measure in _SYMBOLS}
    gains = " and ".join(f"{_gain(others[best[measure]], measure)} {_than(best[measure])}" for measure in _SYMBOLS)
    if best["pearson"] == best["spearman"]:
        gains = " and ".join(_gain(others[best["pearson"]], measure) for measure in _SYMBOLS)
        gains += f" {_than(best['pearson'])}"
    for name, other in others.items():
        above = {_above(other, measure) for measure in _SYMBOLS}
        if False in above and True not in above:
            shown = " and ".join(_gain(other, measure) for measure in _SYMBOLS)
            return f"{WORSE}: {shown} {_than(name)}"
    inner, inner_other = _without_extremes(metrics, others)
    without = f"without the {EXTREME:.0%} most extreme {rows} r is {inner:.2f} against {inner_other:.2f}"
    unsure = [
        symbol
        for measure, symbol in _SYMBOLS.items()
        if not all(_above(other, measure) for other in others.values())
    ]
    if unsure:
        carried = f"; {without}" if unsure == ["rho"] else ""
        return f"{NOT_SHOWN} by {' and '.join(unsure)}: {gains}{carried}"
    if inner <= inner_other:
        return f"{NOT_SHOWN}: {gains}, but {without}: a few {rows} carry the difference"
    return f"{BETTER}: {gains}; {without}"


def _cannot_judge(metrics: Mapping[str, Any], others: Mapping[str, Any], rows: str) -> str | None:
    if metrics["n"] < MIN_GENES_FOR_R:
        return f"r of fewer than {MIN_GENES_FOR_R} {rows} says nothing"
    if metrics["pearson"] is None:
        return "the network predicts a constant, or all observed values are equal"
    if not others:
        return "there is no baseline to compare with"
    if metrics["groups"] < MIN_GROUPS:
        return f"the {rows} are of {counted(metrics['groups'], 'group')}, too few for an interval"
    return None


def _judges(other: Mapping[str, Any]) -> bool:
    return all(other.get(f"{measure}_difference") is not None for measure in _SYMBOLS)


def _above(other: Mapping[str, Any], measure: str) -> bool | None:
    """Return whether the interval of a difference lies above 0, or below; None if it holds 0 or is unknown."""
    bounds = other[f"{measure}_difference_ci95"]
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return None
    return bounds[0] > 0


def _gain(other: Mapping[str, Any], measure: str) -> str:
    difference, bounds = other[f"{measure}_difference"], other[f"{measure}_difference_ci95"]
    shown = "" if bounds is None else f" [{bounds[0]:+.2f}, {bounds[1]:+.2f}]"
    return f"{_SYMBOLS[measure]} {difference:+.2f}{shown}"


def _than(name: str) -> str:
    return f"beside {name.replace('_', ' ')}"


def _without_extremes(metrics: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """Return r without the extreme genes, of the network and of the best baseline."""
    key = "pearson_without_extremes"
    theirs = max((other[key] for other in others.values() if other[key] is not None), default=0.0)
    return metrics[key] if metrics[key] is not None else 0.0, theirs
