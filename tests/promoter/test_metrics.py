from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from promoter import bootstrap, metrics


def table(observed: list | np.ndarray, predicted: list | np.ndarray, split: str = "test") -> pd.DataFrame:
    return pd.DataFrame({"split": split, "y": observed, "y_predicted": predicted})


def comparison(frame: pd.DataFrame, others: dict[str, np.ndarray], split: str = "test", **options: Any) -> dict:
    """Return target -> baseline -> its metrics and differences."""
    found = metrics.evaluate_predictions(frame, ["y"], baselines=others, **options)[split]
    return {target: values["baselines"] for target, values in found.items()}


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


@given(hnp.arrays(np.float32, (2, 10), elements=st.floats(-10, 10, width=16)))
@settings(max_examples=40)
def test_intervals_of_few_genes_stay_within_what_the_metric_can_be(pair: np.ndarray) -> None:
    found = summary(*pair, resamples=100)
    assert found["mse_ci95"][0] >= 0
    for name in ("pearson", "spearman"):
        if found[f"{name}_ci95"] is not None:
            assert -1 - 1e-6 <= found[f"{name}_ci95"][0] <= found[f"{name}_ci95"][1] <= 1 + 1e-6


def test_equal_seeds_give_equal_bootstrap_intervals_and_others_do_not() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert summary(x, y, seed=1) == summary(x, y, seed=1)
    assert summary(x, y, seed=1) != summary(x, y, seed=2)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ([np.nan, np.nan, np.nan], {"n": 0, "mse": None, "mse_ci95": None, "pearson": None}),
        ([np.nan, 2.0, np.nan], {"n": 1, "mse": 4.0, "mse_ci95": None, "pearson": None, "spearman": None}),
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
    found = metrics.pearson_difference(missing, first, second, resamples=4000)
    alone = metrics.pearson_difference(observed[50:], first[50:], second[50:], resamples=4000)
    assert found[0] == pytest.approx(alone[0], abs=1e-12)
    assert found[1] == pytest.approx(alone[1], abs=0.01)
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
    others = {"ridge": theirs[:, None], "mean": constant}
    assert "baselines" not in metrics.evaluate_predictions(frame, ["y"], baselines=others)["train"]["y"]
    for split in ("val", "test"):
        rows = (frame["split"] == split).to_numpy() & np.isfinite(y)
        ridge, mean = (comparison(frame, others, split)["y"][name] for name in ("ridge", "mean"))
        assert ridge["pearson"] == pytest.approx(stats.pearsonr(y[rows], theirs[rows])[0], abs=1e-6)
        assert ridge["mse"] == pytest.approx(np.mean((y[rows] - theirs[rows]) ** 2), rel=1e-6)
        difference = np.corrcoef(y[rows], ours[rows])[0, 1] - np.corrcoef(y[rows], theirs[rows])[0, 1]
        assert ridge["pearson_difference"] == pytest.approx(difference, abs=1e-6)
        ranks = [stats.rankdata(values[rows]) for values in (y, ours, theirs)]
        difference = np.corrcoef(ranks[0], ranks[1])[0, 1] - np.corrcoef(ranks[0], ranks[2])[0, 1]
        assert ridge["spearman_difference"] == pytest.approx(difference, abs=1e-6)
        for name in ("pearson", "spearman"):
            low, high = ridge[f"{name}_difference_ci95"]
            assert low < ridge[f"{name}_difference"] < high
            alone = summary(y[rows], theirs[rows])
            assert ridge[f"{name}_ci95"] == pytest.approx(alone[f"{name}_ci95"], abs=0.05)
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
    found = metrics.evaluate_predictions(both, ["A", "B"], baselines={"other": other})["test"]
    for index, name in enumerate("AB"):
        known = both[name].notna().to_numpy()
        x, y = observed[known, index], predicted[known, index]
        alone = metrics.evaluate_predictions(table(x, y), ["y"], baselines={"other": other[known][:, [index]]})
        assert found[name]["n"] == found[name]["groups"] == known.sum() == (n, n // 2)[index]
        assert found[name]["pearson"] == pytest.approx(stats.pearsonr(x, y)[0])
        assert found[name]["spearman"] == pytest.approx(stats.spearmanr(x, y)[0])
        for key, value in alone["test"]["y"].items():
            if key.endswith("_ci95"):  # the number of genes with a value differs by sample, and so do the draws
                assert found[name][key] == pytest.approx(value, abs=0.06)
            elif key != "baselines":
                assert found[name][key] == pytest.approx(value, abs=1e-12)
        compared = found[name]["baselines"]["other"]
        difference, interval = metrics.pearson_difference(
            both[name].to_numpy(), predicted[:, index], other[:, index]
        )
        assert compared["pearson_difference"] == pytest.approx(difference, abs=1e-12)
        assert compared["pearson_difference_ci95"] == pytest.approx(interval, abs=1e-12)
        assert compared["mse"] == pytest.approx(np.mean((x - other[known, index]) ** 2))


def test_a_target_missing_in_a_split_is_counted_as_of_no_genes() -> None:
    rows = pd.DataFrame(
        {"split": ["val"] * 20 + ["test"] * 20, "y": [1.0, 2.0] * 10 + [np.nan] * 20, "y_predicted": 0.5}
    )
    found = metrics.evaluate_predictions(rows, ["y"])
    assert (found["val"]["y"]["n"], found["test"]["y"]) == (20, metrics.OF_NO_GENES)
    compared = comparison(rows, {"mean": np.zeros((40, 1))})
    assert set(compared["y"]["mean"].values()) == {None}
    json.dumps([found, compared], allow_nan=False)


@pytest.mark.parametrize("n", [2, 3, 9, 10])
def test_there_is_no_correlation_of_fewer_than_ten_genes(n: int) -> None:
    rng = np.random.default_rng(n)
    frame = table(*rng.normal(size=(2, n)))
    found = metrics.evaluate_predictions(frame, ["y"], resamples=50, weights=np.ones(n))["test"]["y"]
    other = {"other": rng.normal(size=(n, 1))}
    compared = comparison(frame, other)["y"]["other"]
    correlations = [
        *(
            one[name + end]
            for one in (found, found["weighted"])
            for name in ("pearson", "spearman")
            for end in ("", "_ci95")
        ),
        *(value for name, value in compared.items() if name not in ("mse", "pearson_without_extremes")),
    ]
    assert [value is None for value in correlations] == [n < 10] * 16
    assert None not in (found["mse"], found["weighted"]["mse"], compared["mse"])


def test_genes_of_weight_0_do_not_make_up_ten() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 15))
    weights = np.repeat([1.0, 0.0], [9, 6])
    found = metrics.evaluate_predictions(table(x, y), ["y"], weights=weights)["test"]["y"]
    assert (found["n"], found["weighted"]["n"]) == (15, 9)
    assert found["pearson"] is not None
    assert found["weighted"]["pearson"] is None
    nothing = metrics.evaluate_predictions(table(x, y), ["y"], weights=np.zeros(15))["test"]["y"]["weighted"]
    assert nothing.items() <= metrics.OF_NO_GENES.items()
    assert nothing["n"] == 0


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


