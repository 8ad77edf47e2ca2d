from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from promoter.evaluation.intervals import (
    Calibration,
    add_intervals,
    calibrate,
    coverage,
    fit_scale,
    read_calibration,
    write_calibration,
)


def ensemble(n: int, seed: int, informative: bool = True) -> pd.DataFrame:
    """Predictions whose error has the standard deviation that the members' spread tells, or another."""
    rng = np.random.default_rng(seed)
    spread = rng.gamma(2, 0.5, n) + 0.1
    error = rng.standard_t(5, n) * (2 * spread if informative else 1.3)
    predicted = rng.normal(size=n)
    return pd.DataFrame(
        {
            "split": "test",
            "fold": rng.integers(1, 6, n),
            "y": predicted + error,
            "y_predicted": predicted,
            "y_predicted_sd": spread,
        }
    )


@pytest.mark.parametrize("informative", [True, False])
def test_95_of_100_genes_lie_within_the_intervals_of_their_folds(informative: bool) -> None:
    found = []
    for seed in range(20):
        table = add_intervals(ensemble(1000, seed, informative), ["y"], folds=5)
        found.append(coverage(table, "y"))
    # the mean of 20 times 1,000 genes: its standard error is 0.0016, and as much again for the quantiles
    assert np.mean(found) == pytest.approx(0.95, abs=0.005)


def test_intervals_are_wider_where_the_spread_tells_of_larger_errors_and_only_there() -> None:
    table = add_intervals(ensemble(4000, 0), ["y"], folds=5)
    width = (table["y_high"] - table["y_low"]).to_numpy()
    wide = table["y_predicted_sd"] > table["y_predicted_sd"].median()
    assert width[wide].mean() > 1.7 * width[~wide].mean()
    for half in (table[wide], table[~wide]):  # conditional coverage, which a constant width has not
        assert coverage(half, "y") == pytest.approx(0.95, abs=0.02)
    flat = add_intervals(ensemble(4000, 0, informative=False), ["y"], folds=5)
    width = flat["y_high"] - flat["y_low"]
    assert width.std() < 0.15 * width.mean()


def test_the_scale_of_a_fold_is_not_taken_from_its_own_genes() -> None:
    table = ensemble(500, 1)
    changed = table.copy()
    changed.loc[changed["fold"] == 2, "y"] += 100
    before, after = (add_intervals(one, ["y"], folds=5) for one in (table, changed))
    mine = (table["fold"] == 2).to_numpy()
    pd.testing.assert_frame_equal(before[mine].drop(columns="y"), after[mine].drop(columns="y"))
    assert (after["y_high"] > before["y_high"])[~mine].all()


def test_with_one_split_the_scale_is_that_of_the_validation_genes() -> None:
    table = ensemble(900, 2).assign(fold=1, split=np.repeat(["train", "val", "test"], 300))
    val = table[table["split"] == "val"]
    scale = fit_scale((val["y"] - val["y_predicted"]).to_numpy(), val["y_predicted_sd"].to_numpy())
    found = add_intervals(table, ["y"], folds=1)
    half = scale.half_width(table["y_predicted_sd"].to_numpy())
    np.testing.assert_allclose(found["y_high"] - found["y_predicted"], half)
    np.testing.assert_allclose(found["y_predicted"] - found["y_low"], half)


def test_one_network_has_intervals_of_one_width_at_the_conformal_quantile() -> None:
    error = np.random.default_rng(0).normal(size=199)
    scale = fit_scale(error, np.zeros(199))
    # the 190th of 199 absolute errors: (199 + 1) * 0.95
    np.testing.assert_allclose(scale.half_width(np.zeros(3)), np.sort(np.abs(error))[189])


def test_intervals_of_too_few_genes_are_infinite_and_unknown_values_are_left_out() -> None:
    assert np.isinf(fit_scale(np.ones(18), np.ones(18)).half_width(np.ones(1)))
    assert np.isfinite(fit_scale(np.ones(19), np.ones(19)).half_width(np.ones(1)))
    table = ensemble(300, 3)
    table.loc[:99, "y"] = np.nan
    found = add_intervals(table, ["y"], folds=5)
    assert np.isfinite(found[["y_low", "y_high"]]).all(axis=None)
    pd.testing.assert_frame_equal(
        found[100:].drop(columns="y"), add_intervals(table[100:], ["y"], folds=5).drop(columns="y")
    )
    assert coverage(found[:100], "y") is None


