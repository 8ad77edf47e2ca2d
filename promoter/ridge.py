"""Ridge regression of several targets, weighted, with a penalty chosen by cross-validation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

_COARSE = (-2.0, -1.0, 0.0, 1.0)  # penalties tried, log10 in units of the Gram matrix's mean diagonal
_FINE = (-0.5, 0.5)  # steps from the best coarse penalty


def ridge(
    features: np.ndarray, targets: np.ndarray, fold_of_gene: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Fit ridge regression, choosing the penalty by cross-validation.

    The products of the features (or of the genes, if these are fewer) are formed once for all penalties and folds,
    which scikit-learn's estimators cannot do; with thousands of features they take most of the time.

    Args:
        features: features of the training genes, shape (genes, features); not scaled, so that rare ones get little
            weight.
        targets: values of these genes, shape (genes, targets).
        fold_of_gene: fold of each gene: int, shape (genes,); with a single fold the penalty is the mean
            diagonal of the Gram matrix, and not chosen.
        weights: weights of the genes' squared errors, above 0, shape (genes,); None (default) weighs all alike.

    Returns:
        Intercept and coefficients: float64, shape (1 + features, targets).
    """
    middle = weighted_mean(features, weights)
    x, y = (features - middle).astype(np.float32, copy=False), targets.astype(np.float32)
    del features  # as large as x
    w = None if weights is None else weights.astype(np.float32)
    parts = [fold_of_gene == fold for fold in np.unique(fold_of_gene)]
    solver = (_Dual if len(x) <= x.shape[1] else _Primal)(x, y, parts, w)
    of_gene = np.ones(len(x)) if weights is None else weights
    unit = float(np.einsum("ij,ij,i->", x, x, of_gene, dtype=np.float64)) / x.shape[1] + 1e-6
    best = 0.0
    if len(parts) > 1:
        variance = weighted_mean((y - weighted_mean(y, w)) ** 2, w) + 1e-12
        systems = [solver.without(number) for number in range(len(parts))]

        @functools.cache
        def error(exponent: float) -> float:
            """Sum the squared errors on the folds left out, in units of each target's variance."""
            total = 0.0
            for part, system in zip(parts, systems, strict=True):
                off = np.square(system.fit(unit * 10**exponent).predict(x[part]) - y[part]) / variance
                total += float((off if w is None else off * w[part, None]).sum())
            return total

        best = min(_COARSE, key=error)
        best = min((best, *(best + step for step in _FINE)), key=error)
    fitted = solver.without(None).fit(unit * 10**best)
    slopes = fitted.slopes.astype(np.float64)
    intercept = fitted.mean_y - (middle + fitted.mean_x.astype(np.float64)) @ slopes
    return np.concatenate([intercept[None], slopes])


def weighted_mean(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Compute the mean of each column over the rows; None weighs all alike."""
    return values.mean(axis=0) if weights is None else np.average(values, axis=0, weights=weights)


class _Fitted(NamedTuple):
    """Coefficients for one penalty: means of features and targets, and slopes (features, targets)."""

    mean_x: np.ndarray
    mean_y: np.ndarray
    slopes: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x @ self.slopes + (self.mean_y - self.mean_x @ self.slopes)


class _System(NamedTuple):
    """The equations of some genes, for any penalty.

    Attributes:
        mean_x: weighted means of the features.
        mean_y: weighted means of the targets.
        products: products of the features, or of the genes.
        moment: right-hand side.
        to_slopes: function from the solution to slopes.
    """

    mean_x: np.ndarray
    mean_y: np.ndarray
    products: np.ndarray
    moment: np.ndarray
    to_slopes: Callable[[np.ndarray], np.ndarray]

    def fit(self, penalty: float) -> _Fitted:
        return _Fitted(self.mean_x, self.mean_y, self.to_slopes(_solve(self.products, self.moment, penalty)))


class _Primal:
    """Solve ridge regression by the products of the features."""

    def __init__(self, x: np.ndarray, y: np.ndarray, parts: list[np.ndarray], weights: np.ndarray | None) -> None:
        self.x, self.y, self.parts, self.weights = x, y, parts, weights
        rooted = x if weights is None else x * np.sqrt(weights)[:, None]
        self.grams = [rooted[part].T @ rooted[part] for part in parts]

    def without(self, left_out: int | None) -> _System:
        """Set up the equations of all genes but those of a part; None leaves out none."""
        used = _all_but(self.parts, left_out)
        x, y, weights = self.x[used], self.y[used], None if self.weights is None else self.weights[used]
        mean_x, mean_y = weighted_mean(x, weights), weighted_mean(y, weights)
        total = len(y) if weights is None else float(weights.sum())
        gram = -total * np.outer(mean_x, mean_x)
        for number, gram_of_part in enumerate(self.grams):
            if number != left_out:
                gram += gram_of_part
        off = y - mean_y
        moment = x.T @ (off if weights is None else off * weights[:, None])
        return _System(mean_x, mean_y, gram, moment, lambda solution: solution)


class _Dual:
    """Solve ridge regression by the products of the genes."""

    def __init__(self, x: np.ndarray, y: np.ndarray, parts: list[np.ndarray], weights: np.ndarray | None) -> None:
        self.x, self.y, self.parts, self.weights = x, y, parts, weights
        self.kernel = x @ x.T

    def without(self, left_out: int | None) -> _System:
        """Set up the equations of all genes but those of a part; None leaves out none."""
        used = _all_but(self.parts, left_out)
        x, y, weights = self.x[used], self.y[used], None if self.weights is None else self.weights[used]
        mean_x, mean_y = weighted_mean(x, weights), weighted_mean(y, weights)
        kernel, off = self.kernel[np.ix_(used, used)], y - mean_y
        row = weighted_mean(kernel, weights)
        centred = kernel - row - row[:, None] + weighted_mean(row, weights)
        root = np.ones((len(y), 1), np.float32) if weights is None else np.sqrt(weights)[:, None]

        def to_slopes(solution: np.ndarray) -> np.ndarray:
            dual = np.zeros_like(self.y)
            dual[used] = root * solution
            return self.x.T @ dual - np.outer(mean_x, dual.sum(axis=0))

        return _System(mean_x, mean_y, root * centred * root.T, root * off, to_slopes)


def _all_but(parts: list[np.ndarray], left_out: int | None) -> np.ndarray:
    used = np.ones(len(parts[0]), bool)
    return used if left_out is None else used & ~parts[left_out]


def _solve(products: np.ndarray, moment: np.ndarray, penalty: float) -> np.ndarray:
    penalised = torch.from_numpy(products).clone()  # the same products serve all penalties
    penalised.diagonal().add_(penalty)
    # PyTorch's Cholesky takes a quarter of SciPy's time, and there are twenty of up to 6,240 x 6,240
    return torch.cholesky_solve(torch.from_numpy(moment), torch.linalg.cholesky(penalised)).numpy()
