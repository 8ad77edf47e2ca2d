"""Jobs on counts, with the Poisson loss."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.commands import SMALL_NETWORK, outcome

from jobs.predict import predict
from jobs.train import train
from jobs.tune import tune
from promoter.checkpoint import load_info
from promoter.dataset.promoters import Promoters, read_promoters, write_promoters

pytestmark = pytest.mark.ray
SMALL = [
    *SMALL_NETWORK,
    *("--training.epochs", "3", "--training.batch_size", "16", "--workers", "0"),
    *("--training.loss", "poisson", "--training.learning_rate", "0.01"),
]
HELD_OUT = ["--split.val", "chr3", "--split.test", "chr4"]


def with_counts(data: Path, folder: Path) -> Promoters:
    """Write the data set with counts of two targets, some missing and some 0, in place of its logarithms."""
    promoters = read_promoters(data)
    rng = np.random.default_rng(0)
    rates = np.exp(promoters.targets)
    counts = rng.poisson(np.hstack([rates, rates / 20])).astype(np.float32)
    counts[::7, 0] = np.nan
    promoters = replace(promoters, targets=counts, target_names=["reads", "sparse"])
    write_promoters(folder, promoters)
    return promoters


def test_a_poisson_training_is_in_log_units_from_predictions_to_metrics_of_other_data(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = tmp_path / "data", tmp_path / "run"
    promoters = with_counts(data, folder)
    words = ["--data", folder, "--out", run, *HELD_OUT, *SMALL, "--workers", "2", "--gpus_per_worker", "0"]
    code, printed, error = outcome(capsys, train, *words)
    assert code == 0, error
    assert "note: --training.loss poisson: the network predicts ln(1 + expected value)" in printed
    table = pd.read_parquet(run / "predictions.parquet")
    np.testing.assert_allclose(table[["reads", "sparse"]], np.log1p(promoters.targets), rtol=1e-6)
    metrics = json.loads((run / "metrics.json").read_text())
    test = table[(table["split"] == "test") & table["reads"].notna()]
    assert metrics["test"]["reads"]["pearson"] == pytest.approx(
        np.corrcoef(test["reads"], test["reads_predicted"])[0, 1], abs=1e-5
    )
    training = table[table["split"] == "train"]
    expected = float(((test["reads"] - training["reads"].mean()) ** 2).mean())  # of the same unit
    assert metrics["test"]["reads"]["baselines"]["mean"]["mse"] == pytest.approx(expected, rel=1e-4)
    assert metrics["test"]["reads"]["mse"] < 1.5 * expected  # neither counts nor standardised
    info = load_info(run / "model")
    assert (info.transform, info.training["loss"]) == ("log1p", "poisson")

    out = tmp_path / "predicted.parquet"
    code, printed, error = outcome(capsys, predict, "--model", run / "model", "--data", folder, "--out", out)
    assert code == 0, error
    assert "note: the model was trained by the Poisson loss: its predictions and scores" in printed
    assert "warning" not in printed
    again = json.loads(out.with_suffix(".metrics.json").read_text())
    for target in ("reads", "sparse"):
        for name in ("mse", "pearson", "spearman"):
            assert again["test"][target][name] == pytest.approx(metrics["test"][target][name], rel=1e-4)

    code, printed, _ = outcome(capsys, train, *words)
    assert (code, "finished already" in printed) == (0, True)
    code, _, error = outcome(capsys, train, *words, "--training.loss", "mse")
    assert (code, "training.loss poisson, not mse" in error) == (2, True), error


def test_a_search_scores_poisson_networks_in_log_units(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_counts(data, tmp_path / "data")
    out, space = tmp_path / "search", "{model.dropout: {choices: [0.1]}}"
    words = ["--space", space, "--algorithm", "grid", "--folds", "1", "--metric", "mse", *HELD_OUT, *SMALL]
    code, _, error = outcome(capsys, tune, "--data", tmp_path / "data", "--out", out, *words)
    assert code == 0, error
    score = pd.read_csv(out / "trials.csv")["score"].iloc[0]
    metrics = json.loads((out / "metrics.json").read_text())
    found = np.mean([metrics["val"][target]["mse"] for target in ("reads", "sparse")])
    assert score == pytest.approx(found, rel=1e-3)  # the final training has the split of the only fold


@pytest.mark.parametrize(
    ("transform", "shift", "message"),
    [
        ("none", -3.0, "has the value -0.0197.* of target expression, one of .*that are negative"),
        ("log2p1", 0.0, "has values with the transform log2p1.*prepare the data with --transform none"),
        ("cpm_log2p1", 0.0, "has values with the transform cpm_log2p1"),
    ],
)
def test_values_that_are_no_counts_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], transform: str, shift: float, message: str
) -> None:
    promoters = read_promoters(data)
    metadata = {**promoters.metadata, "transform": transform}
    write_promoters(tmp_path / "data", replace(promoters, targets=promoters.targets + shift, metadata=metadata))
    words = ["--data", tmp_path / "data", "--out", tmp_path / "run", *SMALL]
    code, _, error = outcome(capsys, train, *words)
    assert code == 2
    assert len(error.strip().splitlines()) == 1
    assert re.search(message, error), error
    assert "--training.loss poisson: " in error
    assert not (tmp_path / "run").exists()


def test_values_that_look_like_logarithms_are_doubted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data, "--out", tmp_path / "run", *SMALL, "--workers", "999"]
    code, printed, error = outcome(capsys, train, *words)
    assert code == 2, error
    assert "the values of expression look like logarithms or ratios" in printed
