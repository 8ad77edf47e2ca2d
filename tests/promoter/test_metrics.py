from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from promoter import metrics


def table(observed: list | np.ndarray, predicted: list | np.ndarray, split: str = "test") -> pd.DataFrame:
    return pd.DataFrame({"split": split, "y": observed, "y_predicted": predicted})


def summary(
    observed: list | np.ndarray, predicted: list | np.ndarray, seed: int = 0, resamples: int = 1000
) -> dict:
    return metrics.evaluate_predictions(table(observed, predicted), ["y"], seed, resamples)["test"]["y"]


@given(
    hnp.arrays(np.float64, (2, 12, 2), elements=st.integers(-4, 4))  # small integers: full of ties
    | hnp.arrays(np.float64, (2, 5, 1), elements=st.floats(-1e3, 1e3, width=16))
)
@settings(max_examples=80)
def test_metrics_are_those_of_scipy_and_numpy_in_each_column(pair: np.ndarray) -> None:
    observed, predicted = pair
    for column in range(observed.shape[1]):
        x, y = observed[:, column], predicted[:, column]
        assert metrics.mse(observed, predicted)[column] == pytest.approx(np.mean((x - y) ** 2))
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert np.isnan(metrics.pearson(observed, predicted)[column])
            assert np.isnan(metrics.spearman(observed, predicted)[column])
            continue
        assert metrics.spearman(observed, predicted)[column] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-9)
        if min(np.ptp(x), np.ptp(y)) > 1e-3:
            assert metrics.pearson(observed, predicted)[column] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-9)


def test_metrics_of_float32_with_a_large_mean_lose_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(1e4, 1, (3000, 1)).astype(np.float32)
    y = (x + rng.normal(0, 1, x.shape)).astype(np.float32)
    expected = stats.pearsonr(x[:, 0].astype(np.float64), y[:, 0].astype(np.float64))[0]
    assert metrics.pearson(x, y)[0] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("n", [2, 7, 10, 13])
@pytest.mark.parametrize("constant", [0.1, 3.0, 1e6 + 0.1])  # the mean of n times 0.1 is not always 0.1
def test_a_constant_column_has_an_error_but_no_correlation(n: int, constant: float) -> None:
    rng = np.random.default_rng(n)
    for observed, predicted in [(np.full(n, constant), rng.random(n)), (rng.random(n), np.full(n, constant))]:
        found = summary(observed, predicted, resamples=50)
        assert found["mse"] == pytest.approx(np.mean((observed - predicted) ** 2))
        none = {"pearson": None, "pearson_ci95": None, "spearman": None, "spearman_ci95": None}
        assert found.items() >= none.items()


def test_the_intervals_are_the_percentile_bootstrap_of_scipy() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(2, 1, 120)
    y = x + rng.normal(0.2, 1, 120)
    found = summary(x, y, resamples=4000)
    ranks = stats.rankdata(x), stats.rankdata(y)
    for name, statistic, data in [
        ("mse", lambda a, b: np.mean((a - b) ** 2), (x, y)),
        ("pearson", lambda a, b: np.corrcoef(a, b)[0, 1], (x, y)),
        ("spearman", lambda a, b: np.corrcoef(a, b)[0, 1], ranks),
    ]:
        expected = stats.bootstrap(
            data, statistic, paired=True, vectorized=False, n_resamples=4000, method="percentile", rng=7
        )
        low, high = found[f"{name}_ci95"]
        # the Monte Carlo error of a bound of 4000 resamples is about 2% of the interval's width
        tolerance = 0.08 * (high - low)
        assert low == pytest.approx(expected.confidence_interval.low, abs=tolerance)
        assert high == pytest.approx(expected.confidence_interval.high, abs=tolerance)


def test_about_95_of_100_intervals_hold_the_true_correlation() -> None:
    rng = np.random.default_rng(11)
    true_r, hits, repeats = 0.6, 0, 200
    for seed in range(repeats):
        x = rng.normal(size=80)
        y = true_r * x + np.sqrt(1 - true_r**2) * rng.normal(size=80)
        low, high = summary(x, y, seed=seed, resamples=200)["pearson_ci95"]
        hits += low <= true_r <= high
    # percentile intervals of 80 genes cover a little less than 95%; the SE of 200 repeats is 1.7%
    assert 0.87 <= hits / repeats <= 0.985


def test_resamples_without_variance_are_left_out_of_the_interval() -> None:
    x = np.array([1.0, *[0.0] * 9])  # a third of all resamples hold only the zeros: r is undefined there
    r_low, r_high = summary(x, x, resamples=500)["pearson_ci95"]
    assert (r_low, r_high) == pytest.approx((1, 1))


