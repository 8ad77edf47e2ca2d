"""Attributions by command: what the library computes, in the files of ism, resumed and never mixed with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.commands import exit_code, outcome
from torch import nn

from jobs.attribute import attribute as attribute_job
from jobs.ism import ism
from promoter.attribution import attribute
from promoter.attribution.methods import MethodName
from promoter.checkpoint import load_model, save_model
from promoter.dataset.promoters import read_promoters
from promoter.ism import load_scores
from promoter.ism.store import load_contents
from promoter.model_info import ModelInfo
from promoter.models.cnn import CNNConfig, PromoterCNN

pytestmark = pytest.mark.ray
SETTINGS: dict[MethodName, dict[str, int]] = {
    "gradient": {},
    "integrated_gradients": {"steps": 20},
    "deeplift": {"shuffles": 20, "seed": 0},
}


def flags(run: Path, data: Path, out: Path, *more: object) -> list[object]:
    return ["--model", run / "model", "--data", data, "--out", out, "--split", "test", *more]


@pytest.mark.parametrize("method", SETTINGS)
def test_scores_are_those_of_the_library_and_the_files_name_the_method(
    method: MethodName, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = outcome(capsys, attribute_job, *flags(run, data, tmp_path, "--method", method))
    assert code == 0
    scores, promoters = load_scores(tmp_path), read_promoters(data)
    of_test = (promoters.genes["chrom"] == "chr4").to_numpy()
    expected = attribute(load_model(run / "model"), promoters.tokens[of_test], method=method)
    np.testing.assert_allclose(scores.scores, expected, atol=1e-4 * np.abs(expected).max())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    part = tmp_path / manifest["parts"][0]["file"]
    metadata = json.loads(pq.read_schema(part).metadata[b"promoter"])
    for written in (manifest, metadata):
        assert {name: written[name] for name in ("method", *SETTINGS[method])} == {
            "method": method,
            **SETTINGS[method],
        }
    assert metadata["meaning"].startswith(
        f"TARGET_scores: {method}'s estimate of f(sequence with base at position)"
    )
    assert load_contents(tmp_path).method == load_contents(tmp_path / "scores").method == method
    sums = [name for name in pq.read_schema(part).names if name.endswith(("_explained", "_difference"))]
    assert bool(sums) == (method != "gradient")
    assert "passes, forward and back, of" in said
    assert f"strongest changes by {method}, estimates" in " ".join(said.split())
    if method == "deeplift":
        assert manifest["unexplained"]["expression"] < 1e-3
        assert "left unexplained: 0.00% of the differences" in " ".join(said.split())


def test_the_files_of_ism_name_no_method(run: Path, data: Path, tmp_path: Path) -> None:
    assert exit_code(ism, *flags(run, data, tmp_path)) == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    schema = pq.read_schema(tmp_path / manifest["parts"][0]["file"])
    assert "method" not in manifest
    assert "method" not in json.loads(schema.metadata[b"promoter"])
    assert not any(name.endswith(("_explained", "_difference")) for name in schema.names)
    assert load_contents(tmp_path).method == "ism"


def test_a_stopped_run_resumes_with_what_is_missing_and_other_parts_hold_the_same(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(run, data, tmp_path / "a", "--method", "deeplift", "--shuffles", 3, "--seed", 5)
    assert exit_code(attribute_job, *given, "--genes_per_task", 8) == 0
    parts = sorted((tmp_path / "a" / "scores").iterdir())
    whole = {part: part.read_bytes() for part in parts}
    assert len(parts) == 7
    parts[2].unlink()
    parts[4].write_bytes(whole[parts[4]][:-100])
    capsys.readouterr()
    code, said, _ = outcome(capsys, attribute_job, *given, "--workers", 1)
    assert code == 0
    assert "resuming: 5 of 7 parts are there already" in said
    assert {part: part.read_bytes() for part in parts} == whole
    assert "nothing to do" in outcome(capsys, attribute_job, *given)[1]
    other = flags(run, data, tmp_path / "b", "--method", "deeplift", "--shuffles", 3, "--seed", 5)
    assert exit_code(attribute_job, *other, "--genes_per_task", 51) == 0
    one, two = load_scores(tmp_path / "a").scores, load_scores(tmp_path / "b").scores
    np.testing.assert_allclose(one, two, atol=1e-6 * np.abs(one).max())
    seeds = flags(run, data, tmp_path / "c", "--method", "deeplift", "--shuffles", 3, "--seed", 6)
    assert exit_code(attribute_job, *seeds) == 0
    assert np.abs(load_scores(tmp_path / "c").scores - one).max() > 0.01 * np.abs(one).max()


def test_an_ensemble_of_several_targets_is_scored_on_both_strands_and_some_positions(
    ray_cluster: object, data: Path, tmp_path: Path
) -> None:
    promoters = read_promoters(data)
    window: dict[str, int | None] = {"upstream": 100, "downstream": 0, "length": 100}
    networks = [PromoterCNN(CNNConfig((6, 5), (5, 3), (2,), hidden=8, n_targets=3)).eval() for _ in range(2)]
    for index, network in enumerate(networks):
        save_model(tmp_path / str(index), network, ModelInfo(["a", "b", "c"], window))
    words = ["--model", tmp_path / "0", "--ensemble", tmp_path / "1", "--data", data, "--out", tmp_path / "out"]
    words += ["--method", "gradient", "--targets", "c,a", "--both_strands", "true", "--positions", "-60,-10"]
    assert exit_code(attribute_job, *words, "--genes", "chr4_g0003,chr1_g0050") == 0
    scores = load_scores(tmp_path / "out", genes=["chr4_g0003"])
    row = promoters.genes["gene_id"].tolist().index("chr4_g0003")
    options = {"targets": [0, 2], "positions": (40, 90), "both_strands": True}
    each = np.stack(
        [attribute(network, promoters.tokens[[row]], method="gradient", **options) for network in networks]  # type: ignore[arg-type] # options by name
    )
    assert scores.targets == ["a", "c"]
    assert scores.scores_sd is not None
    atol = 1e-5 * np.abs(each).max()
    np.testing.assert_allclose(scores.scores, each.mean(axis=0), atol=atol)
    np.testing.assert_allclose(scores.scores_sd, each.std(axis=0, ddof=1), atol=atol)
    assert load_contents(tmp_path / "out").both_strands


def test_too_few_steps_are_doubted_with_the_flag_to_change(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    network = PromoterCNN(CNNConfig((6, 5), (5, 3), (2,), hidden=8)).eval()
    for block in network.convolution_blocks():
        nn.init.constant_(block.norm.weight, 9)
        nn.init.constant_(block.norm.bias, -0.3)  # so that most ReLUs open somewhere on the path
    window: dict[str, int | None] = {"upstream": 100, "downstream": 0, "length": 100}
    save_model(tmp_path / "run" / "model", network, ModelInfo(["expression"], window))
    given = flags(tmp_path / "run", data, tmp_path / "out", "--method", "integrated_gradients", "--steps", 1)
    given[given.index("--split") : given.index("--split") + 2] = ["--genes", "chr1_g0003,chr1_g0004,chr1_g0005"]
    code, said, warned = outcome(capsys, attribute_job, *given)
    assert code == 0, warned
    assert "take more --steps" in " ".join((said + warned).split())
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["unexplained"]["expression"] > 0.05


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["--method", "gradient", "--steps", 9],
            "--steps 9: is a setting of integrated_gradients, not of gradient",
        ),
        (["--method", "integrated_gradients", "--seed", 9], "--seed 9: is a setting of deeplift"),
        (["--method", "deeplift", "--shuffles", 0], "--shuffles 0: must be at least 1"),
        ([], "required: method"),
        (["--method", "lime"], "--method"),
    ],
)
def test_settings_of_other_methods_are_refused(
    more: list[object], words: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = outcome(capsys, attribute_job, *flags(run, data, tmp_path / "x", *more))
    assert code == 2
    assert words in said
    assert not (tmp_path / "x").exists()


def test_a_folder_of_ism_or_of_another_method_is_not_added_to(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "attribute", tmp_path / "ism"
    assert exit_code(ism, *flags(run, data, theirs)) == 0
    assert exit_code(attribute_job, *flags(run, data, ours, "--method", "gradient")) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for job, given, words in (
        (attribute_job, flags(run, data, theirs, "--method", "gradient"), "ism"),
        (ism, flags(run, data, ours), "attribute"),
        (attribute_job, flags(run, data, ours, "--method", "deeplift"), "method gradient, not deeplift"),
    ):
        capsys.readouterr()
        code, _, said = outcome(capsys, job, *given)
        assert code == 2
        assert words in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert exit_code(ism, *flags(run, data, ours, "--overwrite", "true")) == 0
    assert load_contents(ours).method == "ism"


CODE = """
import torch
import torch.nn.functional as F
from torch import nn


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv1d(4, 8, 7), nn.Linear(8, 2)

    def forward(self, x):
        return self.last(F.relu(self.first(x)).mean(dim=2))


