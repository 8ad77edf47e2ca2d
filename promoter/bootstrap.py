"""Bootstrap the correlations of several predictions with observed values, over groups of genes.

Whole groups are drawn with replacement: homologs or neighbours resemble one another, and as single genes they
would make an interval too narrow (Field & Welsh 2007, the cluster bootstrap). A sample is a count for each group,
so that all metrics of all samples and targets are one matrix product of counts and sums of moments.

Shapes: N genes, G groups, S samples, T targets, P predictions (a network and its baselines).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

_COUNTS_KEPT = 1 << 28  # bytes: 1,000 samples of 268,000 groups; of more they are drawn again for each product
_DRAWS_PER_BATCH = 1 << 23  # groups drawn in one call: 64 MB
SHARED, EACH = 5, 6  # moments of the observed values, and of each prediction with them


class Samples:
    """How often each group is drawn in each bootstrap sample.

    Args:
        groups: the group of each gene: numbers or names, shape (N,); None: each gene is a group.
        n: number of genes.
        seed: random seed.
        samples: number of samples.
    """

    def __init__(self, groups: np.ndarray | None, n: int, *, seed: int, samples: int) -> None:
        self.group_N = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
        self.size, self.seed, self.samples = int(self.group_N.max(initial=-1)) + 1, seed, samples
        self._order_N = np.argsort(self.group_N, kind="stable")
        self._starts_G = np.searchsorted(self.group_N[self._order_N], np.arange(self.size))
        kept = self.size * samples <= _COUNTS_KEPT
        self._kept = list(self._draw()) if kept else None

    def sums(self, values_NK: np.ndarray) -> np.ndarray:
        """Add up each column over the genes of each sample: float64, shape (S, K)."""
        if self.size == 0:
            return np.zeros((self.samples, values_NK.shape[1]))
        sums_GK = np.add.reduceat(values_NK[self._order_N], self._starts_G, axis=0)
        # as float: a product of integers and floats is twenty times slower
        return np.concatenate([counts.astype(np.float64) @ sums_GK for counts in self.counts()])

    def counts(self) -> Iterable[np.ndarray]:
        """Return how often each group is drawn, a batch of samples at a time: uint8, shape (samples, G)."""
        return self._kept or self._draw()

    def _draw(self) -> Iterator[np.ndarray]:
        """Yield the counts, uint8, shape (samples of a batch, G)."""
        rng = np.random.default_rng(self.seed)
        height = max(1, _DRAWS_PER_BATCH // max(self.size, 1))
        for done in range(0, self.samples if self.size else 0, height):
            rows = min(height, self.samples - done)
            drawn = rng.integers(0, self.size, size=(rows, self.size), dtype=np.int64)
            drawn += np.arange(rows)[:, None] * self.size
            counts = np.bincount(drawn.ravel(), minlength=rows * self.size)
            # a count above 255, whose mean is 1, does not occur
            yield counts.reshape(rows, self.size).astype(np.uint8)


class Draws(NamedTuple):
    """Metrics of each sample: `mse`, `pearson` and `spearman`, each of shape (S, T, P); NaN where undefined."""

    mse: np.ndarray
    pearson: np.ndarray
    spearman: np.ndarray


def moments(
    observed: np.ndarray, predicted: Sequence[np.ndarray], ranks: Sequence[np.ndarray], weights: np.ndarray
) -> np.ndarray:
    """Compute what the correlations of one target are made of, for each gene.

    Args:
        observed: observed values, shape (N,).
        predicted: P predictions, each of shape (N,).
        ranks: ranks of the observed values and of each prediction, each of shape (N,).
        weights: weights of the genes, shape (N,).

    Returns:
        float64, shape (N, `SHARED` + P * `EACH`): of weight w, observed a and prediction b, centred, with ranks
        the columns w, wa, waa, ra and rara, then for each prediction wb, wbb, wab, rb, rbrb and rarb.
    """
    w = weights
    a, ra = _centred(observed, w), _centred(ranks[0], w)
    columns = [w, w * a, w * a * a, w * ra, w * ra * ra]
    for values, of_values in zip(predicted, ranks[1:], strict=True):
        b, rb = _centred(values, w), _centred(of_values, w)
        columns += [w * b, w * b * b, w * a * b, w * rb, w * rb * rb, w * ra * rb]
    return np.stack(columns, axis=1)


def draw(samples: Samples, moments_NTK: np.ndarray, shifts_TP: np.ndarray) -> Draws:
    """Compute the metrics of all samples.

    Args:
        samples: the samples.
        moments_NTK: moments of each target, as `moments` returns them, 0 for genes without a value.
        shifts_TP: mean of the observed values minus mean of the prediction, shape (T, P).
    """
    n, targets, width = moments_NTK.shape
    sums_STK = samples.sums(moments_NTK.reshape(n, targets * width)).reshape(-1, targets, width)
    with np.errstate(invalid="ignore", divide="ignore"):
        means_STK = sums_STK[..., 1:] / sums_STK[..., :1]
    a, aa, ra, rara = (means_STK[..., k, None] for k in range(SHARED - 1))
    each_STPK = means_STK[..., SHARED - 1 :].reshape(len(means_STK), targets, -1, EACH)
    b, bb, ab, rb, rbrb, rarb = np.moveaxis(each_STPK, -1, 0)
    mse = aa - 2 * ab + bb + 2 * shifts_TP * (a - b) + shifts_TP**2
    pearson, spearman = _correlation(a, b, aa, bb, ab=ab), _correlation(ra, rb, rara, rbrb, ab=rarb)
    return Draws(np.maximum(mse, 0), pearson, spearman)  # rounding may leave -1e-17 for a perfect prediction


def interval(draws: np.ndarray) -> np.ndarray:
    """Return the 95% percentile interval over the samples, shape (2, ...); samples that are NaN are left out.

    Args:
        draws: a metric of each sample, shape (S, ...).
    """
    # a sample of few genes may be constant, and then has no correlation
    defined = np.isfinite(draws)
    if defined.all():
        return np.quantile(draws, [0.025, 0.975], axis=0)
    columns = draws.reshape(len(draws), -1)
    bounds = np.full((2, columns.shape[1]), np.nan)
    for number, column in enumerate(columns.T):
        if len(known := column[np.isfinite(column)]):
            bounds[:, number] = np.quantile(known, [0.025, 0.975])
    return bounds.reshape(2, *draws.shape[1:])


def _centred(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return values - np.average(values, weights=weights)


def _correlation(a: np.ndarray, b: np.ndarray, aa: np.ndarray, bb: np.ndarray, *, ab: np.ndarray) -> np.ndarray:
    """Compute r from the means of a, b, a², b² and ab."""
    variance_a, variance_b = aa - a * a, bb - b * b
    # in a constant sample, rounding leaves some 1e-16 of the mean square
    varies = (variance_a > 1e-12 * aa) & (variance_b > 1e-12 * bb)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies, (ab - a * b) / np.sqrt(variance_a * variance_b), np.nan)