@given(hnp.arrays(np.float32, (2, 4), elements=st.floats(-10, 10, width=16)))
@settings(max_examples=40)
def test_intervals_of_few_genes_stay_within_what_the_metric_can_be(pair: np.ndarray) -> None:
    found = summary(*pair, resamples=100)
    assert found["mse_ci95"][0] >= 0
    for name in ("pearson", "spearman"):
        if found[name] is not None:
            assert -1 - 1e-6 <= found[f"{name}_ci95"][0] <= found[f"{name}_ci95"][1] <= 1 + 1e-6


def test_equal_seeds_give_equal_bootstrap_intervals_and_others_do_not() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert summary(x, y, seed=1) == summary(x, y, seed=1)
    assert summary(x, y, seed=1) != summary(x, y, seed=2)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ([np.nan, np.nan, np.nan], {"n": 0, "mse": None, "mse_ci95": None, "pearson": None}),
        ([np.nan, 2.0, np.nan], {"n": 1, "mse": 4.0, "mse_ci95": [4.0, 4.0], "pearson": None, "spearman": None}),
        ([np.inf, 2.0, 6.0], {"n": 2, "mse": 2.5, "pearson": None, "spearman": None}),
    ],
)
def test_genes_without_an_observed_value_are_left_out_of_metrics(observed: list[float], expected: dict) -> None:
    found = summary(observed, [7.0, 4.0, 5.0])
    assert {key: pytest.approx(found[key]) if found[key] is not None else None for key in expected} == expected
    json.dumps(found, allow_nan=False)


def test_each_split_and_target_is_summarised_by_itself_and_genes_of_no_split_by_none() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(30, 4)), columns=pd.Index(["a", "a_predicted", "b", "b_predicted"]))
    frame["split"] = ["train"] * 7 + ["val"] * 11 + [None] * 2 + ["test"] * 10
    found = metrics.evaluate_predictions(frame, ["a", "b"], resamples=20)
    assert {split: {name: one["n"] for name, one in part.items()} for split, part in found.items()} == {
        "train": {"a": 7, "b": 7},
        "val": {"a": 11, "b": 11},
        "test": {"a": 10, "b": 10},
    }
    val = frame[7:18]
    assert found["val"]["b"]["pearson"] == pytest.approx(np.corrcoef(val["b"], val["b_predicted"])[0, 1])
    json.dumps(found, allow_nan=False)


def test_paired_difference_is_that_of_resampling_genes_by_hand() -> None:
    rng = np.random.default_rng(0)
    observed = rng.normal(size=200)
    first, second = observed + rng.normal(size=200), observed + 2 * rng.normal(size=200)
    difference, (low, high) = metrics.pearson_difference(observed, first, second, resamples=4000)

    def apart(rows: np.ndarray) -> float:
        return np.corrcoef(observed[rows], first[rows])[0, 1] - np.corrcoef(observed[rows], second[rows])[0, 1]

    assert difference == pytest.approx(apart(np.arange(200)), abs=1e-12)
    by_hand = np.quantile([apart(rng.integers(0, 200, 200)) for _ in range(4000)], [0.025, 0.975])
    assert [low, high] == pytest.approx(by_hand, abs=0.01)  # both are drawn
    missing = observed.copy()
    missing[:50] = np.nan
    assert metrics.pearson_difference(missing, first, second) == metrics.pearson_difference(
        observed[50:], first[50:], second[50:]
    )
    assert np.isnan(metrics.pearson_difference(observed, first, np.ones(200))[0])


def test_pairing_narrows_the_interval_of_two_predictions_that_err_alike() -> None:
    rng = np.random.default_rng(1)
    observed = rng.normal(size=300)
    shared = observed + rng.normal(size=300)
    first, second = (shared + 0.1 * rng.normal(size=300) for _ in range(2))
    _, (low, high) = metrics.pearson_difference(observed, first, second)
    alone = summary(observed, first)["pearson_ci95"]
    assert high - low < 0.3 * (alone[1] - alone[0])
    assert low < 0 < high