def test_samples_that_are_not_kept_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 300))
    kept = summary(x, y)
    monkeypatch.setattr(bootstrap, "_COUNTS_KEPT", 0)
    monkeypatch.setattr(bootstrap, "_DRAWS_PER_BATCH", 3000)  # ten samples at a time
    for name, value in summary(x, y).items():
        assert value == pytest.approx(kept[name], rel=1e-12)


def test_targets_in_batches_have_the_metrics_that_they_have_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        rng.normal(size=(50, 8)), columns=pd.Index([f"{t}{e}" for t in "abcd" for e in ("", "_predicted")])
    )
    frame["split"] = "test"
    frame.loc[:20, "c"] = np.nan
    options = {"baselines": {"other": rng.normal(size=(50, 4))}, "weights": rng.random(50)}
    together = metrics.evaluate_predictions(frame, list("abcd"), **options)
    monkeypatch.setattr(metrics, "_VALUES_PER_BATCH", 1)
    assert flat(metrics.evaluate_predictions(frame, list("abcd"), **options)) == pytest.approx(
        flat(together), nan_ok=True
    )


def flat(values: Any, path: str = "") -> dict[str, float]:
    """Return each number of nested metrics by its path; an undefined one is NaN."""
    if isinstance(values, dict | list):
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        return {key: number for name, inner in pairs for key, number in flat(inner, f"{path}/{name}").items()}
    return {path: np.nan if values is None else values}


