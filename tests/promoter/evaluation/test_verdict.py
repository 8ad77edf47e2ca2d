"""The sentence about a target, of data in which what is better is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from promoter.evaluation.evaluate import evaluate
from promoter.evaluation.verdict import BETTER, NOT_SHOWN, WORSE, verdict

N = 400
RNG = np.random.default_rng(0)
SIGNAL, NOISE, OTHER = RNG.normal(size=(3, N))
OBSERVED = SIGNAL + 0.5 * NOISE


def judged(
    network: np.ndarray, observed: np.ndarray = OBSERVED, groups: np.ndarray | None = None, **baselines: np.ndarray
) -> dict[str, Any]:
    table = pd.DataFrame({"split": "test", "y": observed, "y_predicted": network})
    columns = {name: values[:, None] for name, values in baselines.items()}
    return evaluate(table, ["y"], baselines=columns, groups=groups)["test"]["y"]


def noisy(amount: float, seed: int = 1) -> np.ndarray:
    return SIGNAL + amount * np.random.default_rng(seed).normal(size=N)


def test_a_network_that_exceeds_all_baselines_is_better_and_the_best_of_them_is_named() -> None:
    found = judged(noisy(0.2), kmers=noisy(2), kmers_last_500=noisy(1, seed=2), mean=np.zeros(N))
    said = found["verdict"]
    assert said.startswith(f"{BETTER}: r +")
    assert "beside kmers last 500; without the 5% most extreme genes r is 0." in said
    best = found["baselines"]["kmers_last_500"]
    assert best["pearson"] > found["baselines"]["kmers"]["pearson"]
    low, high = best["pearson_difference_ci95"]
    assert f"r {best['pearson_difference']:+.2f} [{low:+.2f}, {high:+.2f}]" in said
    assert found["baselines"]["mean"]["pearson"] is None


def test_a_network_like_a_baseline_is_not_shown_to_be_better() -> None:
    said = judged(noisy(1, seed=5), kmers=noisy(1, seed=6))["verdict"]
    assert said.startswith(f"{NOT_SHOWN} by r and rho: r ")


def test_one_baseline_that_is_better_makes_the_network_worse() -> None:
    said = judged(noisy(2), mean=np.zeros(N), kmers=noisy(0.3), composition=OTHER)["verdict"]
    assert said.startswith(f"{WORSE}: r -")
    assert said.endswith("beside kmers")


def test_a_motif_of_a_few_genes_that_carries_r_is_told() -> None:
    strong = np.where(np.arange(N) < 12, 15.0, 0.0)  # 3% of the genes
    said = judged(strong + OTHER, observed=strong + OBSERVED, kmers=0.5 * strong + noisy(2))["verdict"]
    assert said.startswith(f"{NOT_SHOWN} by rho: r +")
    assert "without the 5% most extreme genes r is" in said


def test_a_difference_by_extreme_genes_alone_is_not_enough_even_if_rho_agrees() -> None:
    values = judged(noisy(0.2), kmers=noisy(1))
    values["pearson_without_extremes"] = 0.1
    assert verdict(values).startswith(f"{NOT_SHOWN}: r +")
    assert verdict(values, "sequence").endswith(": a few sequences carry the difference")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"network": np.zeros(N), "kmers": noisy(1)}, "the network predicts a constant, or all observed values"),
        ({"network": noisy(1), "mean": np.zeros(N)}, "there is no baseline to compare with"),
        ({"network": noisy(1)}, "there is no baseline to compare with"),
        (
            {"network": noisy(1), "kmers": noisy(2), "groups": np.arange(N) % 9},
            "the genes are of 9 groups, too few",
        ),
        (
            {"network": noisy(1), "kmers": noisy(2), "observed": np.where(np.arange(N) < 9, OBSERVED, np.nan)},
            "r of fewer than 10 genes says nothing",
        ),
    ],
)
def test_what_cannot_be_judged_is_said_with_the_reason(values: dict[str, Any], reason: str) -> None:
    assert judged(**values)["verdict"].startswith(f"{NOT_SHOWN}: {reason}")


def test_of_pure_noise_few_verdicts_say_better() -> None:
    better = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        network, kmers, observed = rng.normal(size=(3, 100))
        better += judged(network, observed, kmers=kmers)["verdict"].startswith(BETTER)
    assert better <= 7  # 2.5% expected at most, for r and rho must agree; 8 of 100 have a chance of 0.4%