def test_other_models_are_compared_on_the_same_genes_of_each_split() -> None:
    rng = np.random.default_rng(0)
    n = 300
    y, ours, theirs = (rng.normal(size=n).astype(np.float32) for _ in range(3))
    ours, theirs = ours + y, theirs + 0.5 * y
    y[:7] = np.nan
    frame = pd.DataFrame({"split": rng.choice(["train", "val", "test"], n), "y": y, "y_predicted": ours})
    constant = np.ones((n, 1), np.float32)
    found = metrics.compare_predictions(frame, {"ridge": theirs[:, None], "mean": constant}, ["y"])
    assert found.keys() == {"val", "test"}
    for split, of_target in found.items():
        rows = (frame["split"] == split).to_numpy() & np.isfinite(y)
        ridge, mean = of_target["y"]["ridge"], of_target["y"]["mean"]
        assert ridge["pearson"] == pytest.approx(stats.pearsonr(y[rows], theirs[rows])[0], abs=1e-6)
        assert ridge["mse"] == pytest.approx(np.mean((y[rows] - theirs[rows]) ** 2), rel=1e-6)
        difference = np.corrcoef(y[rows], ours[rows])[0, 1] - np.corrcoef(y[rows], theirs[rows])[0, 1]
        assert ridge["pearson_difference"] == pytest.approx(difference, abs=1e-6)
        low, high = ridge["pearson_difference_ci95"]
        assert low < difference < high
        assert mean["mse"] == pytest.approx(np.mean((y[rows] - 1) ** 2), rel=1e-6)
        assert (mean["pearson"], mean["pearson_difference"], mean["pearson_difference_ci95"]) == (None, None, None)


@given(
    hnp.arrays(np.float64, (2, 9, 4), elements=st.integers(-4, 4)),
    hnp.arrays(bool, (9, 4)),
)
@settings(max_examples=80)
def test_metrics_of_each_target_are_those_of_its_observed_genes(pair: np.ndarray, missing: np.ndarray) -> None:
    observed, predicted = pair
    observed = np.where(missing, np.nan, observed)
    for metric in (metrics.mse, metrics.pearson, metrics.spearman):
        found = metric(observed, predicted)
        for column in range(4):
            known = ~missing[:, column]
            alone = observed[known, column][:, None], predicted[known, column][:, None]
            expected = metric(*alone)[0] if known.any() else np.nan
            assert found[column] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(hnp.arrays(bool, (6, 5)))
def test_groups_hold_each_target_once_with_the_genes_that_have_a_value(missing: np.ndarray) -> None:
    values = np.where(missing, np.nan, 1.0)
    seen = np.zeros((6, 5), bool)
    patterns = set()
    for rows, columns in metrics.observed_groups(values):
        assert not seen[:, columns].any()
        seen[np.ix_(np.arange(6)[rows], np.arange(5)[columns])] = True
        patterns.add(tuple(np.arange(6)[rows]))
    np.testing.assert_array_equal(seen, ~missing)
    assert len(patterns) == len({tuple(column) for column in (~missing).T if column.any()})


