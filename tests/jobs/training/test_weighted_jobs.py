"""Jobs on data whose sequences have weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.commands import outcome

from jobs.report import report
from jobs.train import train
from jobs.tune import tune
from promoter.baselines import fit_baselines
from promoter.checkpoint import load_info
from promoter.dataset.promoters import read_promoters, write_promoters

pytestmark = pytest.mark.ray
SMALL = [
    *("--model.channels", "8,8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", "4", "--model.hidden", "8"),
    *("--training.epochs", "2", "--training.batch_size", "16", "--workers", "0"),
]
HELD_OUT = ["--split.val", "chr3", "--split.test", "chr4"]
Write = Callable[[np.ndarray], Path]


@pytest.fixture
def written(ray_cluster: object, data: Path, tmp_path: Path) -> Write:
    """Write the data set with a weight of each gene."""

    def write(weights: np.ndarray) -> Path:
        promoters = read_promoters(data)
        genes = promoters.genes.assign(weight=weights.astype(np.float32))
        write_promoters(tmp_path / "data", replace(promoters, genes=genes))
        return tmp_path / "data"

    return write


def some_weights() -> np.ndarray:
    weights = np.random.default_rng(0).lognormal(size=204)
    weights[:6] = 0
    return weights


def test_a_training_weighs_loss_metrics_and_baselines(
    written: Write, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, weights = written(some_weights()), some_weights().astype(np.float32)
    words = [*HELD_OUT, *SMALL, "--workers", "2", "--gpus_per_worker", "0"]
    code, printed, _ = outcome(capsys, train, "--data", folder, "--out", tmp_path / "run", *words)
    assert code == 0
    assert outcome(capsys, train, "--data", data, "--out", tmp_path / "plain", *words, "--workers", "0")[0] == 0
    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("run", "plain")]
    assert (histories[0]["val_loss"] != histories[1]["val_loss"]).all()
    assert (histories[0]["train_mse"] != histories[1]["train_mse"]).all()
    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for split, rows in table.groupby("split"):
        off = (rows["expression"] - rows["expression_predicted"]).astype(float) ** 2
        found = metrics[str(split)]["expression"]
        assert found["mse"] == pytest.approx(off.mean())
        assert found["weighted"]["mse"] == pytest.approx(np.average(off, weights=weights[rows.index]))
    assert "expression of test genes by their weights: mse " in printed
    promoters = read_promoters(folder)
    in_training = (table["split"] == "train").to_numpy()
    units = pd.factorize(promoters.genes["chrom"])[0]
    expected = fit_baselines(promoters.tokens, promoters.targets, units, in_training, weights=weights)
    kept = pd.read_parquet(tmp_path / "run" / "baselines.parquet")
    for name, values in expected.items():
        np.testing.assert_allclose(kept[f"expression_predicted_by_{name}"], values[:, 0], rtol=1e-4)
    learned = promoters.targets[in_training & (weights > 0), 0].astype(float)
    assert load_info(tmp_path / "run" / "model").standardisation["mean"] == [pytest.approx(learned.mean())]


def test_a_search_trains_with_the_weights_and_keeps_the_baselines(
    written: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = written(some_weights()), tmp_path / "search"
    space = "{training.learning_rate: {choices: [3.0e-3]}}"
    words = ["--space", space, "--algorithm", "grid", "--folds", "1", *HELD_OUT, *SMALL]
    assert outcome(capsys, tune, "--data", folder, "--out", out, *words)[0] == 0
    trial = pd.read_csv(out / "trials.csv").iloc[0]
    metrics = json.loads((out / "metrics.json").read_text())
    # the final training has the split of the only fold: with the same weights it is the trial's
    assert trial["fold_1"] == pytest.approx(metrics["val"]["expression"]["pearson"], abs=1e-4)
    assert "weighted" in metrics["test"]["expression"]
    assert (out / "model" / "baselines.safetensors").exists()


@pytest.mark.parametrize(("job", "flags"), [(train, HELD_OUT), (tune, ["--folds", "1", *HELD_OUT])])
@pytest.mark.parametrize(("chrom", "name"), [("chr3", "validation"), ("chr[12]", "training")])
def test_a_set_whose_weights_are_all_0_is_refused(
    written: Write,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    job: Callable[..., None],
    flags: list[str],
    chrom: str,
    name: str,
) -> None:
    of_set = read_promoters(data).genes["chrom"].str.fullmatch(chrom).to_numpy()
    folder = written(np.where(of_set, 0, 1))
    code, _, error = outcome(capsys, job, "--data", folder, "--out", tmp_path / "out", *flags, *SMALL)
    assert code == 2
    assert f"{name} genes have the weight 0" in error
    assert error.count("\n") == 1


def test_no_correlation_is_printed_of_nine_genes_and_a_search_by_it_is_refused(
    data: Path, ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promoters = read_promoters(data)
    chroms = promoters.genes["chrom"]
    few = chroms.groupby(chroms).cumcount() < 9
    kept = np.flatnonzero(few | ~chroms.isin(["chr3", "chr4"]))
    genes = promoters.genes.iloc[kept].reset_index(drop=True)
    write_promoters(tmp_path / "data", replace(promoters, genes=genes, targets=promoters.targets[kept]))
    words = ["--data", tmp_path / "data", *SMALL, *HELD_OUT]
    code, printed, _ = outcome(capsys, train, *words, "--out", tmp_path / "run")
    assert code == 0
    assert [line.split()[3] for line in printed.splitlines() if line.lstrip().startswith(("1/2", "2/2"))] == [
        "–",
        "–",
    ]
    assert np.isnan(pd.read_csv(tmp_path / "run" / "history.csv")["val_pearson"]).all()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["expression"]
    assert (metrics["n"], metrics["pearson"], metrics["baselines"]["kmers"]["pearson_difference"]) == (
        9,
        None,
        None,
    )
    page = tmp_path / "report.html"
    assert outcome(capsys, report, "--model", tmp_path / "run" / "model", "--out", page)[0] == 0
    charts = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(), re.S)
    assert charts
    for chart in charts:
        json.loads(chart, parse_constant=pytest.fail)  # NaN is not JSON
    code, _, error = outcome(capsys, tune, *words, "--folds", "1", "--out", tmp_path / "search")
    assert code == 2
    assert "fold 1 validates on 9 values of target expression" in error
    assert "--metric mse" in error
