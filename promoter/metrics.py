"""Compute MSE, Pearson's r and Spearman's rho of predictions over genes, per target, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from promoter.bootstrap import EACH, SHARED, Draws, Samples, draw, interval, moments

Index: TypeAlias = np.ndarray | slice
METRICS = ("mse", "pearson", "spearman")
MIN_GENES_FOR_R = 10  # of fewer, r is nearly free: two have r = ±1, and of five unrelated ones a tenth exceed 0.8
MIN_GROUPS = 10  # of fewer, the samples are too alike: percentile intervals of five groups hold 80%, not 95%
EXTREME = 0.05  # share of the genes, those farthest from the median, that `pearson_without_extremes` leaves out
_SPREAD = ("sd", "sd_predicted", "pearson_without_extremes")
_OF_NO_GENES = {"n": 0, "groups": 0} | {key: None for name in METRICS for key in (name, f"{name}_ci95")}
OF_NO_GENES = _OF_NO_GENES | dict.fromkeys(_SPREAD)
_COMPARED = ("pearson", "spearman")
_VALUES_PER_BATCH = 1 << 23  # moments held at a time: 64 MB of float64


def observed_groups(targets: np.ndarray) -> Iterator[tuple[Index, Index]]:
    """Group the targets that are observed in the same genes, so that each group can be computed at once.

    Args:
        targets: float, shape (genes, targets), NaN where missing.

    Yields:
        Indices of the genes that have a value, and of the targets: one group if no value is missing. A target
        without any value is in no group.
    """
    known = ~np.isnan(targets)
    if known.all():
        if len(targets):
            yield slice(None), slice(None)  # views: sums in the same order as without groups
        return
    patterns, group = np.unique(known, axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        if rows.any():
            yield rows, np.flatnonzero(group == number)


def mse(observed: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Compute the mean squared error of each target over the genes that have a value.

    Args:
        observed: observed values, shape (genes, targets), NaN where missing.
        predicted: predictions, same shape.
        weights: weights of the genes, at least 0, shape (genes,): a gene of weight 2 counts as two; None (the
            default) weighs all alike.

    Returns:
        float64, shape (targets,); NaN for a target without any value.
    """
    return _of_each_target(lambda x, y, w: _mean((y - x) ** 2, w), observed, predicted, weights)


def pearson(observed: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Compute Pearson's r of each target over the genes that have a value; arguments as for `mse`.

    Returns:
        float64, shape (targets,); NaN where one of the two is constant or fewer than two genes have a value.
    """
    return _of_each_target(_pearson, observed, predicted, weights)


def spearman(observed: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Compute Spearman's rank correlation of each target as `pearson` does r; ties share their mean rank."""
    return _of_each_target(lambda x, y, w: _pearson(_ranks(x, w), _ranks(y, w), w), observed, predicted, weights)


def _of_each_target(
    metric: Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray],
    observed: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray | None,
) -> np.ndarray:
    """Apply a metric of complete columns, float64, to the observed genes of each target."""
    observed, predicted = np.asarray(observed), np.asarray(predicted)
    if weights is not None:  # a gene of weight 0 is as good as none
        observed, predicted, weights = (values[weights > 0] for values in (observed, predicted, weights))
    result = np.full(observed.shape[1], np.nan)
    for rows, columns in observed_groups(observed):
        x, y = (_float64(values[rows][:, columns]) for values in (observed, predicted))
        result[columns] = metric(x, y, None if weights is None else _float64(weights[rows]))
    return result