def test_intervals_are_of_whole_groups_drawn_with_replacement() -> None:
    rng = np.random.default_rng(5)
    size, members = 40, 6
    groups = np.repeat(np.arange(size), members)
    x = np.repeat(rng.normal(size=size), members) + 0.1 * rng.normal(size=size * members)  # all of a group alike
    y = x + np.repeat(rng.normal(size=size), members)
    order = rng.permutation(len(x))  # members need not be neighbours
    names = np.array([f"g{group}" for group in groups])[order]
    found = metrics.evaluate_predictions(table(x[order], y[order]), ["y"], resamples=4000, groups=names)["test"][
        "y"
    ]
    assert (found["n"], found["groups"]) == (240, 40)

    def resampled() -> np.ndarray:
        drawn = rng.integers(0, size, size)
        return (drawn[:, None] * members + np.arange(members)).ravel()

    rows = [resampled() for _ in range(4000)]
    for name, statistic in (
        ("mse", lambda rows: np.mean((x[rows] - y[rows]) ** 2)),
        ("pearson", lambda rows: np.corrcoef(x[rows], y[rows])[0, 1]),
    ):
        low, high = found[f"{name}_ci95"]
        by_hand = np.quantile([statistic(of_sample) for of_sample in rows], [0.025, 0.975])
        assert [low, high] == pytest.approx(by_hand, abs=0.08 * (high - low))  # Monte Carlo, as above
    low, high = found["pearson_ci95"]
    alone = summary(x, y)["pearson_ci95"]
    assert high - low > 1.8 * (alone[1] - alone[0])  # sqrt(6) if the members of a group were equal


@pytest.mark.parametrize("size", [1, 9, 10])
def test_there_is_no_interval_of_fewer_than_ten_groups(size: int) -> None:
    rng = np.random.default_rng(0)
    frame, groups = table(*rng.normal(size=(2, 60))), np.arange(60) % size
    found = metrics.evaluate_predictions(frame, ["y"], groups=groups, weights=np.ones(60))["test"]["y"]
    other = comparison(frame, {"other": rng.normal(size=(60, 1))}, groups=groups)["y"]["other"]
    for values in (found, found["weighted"], other):
        assert [values[key] is None for key in values if key.endswith("_ci95")] == [size < 10] * (
            3 if "n" in values else 4
        )
        assert None not in [values[key] for key in ("mse", "pearson", "spearman")]


def test_spread_and_r_without_extremes_are_those_of_numpy() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=200)
    x[:10] += 40  # one motif that a few genes have
    y, z = 0.1 * rng.normal(size=(2, 200))
    y[:10] += 3
    found = metrics.evaluate_predictions(table(x, y), ["y"], baselines={"z": z[:, None]})["test"]["y"]
    assert found["pearson"] > 0.9
    assert found["pearson_without_extremes"] == pytest.approx(np.corrcoef(x[10:], y[10:])[0, 1])
    assert found["baselines"]["z"]["pearson_without_extremes"] == pytest.approx(np.corrcoef(x[10:], z[10:])[0, 1])
    assert (found["sd"], found["sd_predicted"]) == pytest.approx((x.std(), y.std()))
