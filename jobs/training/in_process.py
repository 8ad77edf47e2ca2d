"""A training in this process: no worker is started, which takes longer than a small training does."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray.train import Checkpoint
from upath import UPath

from jobs.ray_runtime.train_controller import SNAPSHOT
from jobs.training.worker import train
from promoter import storage
from promoter.errors import InputError
from promoter.training.allocator import keep_freed_memory

_LAST = "last.json"  # names the folder of the last checkpoint that is whole


def train_in_process(
    loop: dict[str, Any], folder: UPath, on_record: Callable[[dict[str, Any]], None], device: torch.device
) -> Checkpoint:
    """Train until done, resuming from what an earlier process left in the folder; return the last checkpoint.

    Args:
        loop: configuration of the loop, as a worker of Ray Train gets it.
        folder: folder of the checkpoints.
        on_record: function called with each report.
        device: device to train on.

    Raises:
        InputError: workers of Ray Train have begun this training.
    """
    if (folder / SNAPSHOT).exists():
        raise InputError(
            f"{folder}: workers have begun this training; give --workers as before to resume it, or "
            "--overwrite true"
        )
    keep_freed_memory()
    reports = _InProcess(folder, on_record)
    train(loop, reports, device)
    last = reports.last_checkpoint()
    assert last is not None  # noqa: S101 # for the type checker: the loop ends with a report
    return last


def require_not_begun_in_process(folder: UPath) -> None:
    """Raise InputError if the checkpoints in a folder are those of a training in a driver's process."""
    if (folder / _LAST).exists():
        raise InputError(
            f"{folder}: this training was begun with --workers 0; give that again to resume it, or "
            "--overwrite true"
        )


class _InProcess:
    """Keeps checkpoints in a folder, and passes reports on at once."""

    def __init__(self, folder: UPath, on_record: Callable[[dict[str, Any]], None]) -> None:
        self._folder, self._on_record = folder, on_record

    def last_checkpoint(self) -> Checkpoint | None:
        if not (self._folder / _LAST).exists():
            return None
        last = self._folder / storage.read_json(self._folder / _LAST)["folder"]
        filesystem, path = storage.arrow_filesystem(last)
        return Checkpoint(path, filesystem)

    def start(self, position: str | None) -> None:
        self._on_record({"started": "this process", "position": position})

    def report(self, record: dict[str, Any], position: str, write: Callable[[Path], None]) -> None:
        number = next(i for i in itertools.count() if not (self._folder / f"checkpoint_{i}").exists())
        new = self._folder / f"checkpoint_{number}"
        with tempfile.TemporaryDirectory() as made:
            write(Path(made))
            for path in Path(made).rglob("*"):
                if path.is_file():
                    storage.copy_file(path, new / path.relative_to(made).as_posix())
        storage.write_json(self._folder / _LAST, {"folder": new.name})
        for other in list(self._folder.iterdir()):
            if other.name.startswith("checkpoint_") and other.name != new.name:
                storage.remove_folder(other)
        self._on_record(record | {"position": position})

    def leaving(self) -> list[str]:
        return []