@pytest.mark.parametrize(("folds", "seeds"), [(1, 4), (5, 1), (5, 2)])
def test_new_genes_lie_within_the_intervals_of_the_ensemble(folds: int, seeds: int) -> None:
    """Least squares on random halves of the features stands for networks of several seeds."""
    found = []
    for draw in range(12):
        rng = np.random.default_rng(draw)
        known, new = 300, 2000
        x = rng.normal(size=(known + new, 20))
        y = x @ rng.normal(size=20) + rng.standard_t(5, known + new)
        fold = np.repeat(np.arange(folds), known // folds) if folds > 1 else np.repeat([1, 0], known // 2)
        predicted = np.empty((folds * seeds, known + new))
        for member in range(folds * seeds):
            learned = np.flatnonzero(fold != member // seeds)
            columns = rng.choice(20, 10, replace=False)
            weights = np.linalg.lstsq(x[np.ix_(learned, columns)], y[learned], rcond=None)[0]
            predicted[member] = x[:, columns] @ weights
        of_fold = predicted.reshape(folds, seeds, -1)
        mine = (fold if folds > 1 else np.zeros(known, int), slice(None), np.arange(known))
        table = pd.DataFrame({"y": y[:known], "fold": fold + 1, "y_predicted": of_fold[mine].mean(axis=1)})
        table["split"] = "test" if folds > 1 else np.where(fold == 0, "val", "train")
        if seeds > 1:
            table["y_predicted_sd"] = of_fold[mine].std(axis=1, ddof=1)
        names = [f"model {member}" for member in range(folds * seeds)]
        calibration = calibrate(table, ["y"], [names[i : i + seeds] for i in range(0, len(names), seeds)])
        half = calibration.half_width(predicted[:, known:, None], names, ["y"])[:, 0]
        found.append(float(np.mean(np.abs(y[known:] - predicted[:, known:].mean(axis=0)) <= half)))
    # one split: exact but for the scatter of a quantile of 150 genes; folds: wider, as each fold errs more
    assert np.mean(found) >= 0.95 - 0.01
    assert np.mean(found) <= (0.95 + 0.01 if folds == 1 else 1)


def test_interval_calibration_is_kept_and_knows_its_ensemble(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None
    few, many = ensemble(18, 0), ensemble(500, 0)
    for table in (few, many):
        found = calibrate(table, ["y"], [["a", "b"], ["c", "d"]])
        write_calibration(tmp_path / "run" / "folds", found)
        assert read_calibration(tmp_path / "run") == read_calibration(tmp_path / "run" / "folds") == found
    assert np.isinf(calibrate(few, ["y"], [["a"], ["b"]]).scales["y"].q)
    assert found.matches(["d", "a", "c", "b"])
    assert not found.matches(["a", "b", "c"])
    assert not found.matches(["a", "b", "c", "d", "d"])


def test_the_order_of_models_does_not_change_intervals() -> None:
    predicted = np.random.default_rng(0).normal(size=(4, 10, 1))
    folds, scales = [["a", "b"], ["c", "d"]], calibrate(ensemble(500, 0), ["y"], [["a"], ["b"]]).scales
    some = Calibration(folds, scales).half_width(predicted, ["a", "b", "c", "d"], ["y"])
    same = Calibration(folds, scales).half_width(predicted[[2, 0, 3, 1]], ["c", "a", "d", "b"], ["y"])
    np.testing.assert_array_equal(some, same)


def with_two_targets(n: int, seed: int) -> pd.DataFrame:
    """Target z is missing in half of the genes and in all of fold 1, and its errors are ten times those of y."""
    table, other = ensemble(n, seed), ensemble(n, seed + 1000)
    missing = (np.random.default_rng(seed).random(n) < 0.5) | (table["fold"] == 1)
    table["z"] = np.where(missing, np.nan, other["y"] * 10)
    table["z_predicted"], table["z_predicted_sd"] = other["y_predicted"] * 10, other["y_predicted_sd"] * 10
    return table


def test_each_target_has_the_coverage_of_its_observed_genes() -> None:
    found = {"y": [], "z": []}
    for seed in range(20):
        table = add_intervals(with_two_targets(1000, seed), ["y", "z"], folds=5)
        for target, shares in found.items():
            shares.append(coverage(table, target))
        assert np.isfinite(table[["z_low", "z_high"]]).all(axis=None)  # of genes without a value too
    # some 400 observed genes of z in each of 20 tables: a standard error of 0.0024, as much again for quantiles
    assert np.mean(found["y"]) == pytest.approx(0.95, abs=0.005)
    assert np.mean(found["z"]) == pytest.approx(0.95, abs=0.01)


def test_intervals_of_a_target_are_those_of_a_table_of_its_observed_genes() -> None:
    table = with_two_targets(600, 0)
    known = table["z"].notna()
    found = add_intervals(table, ["y", "z"], folds=5)
    alone = add_intervals(table[known], ["z"], folds=5)
    pd.testing.assert_frame_equal(found.loc[known, ["z_low", "z_high"]], alone[["z_low", "z_high"]])
    scales = calibrate(table, ["y", "z"], [["a"]] * 5).scales
    assert scales["z"] == calibrate(table[known], ["z"], [["a"]] * 5).scales["z"]


@pytest.mark.parametrize("folds", [1, 5])
def test_a_target_without_values_to_calibrate_on_has_infinite_intervals(folds: int) -> None:
    table = ensemble(50, 0)
    table["y"] = np.where(table["fold"] == 2, table["y"], np.nan)  # of the other folds none
    found = add_intervals(table, ["y"], folds=folds)
    assert np.isinf(found.loc[found["fold"] == 2, ["y_low", "y_high"]]).all(axis=None)
