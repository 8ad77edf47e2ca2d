"""`promoter train --learning_curve` from the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.commands import outcome

from jobs.train import train
from promoter.checkpoint import load_info
from promoter.storage.records import read_record


@pytest.mark.ray
def test_a_learning_curve_is_of_nested_parts_of_the_training_set_and_one_test_set(
    run: Path, train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (*train_flags, "--training.epochs", "2", "--workers", "0")
    words = (*words, "--learning_curve", "20,60", "--out", out)
    capsys.readouterr()
    code, printed, error = outcome(capsys, train, *words)
    assert (code, error) == (0, "")
    assert "expression: r " in printed.replace("\n", " ")
    folders = [out / "learning_curve" / "n_20", out / "learning_curve" / "n_60", out]
    tables = [pd.read_parquet(folder / "predictions.parquet").set_index("gene_id") for folder in folders]
    trained = [set(table.index[table["split"] == "train"]) for table in tables]
    assert [len(genes) for genes in trained] == [20, 60, 102]
    assert trained[0] < trained[1] < trained[2]
    rows: list[dict[Any, Any]] = pd.read_csv(out / "learning_curve.csv").to_dict("records")
    r_of_network = {row["sequences"]: row["pearson"] for row in rows if row["model"] == "network"}
    for folder, table, genes in zip(folders, tables, trained, strict=True):
        assert table.index[table["split"] == "test"].equals(tables[2].index[tables[2]["split"] == "test"])
        test = table[table["split"] == "test"]
        r = stats.pearsonr(test["expression"].astype(float), test["expression_predicted"].astype(float))[0]
        assert r_of_network[len(genes)] == pytest.approx(r, abs=1e-6)
        info = load_info(folder / "model")
        kept = info.get_split(table.reset_index())
        assert set(table.index[(kept == "train").to_numpy()]) == genes
        expected = table.loc[sorted(genes), "expression"].astype(float).mean()
        assert info.standardisation["mean"] == pytest.approx([expected], rel=1e-5)
        baselines = pd.read_parquet(folder / "baselines.parquet").set_index("gene_id")
        np.testing.assert_allclose(baselines["expression_predicted_by_mean"], expected, rtol=1e-5)
    record = read_record(out / "config.yaml")
    assert record is not None
    assert "learning_curve.csv" in (record.outputs or {})
    code, again, error = outcome(capsys, train, *words)
    assert (code, error) == (0, "")
    assert "this run is finished already" in again.replace("\n", " ")
    assert "training genes" in again


@pytest.mark.ray
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--learning_curve", "60,20"), "--learning_curve 60,20: must be ascending numbers"),
        (("--learning_curve", "20,20"), "--learning_curve 20,20: must be ascending numbers"),
        (("--learning_curve", "20,9"), "must be at least 10"),
        (("--learning_curve", "20", "--seeds", "2"), "--learning_curve with --folds or --seeds"),
        (("--learning_curve", "20", "--init", "model"), "--learning_curve with --init: its smaller training sets"),
        (
            ("--learning_curve", "20,102"),
            "--learning_curve 102: .*102.*the training set has 102 genes; give fewer",
        ),
        (
            ("--learning_curve", "20", "--workers", "11"),
            "--learning_curve 20: 20 training .* too few for 11 workers",
        ),
    ],
)
def test_sizes_that_make_no_curve_are_refused_with_the_reason(
    run: Path,
    train_flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    problem: str,
) -> None:
    code, _, error = outcome(capsys, train, *train_flags, *words, "--out", tmp_path / "out")
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(problem, error), error
    assert not (tmp_path / "out" / "model").exists()
