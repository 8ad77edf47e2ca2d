"""Compute MSE, Pearson's r and Spearman's rho of predictions over genes, per target, with intervals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

Index: TypeAlias = np.ndarray | slice
METRICS = ("mse", "pearson", "spearman")
MIN_GENES_FOR_R = 10  # of fewer, r is nearly free: two have r = ±1, and of five unrelated ones a tenth exceed 0.8
OF_NO_GENES = {"n": 0} | {key: None for name in METRICS for key in (name, f"{name}_ci95")}
_RESAMPLES_PER_BATCH = 100
_COUNTS_PER_BATCH = 1 << 21  # bounds memory: 16 MB of float64
_COUNTS_KEPT = 1 << 28  # bytes: 1,000 resamples of 268,000 genes


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
) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarise a table of predictions by split and target.

    Args:
        predictions: table with the columns `split`, and per target `TARGET` and `TARGET_predicted`.
        target_names: names of the targets.
        seed: random seed of the bootstrap (default 0).
        resamples: number of bootstrap samples of the genes (default 1,000).
        weights: weights of the rows, shape (rows,); None (the default): there are none.

    Returns:
        split -> target -> `n`, and each of `mse`, `pearson`, `spearman` with its 95% percentile bootstrap
        interval under `METRIC_ci95`; None if undefined, and no correlation of fewer than `MIN_GENES_FOR_R` genes.
        Genes without an observed value are left out. With weights also the same under `weighted`, of the genes
        that weigh more than 0; the interval is of genes drawn with their weights.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for split in predictions["split"].dropna().unique():
        indices = np.flatnonzero(predictions["split"] == split)
        rows = predictions.iloc[indices]
        result[str(split)] = {}
        for name in target_names:
            known = np.isfinite(rows[name].to_numpy())
            observed, predicted = (rows.loc[known, [column]].to_numpy() for column in (name, f"{name}_predicted"))
            result[str(split)][name] = summary = _with_intervals(
                observed, predicted, None, seed=seed, resamples=resamples
            )
            if weights is not None:
                w = _float64(weights[indices][known])
                weighted = observed[w > 0], predicted[w > 0], w[w > 0]
                summary["weighted"] = _with_intervals(*weighted, seed=seed, resamples=resamples)
    return result


def compare_predictions(
    predictions: pd.DataFrame,
    others: Mapping[str, np.ndarray],
    target_names: Sequence[str],
    *,
    splits: Sequence[str] = ("val", "test"),
    seed: int = 0,
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Compare predictions with those of other models on the same genes.

    Args:
        predictions: table with the columns `split`, and per target `TARGET` and `TARGET_predicted`.
        others: name -> predictions of another model: shape (genes, targets), in the order of the table.
        target_names: names of the targets.
        splits: splits to compare on (default `val` and `test`).
        seed: random seed of the bootstrap (default 0).

    Returns:
        split -> target -> name -> `mse` and `pearson` of the other model, `pearson_difference` (r of the
        predictions minus r of the other model), and its paired interval `pearson_difference_ci95`; None if
        undefined, and no correlation of fewer than `MIN_GENES_FOR_R` genes.
    """
    result: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for split in splits:
        rows = (predictions["split"] == split).to_numpy()
        result[split] = {}
        for index, target in enumerate(target_names):
            observed = predictions[target].to_numpy()[rows]
            known = np.isfinite(observed)
            observed, ours = observed[known], predictions[f"{target}_predicted"].to_numpy()[rows][known]
            theirs = {name: values[rows, index][known] for name, values in others.items()}
            result[split][target] = {
                name: _compared(observed, ours, values, seed) for name, values in theirs.items()
            }
    return result


def _compared(observed: np.ndarray, ours: np.ndarray, theirs: np.ndarray, seed: int) -> dict[str, Any]:
    compared: dict[str, Any] = dict.fromkeys(("mse", "pearson", "pearson_difference", "pearson_difference_ci95"))
    if not len(observed):
        return compared
    compared["mse"] = _or_none(mse(observed[:, None], theirs[:, None])[0])
    if len(observed) < MIN_GENES_FOR_R:
        return compared
    difference, interval = pearson_difference(observed, ours, theirs, seed=seed)
    return compared | {
        "pearson": _or_none(pearson(observed[:, None], theirs[:, None])[0]),
        "pearson_difference": _or_none(difference),
        "pearson_difference_ci95": list(interval) if np.isfinite(difference) else None,
    }


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def pearson_difference(
    observed: np.ndarray, first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = 1000
) -> tuple[float, tuple[float, float]]:
    """Compute the first prediction's r minus the second's, with a paired 95% bootstrap interval.

    Both are evaluated on the same resampled genes, so that the difficulty of a sample cancels.

    Args:
        observed: observed values, shape (genes,); genes with NaN are left out.
        first: predictions of a model, same shape.
        second: predictions of the model to compare with, same shape.
        seed: random seed of the bootstrap (default 0).
        resamples: number of bootstrap samples of the genes (default 1,000).

    Returns:
        The difference, and the bounds of its percentile interval; NaN if an r is undefined.
    """
    known = np.isfinite(observed)
    y, a, b = (_float64(values[known]) for values in (observed, first, second))
    difference = float(pearson(y[:, None], a[:, None])[0] - pearson(y[:, None], b[:, None])[0])
    if not np.isfinite(difference):
        return difference, (float("nan"), float("nan"))
    means = _resampled_means(_moments([(y, a), (y, b)]), None, seed, resamples)
    draws = _correlation(means[:, :5]) - _correlation(means[:, 5:])
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return difference, (float(low), float(high))