def test_summaries_and_comparisons_count_the_observed_genes_of_each_target() -> None:
    rng = np.random.default_rng(0)
    n = 200
    observed, predicted, other = rng.normal(size=(3, n, 2))
    observed[rng.permutation(n)[: n // 2], 1] = np.nan
    columns = {
        "A": observed[:, 0],
        "B": observed[:, 1],
        "A_predicted": predicted[:, 0],
        "B_predicted": predicted[:, 1],
    }
    both = pd.DataFrame({"split": "test"} | columns)
    found = metrics.evaluate_predictions(both, ["A", "B"])["test"]
    compared = metrics.compare_predictions(both, {"other": other}, ["A", "B"], splits=["test"])["test"]
    for index, name in enumerate("AB"):
        known = both[name].notna().to_numpy()
        x, y = observed[known, index], predicted[known, index]
        assert found[name] == metrics.evaluate_predictions(table(x, y), ["y"])["test"]["y"]
        assert found[name]["n"] == known.sum() == (n, n // 2)[index]
        assert found[name]["pearson"] == pytest.approx(stats.pearsonr(x, y)[0])
        assert found[name]["spearman"] == pytest.approx(stats.spearmanr(x, y)[0])
        difference, interval = metrics.pearson_difference(x, y, other[known, index])
        assert compared[name]["other"]["pearson_difference"] == difference
        assert compared[name]["other"]["pearson_difference_ci95"] == list(interval)
        assert compared[name]["other"]["mse"] == pytest.approx(np.mean((x - other[known, index]) ** 2))


def test_a_target_missing_in_a_split_is_counted_as_of_no_genes() -> None:
    rows = pd.DataFrame(
        {"split": ["val"] * 20 + ["test"] * 20, "y": [1.0, 2.0] * 10 + [np.nan] * 20, "y_predicted": 0.5}
    )
    found = metrics.evaluate_predictions(rows, ["y"])
    assert (found["val"]["y"]["n"], found["test"]["y"]) == (20, metrics.OF_NO_GENES)
    compared = metrics.compare_predictions(rows, {"mean": np.zeros((40, 1))}, ["y"])
    assert set(compared["test"]["y"]["mean"].values()) == {None}
    json.dumps(found, allow_nan=False)
    json.dumps(compared, allow_nan=False)


@pytest.mark.parametrize("n", [2, 3, 9, 10])
def test_there_is_no_correlation_of_fewer_than_ten_genes(n: int) -> None:
    rng = np.random.default_rng(n)
    frame = table(*rng.normal(size=(2, n)))
    found = metrics.evaluate_predictions(frame, ["y"], resamples=50, weights=np.ones(n))["test"]["y"]
    other = {"other": rng.normal(size=(n, 1))}
    compared = metrics.compare_predictions(frame, other, ["y"], splits=["test"])["test"]["y"]["other"]
    correlations = [
        *(
            one[name + end]
            for one in (found, found["weighted"])
            for name in ("pearson", "spearman")
            for end in ("", "_ci95")
        ),
        *(compared[name] for name in ("pearson", "pearson_difference", "pearson_difference_ci95")),
    ]
    assert [value is None for value in correlations] == [n < 10] * 11
    assert None not in (found["mse"], found["mse_ci95"], found["weighted"]["mse_ci95"], compared["mse"])


def test_genes_of_weight_0_do_not_make_up_ten() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 15))
    weights = np.repeat([1.0, 0.0], [9, 6])
    found = metrics.evaluate_predictions(table(x, y), ["y"], weights=weights)["test"]["y"]
    assert (found["n"], found["weighted"]["n"]) == (15, 9)
    assert found["pearson"] is not None
    assert found["weighted"]["pearson"] is None
    nothing = metrics.evaluate_predictions(table(x, y), ["y"], weights=np.zeros(15))["test"]["y"]["weighted"]
    assert nothing == metrics.OF_NO_GENES


@given(
    hnp.arrays(np.float64, (2, 12, 2), elements=st.integers(-4, 4)),  # small integers: full of ties
    hnp.arrays(np.int64, 12, elements=st.integers(0, 4)),
    hnp.arrays(bool, (12, 2)),
)
@settings(max_examples=80)
def test_weighted_metrics_are_those_of_rows_repeated_so_many_times(
    pair: np.ndarray, weights: np.ndarray, missing: np.ndarray
) -> None:
    observed, predicted = np.where(missing, np.nan, pair[0]), pair[1]
    for metric in (metrics.mse, metrics.pearson, metrics.spearman):
        found = metric(observed, predicted, weights)
        repeated = metric(np.repeat(observed, weights, axis=0), np.repeat(predicted, weights, axis=0))
        for column in range(2):
            if metric is not metrics.mse and (~missing[:, column] & (weights > 0)).sum() < 2:
                assert np.isnan(found[column])  # one row, however often, is one
                continue
            assert found[column] == pytest.approx(repeated[column], abs=1e-9, nan_ok=True)


def test_weighted_summaries_stand_beside_the_unweighted_and_their_intervals_are_of_rows_drawn_with_weights() -> (
    None
):
    rng = np.random.default_rng(3)
    n = 150
    x = rng.normal(2, 1, n)
    weights = rng.lognormal(size=n)
    y = x + rng.normal(0.2, 1 / np.sqrt(weights), n)
    found = metrics.evaluate_predictions(table(x, y), ["y"], resamples=4000, weights=weights)["test"]["y"]
    weighted = found.pop("weighted")
    assert found == summary(x, y, resamples=4000)
    assert weighted["pearson"] > found["pearson"]

    def r(rows: np.ndarray) -> float:
        return np.cov(x[rows], y[rows], aweights=weights[rows])[0, 1] / np.sqrt(
            np.prod(np.diag(np.cov(x[rows], y[rows], aweights=weights[rows])))
        )

    def mse(rows: np.ndarray) -> float:
        return np.average((x[rows] - y[rows]) ** 2, weights=weights[rows])

    draws = rng.integers(0, n, (4000, n))
    for name, statistic in (("mse", mse), ("pearson", r)):
        assert weighted[name] == pytest.approx(statistic(np.arange(n)), abs=1e-9)
        low, high = weighted[f"{name}_ci95"]
        by_hand = np.quantile([statistic(rows) for rows in draws], [0.025, 0.975])
        assert [low, high] == pytest.approx(by_hand, abs=0.08 * (high - low))  # Monte Carlo, as above
    unit = metrics.evaluate_predictions(table(x, y), ["y"], resamples=400, weights=weights * 1000)["test"]["y"]
    again = metrics.evaluate_predictions(table(x, y), ["y"], resamples=400, weights=weights)["test"]["y"]
    assert unit["weighted"]["spearman_ci95"] == pytest.approx(again["weighted"]["spearman_ci95"])


def test_resamples_that_are_not_kept_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 300))
    kept = summary(x, y)
    monkeypatch.setattr(metrics, "_COUNTS_KEPT", 0)
    monkeypatch.setattr(metrics, "_COUNTS_PER_BATCH", 3000)  # ten resamples at a time
    for name, value in summary(x, y).items():
        assert value == pytest.approx(kept[name], rel=1e-12)
