from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import ray
import yaml
from cluster_fixtures import CommandRun
from scipy import stats
from support.commands import exit_code, read_until, start
from support.processes import TIMEOUT, held, kill_driver, ray_workers

from jobs.ray_runtime.train_controller import SNAPSHOT
from jobs.train import train
from promoter.baselines import fit_baselines
from promoter.checkpoint import load_info, load_model
from promoter.dataset.promoters import read_promoters, write_promoters
from promoter.training import predict

pytestmark = pytest.mark.ray


def test_a_training_writes_the_files_of_the_contract(run: Path):
    assert {path.name for path in run.iterdir()} == {
        "model",
        "history.csv",
        "leakage.csv",
        "predictions.parquet",
        "baselines.parquet",
        "metrics.json",
        "config.yaml",
    }
    assert {path.name for path in (run / "model").iterdir()} == {
        *("model.safetensors", "model.yaml", "baselines.safetensors"),
    }
    assert pq.read_schema(run / "predictions.parquet").names == [
        "gene_id",
        "gene_name",
        "chrom",
        "split",
        "expression",
        "expression_predicted",
    ]
    history = pd.read_csv(run / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["training"]["epochs"] == 6
    assert config["provenance"]["versions"]["ray"]


def test_a_trained_model_describes_its_split_and_window(run: Path):
    info = load_info(run / "model")
    assert info.split == {"train": ["chr1", "chr2"], "val": ["chr3"], "test": ["chr4"]}
    assert info.window == {"upstream": 100, "downstream": 0, "length": 100}
    assert info.targets == ["expression"]


def test_every_gene_is_predicted_once_by_the_saved_model(run: Path, data: Path):
    table = pd.read_parquet(run / "predictions.parquet")
    promoters = read_promoters(data)
    assert table["gene_id"].tolist() == promoters.genes["gene_id"].tolist()
    expected = predict(load_model(run / "model"), promoters.tokens)[:, 0]
    # standardised outputs are brought back inside the weights: float32 rounding only
    np.testing.assert_allclose(table["expression_predicted"], expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(table["expression"], promoters.targets[:, 0])


def test_metrics_are_those_of_the_predictions_over_all_genes(run: Path):
    table = pd.read_parquet(run / "predictions.parquet")
    metrics = json.loads((run / "metrics.json").read_text())
    for split, rows in table.groupby("split"):
        found = metrics[split]["expression"]
        observed = rows["expression"].to_numpy(float)
        predicted = rows["expression_predicted"].to_numpy(float)
        assert found["n"] == len(rows)
        assert found["pearson"] == pytest.approx(stats.pearsonr(observed, predicted)[0], abs=1e-9)
        assert found["spearman"] == pytest.approx(stats.spearmanr(observed, predicted)[0], abs=1e-9)
        assert found["mse"] == pytest.approx(np.mean((observed - predicted) ** 2), rel=1e-9)
        assert found["pearson_ci95"][0] <= found["pearson"] <= found["pearson_ci95"][1]


def test_baselines_are_judged_on_the_same_genes_as_the_network(run: Path, data: Path):
    metrics = json.loads((run / "metrics.json").read_text())
    assert "baselines" not in metrics["train"]["expression"]
    promoters, ours = read_promoters(data), pd.read_parquet(run / "predictions.parquet")
    plain = pd.read_parquet(run / "baselines.parquet")
    chroms, learned = promoters.genes["chrom"].to_numpy(), (ours["split"] == "train").to_numpy()
    expected = fit_baselines(promoters.tokens, promoters.targets, chroms, learned)
    test = (ours["split"] == "test").to_numpy()
    y = ours["expression"].to_numpy(float)[test]
    network = np.corrcoef(y, ours["expression_predicted"].to_numpy(float)[test])[0, 1]
    found = metrics["test"]["expression"]["baselines"]
    assert list(found) == ["mean", "composition", "kmers", "kmers_by_distance"]
    for name, predicted in expected.items():
        np.testing.assert_allclose(plain[f"expression_predicted_by_{name}"], predicted[:, 0], rtol=1e-4)
        if name != "mean":
            r = np.corrcoef(y, predicted[test, 0].astype(float))[0, 1]
            assert found[name]["pearson"] == pytest.approx(r, abs=1e-5)
            assert found[name]["pearson_difference"] == pytest.approx(network - r, abs=1e-5)


def test_homologs_across_the_split_are_reported_and_metrics_are_given_without_them(
    data: Path, train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    promoters = read_promoters(data)
    genes = promoters.genes.copy()
    rows = {chrom: np.flatnonzero(genes["chrom"] == chrom) for chrom in ("chr1", "chr4")}
    copied = rows["chr4"][:5]
    genes.loc[copied, "sequence"] = genes["sequence"].to_numpy()[rows["chr1"][:5]]
    write_promoters(tmp_path / "data", replace(promoters, genes=genes))
    flags = [*train_flags, "--data", str(tmp_path / "data"), "--baselines", "false", "--training.epochs", "1"]
    flags += ["--workers", "0"]
    for action, out in (("report", "told"), ("drop", "dropped")):
        assert exit_code(train, *flags, "--out", tmp_path / out, "--split.homology", action) == 0
    printed = " ".join(capsys.readouterr().out.split())
    leaks = pd.read_csv(tmp_path / "told" / "leakage.csv")
    assert set(leaks["gene_id"][leaks["kind"] == "identical"]) == set(genes["gene_id"][copied])
    number = len(leaks)  # two windows may share the same implanted motifs, one beside the other
    assert number in (5, 6)
    assert f"{number} of 51 test genes share promoter sequence" in printed
    assert f"--split.homology drop: {number} genes with related promoters are left out" in printed
    table = pd.read_parquet(tmp_path / "told" / "predictions.parquet")
    clean = table[(table["split"] == "test") & ~table["gene_id"].isin(leaks["gene_id"])]
    found = json.loads((tmp_path / "told" / "metrics.json").read_text())["test"]["expression"]
    assert (found["n"], found["without_homologs"]["n"]) == (51, 51 - number)
    r = stats.pearsonr(clean["expression"].astype(float), clean["expression_predicted"].astype(float))[0]
    assert found["without_homologs"]["pearson"] == pytest.approx(r, abs=1e-9)
    # what was dropped is told by the model, and is nobody's
    dropped = load_info(tmp_path / "dropped" / "model").get_split(genes)
    assert dropped[rows["chr1"][:5]].tolist() == [None] * 5
    assert (dropped == "test").sum() == 51
    metrics = json.loads((tmp_path / "dropped" / "metrics.json").read_text())
    assert metrics["train"]["expression"]["n"] == 102 - number
    assert "without_homologs" not in metrics["test"]["expression"]


def test_history_agrees_with_the_published_model(run: Path):
    history = pd.read_csv(run / "history.csv")
    best = history.sort_values("val_loss", kind="stable").iloc[0]
    assert load_info(run / "model").training["best_epoch"] == best["epoch"]
    metrics = json.loads((run / "metrics.json").read_text())["val"]["expression"]
    assert best["val_mse"] == pytest.approx(metrics["mse"], rel=1e-4)
    assert best["val_pearson"] == pytest.approx(metrics["pearson"], abs=1e-4)


def test_a_finished_training_is_not_run_again(
    run: Path, train_flags: list[str], capsys: pytest.CaptureFixture[str]
):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert exit_code(train, *train_flags, "--out", run) == 0
    assert "finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_checkpoints_left_by_a_crash_after_the_last_result_are_removed(
    run: Path, train_flags: list[str], tmp_path: Path
):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "checkpoint_1").mkdir(parents=True)
    assert exit_code(train, *train_flags, "--out", tmp_path / "run") == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in run.iterdir()}


