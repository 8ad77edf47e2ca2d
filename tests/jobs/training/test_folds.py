from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.commands import exit_code, outcome

from jobs.predict import predict
from jobs.ray_runtime.capacity import Cluster
from jobs.train import train
from promoter.checkpoint import load_info
from promoter.dataset.promoters import read_promoters
from promoter.evaluation.intervals import fit_scale

pytestmark = pytest.mark.ray


def flags_of(train_flags: list[str], workers: int = 1) -> list[str]:
    """The command line of the run `run` without its split, on one worker or in this process."""
    kept = [flag for flag in train_flags if flag not in ("--split.val", "chr3", "--split.test", "chr4")]
    each = ["--cpus_per_worker", "1"] if workers else []
    return [*kept, "--workers", str(workers), *each, "--training.epochs", "2"]


@pytest.fixture(scope="module")
def folds(ray_cluster: Cluster, train_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds with two seeds each, two networks at a time."""
    out = tmp_path_factory.mktemp("folds")
    assert exit_code(train, *flags_of(train_flags), "--folds", "3", "--seeds", "2", "--out", out) == 0
    return out


def test_every_gene_is_predicted_by_networks_that_saw_nothing_of_its_chromosome(folds: Path, data: Path):
    table, promoters = pd.read_parquet(folds / "predictions.parquet"), read_promoters(data)
    assert table["gene_id"].tolist() == promoters.genes["gene_id"].tolist()
    np.testing.assert_array_equal(table["expression"], promoters.targets[:, 0])
    assert (table["split"] == "test").all()
    for fold, rows in table.groupby("fold"):
        members = [folds / "folds" / f"fold_{fold}_seed_{seed}" for seed in (1, 2)]
        predicted = []
        for member in members:
            assert set(rows["chrom"]) == set(load_info(member / "model").split["test"])
            single = pd.read_parquet(member / "predictions.parquet").set_index("gene_id").loc[rows["gene_id"]]
            predicted.append(single["expression_predicted"].to_numpy())
        np.testing.assert_allclose(rows["expression_predicted"], np.mean(predicted, axis=0), rtol=1e-5)
        np.testing.assert_allclose(rows["expression_predicted_sd"], np.std(predicted, axis=0, ddof=1), atol=1e-6)
        assert (predicted[0] != predicted[1]).all()


def test_metrics_baselines_and_intervals_of_folds_are_over_all_genes_once(folds: Path):
    table = pd.read_parquet(folds / "predictions.parquet")
    metrics = json.loads((folds / "metrics.json").read_text())
    assert metrics.keys() == {"test"}
    found = metrics["test"]["expression"]
    assert found["n"] == len(table) == 204
    observed, predicted = table["expression"].astype(float), table["expression_predicted"].astype(float)
    assert found["pearson"] == pytest.approx(stats.pearsonr(observed, predicted)[0], abs=1e-9)
    inside = observed.between(table["expression_low"], table["expression_high"]).mean()
    assert found["interval_coverage"] == pytest.approx(inside)
    assert inside == pytest.approx(0.95, abs=0.05)  # three standard errors of 204 genes
    plain = pd.concat(
        pd.read_parquet(folds / "folds" / f"fold_{fold}_seed_1" / "baselines.parquet").query("split == 'test'")
        for fold in range(1, 4)
    ).set_index("gene_id")["expression_predicted_by_kmers"]
    r = stats.pearsonr(observed, plain.loc[table["gene_id"]].astype(float))[0]
    assert found["baselines"]["kmers"]["pearson"] == pytest.approx(r, abs=1e-5)
    by_fold = pd.read_csv(folds / "folds.csv")
    assert by_fold[["fold", "seed"]].to_numpy().tolist() == [[f, s] for f in range(1, 4) for s in (1, 2)]
    assert by_fold["n"].tolist() == [102] * 2 + [51] * 4
    assert len(list(folds.glob("folds/*_seed_1/model/baselines.safetensors"))) == 3


def test_networks_of_folds_are_an_ensemble_for_other_jobs(folds: Path, data: Path, tmp_path: Path):
    assert exit_code(predict, "--model", folds, "--data", data, "--out", tmp_path / "p.parquet") == 0
    table = pd.read_parquet(tmp_path / "p.parquet")
    members = [pd.read_parquet(path) for path in sorted(folds.glob("folds/*/predictions.parquet"))]
    values = np.stack([member["expression_predicted"] for member in members])
    assert len(values) == 6
    np.testing.assert_allclose(table["expression_predicted"], values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(table["expression_predicted_sd"], values.std(axis=0, ddof=1), rtol=1e-4)
    assert (table["split"] == "train").all()  # each is in the training set of some member
    known = pd.read_parquet(folds / "predictions.parquet")
    error, spread = known["expression"] - known["expression_predicted"], known["expression_predicted_sd"]
    scale = fit_scale(error.to_numpy(), spread.to_numpy())
    within = np.stack([values[[i, i + 1]].var(axis=0, ddof=1) for i in (0, 2, 4)]).mean(axis=0)
    half = scale.half_width(np.sqrt(within))
    np.testing.assert_allclose(table["expression_high"] - table["expression_predicted"], half, rtol=1e-3)
    np.testing.assert_allclose(table["expression_predicted"] - table["expression_low"], half, rtol=1e-3)


def test_an_ensemble_other_than_the_calibrated_one_has_no_intervals(folds: Path, data: Path, tmp_path: Path):
    one, out = str(folds / "folds" / "fold_1_seed_1" / "model"), str(tmp_path / "p.parquet")
    for flags in (["--model", one], ["--model", str(folds), "--ensemble", one]):
        assert exit_code(predict, *flags, "--data", data, "--out", out) == 0
        assert "expression_high" not in pd.read_parquet(out)


@pytest.fixture(scope="module")
def seeds(ray_cluster: Cluster, train_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks of one random split."""
    out = tmp_path_factory.mktemp("seeds")
    flags = [*flags_of(train_flags, 0), "--split.random", "true", "--seeds", "2", "--baselines", "false"]
    assert exit_code(train, *flags, "--out", out) == 0
    return out


def test_seeds_of_one_split_are_judged_by_their_mean(seeds: Path):
    table = pd.read_parquet(seeds / "predictions.parquet")
    members = [pd.read_parquet(seeds / "folds" / f"fold_1_seed_{seed}" / "predictions.parquet") for seed in (1, 2)]
    mean = np.mean([member["expression_predicted"] for member in members], axis=0)
    np.testing.assert_allclose(table["expression_predicted"], mean, rtol=1e-5)
    assert table["split"].tolist() == members[0]["split"].tolist()
    assert json.loads((seeds / "metrics.json").read_text()).keys() == {"train", "val", "test"}


def test_a_random_split_is_kept_with_the_model_gene_by_gene(seeds: Path, data: Path, tmp_path: Path):
    member = seeds / "folds" / "fold_1_seed_1"
    table = pd.read_parquet(member / "predictions.parquet")
    assert (table["split"] == "test").sum() == 20
    assert table["chrom"][table["split"] == "test"].nunique() == 4
    out = tmp_path / "p.parquet"
    assert exit_code(predict, "--model", member / "model", "--data", data, "--out", out) == 0
    assert pd.read_parquet(out)["split"].tolist() == table["split"].tolist()


@pytest.mark.slow
def test_folds_of_blocks_train_with_fewer_workers_than_asked_for_where_a_minimum_is_given(
    ray_cluster: Cluster, train_flags: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    workers = ray_cluster.cpus + 1
    flags = [*flags_of(train_flags), "--workers", workers, "--training.batch_size", 2 * workers + 16]
    blocks = ["--split.by", "block", "--split.block_size", 1500]
    words = [*flags, "--folds", 3, *blocks, "--baselines", "false", "--out", tmp_path / "out"]
    code, _, error = outcome(capsys, train, *words)
    assert (code, f"--workers {workers}: they want {workers} CPUs" in error) == (2, True)
    assert outcome(capsys, train, *words, "--min_workers", 1)[0] == 0
    assert len(pd.read_csv(tmp_path / "out" / "folds.csv")) == 3
    predictions, genes = pd.read_parquet(tmp_path / "out" / "predictions.parquet"), read_promoters(data).genes
    assert len(predictions) == len(genes)
    assert (predictions["fold"].groupby([genes["chrom"], genes["tss"] // 1500]).nunique() == 1).all()
    member = load_info(tmp_path / "out" / "folds" / "fold_1" / "model").get_split(genes)
    assert 0 < member.isna().sum() < len(genes) / 2  # near the borders of held-out blocks


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds", "2"], "--folds 2: at least 3 are needed"),
        (["--folds", "0"], "--folds 0: must be at least 1"),
        (["--seeds", "0"], "--seeds 0: must be at least 1"),
        (["--folds", "5"], "--folds 5: there are only 4 chromosomes to divide; give at most 4 folds, or hold out"),
        (["--folds", "3", "--split.fold", "1,3"], "--split.fold: with --folds 3 every gene is tested once"),
        (["--folds", "3", "--split.by", "column"], "the data has no column split; give --split.by family"),
        (["--folds", "3", "--split.test", "chr1"], "--split.test: with --folds 3"),
        (["--folds", "3", "--split.homology", "move"], "--split.homology move: would never test the genes"),
    ],
)
def test_impossible_folds_are_refused_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
):
    assert exit_code(train, "--data", data, "--out", tmp_path / "out", *flags) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out" / "folds").exists()
