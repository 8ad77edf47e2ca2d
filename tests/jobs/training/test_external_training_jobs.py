"""A user's own architecture through train, tune, folds, learning curve, predict, ism and report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from support.commands import exit_code, outcome

from jobs.ism import ism
from jobs.predict import predict
from jobs.report import report
from jobs.train import train
from jobs.tune import tune
from promoter.checkpoint import load_model
from promoter.dataset.promoters import read_promoters
from promoter.ism import load_scores
from promoter.training import predict as predict_sequences

pytestmark = pytest.mark.ray

MODULE = """
from torch import nn

import own_layers


class Net(nn.Module):
    def __init__(self, norm, n_targets):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 8, 7, padding=3), norm
        self.head, self.profile = nn.Linear(8, n_targets), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(own_layers.largest(self.norm(self.conv(x))))


def grouped(length, n_targets):
    return Net(nn.GroupNorm(2, 8), n_targets)


def normed(length, n_targets):
    return Net(nn.BatchNorm1d(8), n_targets)


def two(length, n_targets):
    return Net(nn.Identity(), 2)


class Failing(Net):
    def forward(self, x):
        if self.training and len(x) > 4:
            raise ValueError("a batch of more than four")
        return super().forward(x)


def failing(length, n_targets):
    return Failing(nn.Identity(), n_targets)
"""
FAILS_IN_LINE = 1 + MODULE.split("\n").index('            raise ValueError("a batch of more than four")')
FAILURE = (
    f"own_nets:failing: failed in forward, line {FAILS_IN_LINE} of own_nets.py "
    "(ValueError: a batch of more than four)"
)
LAYERS = "import torch\n\n\ndef largest(x):\n    return torch.relu(x).amax(-1)\n"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's modules, which no other process has on its path."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "own_nets.py").write_text(MODULE)
    (folder / "own_layers.py").write_text(LAYERS)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test in a folder without modules; those that train go where they are."""
    monkeypatch.chdir(tmp_path)


def flags(data: Path, out: Path, factory: str = "grouped") -> list[str]:
    return [
        *("--data", str(data), "--out", str(out), "--trust_code", "true", "--gpus_per_worker", "0"),
        *("--model.name", "external", "--model.factory", f"own_nets:{factory}"),
        *("--training.epochs", "4", "--training.batch_size", "16", "--training.learning_rate", "3e-3"),
        *("--workers", "0"),
    ]


HELD_OUT = ("--split.val", "chr3", "--split.test", "chr4")


