"""r by the number of training sequences, against scipy and a bootstrap of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from promoter.evaluation.learning_curve import describe_gain, learning_curve, read_curve

N = 400


def point(noise: float, seed: int) -> pd.DataFrame:
    """Predictions of 400 test rows and 100 others, with those of a baseline and of a constant."""
    observed = np.random.default_rng(0).normal(size=N + 100)
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "gene_id": [f"s{row}" for row in range(N + 100)],
            "split": ["test"] * N + ["train"] * 60 + ["val"] * 40,
            "y": observed,
            "y_predicted": observed + rng.normal(size=N + 100) * noise,
            "y_predicted_by_mean": np.ones(N + 100),
            "y_predicted_by_kmers": observed + rng.normal(size=N + 100) * 2,
        }
    )


def by_size_and_model(curve: pd.DataFrame) -> dict[tuple[int, str], dict[Any, Any]]:
    return {(row["sequences"], row["model"]): row for row in curve.to_dict("records")}


def test_each_point_has_r_its_interval_and_the_gain_over_the_point_before() -> None:
    tables = [point(1.5, 1), point(0.8, 2)]
    curve = by_size_and_model(learning_curve([(100, tables[0]), (300, tables[1])], ["y"]))
    held_out = [table[table["split"] == "test"] for table in tables]
    r = [float(np.corrcoef(table["y"], table["y_predicted"])[0, 1]) for table in held_out]
    for size, value in zip((100, 300), r, strict=True):
        row = curve[size, "network"]
        assert row["n"] == N
        assert row["pearson"] == pytest.approx(value)
        assert row["pearson_low"] < value < row["pearson_high"]
    assert np.isnan(curve[100, "network"]["gain"])
    last = curve[300, "network"]
    assert last["gain"] == pytest.approx(r[1] - r[0])
    rng, gains = np.random.default_rng(5), []
    for _ in range(2000):
        rows = rng.integers(0, N, N)
        drawn = [table.iloc[rows] for table in held_out]
        each = [np.corrcoef(table["y"], table["y_predicted"])[0, 1] for table in drawn]
        gains.append(each[1] - each[0])
    assert [last["gain_low"], last["gain_high"]] == pytest.approx(np.quantile(gains, [0.025, 0.975]), abs=0.01)
    assert np.isnan(curve[300, "mean"]["pearson"])
    assert np.isnan(curve[300, "mean"]["gain"])
    baseline = held_out[1]
    expected = stats.pearsonr(baseline["y"], baseline["y_predicted_by_kmers"])[0]
    assert curve[300, "kmers"]["pearson"] == pytest.approx(expected)


def test_the_sentence_says_whether_the_last_step_gained_anything(tmp_path: Path) -> None:
    def sentence(first: float, last: float) -> str:
        curve = learning_curve([(100, point(first, 1)), (3000, point(last, 2))], ["y"])
        curve.to_csv(tmp_path / "curve.csv", index=False)
        return describe_gain(read_curve(tmp_path / "curve.csv"), "y", "sequence")

    rose, same, fell = sentence(2, 0.5), sentence(1, 1), sentence(0.5, 2)
    assert rose.startswith("y: r rose by +0.")
    assert "from 100 to 3,000 training sequences: it had not levelled off" in rose
    assert same.endswith("no gain is shown")
    assert "it fell" in fell


def test_a_test_set_too_small_for_r_has_no_sentence_of_a_gain() -> None:
    few = point(1, 1)
    few.loc[9:, "split"] = "train"
    curve = learning_curve([(100, few), (300, few)], ["y"])
    assert describe_gain(curve, "y") == "y: r is undefined, or of too few test genes to compare"
