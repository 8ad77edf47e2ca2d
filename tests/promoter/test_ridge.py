from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from promoter.ridge import ridge


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("genes", "features"), [(300, 20), (60, 90)])  # more genes than features, and fewer
def test_ridge_is_scikit_learns_with_the_penalty_that_is_best_on_what_is_left_out(
    genes: int, features: int, weighted: bool
) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(2, 1, (genes, features)).astype(np.float32)
    y = x[:, :2] @ rng.normal(size=(2, 2)) + rng.normal(size=(genes, 2)) + 7
    weights = rng.lognormal(size=genes) if weighted else np.ones(genes)
    weights /= weights.mean()
    fold = np.arange(genes) % 3
    wide = x.astype(float)
    mean_x, mean_y = (np.average(values, axis=0, weights=weights) for values in (wide, y))
    unit = (weights[:, None] * (wide - mean_x) ** 2).sum() / features
    variance = np.average((y - mean_y) ** 2, axis=0, weights=weights)

    def error(exponent: float) -> float:
        total = 0.0
        for held_out in range(3):
            used, out = fold != held_out, fold == held_out
            model = Ridge(alpha=unit * 10**exponent).fit(wide[used], y[used], sample_weight=weights[used])
            total += (weights[out, None] * (model.predict(wide[out]) - y[out]) ** 2 / variance).sum()
        return total

    best = min((-2, -1, 0, 1), key=error)
    best = min((best, best - 0.5, best + 0.5), key=error)
    expected = Ridge(alpha=unit * 10**best).fit(wide, y, sample_weight=weights)
    found = ridge(x, y, fold, weights if weighted else None)
    new = rng.normal(2, 1, (50, features))
    assert found.shape == (1 + features, 2)
    np.testing.assert_allclose(found[0] + new @ found[1:], expected.predict(new), atol=2e-3)  # float32 products


def test_a_single_fold_takes_the_mean_diagonal_as_penalty() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 1))
    unit = ((x - x.mean(axis=0)) ** 2).sum() / 5
    expected = Ridge(alpha=unit * 1.0).fit(x, y)
    found = ridge(x, y, np.zeros(40, int))
    np.testing.assert_allclose(found[1:, 0], expected.coef_.ravel(), atol=1e-4)
    np.testing.assert_allclose(found[0], expected.intercept_, atol=1e-4)
