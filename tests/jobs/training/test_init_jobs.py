"""Trainings that start from the weights of an earlier model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from support.commands import SMALL_NETWORK, exit_code, outcome

from jobs.train import train
from promoter.checkpoint import load_info, serialize_model
from promoter.dataset.promoters import read_promoters, write_promoters

pytestmark = pytest.mark.ray
RECIPE = [
    *("--training.batch_size", "1000", "--training.reverse_complement", "0", "--baselines", "false"),
    *("--workers", "0"),
]
HELD_OUT = ["--split.val", "chr3", "--split.test", "chr4"]
STILL = ["--training.epochs", "1", "--training.learning_rate", "1e-12"]


@pytest.fixture(scope="module")
def run(ray_cluster: object, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training on chromosomes 1 and 2."""
    out = tmp_path_factory.mktemp("init") / "run"
    words = ["--training.epochs", "5", "--training.learning_rate", "0.02", *SMALL_NETWORK, *RECIPE, *HELD_OUT]
    assert exit_code(train, "--data", data, "--out", out, *words) == 0
    return out


def rescaled(data: Path, folder: Path) -> Path:
    """Write the data set with its target in other units, and another target beside it."""
    promoters = read_promoters(data)
    other = np.random.default_rng(0).normal(50, 9, promoters.targets.shape).astype(np.float32)
    targets = np.hstack([other, promoters.targets * 30 - 7])
    write_promoters(folder, replace(promoters, targets=targets, target_names=["other", "expression"]))
    return folder


def test_a_warm_start_begins_where_the_model_ended_and_is_recorded(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = rescaled(data, tmp_path / "data"), tmp_path / "again"
    words = ["--data", folder, "--out", out, "--init", run / "model", *STILL, *RECIPE, *HELD_OUT]
    code, printed, error = outcome(capsys, train, *words, "--workers", "2", "--gpus_per_worker", "0")
    assert code == 0, error
    assert (
        f"note: --init {run / 'model'}: the network starts from its weights, new are the outputs of other"
        in printed
    )
    before, after = (pd.read_parquet(path / "predictions.parquet") for path in (run, out))
    # two workers see other shares of a batch, hence batch-norm statistics that differ a little
    np.testing.assert_allclose(after["expression_predicted"], before["expression_predicted"], rtol=0.1)
    assert np.corrcoef(after["expression_predicted"], before["expression_predicted"])[0, 1] > 0.99
    info = load_info(out / "model")
    checksum = serialize_model(run / "model").checksum
    assert info.init == {
        "model": str(run / "model"),
        "sha256": checksum,
        "targets": ["expression"],
        "held_out_genes_it_learned_from": {"val": 0, "test": 0},
    }
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["init"] == str(run / "model")
    assert checksum in config["provenance"]["inputs"].values()
    assert (config["model"]["channels"], config["model"]["hidden"]) == ([8, 8], 8)
    code, printed, error = outcome(capsys, train, "--config", out / "config.yaml")
    assert (code, "finished already" in printed) == (0, True), error
    code, _, error = outcome(
        capsys, train, *words[:4], *STILL, *SMALL_NETWORK, *RECIPE, *HELD_OUT
    )  # without --init
    assert code == 2, error


def test_held_out_genes_that_the_model_has_learned_from_are_refused_unless_allowed(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--data", data, "--out", out, "--init", run / "model", *STILL, *RECIPE]
    other = ["--split.val", "chr3", "--split.test", "chr1"]
    code, _, error = outcome(capsys, train, *words, *other)
    assert code == 2
    assert "0 of 51 val and 51 of 51 test genes are in its training set" in error
    assert "hold out the chromosomes that it held out (test: chr4)" in error
    assert "--allow_seen true" in error
    assert not out.exists()
    code, printed, error = outcome(capsys, train, *words, *other, "--allow_seen", "true")
    assert code == 0, error
    assert "warning: --init" in printed
    assert "do not trust metrics of val and test" in printed
    assert load_info(out / "model").init["held_out_genes_it_learned_from"] == {"val": 0, "test": 51}


def test_a_model_that_started_from_another_knows_what_that_one_learned_from(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promoters = read_promoters(data)
    few = ~promoters.genes["chrom"].isin(["chr1"]).to_numpy()
    genes = promoters.genes[few].reset_index(drop=True)
    write_promoters(tmp_path / "data", replace(promoters, genes=genes, targets=promoters.targets[few]))
    words = [*STILL, *RECIPE]
    second = ["--data", tmp_path / "data", "--out", tmp_path / "second", "--init", run, *HELD_OUT]
    assert outcome(capsys, train, *second, *words)[0] == 0
    third = ["--data", data, "--out", tmp_path / "third", "--init", tmp_path / "second" / "model"]
    code, _, error = outcome(capsys, train, *third, "--split.val", "chr3", "--split.test", "chr1", *words)
    assert code == 2
    assert "51 of 51 test genes are in its training set" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*SMALL_NETWORK[2:], "--model.channels", "8,4"], "--model.channels 8,4: .* has .8, 8."),
        (["--model.bins", "3"], "--model.bins 3: .* has 1; leave it out"),
        (["--model.name", "enformer"], "is a promoter_cnn, and the network to train is enformer"),
    ],
)
def test_another_architecture_is_refused_by_its_setting(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    words = ["--data", data, "--out", tmp_path / "out", "--init", run / "model", *flags, *RECIPE, *HELD_OUT]
    code, _, error = outcome(capsys, train, *words)
    assert code == 2
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) == 1


def test_windows_that_the_network_cannot_take_and_a_missing_model_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data, "--out", tmp_path / "out", *RECIPE, *HELD_OUT]
    code, _, error = outcome(capsys, train, *words, "--init", tmp_path / "nothing")
    assert (code, "no such model directory" in error) == (2, True)
    code, _, error = outcome(capsys, train, *words, "--allow_seen", "true")
    assert (code, "there is no --init" in error) == (2, True)


def test_each_fold_starts_from_the_fold_that_has_not_seen_its_genes(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    folds = ["--data", data, "--folds", "3", *STILL, *RECIPE]
    assert outcome(capsys, train, *folds, "--out", first, *SMALL_NETWORK)[0] == 0
    code, _, error = outcome(capsys, train, *folds, "--out", second, "--init", first)
    assert code == 0, error
    for path in (Path("folds") / f"fold_{fold}" / "model" for fold in range(1, 4)):
        init = load_info(second / path).init
        assert init["sha256"] == serialize_model(first / path).checksum
        assert init["held_out_genes_it_learned_from"] == {"val": 0, "test": 0}
    code, _, error = outcome(
        capsys, train, *folds, "--out", tmp_path / "third", "--init", first / "folds" / "fold_3" / "model"
    )
    assert code == 2
    assert "error: fold 1: --init" in error
    code, _, error = outcome(capsys, train, *folds[:2], "--out", tmp_path / "third", "--init", first, *RECIPE)
    assert code == 2
    assert "holds 3 models (fold_1, fold_2, fold_3)" in error
