"""Ray Train's list of checkpoints after a kill amid its writing; a whole training is killed in `test_train.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from jobs.ray_runtime.train_controller import SNAPSHOT, restore_snapshot


def of(number: int) -> str:
    return json.dumps({"checkpoint_results": [{"checkpoint_dir_name": f"checkpoint_{number}"}], "é": 1})


def read(folder: Path) -> Any:
    return json.loads((folder / SNAPSHOT).read_text())


@pytest.mark.parametrize("cut", [0, 1, 30, -1])
def test_a_snapshot_that_was_cut_off_is_replaced_by_the_last_one_that_was_whole(tmp_path: Path, cut: int) -> None:
    (tmp_path / SNAPSHOT).write_text(of(1))
    restore_snapshot(UPath(tmp_path))
    (tmp_path / SNAPSHOT).write_text(of(2)[:cut])
    restore_snapshot(UPath(tmp_path))
    assert read(tmp_path) == json.loads(of(1))


def test_a_snapshot_that_is_cut_off_within_a_character_is_replaced(tmp_path: Path) -> None:
    (tmp_path / SNAPSHOT).write_text(of(1))
    restore_snapshot(UPath(tmp_path))
    (tmp_path / SNAPSHOT).write_bytes('{"é'.encode()[:-1])
    restore_snapshot(UPath(tmp_path))
    assert read(tmp_path) == json.loads(of(1))


def test_whole_snapshots_stay_and_the_newest_is_kept(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / SNAPSHOT).write_text(of(number))
        restore_snapshot(UPath(tmp_path))
        assert read(tmp_path) == json.loads(of(number))
    (tmp_path / SNAPSHOT).write_text("")
    restore_snapshot(UPath(tmp_path))
    assert read(tmp_path) == json.loads(of(2))


def test_without_a_whole_one_the_run_starts_anew(tmp_path: Path) -> None:
    restore_snapshot(UPath(tmp_path))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / SNAPSHOT).write_text("{")
    restore_snapshot(UPath(tmp_path))
    assert list(tmp_path.iterdir()) == []
