from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from support.commands import exit_code

from jobs.ism import ism
from promoter.checkpoint import load_info, load_model, save_model
from promoter.dataset.promoters import read_promoters
from promoter.ism import load_scores, saturation_mutagenesis

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def scored(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ism")
    ism(str(run / "model"), str(data), str(out), split="test", genes_per_task=8)
    return out


def test_ism_job_scores_are_those_of_the_library(scored: Path, run: Path, data: Path):
    scores = load_scores(scored)
    promoters = read_promoters(data)
    of_test = (promoters.genes["chrom"] == "chr4").to_numpy()
    assert scores.genes["gene_id"].tolist() == promoters.genes["gene_id"][of_test].tolist()
    assert scores.genes["sequence"].tolist() == promoters.genes["sequence"][of_test].tolist()
    expected = saturation_mutagenesis(load_model(run / "model"), promoters.tokens[of_test])
    # the same computation on another number of threads: float32 rounding only
    np.testing.assert_allclose(scores.scores, expected, atol=2e-5)


def test_score_files_have_the_contracts_columns_and_name_model_and_data(scored: Path):
    manifest = json.loads((scored / "manifest.json").read_text())
    assert manifest["complete"]
    assert sum(part["genes"] for part in manifest["parts"]) == manifest["genes"] == 51
    assert len(manifest["parts"]) == 7  # 51 genes in eights
    for part in manifest["parts"]:
        schema = pq.read_schema(scored / part["file"])
        assert schema.names == [
            *("gene_id", "gene_name", "chrom", "start", "end", "strand", "sequence"),
            *("expression_prediction", "expression_scores"),
        ]
        assert str(schema.field("expression_scores").type).startswith("fixed_size_list<")
        assert schema.field("expression_scores").type.list_size == 400
        found = json.loads(schema.metadata[b"promoter"])
        assert found["model"] == manifest["model"]
        assert found["data"] == manifest["data"]


def test_only_chosen_genes_are_scored(run: Path, data: Path, tmp_path: Path):
    genes = ["chr4_g0003", "chr1_g0050"]
    arguments = ["--model", str(run / "model"), "--data", str(data), "--out", str(tmp_path), "--genes", *genes]
    assert exit_code(ism, *arguments) == 0
    assert sorted(load_scores(tmp_path).genes["gene_id"]) == sorted(genes)
    assert load_scores(tmp_path, genes=genes).genes["gene_id"].tolist() == genes


def test_rerun_of_ism_computes_only_missing_or_damaged_files(run: Path, data: Path, tmp_path: Path):
    arguments = (str(run / "model"), str(data), str(tmp_path))
    ism(*arguments, split="test", genes_per_task=8)
    parts = sorted((tmp_path / "scores").iterdir())
    whole = {part: part.read_bytes() for part in parts}
    parts[2].unlink()
    parts[4].write_bytes(whole[parts[4]][: len(whole[parts[4]]) // 2])
    before = {part: part.stat().st_mtime_ns for part in parts if part.exists()}
    ism(*arguments, split="test", genes_per_task=8)
    assert {part: part.read_bytes() for part in sorted((tmp_path / "scores").iterdir())} == whole
    again = {part for part, written in before.items() if part.stat().st_mtime_ns != written}
    assert again == {parts[4]}


def test_finished_ism_run_is_left_alone(scored: Path, run: Path, data: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.stat().st_mtime_ns for path in scored.rglob("*")}
    ism(str(run / "model"), str(data), str(scored), split="test", genes_per_task=8)
    assert "scored already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in scored.rglob("*")} == before


def test_scores_of_other_settings_or_models_are_never_mixed(
    scored: Path, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "model"
    other.mkdir()
    for file in (run / "model").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "model.yaml").write_text((other / "model.yaml").read_text() + "# another\n")
    before = {path: path.stat().st_mtime_ns for path in scored.rglob("*")}
    for model, flags, named in (
        (other, ["--split", "test", "--genes_per_task", "8"], "model"),
        (run / "model", ["--split", "val", "--genes_per_task", "8"], "split test, not val"),
        (run / "model", ["--split", "test", "--genes_per_task", "9"], "--genes_per_task 9: the parts of"),
    ):
        assert exit_code(ism, "--model", model, "--data", data, "--out", scored, *flags) == 2
        assert named in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in scored.rglob("*")} == before


def test_unknown_gene_is_refused_by_ism(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--model", str(run / "model"), "--data", str(data), "--out", str(tmp_path / "x")]
    assert exit_code(ism, *arguments, "--genes", "nobody") == 2
    assert "nobody" in capsys.readouterr().err


def test_scores_that_no_job_recorded_are_not_added_to(
    scored: Path, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(scored / "scores", tmp_path / "scores")
    assert exit_code(ism, "--model", run / "model", "--data", data, "--out", tmp_path) == 2
    assert "holds scores, which no job recorded" in capsys.readouterr().err


def test_genes_per_file_are_chosen_once(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ism(str(run / "model"), str(data), str(tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert 1 <= manifest["genes_per_part"] <= 204 / 4
    assert len(manifest["parts"]) == -(-204 // manifest["genes_per_part"])
    capsys.readouterr()
    ism(str(run / "model"), str(data), str(tmp_path), workers=1)  # would choose another by itself
    assert "nothing to do" in capsys.readouterr().out


@pytest.fixture(scope="module")
def other_model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second member for an ensemble: the first with other weights."""
    model, folder = load_model(run / "model"), tmp_path_factory.mktemp("other")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(folder, model, load_info(run / "model"))
    return folder


def test_ism_of_an_ensemble_gives_mean_and_spread(run: Path, other_model: Path, data: Path, tmp_path: Path):
    ism(str(run / "model"), str(data), str(tmp_path), split="test", ensemble=[str(other_model)])
    found = load_scores(tmp_path)
    promoters = read_promoters(data)
    tokens = promoters.tokens[(promoters.genes["chrom"] == "chr4").to_numpy()]
    each = [saturation_mutagenesis(load_model(folder), tokens) for folder in (run / "model", other_model)]
    assert np.abs(each[0] - each[1]).max() > 0.01
    assert found.scores_sd is not None
    # the same computation on another number of threads: float32 rounding only
    np.testing.assert_allclose(found.scores, (each[0] + each[1]) / 2, atol=2e-5)
    np.testing.assert_allclose(found.scores_sd, np.abs(each[0] - each[1]) / np.sqrt(2), atol=2e-5)


def test_ensemble_members_with_other_targets_are_refused(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    info = replace(load_info(run / "model"), targets=["another"])
    save_model(tmp_path / "model", load_model(run / "model"), info)
    flags = ["--model", run / "model", "--data", data, "--out", tmp_path / "x", "--ensemble", tmp_path / "model"]
    assert exit_code(ism, *flags) == 2
    assert "has targets ['another']" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_duckdb_and_pandas_read_the_store_as_it_is(
    run: Path, data: Path, tmp_path: Path, dtype: Literal["float32"]
):
    ism(str(run / "model"), str(data), str(tmp_path), split="test", dtype=dtype)
    expected = load_scores(tmp_path)
    columns = "gene_id, expression_prediction, expression_scores"
    query = f"SELECT {columns} FROM '{tmp_path}/scores/*.parquet' ORDER BY start, gene_id"  # noqa: S608 # our own path
    found = duckdb.connect().execute(query).fetchall()
    order = expected.genes.reset_index().sort_values(["start", "gene_id"])["index"].tolist()
    assert [row[0] for row in found] == expected.genes["gene_id"].iloc[order].tolist()
    np.testing.assert_array_equal([row[1] for row in found], expected.predictions[order, 0])
    in_rows = expected.scores[order, 0].reshape(len(order), -1)  # all A, then C, G, T
    np.testing.assert_array_equal(np.array([row[2] for row in found], np.float32), in_rows)
    frame = pd.concat([pd.read_parquet(path) for path in sorted((tmp_path / "scores").iterdir())])
    np.testing.assert_array_equal(np.stack(frame["expression_scores"].tolist())[order].astype("f4"), in_rows)
    half = {"float32": "float", "float16": "halffloat"}[dtype]
    assert half in str(pq.read_schema(next((tmp_path / "scores").iterdir())).field("expression_scores").type)
