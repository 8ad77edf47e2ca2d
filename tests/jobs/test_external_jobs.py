"""A user's network through the jobs: from `external:package.module:function` to motifs and a page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from support.commands import exit_code, outcome
from support.libraries import LENGTH, write_library

from jobs.attribute import attribute
from jobs.export import export
from jobs.ism import ism
from jobs.motifs import motifs
from jobs.predict import predict as predict_job
from jobs.ray_runtime.capacity import Cluster
from jobs.report import report
from jobs.variants import variants
from jobs.verify import verify
from promoter.dataset.promoters import read_promoters
from promoter.ism import load_scores
from promoter.models.code import find_code
from promoter.models.external import build_external
from promoter.sequence import one_hot

pytestmark = pytest.mark.ray
LAYERS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 12, 9, padding=4)
        self.norm = nn.BatchNorm1d(12)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool1d(4)
        self.profile = nn.Conv1d(12, 2, 1)
        self.counts = nn.Linear(12, 1)

    def forward(self, x):
        x = self.pool(self.act(self.norm(self.conv(x))))
        return self.profile(x), self.counts(x.mean(2))
"""
NETWORK = """
from lab.layers import Net
from promoter.models.external import ExternalModel, chain, select_head, sum_bins

def counts():
    return ExternalModel(Net(), targets=["activity"], bases="TGCA", output=select_head(1))

def profile():
    return ExternalModel(Net(), targets=["plus", "minus"], output=chain(select_head(0), sum_bins()))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set in `data/`, the package `lab`, and two sets of weights."""
    folder = tmp_path_factory.mktemp("lab")
    write_library(folder / "data")
    (folder / "lab").mkdir()
    for name, text in (("layers", LAYERS), ("network", NETWORK), ("__init__", "")):
        (folder / "lab" / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def in_lab(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in that folder, and leave imports as they were."""
    monkeypatch.chdir(lab)
    path, finders = list(sys.path), list(sys.meta_path)
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = build_external(find_code("lab.network:counts")).module
        network.norm.running_mean.normal_()  # type: ignore[union-attr, operator] # of a BatchNorm1d
        safetensors.torch.save_model(network, str(lab / f"w{seed}.safetensors"))
    yield
    sys.path[:], sys.meta_path[:] = path, finders
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]


def flags(name: str = "counts", *, weights: str = "w1.safetensors") -> list[object]:
    model = ["--model", f"external:lab.network:{name}", "--model_weights", weights, "--trust_code", "true"]
    return [*model, "--data", "data"]


def expected(weights: str) -> np.ndarray:
    """Predict with the network alone, in float64."""
    network = build_external(find_code("lab.network:counts")).module
    safetensors.torch.load_model(network, weights)
    x = one_hot(read_promoters("data").tokens, torch.float64)[:, [3, 2, 1, 0]]
    with torch.no_grad():
        return network.double().eval()(x)[1].numpy()


def test_code_is_refused_unless_it_is_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "external:lab.network:counts", "--data", "data"]
    for job, out in ((predict_job, "p.parquet"), (ism, "ism"), (attribute, "a"), (variants, "v")):
        more = {"attribute": ["--method", "gradient"], "variants": ["--variants", "v.tsv"]}.get(job.__name__, [])
        code, _, err = outcome(capsys, job, *words, *more, "--out", tmp_path / out)
        assert (code, err.count("\n")) == (2, 1), err
        assert "if you trust it, give --trust_code true" in err
    assert not any(tmp_path.iterdir())
    assert "lab.network" not in sys.modules or "lab" not in capsys.readouterr().out


def test_a_file_is_no_consent_to_run_code(
    ray_cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.parquet"
    assert exit_code(predict_job, *flags(), "--out", out) == 0
    config = tmp_path / "p.config.yaml"
    assert "trust_code" not in yaml.safe_load(config.read_text())
    code, _, err = outcome(capsys, predict_job, "--config", config)
    assert (code, "--trust_code true" in err) == (2, True)
    assert exit_code(predict_job, "--config", config, "--trust_code", "true") == 0
    (tmp_path / "of_a_stranger.yaml").write_text(config.read_text() + "\ntrust_code: true\n")
    code, _, err = outcome(capsys, predict_job, "--config", tmp_path / "of_a_stranger.yaml")
    assert code == 2
    assert "a file cannot give it" in err


def test_predictions_are_those_of_the_network(
    ray_cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.parquet"
    code, printed, err = outcome(
        capsys, predict_job, *flags(weights="w1.safetensors,w2.safetensors"), "--out", out
    )
    assert code == 0, err
    assert "lab/__init__.py, lab/layers.py, lab/network.py, sent to all nodes" in printed + err
    table = pd.read_parquet(out)
    both = np.stack([expected("w1.safetensors"), expected("w2.safetensors")])[..., 0]
    assert np.allclose(table["activity_predicted"], both.mean(0), atol=1e-5)
    assert np.allclose(table["activity_predicted_sd"], both.std(0, ddof=1), atol=1e-5)
    assert set(json.loads((tmp_path / "p.metrics.json").read_text())) == {"new"}
    described = yaml.safe_load((tmp_path / "p.model.yaml").read_text())["architecture"]
    assert described["code"]["sources"]["lab/network.py"] == NETWORK
    assert exit_code(verify, tmp_path) == 0


def test_from_scores_to_motifs_and_a_page(
    ray_cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job, out, more in (
        (ism, "ism", []),
        (attribute, "gradient", ["--method", "gradient"]),
        (attribute, "deeplift", ["--method", "deeplift", "--shuffles", "4"]),
    ):
        code, printed, err = outcome(capsys, job, *flags(), "--out", tmp_path / out, *more)
        assert code == 0, err
        assert exit_code(verify, tmp_path / out) == 0
    capsys.readouterr()
    words = [*flags(), "--out", tmp_path / "ism"]
    assert "nothing to do" in outcome(capsys, ism, *words)[1]
    scores, tokens = load_scores(tmp_path / "ism"), read_promoters("data").tokens
    assert scores.scores.shape == (len(tokens), 1, 4, LENGTH)
    assert np.allclose(scores.predictions, expected("w1.safetensors"), atol=1e-5)
    for out, method in (("ism", "ISM"), ("deeplift", "DeepLIFT")):
        code, printed, err = outcome(
            capsys, export, "--scores", tmp_path / out, "--out", tmp_path / f"export_{out}", "--formats", "h5"
        )
        assert code == 0, err
        assert f"by {method}" in printed
    code, _, err = outcome(
        capsys, motifs, "--scores", tmp_path / "deeplift", "--out", tmp_path / "motifs", "--taxon", "none"
    )
    assert code == 0, err
    folders = f"{tmp_path / 'gradient'},{tmp_path / 'deeplift'}"
    page = [*flags()[:-2], "--scores", tmp_path / "ism", "--attributions", folders, "--out", tmp_path / "r.html"]
    code, _, err = outcome(capsys, report, *page)
    assert code == 0, err
    text = (tmp_path / "r.html").read_text()
    for words_shown in ("Agreement of methods", "lab.network:counts", "DeepLIFT", "any length"):
        assert words_shown in text
    both = ["--method", "gradient", "--both_strands", "true", "--out", tmp_path / "both"]
    assert exit_code(attribute, *flags(), *both) == 0
    other = [*page]
    other[other.index(folders)] = tmp_path / "both"
    code, _, err = outcome(capsys, report, *other)
    assert (code, "give both the same --both_strands" in err) == (2, True), err
    page[page.index("w1.safetensors")] = "w2.safetensors"
    code, _, err = outcome(capsys, report, *page)
    assert code == 2
    assert "holds scores of another model" in err


def test_changed_code_or_weights_are_another_run(
    ray_cluster: Cluster, lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", tmp_path / "ism", "--positions", "0,4"]
    assert exit_code(ism, *flags("profile"), *out) == 0
    assert load_scores(tmp_path / "ism").targets == ["plus", "minus"]
    code, _, err = outcome(capsys, ism, *flags("profile", weights="w2.safetensors"), *out)
    assert code == 2, err
    changed = LAYERS.replace("self.act(self.norm(self.conv(x)))", "self.act(self.conv(x))")
    (lab / "lab" / "layers.py").write_text(changed)
    try:
        code, _, err = outcome(capsys, ism, *flags("profile"), *out)
    finally:
        (lab / "lab" / "layers.py").write_text(LAYERS)
    assert code == 2, err


def test_variants_of_an_external_model(
    ray_cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genes = read_promoters("data").genes
    row = genes.iloc[3]
    ref = row["sequence"][5]
    alt = "A" if ref != "A" else "C"
    (tmp_path / "v.tsv").write_text(f"id\tposition\tref\talt\n{row['gene_id']}\t6\t{ref}\t{alt}\n")
    code, _, err = outcome(capsys, variants, "--variants", tmp_path / "v.tsv", *flags(), "--out", tmp_path / "v")
    assert code == 0, err
    assert exit_code(verify, tmp_path / "v") == 0
    table = pd.read_parquet(tmp_path / "v" / "variants.parquet")
    assert exit_code(ism, *flags(), "--out", tmp_path / "ism", "--genes", row["gene_id"]) == 0
    score = load_scores(tmp_path / "ism").scores[0, 0, "ACGT".index(alt), 5]
    assert table.filter(like="difference").iloc[0, 0] == pytest.approx(score, abs=1e-5)