def _damaged(run: Path, copy: Path, name: str, content: bytes | None) -> dict[Path, bytes]:
    """Copy a run, replace one of its outputs, None: delete it, and return what the copy holds."""
    shutil.copytree(run, copy)
    path = copy / name
    if content is not None:
        path.write_bytes(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model", None),
        ("model/model.safetensors", None),
        ("history.csv", None),
        ("config.yaml", None),
        ("metrics.json", b""),
        ("predictions.parquet", b"PAR1"),
        ("model/model.safetensors", b"x"),
        ("model/model.yaml", b"format: 1"),
        ("leakage.csv", b"gene_id"),
    ],
)
def test_a_finished_run_that_lost_a_result_is_refused(
    run: Path,
    train_flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
):
    before = _damaged(run, tmp_path / "run", name, content)
    assert exit_code(train, *train_flags, "--out", tmp_path / "run") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {tmp_path / 'run'}: holds ")
    assert printed.err.count("\n") == 1
    assert (name in printed.err) == (name != "config.yaml")
    assert "--overwrite true" in printed.err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_damaged_run_starts_anew_if_it_is_to_be_overwritten(
    run: Path, train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _damaged(run, tmp_path / "run", "metrics.json", b"{}")
    assert exit_code(train, *train_flags, "--out", tmp_path / "run", "--overwrite", "true") == 0
    assert "resuming" not in capsys.readouterr().out
    for name in ("model/model.safetensors", "metrics.json", "predictions.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()
    assert exit_code(train, *train_flags, "--out", tmp_path / "run", "--overwrite", "true") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_networks_number_of_targets_is_that_of_the_data(
    ray_cluster: object, data: Path, train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    one = read_promoters(data)
    two = replace(one, targets=np.hstack([one.targets, -one.targets]), target_names=["up", "down"])
    write_promoters(tmp_path / "data", two)
    flags = [*train_flags, "--data", str(tmp_path / "data"), "--training.epochs", "1", "--workers", "0"]
    assert exit_code(train, *flags, "--out", tmp_path / "run", "--model.n_targets", "3") == 2
    assert "--model.n_targets 3: the data has 2 targets (up, down); leave it out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    for again in ([], ["--model.n_targets", "1"], ["--model.n_targets", "2"]):
        assert exit_code(train, *flags, "--out", tmp_path / "run", *again) == 0
        assert ("finished already" in capsys.readouterr().out) == bool(again)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["n_targets"] == 2
    assert load_model(tmp_path / "run" / "model").config.n_targets == 2


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--training.epochs", "7"], "training"),
        (["--split.test", "chr2"], "split"),
        (["--model.hidden", "9"], "model"),
    ],
)
def test_training_with_other_settings_in_the_same_folder_is_refused(
    run: Path, train_flags: list[str], capsys: pytest.CaptureFixture[str], flags: list[str], named: str
):
    assert exit_code(train, *train_flags, "--out", run, *flags) == 2
    error = capsys.readouterr().err
    assert named in error
    assert str(run) in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split.test", "chr3"], "both hold"),
        (["--split.test", "chr9"], "chr9: no gene lies on it"),
        (["--split.test", "[]"], "empty"),
        (["--training.learning_rat", "1"], "did you mean 'training.learning_rate'"),
        (["--model.kernel_sizes", "6,3"], "[6] are not odd"),
        (["--model.pool_sizes", "101"], "100 bases is too short"),
        (["--model.channels", "8"], "--model.channels 8: wants 1 --model.kernel_sizes"),
        (["--training.precision", "fp8"], "fp8"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--workers", "99"], "too few for 99 workers"),
        (["--cpus_per_worker", "999"], "--workers 2: they want 1998 CPUs"),
    ],
)
def test_bad_input_of_training_is_one_line_and_code_2(
    ray_cluster: object,
    train_flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
):
    assert exit_code(train, *train_flags, "--out", tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out" / "model").exists()


def test_diverging_training_ends_with_code_1_and_the_fix(
    ray_cluster: object, train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["--training.learning_rate", "1e6", "--training.gradient_clip", "1e9", "--out", str(tmp_path)]
    assert exit_code(train, *train_flags, *flags) == 1
    assert "lower --training.learning_rate" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_one_worker_learns_as_two_do(run: Path, train_flags: list[str], tmp_path: Path):
    """Only batch-norm statistics within half batches tell the runs apart: the same genes, order and steps."""
    assert exit_code(train, *train_flags, "--workers", 1, "--out", tmp_path) == 0
    one, two = (pd.read_csv(folder / "history.csv") for folder in (tmp_path, run))
    assert one["learning_rate"].tolist() == two["learning_rate"].tolist()
    np.testing.assert_allclose(one["train_mse"], two["train_mse"], rtol=0.25)
    first, second = (pd.read_parquet(folder / "predictions.parquet") for folder in (tmp_path, run))
    assert first["gene_id"].tolist() == second["gene_id"].tolist()


def _same_results(one: Path, other: Path) -> None:
    assert (one / "model" / "model.safetensors").read_bytes() == (
        other / "model" / "model.safetensors"
    ).read_bytes()
    assert pd.read_parquet(one / "predictions.parquet").equals(pd.read_parquet(other / "predictions.parquet"))
    assert json.loads((one / "metrics.json").read_text()) == json.loads((other / "metrics.json").read_text())
    timing = ["seconds", "genes_per_second"]
    histories = [pd.read_csv(folder / "history.csv").drop(columns=timing) for folder in (one, other)]
    assert histories[0].equals(histories[1])


@pytest.mark.slow
def test_killed_training_resumes_to_the_same_result(
    long_run: CommandRun, long_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [*long_flags, "--out", str(tmp_path)]
    driver = start("train", arguments)
    read_until(driver, "  3/30")
    killed = kill_driver(driver, "RayTrainWorker")
    assert sum("Train" in name for name in killed) >= 3  # two workers and their controller
    assert not (tmp_path / "metrics.json").exists()
    snapshot = tmp_path / "checkpoints" / SNAPSHOT
    os.truncate(snapshot, snapshot.stat().st_size // 2)  # as if killed while Ray Train writes it
    assert exit_code(train, *arguments) == 0
    printed = capsys.readouterr().out
    assert "  1/30" not in printed, "trained from the start again"
    resumed = re.findall(r"^resuming after epoch (\d+)$", printed, re.M)
    assert len(resumed) == 1
    assert 2 <= int(resumed[0]) < 30
    _same_results(tmp_path, long_run.out)


@pytest.mark.slow
def test_terminated_training_says_how_to_resume(long_flags: list[str], tmp_path: Path):
    driver = start("train", [*long_flags, "--out", str(tmp_path)])
    read_until(driver, "  1/30")
    with held(lambda: ray_workers("RayTrainWorker", driver.pid), driver):
        driver.terminate()
    rest, _ = driver.communicate(timeout=TIMEOUT)
    assert driver.returncode == 143
    assert [line for line in rest.splitlines() if "/30 " not in line] == [
        "error: interrupted; run the same command again to resume"
    ]


@pytest.mark.slow
def test_killed_training_worker_is_replaced_and_the_result_is_the_same(
    ray_cluster: object, long_run: CommandRun, long_flags: list[str], tmp_path: Path
):
    driver = start("train", [*long_flags, "--out", str(tmp_path)], ray.get_runtime_context().gcs_address)
    before = read_until(driver, "  2/30")
    with held(lambda: ray_workers("RayTrainWorker"), driver) as workers:
        assert len(workers) == 2
        workers[1].kill()
    after = read_until(driver, "model, predictions and metrics")
    assert driver.wait() == 0
    assert [line for line in (*before, *after) if line.startswith("resuming after epoch ")]
    _same_results(tmp_path, long_run.out)


@pytest.mark.slow
def test_a_training_prints_its_epochs_and_nothing_of_rays(long_run: CommandRun):
    assert long_run.stderr == ""
    assert "pid=" not in long_run.stdout
    assert "2 workers with 1 CPU each\n" in long_run.stdout or (os.cpu_count() or 0) > 3  # more has each more
    assert "resuming" not in long_run.stdout
    epochs = [line for line in long_run.stdout.splitlines() if "/30 " in line]
    assert len(epochs) == 30
