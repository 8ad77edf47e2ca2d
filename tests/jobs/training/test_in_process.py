"""Trainings in the driver's own process, by `--workers 0`: what a worker of Ray Train would leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support.commands import exit_code, outcome
from support.outputs import content
from upath import UPath

from jobs.train import train
from jobs.training.run import EpochLogger
from promoter import storage

pytestmark = pytest.mark.ray


def words_of(train_flags: list[str], workers: int, out: Path, *more: object) -> list[object]:
    return [*train_flags, "--workers", workers, "--baselines", "false", "--out", out, *more]


def results(out: Path) -> dict[str, object]:
    """Return what the files of a run hold; its settings differ in `workers` and `out`."""
    return {name: value for name, value in content(out).items() if name != "config.yaml"}


@pytest.fixture(scope="module")
def in_driver(ray_cluster: object, train_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("in_driver") / "run"
    assert exit_code(train, *words_of(train_flags, 0, out)) == 0
    return out


def test_it_leaves_bit_for_bit_what_one_worker_leaves(
    in_driver: Path, train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, error = outcome(capsys, train, *words_of(train_flags, 1, tmp_path / "run"))
    assert code == 0, error
    assert "1 worker with" in printed
    assert results(tmp_path / "run") == results(in_driver)


@pytest.mark.parametrize(("moment", "resumes_after"), [("once it was saved", 3), ("before the save counted", 2)])
def test_one_that_is_interrupted_in_its_third_epoch_resumes(
    in_driver: Path,
    train_flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    resumes_after: int,
) -> None:
    words, times = words_of(train_flags, 0, tmp_path / "run"), 0
    write, show = storage.write_json, EpochLogger.__call__

    def interrupted_write(path: UPath, value: Any) -> None:
        nonlocal times
        times += path.name == "last.json"
        if times == 3:
            raise KeyboardInterrupt
        write(path, value)

    def interrupted_show(logger: EpochLogger, record: dict[str, Any]) -> None:
        if record.get("epoch") == 3:
            raise KeyboardInterrupt
        show(logger, record)

    with monkeypatch.context() as patch:
        if resumes_after == 2:
            patch.setattr(storage, "write_json", interrupted_write)
        else:
            patch.setattr(EpochLogger, "__call__", interrupted_show)
        code, _, error = outcome(capsys, train, *words)
    assert code != 0
    assert error.endswith("run the same command again to resume\n")
    code, _, error = outcome(capsys, train, *words, "--workers", 1)
    assert code == 2
    assert "was begun with --workers 0; give that again to resume it" in error
    code, printed, error = outcome(capsys, train, *words)
    assert code == 0, error
    assert f"\nin this process, on the {'GPU' if torch.cuda.is_available() else 'CPU'}\n" in printed
    assert f"\nresuming after epoch {resumes_after}\n" in printed
    assert results(tmp_path / "run") == results(in_driver)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_workers_have_begun_is_not_begun_anew(
    train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # once there is a checkpoint
        patch.setattr("jobs.training.run._publish", interrupt)
        assert outcome(capsys, train, *words_of(train_flags, 1, tmp_path / "run"))[0] != 0
    code, _, error = outcome(capsys, train, *words_of(train_flags, 0, tmp_path / "run"))
    assert code == 2
    assert "workers have begun this training; give --workers as before to resume it" in error


def test_folds_and_seeds_train_one_after_the_other(
    train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(train_flags, 0, tmp_path / "run", "--seeds", 2, "--training.epochs", 2)
    code, printed, error = outcome(capsys, train, *words)
    assert code == 0, error
    assert "2 networks, 1 at a time" in printed
    assert len(pd.read_csv(tmp_path / "run" / "folds.csv")) == 2


@pytest.mark.parametrize("flags", [("--cpus_per_worker", 1), ("--min_workers", 1), ("--accelerator_type", "L4")])
def test_settings_of_workers_are_refused_where_there_is_none(
    train_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, object]
) -> None:
    code, _, error = outcome(capsys, train, *words_of(train_flags, 0, tmp_path / "run", *flags))
    assert code == 2
    assert error.startswith("error: --workers 0: this process trains")
    assert not (tmp_path / "run").exists()