def _with_intervals(
    observed: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None, *, seed: int, resamples: int
) -> dict[str, Any]:
    if (n := len(observed)) == 0:
        return dict(OF_NO_GENES)
    intervals = _bootstrap(observed, predicted, weights, seed=seed, resamples=resamples)
    summary: dict[str, Any] = {"n": n}
    for name, metric in (("mse", mse), ("pearson", pearson), ("spearman", spearman)):
        enough = name == "mse" or n >= MIN_GENES_FOR_R
        summary[name] = value = _or_none(metric(observed, predicted, weights)[0]) if enough else None
        summary[f"{name}_ci95"] = None if value is None else intervals[name].tolist()
    return summary


def _bootstrap(
    observed: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None, *, seed: int, resamples: int
) -> dict[str, np.ndarray]:
    """Compute 95% percentile intervals of the three metrics.

    A resample is a multinomial count for each gene, so that all metrics of all resamples are one matrix product of
    counts and moments. Ranks are those of the full sample.
    """
    ranks = _ranks(observed, weights)[:, 0], _ranks(predicted, weights)[:, 0]
    x, y = observed[:, 0], predicted[:, 0]
    off = _float64(y - x)[:, None] ** 2
    m = _resampled_means(np.hstack([off, _moments([(x, y), ranks])]), weights, seed, resamples)
    draws = {"mse": m[:, 0], "pearson": _correlation(m[:, 1:6]), "spearman": _correlation(m[:, 6:11])}
    # a resample of few genes may be constant, and then has no correlation
    return {
        name: np.nanquantile(draw, [0.025, 0.975]) if np.isfinite(draw).any() else np.full(2, np.nan)
        for name, draw in draws.items()
    }


def _moments(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Compute the moments a, b, a², b², ab of each gene for each pair, shape (genes, 5 * pairs)."""
    columns = []
    for first, second in pairs:
        a, b = _float64(first) - np.mean(first), _float64(second) - np.mean(second)
        columns += [a, b, a * a, b * b, a * b]
    return np.stack(columns, axis=1)


def _resampled_means(values: np.ndarray, weights: np.ndarray | None, seed: int, resamples: int) -> np.ndarray:
    """Compute the means of the columns over genes drawn with replacement: (resamples, columns)."""
    n = len(values)
    means = []
    for drawn in _resamples(n, seed, resamples):
        counts = drawn.astype(np.float64)
        if weights is None:
            means.append(counts @ values / n)
        else:
            counts *= weights
            means.append(counts @ values / counts.sum(axis=1, keepdims=True))
    return np.concatenate(means)


def _resamples(n: int, seed: int, resamples: int) -> Iterable[np.ndarray]:
    """Draw how often each gene is in each resample: uint8, shape (resamples, n), in batches."""
    if n * resamples <= _COUNTS_KEPT:
        return _kept_resamples(n, seed, resamples)
    return _draw_resamples(n, seed, resamples)


@functools.lru_cache(maxsize=1)  # all metrics and models of a set of genes are compared on the same resamples
def _kept_resamples(n: int, seed: int, resamples: int) -> list[np.ndarray]:
    return list(_draw_resamples(n, seed, resamples))


def _draw_resamples(n: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    size = max(1, min(_RESAMPLES_PER_BATCH, _COUNTS_PER_BATCH // n))
    for done in range(0, resamples, size):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(size, resamples - done))
        yield counts.astype(np.uint8)  # a count above 255, whose mean is 1, does not occur


def _correlation(m: np.ndarray) -> np.ndarray:
    """Compute r from the means of (a, b, a², b², ab), each of shape (resamples,)."""
    a, b, aa, bb, ab = m.T
    variance_a, variance_b = aa - a * a, bb - b * b
    # in a constant resample, rounding leaves some 1e-16 of the mean square
    varies = (variance_a > 1e-12 * aa) & (variance_b > 1e-12 * bb)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies, (ab - a * b) / np.sqrt(variance_a * variance_b), np.nan)


def _ranks(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Rank each column; of weighted genes the rank is the weight below, and half the weight of the ties."""
    if weights is None:
        return stats.rankdata(values, axis=0)
    ranks = np.empty(values.shape)
    for column, of_column in enumerate(values.T):
        _, group = np.unique(of_column, return_inverse=True)
        tied = np.bincount(group, weights)
        ranks[:, column] = (np.cumsum(tied) - tied / 2)[group]
    return ranks


def _float64(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