@pytest.fixture(scope="module")
def trained(ray_cluster: object, data: Path, code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with weights that have no gradient, trained by two workers."""
    out = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(code)
        assert exit_code(train, *flags(data, out), *HELD_OUT, "--workers", "2") == 0
    return out


def predictions(table: Path) -> np.ndarray:
    return pd.read_parquet(table)["expression_predicted"].to_numpy(float)


def test_two_workers_train_what_one_does(
    trained: Path, data: Path, code: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(code)
    assert exit_code(train, *flags(data, tmp_path / "alone"), *HELD_OUT, "--baselines", "false") == 0
    alone, both = (predictions(out / "predictions.parquet") for out in (tmp_path / "alone", trained))
    np.testing.assert_allclose(both, alone, atol=1e-3 * np.abs(alone).max())


def test_a_trained_network_is_judged_beside_baselines(trained: Path):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"mean", "kmers"} <= metrics["test"]["expression"]["baselines"].keys()


def test_the_record_of_a_run_holds_the_code_as_an_input_and_no_trust(trained: Path):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    model = yaml.safe_load((trained / "model" / "model.yaml").read_text())["architecture"]
    assert "trust_code" not in config
    assert config["model"] == {"name": "external", "factory": "own_nets:grouped", "n_targets": 1}
    assert config["provenance"]["inputs"]["external:own_nets:grouped"] == model["code"]["sha256"]
    assert model["code"]["sources"] == {"own_layers.py": LAYERS, "own_nets.py": MODULE}


def test_the_model_predicts_where_the_module_is_not(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--model", trained / "model", "--data", data, "--out", tmp_path / "predicted.parquet"]
    status, _, said = outcome(capsys, predict, *words)
    assert (status, (tmp_path / "predicted.parquet").exists()) == (2, False)
    assert "--trust_code true" in said
    assert exit_code(predict, *words, "--trust_code", "true") == 0
    np.testing.assert_allclose(
        predictions(tmp_path / "predicted.parquet"),
        predictions(trained / "predictions.parquet"),
        rtol=1e-5,
        atol=1e-5,
    )


def test_scores_of_the_trained_network_are_differences_of_its_predictions(
    trained: Path, data: Path, tmp_path: Path
):
    promoters = read_promoters(data)
    gene = promoters.genes["gene_id"].iloc[0]
    words = ["--model", trained / "model", "--data", data, "--out", tmp_path / "scores", "--genes", gene]
    assert exit_code(ism, *words, "--trust_code", "true") == 0
    network = load_model(trained / "model", trust_code=True)
    mutant = promoters.tokens[:1].copy()
    mutant[0, 40] = (mutant[0, 40] + 1) % 4
    before, after = predict_sequences(network, np.concatenate([promoters.tokens[:1], mutant]))[:, 0]
    scores = load_scores(tmp_path / "scores").scores[0, 0]
    assert scores[mutant[0, 40], 40] == pytest.approx(after - before, abs=1e-5)


def test_a_report_of_the_run_needs_trust(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--model", trained / "model", "--out", tmp_path / "page.html"]
    status, _, said = outcome(capsys, report, *words)
    assert (status, (tmp_path / "page.html").exists()) == (2, False)
    assert "--trust_code true" in said
    assert exit_code(report, *words, "--trust_code", "true") == 0
    assert "own_nets:grouped" in (tmp_path / "page.html").read_text()


def test_a_rerun_with_other_code_is_refused(
    trained: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_nets.py").write_text(MODULE)
    (tmp_path / "own_layers.py").write_text(LAYERS)
    again = [*flags(data, trained), *HELD_OUT, "--workers", "2"]
    status, said, _ = outcome(capsys, train, *again)
    assert (status, "finished already" in said) == (0, True)
    (tmp_path / "own_layers.py").write_text(LAYERS.replace("amax", "mean"))
    status, _, said = outcome(capsys, train, *again)
    assert status == 2
    assert "different: external:own_nets:grouped" in said


def test_folds_with_batch_norms_are_an_ensemble(
    ray_cluster: object, data: Path, code: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(code)
    assert exit_code(train, *flags(data, tmp_path / "run", "normed"), "--folds", "3", "--baselines", "false") == 0
    monkeypatch.chdir(tmp_path)
    words = ["--model", tmp_path / "run", "--data", data, "--trust_code", "true"]
    assert exit_code(predict, *words, "--out", tmp_path / "predicted.parquet") == 0
    folders = sorted((tmp_path / "run" / "folds").glob("fold_*"))
    assert len(folders) == 3
    mean = np.mean([predictions(folder / "predictions.parquet") for folder in folders], axis=0)
    np.testing.assert_allclose(predictions(tmp_path / "predicted.parquet"), mean, rtol=1e-4, atol=1e-4)


def test_a_learning_curve_of_a_users_network(
    ray_cluster: object, data: Path, code: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(code)
    words = [*flags(data, tmp_path / "run"), *HELD_OUT, "--learning_curve", "60", "--baselines", "false"]
    assert exit_code(train, *words) == 0
    assert set(pd.read_csv(tmp_path / "run" / "learning_curve.csv")["sequences"]) == {60, 102}


SEARCH = ("--trials", "2", "--folds", "2", "--at_once", "1", "--split.test", "chr4")


def test_a_search_tries_settings_of_training_and_trains_the_best(
    ray_cluster: object, data: Path, code: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(code)
    assert exit_code(tune, *flags(data, tmp_path / "run", "normed"), *SEARCH, "--keep_folds", "true") == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert "trust_code" not in config
    assert all(name.startswith("training.") for name in config["space"])
    assert "training.weight_decay" in config["space"]
    best = yaml.safe_load((tmp_path / "run" / "best.yaml").read_text())
    assert best["model"] == {"name": "external", "factory": "own_nets:normed", "n_targets": 1}
    monkeypatch.chdir(tmp_path)
    words = ["--model", tmp_path / "run" / "model", "--data", data, "--trust_code", "true"]
    words += ["--ensemble", *sorted((tmp_path / "run" / "folds").iterdir())]
    assert exit_code(predict, *words, "--out", tmp_path / "predicted.parquet") == 0


def test_trials_that_fail_in_the_users_code_say_where(
    ray_cluster: object,
    data: Path,
    code: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(code)
    status, _, said = outcome(capsys, tune, *flags(data, tmp_path / "run", "failing"), *SEARCH)
    assert status == 1
    assert f"all 2 trials failed; the first: {FAILURE}" in said
    assert pd.read_csv(tmp_path / "run" / "trials.csv")["reason"].tolist() == [FAILURE] * 2


def test_a_training_that_fails_in_the_users_code_says_where(
    ray_cluster: object,
    data: Path,
    code: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(code)
    status, _, said = outcome(capsys, train, *flags(data, tmp_path / "run", "failing"), *HELD_OUT)
    assert status == 1
    assert said.startswith(f"error: {FAILURE}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("job", [train, tune])
def test_without_trust_nothing_is_read(job, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--data", tmp_path / "none", "--out", tmp_path / "run", "--model.name", "external"]
    status, _, said = outcome(capsys, job, *words, "--model.factory", "own_nets:grouped")
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert said == (
        "error: --model.factory own_nets:grouped: is code that would run here and on all nodes; if you trust it, "
        "give --trust_code true\n"
    )


@pytest.mark.parametrize(
    ("job", "factory", "more", "problem"),
    [
        (train, "two", (), "own_nets:two: has 2 outputs, the data 1 targets (expression)"),
        (tune, "two", (), "own_nets:two: has 2 outputs, the data 1 targets (expression)"),
        (train, "none", (), "own_nets:none: own_nets has no function none"),
        (train, "grouped", ("--model.hidden", "8"), "is a setting of promoter_cnn, not of external"),
        (
            tune,
            "grouped",
            ("--space", "{model.hidden: {choices: [4, 8]}}"),
            "'model.hidden' is not to be searched",
        ),
        (tune, "grouped", ("--space", "{model.blocks: {choices: [1]}}"), "'model.blocks' is not to be searched"),
        (
            tune,
            "grouped",
            ("--space", "{model.n_targets: {choices: [1, 2]}}"),
            "'model.n_targets' is not to be searched",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    job,
    factory: str,
    more: tuple[str, ...],
    problem: str,
    data: Path,
    code: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(code)
    status, _, said = outcome(capsys, job, *flags(data, tmp_path / "run", factory), *more)
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert problem in said
    assert said.count("\n") == 1 + said.count("note: ")


def test_a_training_cannot_start_from_a_users_network(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--data", data, "--out", "other", "--init", trained]
    status, _, said = outcome(capsys, train, *words)
    assert status == 2
    assert "is external; only a promoter_cnn can be started from" in said


def test_a_users_network_cannot_start_from_a_cnn(
    run: Path,
    data: Path,
    code: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    monkeypatch.chdir(code)
    status, _, said = outcome(capsys, train, *flags(data, tmp_path / "run"), *HELD_OUT, "--init", run)
    assert status == 2
    assert "is a promoter_cnn, and the network to train is external" in said
