"""Jobs on data in which a target is missing for some genes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats
from support.commands import outcome

from jobs.report import report
from jobs.train import train
from jobs.tune import tune
from promoter.baselines import fit_baselines
from promoter.checkpoint import load_info
from promoter.dataset.promoters import Promoters, read_promoters, write_promoters

pytestmark = pytest.mark.ray
SMALL = [
    *("--model.channels", "8,8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", "4", "--model.hidden", "8"),
    *("--training.epochs", "2", "--training.batch_size", "16", "--workers", "0"),
]
HELD_OUT = ["--split.val", "chr3", "--split.test", "chr4"]
Change = Callable[[Promoters, np.ndarray], None]  # of the targets A and B, in place


@pytest.fixture
def written(ray_cluster: object, data: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Write a data set of the targets A, complete, and B, missing in half of the genes, after a change of both."""

    def write(change: Change) -> Path:
        promoters = read_promoters(data)
        rng = np.random.default_rng(0)
        b = promoters.targets[:, 0] * -3 + rng.normal(0, 0.1, len(promoters))
        b[rng.permutation(len(promoters))[: len(promoters) // 2]] = np.nan
        targets = np.stack([promoters.targets[:, 0], b], axis=1).astype(np.float32)
        change(promoters, targets)
        write_promoters(tmp_path / "data", replace(promoters, targets=targets, target_names=["A", "B"]))
        return tmp_path / "data"

    return write


def nothing(promoters: Promoters, targets: np.ndarray) -> None: ...


def missing_on(chrom: str) -> Change:
    def change(promoters: Promoters, targets: np.ndarray) -> None:
        targets[(promoters.genes["chrom"] == chrom).to_numpy(), 1] = np.nan

    return change


def test_metrics_and_files_of_a_training_count_the_observed_genes_of_each_target(
    written: Callable[[Change], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = written(nothing), tmp_path / "run"
    code, printed, _ = outcome(capsys, train, "--data", folder, "--out", out, *HELD_OUT, *SMALL)
    assert code == 0
    assert "warning" not in printed
    promoters = read_promoters(folder)
    table = pd.read_parquet(out / "predictions.parquet")
    metrics = json.loads((out / "metrics.json").read_text())
    in_training = (table["split"] == "train").to_numpy()
    plain = fit_baselines(promoters.tokens, promoters.targets, promoters.genes["chrom"].to_numpy(), in_training)
    standardisation = load_info(out / "model").standardisation or {}
    for index, name in enumerate("AB"):
        column = pq.read_table(out / "predictions.parquet")[name]
        assert column.null_count == np.isnan(promoters.targets[:, index]).sum() == (0, 102)[index]
        for split, rows in table.groupby("split"):
            known = rows[name].notna().to_numpy()
            x, y = rows[name][known].astype(float), rows[f"{name}_predicted"][known].astype(float)
            found = metrics[str(split)][name]
            assert found["n"] == known.sum()
            assert found["mse"] == pytest.approx(np.mean((x - y) ** 2))
            assert found["pearson"] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-9)
            assert found["spearman"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-9)
        tested = (table["split"] == "test").to_numpy() & table[name].notna().to_numpy()
        r = stats.pearsonr(promoters.targets[tested, index], plain["kmers"][tested, index])[0]
        assert metrics["test"][name]["baselines"]["kmers"]["pearson"] == pytest.approx(r, abs=1e-5)
        observed = promoters.targets[in_training, index].astype(float)
        assert standardisation["mean"][index] == pytest.approx(np.nanmean(observed))
        assert standardisation["sd"][index] == pytest.approx(np.nanstd(observed))


def test_folds_and_their_intervals_count_the_observed_genes_of_each_target(
    written: Callable[[Change], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = written(nothing), tmp_path / "folds"
    assert outcome(capsys, train, "--data", folder, "--out", out, *SMALL, "--folds", "3")[0] == 0
    table = pd.read_parquet(out / "predictions.parquet")
    metrics = json.loads((out / "metrics.json").read_text())["test"]
    by_fold = pd.read_csv(out / "folds.csv").set_index(["fold", "target"])
    for name in "AB":
        known = table[table[name].notna()]
        assert metrics[name]["n"] == len(known) == {"A": 204, "B": 102}[name]
        inside = known[name].between(known[f"{name}_low"], known[f"{name}_high"]).mean()
        assert metrics[name]["interval_coverage"] == pytest.approx(inside)
        assert inside == pytest.approx(0.95, abs=0.07)  # three standard errors of 102 genes
        assert np.isfinite(table[f"{name}_high"]).all()
        for fold, rows in known.groupby("fold"):
            assert by_fold.loc[(fold, name), "n"] == len(rows)


def test_the_score_of_a_search_is_the_mean_over_targets_of_r_over_observed_genes(
    written: Callable[[Change], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = written(nothing), tmp_path / "search"
    space = "{training.learning_rate: {choices: [3.0e-3]}}"
    words = ["--space", space, "--algorithm", "grid", "--folds", "1", *HELD_OUT, *SMALL]
    assert outcome(capsys, tune, "--data", folder, "--out", out, *words)[0] == 0
    trial = pd.read_csv(out / "trials.csv").iloc[0]
    validated = json.loads((out / "metrics.json").read_text())["val"]
    assert validated["B"]["n"] < validated["A"]["n"]
    assert trial["fold_1"] == pytest.approx(np.mean([validated[name]["pearson"] for name in "AB"]), abs=1e-4)


def test_a_target_without_a_test_value_has_no_test_metrics_and_the_report_says_so(
    written: Callable[[Change], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = written(missing_on("chr4")), tmp_path / "run"
    assert outcome(capsys, train, "--data", folder, "--out", out, *HELD_OUT, *SMALL)[0] == 0
    found = json.loads((out / "metrics.json").read_text())["test"]
    assert found["A"]["n"] == 51
    assert {found["B"][name] for name in ("mse", "pearson", "spearman", "pearson_ci95")} == {None}
    assert found["B"]["n"] == 0
    page = tmp_path / "report.html"
    assert outcome(capsys, report, "--model", out / "model", "--out", page, "--target", "B")[0] == 0
    assert page.exists()


def all_missing(promoters: Promoters, targets: np.ndarray) -> None:
    targets[[3, 60, 150]] = np.nan


def test_genes_without_any_value_are_left_out_and_counted(
    written: Callable[[Change], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = written(all_missing), tmp_path / "run"
    code, printed, _ = outcome(capsys, train, "--data", folder, "--out", out, *HELD_OUT, *SMALL)
    assert code == 0
    assert "3 genes without a value of any target left out" in printed
    assert len(pd.read_parquet(out / "predictions.parquet")) == 201


def constant(promoters: Promoters, targets: np.ndarray) -> None:
    targets[~np.isnan(targets[:, 1]), 1] = 0


def test_a_constant_target_is_named_in_a_warning(
    written: Callable[[Change], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = written(constant), tmp_path / "run"
    code, printed, _ = outcome(capsys, train, "--data", folder, "--out", out, *HELD_OUT, *SMALL)
    assert code == 0
    assert "warning: target B: has the same value, 0, in all training genes" in printed


def all_gone(promoters: Promoters, targets: np.ndarray) -> None:
    targets[:] = np.nan


def infinite(promoters: Promoters, targets: np.ndarray) -> None:
    targets[[7, 9], 0] = -np.inf


def two_constants(promoters: Promoters, targets: np.ndarray) -> None:
    targets[:] = 1


@pytest.mark.parametrize(
    ("change", "job", "flags", "message"),
    [
        (missing_on("chr3"), train, HELD_OUT, "of 102 training and 0 of 51 validation genes have a value"),
        (missing_on("chr3"), train, ["--folds", "4"], ": target B: "),
        (missing_on("chr3"), train, ["--seeds", "2", *HELD_OUT], "error: target B: "),
        (missing_on("chr3"), tune, ["--split.test", "chr4"], ": target B: "),
        (all_gone, train, HELD_OUT, "no gene has a value of any target; prepare it again"),
        (infinite, train, HELD_OUT, "has the value -inf of target A, and 2 values in all are infinite"),
        (infinite, tune, [], "has the value -inf of target A, and 2 values"),
        (two_constants, train, HELD_OUT, "no target varies among the training genes (A, B)"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused_before_anything_is_written(
    written: Callable[[Change], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    job: Callable[..., None],
    flags: list[str],
    message: str,
) -> None:
    code, _, error = outcome(capsys, job, "--data", written(change), "--out", tmp_path / "out", *flags, *SMALL)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))
    if "--folds" in flags or (job is tune and change is not infinite):
        assert "error: fold " in error
