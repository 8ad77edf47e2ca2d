"""A search resumes from its trials alone, whatever moments a kill or a failed upload has left its files at."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.tune.experiment import Trial
from support.commands import exit_code
from support.processes import wait_until

from jobs.tune import tune
from jobs.tuning import results
from jobs.tuning.live_table import SearchScreen, number_of

SPACE = """
training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
training.early_stopping: {choices: [null, 1]}
model.blocks: {choices: [1, 2]}
model.channels.0: {choices: [4, 8]}
model.channels.1: {low: 2, high: 6, step: 2}
model.kernel_sizes.0: {choices: [3, 7]}
"""
TRIALS = 14  # the tree-structured Parzen estimator begins after 10
EARLY, LATE = 3, 12  # a copy is taken of the first trial from these on that comes to its second epoch
BASE = "model: {channels: [4, 4], kernel_sizes: [3, 3], pool_sizes: [4]}\ntraining: {epochs: 3}\n"
pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class Search:
    """An uninterrupted search, and its folder as a kill in an earlier and in a later trial would have left it."""

    flags: list[str]
    table: pd.DataFrame
    early: Path
    late: Path


@contextmanager
def at_a_result(react: Callable[[tuple[int, int], list[Trial]], None]) -> Iterator[None]:
    """Call `react` when a trial reports, with its number and epoch, and all trials, while Ray Tune waits."""
    show = SearchScreen.on_trial_result

    def show_and_react(
        screen: SearchScreen, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any
    ) -> None:
        show(screen, iteration, trials, trial, result, **info)
        react((number_of(trial), result["epoch"]), trials)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchScreen, "on_trial_result", show_and_react)
        yield


@pytest.fixture(scope="module")
def search(ray_cluster: object, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    folder = tmp_path_factory.mktemp("search")
    out, copies = folder / "out", {EARLY: folder / "early", LATE: folder / "late"}
    (folder / "space.yaml").write_text(SPACE)
    flags = ["--data", str(data), "--space", str(folder / "space.yaml"), "--split.test", "chr4"]
    flags += ["--trials", str(TRIALS), "--folds", "2", "--config", str(folder / "base.yaml")]
    (folder / "base.yaml").write_text(BASE)  # a flag would take its setting out of the space

    def copy(now: tuple[int, int], trials: list[Trial]) -> None:
        number, epoch = now
        for first, target in copies.items():
            if number >= first and epoch == 2 and not target.exists():
                wait_until(lambda target=target: trials_saved(out) == number and copied_whole(target, number))

    def copied_whole(target: Path, trials: int) -> bool:
        """Copy the folder; false where Ray Tune, which writes all the while, took a file away in between."""
        shutil.rmtree(target, ignore_errors=True)
        try:
            shutil.copytree(out, target)
        except (shutil.Error, FileNotFoundError):
            return False
        return trials_saved(target) == trials

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "train_best", lambda *_: None)  # another test's matter
        with at_a_result(copy):
            assert exit_code(tune, *flags, "--at_once", "1", "--out", out) == 0
        assert all(target.exists() for target in copies.values()), "no trial came to its second epoch"
        yield Search(flags, trials_of(out), copies[EARLY], copies[LATE])


def trials_saved(out: Path) -> int:
    """Return the number of trials that Ray Tune has written down; 0 while it writes."""
    try:
        return len(json.loads(state_of(out).read_text())["trial_data"])
    except ValueError:
        return 0


def state_of(out: Path) -> Path:
    """Return the file of the trials; one run of a search writes one."""
    (path,) = (out / "search").glob("experiment_state-*.json")
    return path


def other_files(out: Path) -> list[Path]:
    return [path for path in (out / "search").iterdir() if path.is_file() and path != state_of(out)]


def trials_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "trials.csv").drop(columns="seconds")


def keep(out: Path, search: Search) -> None:
    """Leave all as it was."""


def age_other_files(out: Path, search: Search) -> None:
    for path in other_files(out):
        path.unlink()
    for path in other_files(search.early):
        shutil.copy(path, out / "search")


def age_trials(out: Path, search: Search) -> None:
    """Leave trials older than all other files; the checkpoint that the running trial had then is gone."""
    shutil.copy(state_of(search.early), state_of(out))


def remove_other_files(out: Path, search: Search) -> None:
    for path in other_files(out):
        path.unlink()


def add_a_state_cut_off(out: Path, search: Search) -> None:
    newer = state_of(out).with_name("experiment_state-9999-01-01_00-00-00.json")
    newer.write_text(state_of(out).read_text()[:1000])


def cut_off_the_state(out: Path, search: Search) -> None:
    state_of(out).write_text(state_of(out).read_text()[:1000])


RESUMED = "resuming the search that was interrupted"
ANEW = "what the interrupted search has left cannot be read; it starts anew"


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        pytest.param(keep, RESUMED, marks=pytest.mark.slow),
        pytest.param(age_other_files, RESUMED, marks=pytest.mark.slow),
        (age_trials, RESUMED),
        (remove_other_files, RESUMED),
        pytest.param(add_a_state_cut_off, RESUMED, marks=pytest.mark.slow),
        pytest.param(cut_off_the_state, ANEW, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_search_ends_as_the_uninterrupted_one(
    search: Search,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tamper: Callable[[Path, Search], None],
    message: str,
) -> None:
    shutil.copytree(search.late, tmp_path / "out")
    tamper(tmp_path / "out", search)
    assert exit_code(tune, *search.flags, "--at_once", "1", "--out", tmp_path / "out") == 0
    assert message in capsys.readouterr().out
    table = trials_of(tmp_path / "out")
    assert sorted(table["trial"]) == list(range(1, TRIALS + 1))
    assert table["training.learning_rate"].is_unique
    assert set(table["status"]) == {"finished", "stopped"}
    pd.testing.assert_frame_equal(table, search.table)


def test_a_resumed_search_runs_as_many_trials_at_once_as_it_is_told_to(search: Search, tmp_path: Path) -> None:
    shutil.copytree(search.late, tmp_path / "out")
    unfinished: list[int] = []
    with at_a_result(lambda _, trials: unfinished.append(sum(not trial.is_finished() for trial in trials))):
        assert exit_code(tune, *search.flags, "--at_once", "2", "--out", tmp_path / "out") == 0
    assert max(unfinished) == 2  # the one that was interrupted is among them
    assert sorted(trials_of(tmp_path / "out")["trial"]) == list(range(1, TRIALS + 1))


def test_a_search_that_ray_tune_ends_early_fails_and_resumes(
    search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(now: tuple[int, int], trials: list[Trial]) -> None:
        if now == (1, 1):
            os.kill(os.getpid(), signal.SIGUSR1)  # Ray Tune saves what it has, and returns as if all had ended

    flags = [*search.flags, "--trials", "1", "--out", str(tmp_path / "out")]
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with at_a_result(end):
            assert exit_code(tune, *flags) == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "Ray Tune ended after 0 of 1 trials; run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "out" / "trials.csv").exists()
    assert exit_code(tune, *flags) == 0
    columns = ["trial", "status", "score", "epochs", "training.learning_rate"]
    first = search.table[search.table["trial"] == 1]
    pd.testing.assert_frame_equal(trials_of(tmp_path / "out")[columns], first[columns].reset_index(drop=True))