def build():
    torch.manual_seed(2)
    return Functional()


def silent():
    class Detached(Functional):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    torch.manual_seed(2)
    return Detached()
"""


def test_an_external_network_is_attributed_and_doubted_where_deeplift_has_no_rule(
    ray_cluster: object,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "functional_lab_net.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path / "lab")
    given = ["--data", data, "--trust_code", "true", "--genes", "chr4_g0003,chr1_g0050"]
    for method, doubted in (("gradient", False), ("integrated_gradients", False), ("deeplift", True)):
        words = ["--model", "external:functional_lab_net:build", *given, "--method", method]
        code, said, warned = outcome(capsys, attribute_job, *words, "--out", tmp_path / method)
        assert code == 0, warned
        printed = " ".join((said + warned).split())
        assert ("take --method integrated_gradients" in printed) == doubted, printed
    by_ism = ["--model", "external:functional_lab_net:build", *given, "--out", tmp_path / "ism"]
    assert exit_code(ism, *by_ism) == 0
    exact, estimated = load_scores(tmp_path / "ism").scores, load_scores(tmp_path / "gradient").scores
    assert exact.shape == estimated.shape == (2, 2, 4, 100)
    assert np.corrcoef(exact.ravel(), estimated.ravel())[0, 1] > 0.5
    words = ["--model", "external:functional_lab_net:silent", *given, "--method", "gradient"]
    code, _, said = outcome(capsys, attribute_job, *words, "--out", tmp_path / "silent")
    assert code == 2
    assert "no gradient with respect to the sequence" in said
    assert not (tmp_path / "silent" / "manifest.json").exists()