def _mean(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return values.mean(axis=0) if weights is None else np.average(values, axis=0, weights=weights)


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    if len(x) < 2:
        return np.full(x.shape[1], np.nan)
    constant = (x == x[0]).all(axis=0) | (y == y[0]).all(axis=0)  # their mean may differ by a rounding error
    x, y = x - _mean(x, weights), y - _mean(y, weights)
    w = 1.0 if weights is None else weights[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (w * x * y).sum(axis=0) / np.sqrt((w * x**2).sum(axis=0) * (w * y**2).sum(axis=0))
    return np.where(constant, np.nan, r)


def evaluate_predictions(
    predictions: pd.DataFrame,
    target_names: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
    *,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
    compared: Sequence[str] = ("val", "test"),
) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarise a table of predictions by split and target, and compare them with baselines on the same genes.

    Args:
        predictions: table with the columns `split`, and per target `TARGET` and `TARGET_predicted`.
        target_names: names of the targets.
        seed: random seed of the bootstrap (default 0).
        resamples: number of bootstrap samples (default 1,000).
        weights: weights of the rows, shape (rows,); None (the default): there are none.
        groups: group of each row, shape (rows,), which the bootstrap draws whole: homologs, say; None (the
            default): each row is a group.
        baselines: name -> predictions of a baseline: shape (rows, targets); None (default) compares with none.
        compared: splits in which to compare with the baselines (default `val` and `test`).

    Returns:
        split -> target -> `n`; `groups`, how many these are of; each of `mse`, `pearson`, `spearman` with its 95%
        percentile bootstrap interval under `METRIC_ci95`; `sd` and `sd_predicted`, the standard deviations of
        observed and predicted values; `pearson_without_extremes`, r without the 5% of the genes whose observed
        values lie farthest from their median. None if undefined: there is no correlation of fewer than
        `MIN_GENES_FOR_R` genes, and no interval of fewer than `MIN_GROUPS` groups. Genes without an observed value
        are left out.

        With baselines also `baselines`: name -> `mse`, `pearson`, `spearman` and `pearson_without_extremes` of the
        baseline, and `pearson_difference` and `spearman_difference` (of the predictions, minus of the baseline)
        with their paired intervals.

        With weights also `weighted`: `n`, `groups` and the three metrics, of the genes that weigh more than 0; the
        interval is of genes drawn with their weights.
    """
    names, others = list(target_names), dict(baselines or {})
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for split in map(str, predictions["split"].dropna().unique()):
        rows = np.flatnonzero(predictions["split"] == split)
        observed = _columns(predictions, rows, names)
        predicted = [_columns(predictions, rows, [f"{name}_predicted" for name in names])]
        predicted += [values[rows] for values in others.values() if split in compared]
        of_group = None if groups is None else groups[rows]
        drawn = {"seed": seed, "resamples": resamples}
        summaries = _summarise(observed, predicted, None, groups=of_group, **drawn)
        result[split] = dict(zip(names, (summary for summary, _ in summaries), strict=True))
        if others and split in compared:
            for name, (_, comparisons) in zip(names, summaries, strict=True):
                result[split][name]["baselines"] = dict(zip(others, comparisons, strict=True))
        if weights is not None:
            weighs = weights[rows] > 0  # a gene of weight 0 is as good as none
            of_group = None if of_group is None else of_group[weighs]
            weighted = _summarise(
                observed[weighs], [predicted[0][weighs]], weights[rows][weighs], groups=of_group, **drawn
            )
            for name, (summary, _) in zip(names, weighted, strict=True):
                result[split][name]["weighted"] = {key: summary[key] for key in _OF_NO_GENES}
    return result


def _columns(table: pd.DataFrame, rows: np.ndarray, names: list[str]) -> np.ndarray:
    return np.stack([table[name].to_numpy(np.float64)[rows] for name in names], axis=1)


def _summarise(
    observed_NT: np.ndarray,
    predicted: Sequence[np.ndarray],
    weights: np.ndarray | None,
    *,
    groups: np.ndarray | None,
    seed: int,
    resamples: int,
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return of each target the summary of the first prediction, and its comparison with each other one."""
    n, targets = observed_NT.shape
    samples = Samples(groups, n, seed=seed, samples=resamples)
    weights_N = np.ones(n) if weights is None else _float64(weights)
    width = SHARED + EACH * len(predicted)
    height = max(1, _VALUES_PER_BATCH // (max(n, resamples) * width))
    result = []
    for first in range(0, targets, height):
        batch = range(first, min(first + height, targets))
        moments_NTK = np.zeros((n, len(batch), width))
        shifts_TP = np.zeros((len(batch), len(predicted)))
        points = []
        for index, target in enumerate(batch):
            known = np.isfinite(observed_NT[:, target])
            y_N, w_N = observed_NT[known, target], weights_N[known]
            others_NP = np.stack([_float64(values[known, target]) for values in predicted], axis=1)
            point = _Point(y_N, others_NP, None if weights is None else w_N)
            point.groups = len(np.unique(samples.group_N[known]))
            points.append(point)
            if point.n:
                moments_NTK[known, index] = moments(y_N, [*others_NP.T], [point.ranks, *point.ranks_NP.T], w_N)
                shifts_TP[index] = np.average(y_N[:, None] - others_NP, axis=0, weights=w_N)
        draws = draw(samples, moments_NTK, shifts_TP)
        bounds = Draws(*map(interval, draws))
        differences = {
            name: interval(values[..., :1] - values[..., 1:])
            for name, values in draws._asdict().items()
            if name in _COMPARED
        }
        result += [
            (point.summary(bounds, index), point.comparisons(bounds, differences, index))
            for index, point in enumerate(points)
        ]
    return result


class _Point:
    """The metrics of one target, without intervals.

    Args:
        y_N: observed values.
        others_NP: predictions, the network's first.
        weights: weights of the genes; None weighs all alike.
    """

    def __init__(self, y_N: np.ndarray, others_NP: np.ndarray, weights: np.ndarray | None) -> None:
        self.n, self.groups = len(y_N), 0
        y_NP = np.broadcast_to(y_N[:, None], others_NP.shape)
        undefined = np.full(others_NP.shape[1], np.nan)
        self.values = dict.fromkeys((*METRICS, "pearson_without_extremes"), undefined)
        self.sd = self.sd_predicted = None
        if not self.n:
            return
        self.values["mse"] = _mean((y_NP - others_NP) ** 2, weights)
        self.sd, self.sd_predicted = float(y_N.std()), float(others_NP[:, 0].std())
        self.ranks = _ranks(y_N[:, None], weights)[:, 0]
        self.ranks_NP = _ranks(others_NP, weights)
        if self.n < MIN_GENES_FOR_R:
            return
        self.values["pearson"] = _pearson(y_NP, others_NP, weights)
        ranks_NP = np.broadcast_to(self.ranks[:, None], others_NP.shape)
        self.values["spearman"] = _pearson(ranks_NP, self.ranks_NP, weights)
        distance = np.abs(y_N - np.median(y_N))
        inner = np.argsort(distance, kind="stable")[: self.n - int(EXTREME * self.n)]
        if len(inner) >= MIN_GENES_FOR_R:
            of_inner = None if weights is None else weights[inner]
            self.values["pearson_without_extremes"] = _pearson(y_NP[inner], others_NP[inner], of_inner)

    def summary(self, bounds: Draws, index: int) -> dict[str, Any]:
        """Return what is known of the network; `bounds` are the intervals of each target and prediction."""
        if not self.n:
            return dict(OF_NO_GENES)
        summary: dict[str, Any] = {"n": self.n, "groups": self.groups}
        for name in METRICS:
            summary[name] = _or_none(self.values[name][0])
            summary[f"{name}_ci95"] = self._interval(getattr(bounds, name)[:, index, 0], summary[name])
        summary |= {"sd": self.sd, "sd_predicted": self.sd_predicted}
        return summary | {"pearson_without_extremes": _or_none(self.values["pearson_without_extremes"][0])}

    def comparisons(
        self, bounds: Draws, differences: Mapping[str, np.ndarray], index: int
    ) -> list[dict[str, Any]]:
        """Return what is known of each other prediction; `differences` are intervals of the first minus these."""
        result = []
        for other in range(1, len(self.values["mse"])):
            compared: dict[str, Any] = {"mse": _or_none(self.values["mse"][other])}
            for name in _COMPARED:
                value = self.values[name]
                compared[name] = _or_none(value[other])
                compared[f"{name}_ci95"] = self._interval(getattr(bounds, name)[:, index, other], compared[name])
                compared[f"{name}_difference"] = difference = _or_none(value[0] - value[other])
                of_difference = differences[name][:, index, other - 1]
                compared[f"{name}_difference_ci95"] = self._interval(of_difference, difference)
            compared["pearson_without_extremes"] = _or_none(self.values["pearson_without_extremes"][other])
            result.append(compared)
        return result

    def _interval(self, bounds: np.ndarray, value: float | None) -> list[float] | None:
        enough = self.groups >= MIN_GROUPS and bool(np.isfinite(bounds).all())
        return bounds.tolist() if enough and value is not None else None


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def pearson_difference(
    observed: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
    groups: np.ndarray | None = None,
) -> tuple[float, tuple[float, float]]:
    """Compute the first prediction's r minus the second's, with a paired 95% bootstrap interval.

    Both are evaluated on the same resampled genes, so that the difficulty of a sample cancels.

    Args:
        observed: observed values, shape (genes,); genes with NaN are left out.
        first: predictions of a model, same shape.
        second: predictions of the model to compare with, same shape.
        seed: random seed of the bootstrap (default 0).
        resamples: number of bootstrap samples (default 1,000).
        groups: group of each gene, which the bootstrap draws whole, same shape; None (the default): each gene is a
            group.

    Returns:
        The difference, and the bounds of its percentile interval; NaN if undefined, as in `evaluate_predictions`.
    """
    columns = [values[:, None] for values in (observed, first, second)]
    of_group = None if groups is None else groups
    ((_, (compared,)),) = _summarise(
        _float64(columns[0]), columns[1:], None, groups=of_group, seed=seed, resamples=resamples
    )
    difference, bounds = compared["pearson_difference"], compared["pearson_difference_ci95"]
    low, high = bounds or (np.nan, np.nan)
    return np.nan if difference is None else difference, (low, high)


def _ranks(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Rank each column; of weighted genes the rank is the weight below, and half the weight of the ties."""
    if weights is None:
        from scipy import stats  # noqa: PLC0415 # takes a second, and most workers need no ranks

        return stats.rankdata(values, axis=0)
    ranks = np.empty(values.shape)
    for column, of_column in enumerate(values.T):
        _, group = np.unique(of_column, return_inverse=True)
        tied = np.bincount(group, weights)
        ranks[:, column] = (np.cumsum(tied) - tied / 2)[group]
    return ranks


def _float64(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
