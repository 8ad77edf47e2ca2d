from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from cluster_fixtures import CommandRun
from support.commands import exit_code, read_until, start
from support.files import Command
from support.processes import TIMEOUT, held, ray_workers, wait_until

from jobs.ism import ism
from jobs.predict import predict
from jobs.prepare import prepare
from jobs.train import train
from jobs.tune import tune
from promoter.checkpoint import load_info
from promoter.dataset.promoters import read_promoters, write_promoters
from promoter.ism import load_scores
from promoter.simulation.genome import simulate
from promoter.splits.assign import assign_splits
from promoter.splits.config import SplitConfig

SPACE = """
training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
model.blocks: {choices: [1, 2]}
model.channels.0: {choices: [4, 8]}
model.channels.1: {choices: [4, 8]}
model.kernel_sizes.0: {choices: [3, 7]}
model.kernel_sizes.1: {choices: [3]}
model.pool_sizes.0: {choices: [4, 200]}
model.crop: {choices: [60, null]}
"""
EPOCHS = 30  # of a trial that is to be disturbed
pytestmark = pytest.mark.ray


def flags(data: Path, out: Path, space: Path, *more: str) -> list[str]:
    return [
        *("--data", str(data), "--out", str(out), "--space", str(space), "--split.test", "chr4"),
        *("--trials", "6", "--folds", "2", "--at_once", "1", "--model.hidden", "8"),
        *("--training.epochs", "6", "--training.batch_size", "16", "--training.jitter", "2"),
        *("--workers", "0"),
        *more,
    ]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def searched(ray_cluster: object, data: Path, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search, one trial at a time so that it can be repeated."""
    out = tmp_path_factory.mktemp("searched")
    assert exit_code(tune, *flags(data, out, space, "--keep_folds", "true")) == 0
    return out


def trials_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "trials.csv", na_values=[""], keep_default_na=False)


def test_a_search_leaves_the_files_of_the_contract_and_nothing_else(searched: Path) -> None:
    assert {path.name for path in searched.iterdir()} == {
        *("config.yaml", "trials.csv", "best.yaml", "importance.csv", "figures", "tensorboard", "folds"),
        *("model", "history.csv", "leakage.csv", "predictions.parquet", "baselines.parquet", "metrics.json"),
    }
    names = {path.name for path in (searched / "figures").iterdir()}
    assert names == {
        f"{figure}.{kind}" for figure in ("search_progress", "score_by_setting") for kind in ("svg", "png")
    }
    for number in range(1, 7):
        assert list((searched / "tensorboard" / f"trial_{number}").glob("events.out.*"))


def test_the_table_of_trials_has_settings_score_by_fold_and_status(searched: Path) -> None:
    table = trials_of(searched)
    assert sorted(table["trial"]) == [1, 2, 3, 4, 5, 6]
    assert set(table["status"]) == {"finished", "stopped"}
    assert table["score"].is_monotonic_decreasing  # the best first
    np.testing.assert_allclose(table["score"], table[["fold_1", "fold_2"]].mean(axis=1))
    stopped = table["status"] == "stopped"
    assert (table.loc[~stopped, "epochs"] == 6).all()
    assert (table.loc[stopped, "epochs"] < 6).all()
    assert (table["seconds"] > 0).all()
    assert table["model.crop"].isin(["60", "null"]).all()
    one_block = table["model.blocks"] == 1
    assert table.loc[one_block, ["model.channels.1", "model.pool_sizes.0"]].isna().all(axis=None)
    assert (table.loc[~one_block, "model.pool_sizes.0"] == 4).all()  # 200 is more than the window


def test_best_yaml_trained_by_hand_gives_the_same_model_on_as_many_genes_as_any_training(
    searched: Path, data: Path, tmp_path: Path
) -> None:
    assert exit_code(train, "--config", searched / "best.yaml", "--out", tmp_path / "run") == 0
    held_out = assign_splits(read_promoters(data), SplitConfig(test=["chr4"]))  # as without a search
    assert load_info(tmp_path / "run" / "model").split == held_out.chroms
    for name in ("model/model.safetensors", "metrics.json", "predictions.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (searched / name).read_bytes(), name


def test_kept_folds_of_a_search_make_an_ensemble(searched: Path, data: Path, tmp_path: Path) -> None:
    folds = sorted((searched / "folds").iterdir())
    assert [fold.name for fold in folds] == ["fold_1", "fold_2"]
    best = trials_of(searched).iloc[0]
    for number, fold in enumerate(folds, start=1):
        info = load_info(fold)
        assert info.split["test"] == ["chr4"]
        predict(str(fold), str(data), str(tmp_path / f"{fold.name}.parquet"))
        table = pd.read_parquet(tmp_path / f"{fold.name}.parquet")
        held_out = table[table["split"] == "val"]
        r = np.corrcoef(held_out["expression"], held_out["expression_predicted"])[0, 1]
        assert r == pytest.approx(best[f"fold_{number}"], abs=1e-4)
    assert set(load_info(folds[0]).split["val"]).isdisjoint(load_info(folds[1]).split["val"])
    predict(str(folds[0]), str(data), str(tmp_path / "both.parquet"), ensemble=[str(folds[1])])
    both = pd.read_parquet(tmp_path / "both.parquet")
    each = np.stack(
        [pd.read_parquet(tmp_path / f"{fold.name}.parquet")["expression_predicted"].to_numpy() for fold in folds]
    )
    np.testing.assert_allclose(both["expression_predicted"], each.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(both["expression_predicted_sd"], each.std(axis=0, ddof=1), rtol=1e-4, atol=1e-6)
    # what one fold validates on the other learns from
    splits = both.groupby("chrom")["split"].unique().str[0].to_dict()
    assert splits == {"chr1": "train", "chr2": "train", "chr3": "train", "chr4": "test"}
    genes = read_promoters(data).genes["gene_id"].tolist()[:3]
    ism(str(folds[0]), str(data), str(tmp_path / "ism"), genes=genes, ensemble=[str(folds[1])])
    assert load_scores(tmp_path / "ism").scores.shape[0] == 3


def test_targets_of_the_test_genes_change_nothing_in_a_search(
    searched: Path, ray_cluster: object, data: Path, space: Path, tmp_path: Path
) -> None:
    promoters = read_promoters(data)
    tested = (promoters.genes["chrom"] == "chr4").to_numpy()
    targets = promoters.targets.copy()
    targets[tested] = np.random.default_rng(0).permutation(targets[tested]) * 100
    write_promoters(tmp_path / "data", replace(promoters, targets=targets))
    assert exit_code(tune, *flags(tmp_path / "data", tmp_path / "out", space)) == 0
    ours, theirs = (trials_of(out).drop(columns="seconds") for out in (tmp_path / "out", searched))
    pd.testing.assert_frame_equal(ours, theirs)
    for name in ("importance.csv", "model/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (searched / name).read_bytes()
    metrics = [json.loads((out / "metrics.json").read_text()) for out in (tmp_path / "out", searched)]
    assert metrics[0]["val"] == metrics[1]["val"]
    assert metrics[0]["test"] != metrics[1]["test"]


def test_a_finished_search_is_not_run_again(
    searched: Path, data: Path, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in searched.rglob("*") if path.is_file()}
    assert exit_code(tune, *flags(data, searched, space, "--keep_folds", "true")) == 0
    assert "finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in searched.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--trials", "0"], "--trials 0: must be at least 1"),
        (["--folds", "4"], "--folds 4: there are only 3 chromosomes to divide"),
        (
            ["--split.homology", "move"],
            "--split.max_train and --split.homology move: a search has folds of its own",
        ),
        (["--split.by", "group"], "--split.by group does not hold out chromosomes; give --split.test_fraction"),
        (["--space", "{model.width: {choices: [1]}}"], "there is no setting 'model.width'"),
        (["--space", "no/such/file.yaml"], "no/such/file.yaml"),
        (
            ["--space", "{model.pool_sizes.0: {choices: [100]}}"],
            "a window of 100 bases is too short for pool_sizes [100, 4]",
        ),
        (["--algorithm", "grid"], "training.learning_rate has a range; a grid wants choices"),
        (["--algorithm", "annealing"], "--algorithm annealing: must be tpe, random or grid"),
        (["--split.test", "chr9"], "chr9: no gene lies on it"),
        (["--training.batch_size", "1"], "--training.batch_size 1: must be at least 2"),
        (["--workers", "1", "--cpus_per_worker", "999"], "this machine has"),
        (["--workers", "2"], "--workers 2: a trial is one process, and a search scales by trials; use --at_once"),
    ],
)
def test_bad_input_of_a_search_is_one_line_and_code_2(
    ray_cluster: object,
    data: Path,
    space: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    assert exit_code(tune, *flags(data, tmp_path / "out", space, *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out" / "search").exists()


def test_a_search_with_other_settings_in_the_same_folder_is_refused(
    searched: Path, data: Path, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(tune, *flags(data, searched, space, "--keep_folds", "true", "--seeds", "2")) == 2
    assert "different: seeds" in capsys.readouterr().err


def test_trials_that_fail_are_recorded_and_the_search_continues(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    width = 60_000  # 72 GB of weights between two such layers
    space = (
        "{training.learning_rate: {choices: [1.0e+6, 3.0e-3]}, "
        f"model.channels: {{choices: [[4, 4], [{width}, {width}]]}}}}"
    )
    base = tmp_path / "base.yaml"  # of two blocks; a flag would take the channels out of the space
    base.write_text("model: {channels: [4, 4], kernel_sizes: [5, 5], pool_sizes: [2]}")
    more = ("--algorithm", "grid", "--metric", "mse", "--config", str(base))
    out = tmp_path / "out"
    assert exit_code(tune, *flags(data, out, Path(space), *more)) == 0
    table = trials_of(out)
    assert table["status"].tolist() == ["finished", "failed", "failed", "failed"]
    wide = table["model.channels"] == f"[{width}, {width}]"
    assert wide.sum() == 2
    assert table.loc[wide, "reason"].str.contains("can't allocate memory").all()
    assert "the loss is not a number in epoch 1" in table.loc[~wide, "reason"].iloc[1]
    assert table["score"].iloc[1:].isna().all()
    assert table["score"].iloc[0] > 0
    assert "failed" in capsys.readouterr().out


@pytest.fixture(scope="module")
def two_seeds(data: Path, tmp_path_factory: pytest.TempPathFactory, command: Command) -> CommandRun:
    """A search as a command with a Ray of its own, with two seeds a fold, whose networks are kept."""
    space = "{training.learning_rate: {choices: [3.0e-3, 1.0e-5, 1.0e-6]}}"  # the second and third are stopped
    more = ("--algorithm", "grid", "--seeds", "2", "--keep_folds", "true")
    small = ("--model.channels", "4", "--model.kernel_sizes", "5", "--model.pool_sizes", "[]")
    out = tmp_path_factory.mktemp("two_seeds")
    done = command("tune", *flags(data, out, Path(space), *more, *small))
    assert done.returncode == 0, done.stderr
    return CommandRun(out, done.stdout, done.stderr)


@pytest.mark.slow
def test_two_seeds_keep_a_network_of_each_fold_and_seed(
    ray_cluster: object, two_seeds: CommandRun, data: Path, tmp_path: Path
) -> None:
    out = two_seeds.out
    table = trials_of(out)
    assert len(table) == 3
    assert table["status"].iloc[0] == "finished"
    assert "stopped" in table["status"].tolist()
    names = {path.name for path in (out / "folds").iterdir()}
    assert names == {f"fold_{fold}_seed_{seed}" for fold in (1, 2) for seed in (1, 2)}
    by_fold = [table[f"fold_{fold}"].iloc[0] for fold in (1, 2)]
    for fold, score in enumerate(by_fold, start=1):  # a mean over the seeds
        r = []
        for seed in (1, 2):
            predict(str(out / "folds" / f"fold_{fold}_seed_{seed}"), str(data), str(tmp_path / "p.parquet"))
            held_out = pd.read_parquet(tmp_path / "p.parquet").query("split == 'val'")
            r.append(np.corrcoef(held_out["expression"], held_out["expression_predicted"])[0, 1])
        assert np.mean(r) == pytest.approx(score, abs=1e-4)


@pytest.mark.slow
def test_a_search_prints_a_line_a_trial_and_nothing_of_rays(two_seeds: CommandRun) -> None:
    assert two_seeds.stderr == ""
    assert "pid=" not in two_seeds.stdout
    lines = [line for line in two_seeds.stdout.splitlines() if "/3 trial" in line]
    assert len(lines) == 3
    assert re.match(r"   1/3 trial 1 +pearson -?0\.\d{4} +after +6 epochs, finished", lines[0])


@pytest.mark.slow
def test_a_killed_search_resumes_with_its_finished_trials(
    searched: Path, data: Path, space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(data, tmp_path, space)
    driver = start("tune", arguments)
    before = read_until(driver, "   1/6 trial ")
    with held(lambda: ray_workers("ResourceTrainable", driver.pid), driver) as trials:
        for _ in range(2):  # what was written down before may lack a trial that has just been printed
            saved = times_of_states(tmp_path)
            wait_until(lambda saved=saved: times_of_states(tmp_path) - saved, while_runs=driver)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert driver.stdout is not None
    finished = trials_shown([*before, *driver.stdout])
    _, alive = psutil.wait_procs(trials, timeout=TIMEOUT)
    assert not alive, "a trial of the killed search lives on"
    assert 1 <= len(finished) < 6
    assert not (tmp_path / "best.yaml").exists()
    capsys.readouterr()
    assert exit_code(tune, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "resuming the search that was interrupted" in lines
    assert trials_shown(lines) == {1, 2, 3, 4, 5, 6} - finished, "a finished trial was run again, or one was lost"
    first, second = (trials_of(out).drop(columns="seconds") for out in (tmp_path, searched))
    pd.testing.assert_frame_equal(first, second)


def times_of_states(out: Path) -> set[int]:
    """Return when Ray Tune has written down the state of its search, which it does each second."""
    return {path.stat().st_mtime_ns for path in out.glob("search/experiment_state-*.json")}


def trials_shown(lines: Iterable[str]) -> set[int]:
    """Return the numbers of the trials that a search has printed as ended."""
    matches = [re.search(r"/6 trial (\d) ", line) for line in lines]
    return {int(match[1]) for match in matches if match}


def a_trial(out: Path, data: Path) -> list[str]:
    """The command line of a search of one trial, long enough to be disturbed."""
    space = "{training.learning_rate: {choices: [3.0e-3]}}"
    small = ("--model.channels", "8", "--model.kernel_sizes", "5", "--model.pool_sizes", "[]")
    long = ("--training.epochs", str(EPOCHS), "--training.early_stopping", "null")
    more = ("--algorithm", "grid", "--asha", "false")
    return flags(data, out, Path(space), *small, *long, *more)


def epochs_reported(out: Path) -> list[int]:
    """Return the epochs that the only trial has reported, in the order in which it did."""
    lines = [line for path in out.glob("search/trial_*/result.json") for line in path.read_text().splitlines()]
    return [json.loads(line)["epoch"] for line in lines]


@pytest.mark.slow
def test_a_trial_resumes_from_its_checkpoint_when_its_process_is_killed(
    ray_cluster: object, data: Path, tmp_path: Path
) -> None:
    driver = start("tune", a_trial(tmp_path, data))
    wait_until(lambda: max(epochs_reported(tmp_path), default=0) >= 3, while_runs=driver)
    with held(lambda: ray_workers("ResourceTrainable", driver.pid), driver) as trials:
        assert max(epochs_reported(tmp_path)) < EPOCHS, "the trial had ended before it was killed"
        for trial in trials:
            trial.kill()
    # not how many: an epoch may have been saved, but not told, when its process was killed
    wait_until(lambda: EPOCHS in epochs_reported(tmp_path), while_runs=driver)
    assert epochs_reported(tmp_path).count(1) == 1, "it began anew"
    lines = read_until(driver, "trials, figures, model and metrics in")
    assert driver.wait() == 0, lines
    table = trials_of(tmp_path)
    assert table["epochs"].tolist() == [EPOCHS]


@pytest.mark.slow
def test_a_search_finds_wide_filters_where_the_grammar_needs_them(ray_cluster: object, tmp_path: Path) -> None:
    files = simulate(tmp_path / "genome", chromosomes=6, genes_per_chromosome=150, upstream=120, noise=0.2)
    prepare(
        str(tmp_path / "data"),
        genome=str(files.genome),
        genes=str(files.genes),
        expression=str(files.expression),
        upstream=120,
        max_n=1,
    )
    space = "{model.kernel_sizes.0: {choices: [1, 3, 11]}}"
    base = tmp_path / "base.yaml"
    base.write_text("model: {channels: [32], kernel_sizes: [3], pool_sizes: []}")
    more = ("--algorithm", "grid", "--asha", "false", "--config", str(base))
    recipe = ("--training.epochs", "25", "--training.learning_rate", "5e-3")
    out = tmp_path / "out"
    arguments = [
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(out),
        "--space",
        space,
        "--folds",
        "2",
        *more,
        *recipe,
    ]
    assert exit_code(tune, *arguments, "--split.test", "chr6") == 0
    table = trials_of(out).set_index("model.kernel_sizes.0")
    assert table.index[0] == 11
    score = table["score"]
    assert score[11] > score[3] + 0.1  # motifs are 8 to 10 bases wide
    assert yaml.safe_load((out / "best.yaml").read_text())["model"]["kernel_sizes"] == [11]
