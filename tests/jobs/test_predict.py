from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats
from support.commands import exit_code

from jobs.predict import predict
from promoter.checkpoint import copy_model, load_model, serialize_model
from promoter.dataset.promoters import read_promoters, write_promoters
from promoter.kept_baselines import load_baselines, save_baselines
from promoter.sequence import one_hot

pytestmark = pytest.mark.ray


def test_predict_gives_every_gene_in_order_what_the_model_gives(run: Path, data: Path, tmp_path: Path):
    out = tmp_path / "new" / "predictions.parquet"
    predict(str(run / "model"), str(data), str(out))
    table = pd.read_parquet(out)
    promoters = read_promoters(data)
    expected = load_model(run / "model")(one_hot(promoters.tokens)).detach().numpy()[:, 0]
    assert table["gene_id"].tolist() == promoters.genes["gene_id"].tolist()
    np.testing.assert_allclose(table["expression_predicted"], expected, rtol=1e-5, atol=1e-5)
    assert table.groupby("chrom")["split"].unique().str[0].to_dict() == {
        "chr1": "train",
        "chr2": "train",
        "chr3": "val",
        "chr4": "test",
    }
    assert pq.read_schema(out) == pq.read_schema(run / "predictions.parquet")
    assert (tmp_path / "new" / "predictions.config.yaml").exists()


def test_predict_with_any_number_of_workers_gives_the_same_bytes(
    run: Path, data: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("jobs.predict._GENES_PER_TASK", 32)  # several tasks even for this small data set
    outs = [tmp_path / f"{workers}.parquet" for workers in (1, 2)]
    for workers, out in enumerate(outs, start=1):
        predict(str(run / "model"), str(data), str(out), workers=workers)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_predict_takes_a_fasta_of_sequences(run: Path, data: Path, tmp_path: Path):
    promoters = read_promoters(data)
    chosen = promoters.genes.iloc[[5, 100, 7]]
    records = [
        f">{gene} note\n{sequence[:60]}\n{sequence[60:].lower()}\n"
        for gene, sequence in zip(chosen["gene_id"], chosen["sequence"], strict=True)
    ]
    (tmp_path / "some.fa").write_text("".join(records))
    predict(str(run / "model"), str(tmp_path / "some.fa"), str(tmp_path / "out.parquet"))
    table = pd.read_parquet(tmp_path / "out.parquet")
    known = pd.read_parquet(run / "predictions.parquet").set_index("gene_id")["expression_predicted"]
    assert table["gene_id"].tolist() == chosen["gene_id"].tolist()
    np.testing.assert_allclose(table["expression_predicted"], known[chosen["gene_id"]], rtol=1e-5, atol=1e-5)
    assert table[["chrom", "split", "expression"]].isna().all(axis=None)


def test_predict_refuses_another_window_with_both_lengths(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "long.fa").write_text(">a\n" + "ACGT" * 30 + "\n")
    arguments = ["--model", str(run / "model"), "--data", str(tmp_path / "long.fa")]
    assert exit_code(predict, *arguments, "--out", tmp_path / "out.parquet") == 2
    error = capsys.readouterr().err
    assert "120 bases" in error
    assert "trained on 100" in error


def test_predict_prints_the_metrics_of_training_on_the_data_of_the_model_and_baselines_from_its_folder(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "predictions.parquet"
    predict(str(run / "model"), str(data), str(out))
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "predictions.metrics.json").read_text())
    expected = json.loads((run / "metrics.json").read_text())
    for split in ("train", "val", "test"):
        assert metrics[split]["expression"]["pearson"] == pytest.approx(expected[split]["expression"]["pearson"])
        for name, values in expected[split]["expression"].get("baselines", {}).items():
            found = metrics[split]["expression"]["baselines"][name]
            assert found["mse"] == pytest.approx(values["mse"], rel=1e-4)
            assert found["pearson_difference_ci95"] == (
                values["pearson_difference_ci95"] and pytest.approx(values["pearson_difference_ci95"], abs=1e-4)
            )
    r = metrics["test"]["expression"]["pearson"]
    assert re.search(rf"test +expression +51 .*{r:.3f} \[", printed)
    assert "baselines on the same test genes" in printed
    assert "the model was fitted to the genes of train: their metrics are no test of it" in printed


def test_predict_judges_a_library_that_is_new_to_the_model_and_leaves_no_metrics_of_other_data(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    promoters = read_promoters(data)
    n = len(promoters)
    genes = promoters.genes.assign(gene_id=[f"oligo{i}" for i in range(n)], weight=np.float32(2))
    genes = genes.assign(chrom=None, strand=None, **dict.fromkeys(("tss", "start", "end"), pd.array([None] * n)))
    library = replace(promoters, genes=genes, metadata={"window": None})
    write_promoters(tmp_path / "library", library)
    out = tmp_path / "o.parquet"
    predict(str(run / "model"), str(tmp_path / "library"), str(out))
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "o.metrics.json").read_text())
    table = pd.read_parquet(out)
    r = stats.pearsonr(promoters.targets[:, 0], table["expression_predicted"])[0]
    assert list(metrics) == ["new"]
    found = metrics["new"]["expression"]
    assert found["pearson"] == pytest.approx(r, abs=1e-6)
    assert found["weighted"]["pearson"] == pytest.approx(r, abs=1e-6)
    assert set(found["baselines"]) == {"mean", "composition", "kmers", "kmers_by_distance"}
    assert re.search(rf"new +expression +{n} .*{r:.3f} \[", printed)
    assert "expression of new sequences by their weights: mse " in printed
    assert "no test" not in printed
    write_promoters(tmp_path / "other", replace(library, target_names=["activity"]))
    assert exit_code(predict, "--model", run / "model", "--data", tmp_path / "other", "--out", out) == 0
    assert "rename the column activity to expression" in capsys.readouterr().out
    assert out.exists()
    assert not (tmp_path / "o.metrics.json").exists()


def test_predict_refuses_baselines_of_another_model_before_it_begins(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy_model(run / "model", tmp_path / "model")
    checksum, length = serialize_model(run / "model").checksum, read_promoters(data).length
    kept = load_baselines(tmp_path / "model", checksum, length)
    save_baselines(tmp_path / "model", kept, checksum[::-1], length)
    assert exit_code(predict, "--model", tmp_path / "model", "--data", data, "--out", tmp_path / "o.parquet") == 2
    assert "holds baselines of another model" in capsys.readouterr().err
    assert not (tmp_path / "o.parquet").exists()


def _break(model: Path, how: str) -> None:
    description, weights = model / "model.yaml", model / "model.safetensors"
    if how == "version":
        description.write_text(description.read_text().replace("format: 1", "format: 99"))
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    else:
        weights.unlink()


@pytest.mark.parametrize(
    ("how", "message"), [("version", "format 99"), ("truncated", "SHA-256"), ("missing", "no model.safetensors")]
)
def test_predict_refuses_an_unusable_model(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, message: str
):
    model = tmp_path / "model"
    model.mkdir()
    for file in (run / "model").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    _break(model, how)
    assert exit_code(predict, "--model", model, "--data", data, "--out", tmp_path / "out.parquet") == 2
    assert message in capsys.readouterr().err


def test_predict_refuses_truncated_data(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    damaged = tmp_path / "promoters.parquet"
    damaged.write_bytes((data / "promoters.parquet").read_bytes()[:-100])
    assert exit_code(predict, "--model", run / "model", "--data", damaged, "--out", tmp_path / "o.parquet") == 2
    error = capsys.readouterr().err
    assert str(damaged) in error
    assert error.count("\n") == 1
