"""What a search blames a configuration for, and what it does not: GPUs, neighbours on them, lost processes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pandas as pd
import pytest
import torch
from support.commands import exit_code

from jobs.tune import tune
from jobs.tuning import shared_gpu
from jobs.tuning.trials import CrossValidationTrial
from promoter.training.allocator import expandable_segments

GIB = 1 << 30
MODULE = """
import os
from pathlib import Path

import torch
from torch import nn

HERE = Path("{folder}")
DRIVER, FORWARDS = {driver}, 0


class Net(nn.Module):
    def __init__(self, n_targets):
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 4, 5, padding=2), nn.Linear(4, n_targets)

    def forward(self, x):
        if self.training and os.getpid() != DRIVER:
            self.fail()
        return self.head(torch.relu(self.conv(x)).amax(-1))


class Sick(Net):
    def fail(self):
        (HERE / f"tried_{{os.getpid()}}").touch()
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\\nSearch for it")


class Lost(Net):
    def fail(self):
        global FORWARDS
        FORWARDS += 1
        lost = len(list(HERE.glob("lost_*")))
        if FORWARDS > {batches} and lost < 4:  # in its second epoch, so that each process gets one done
            (HERE / f"lost_{{lost}}").touch()
            os._exit(1)


def sick(length, n_targets):
    return Sick(n_targets)


def lost(length, n_targets):
    return Lost(n_targets)
"""
EPOCHS = 6


def search(name: str, data: Path, folder: Path, patch: pytest.MonkeyPatch) -> int:
    """Search over two trials of a network that fails, one trial at a time."""
    batches = 5  # more than in an epoch, fewer than in two: 102 genes by 26
    (folder / "failing_nets.py").write_text(MODULE.format(folder=folder, driver=os.getpid(), batches=batches))
    patch.syspath_prepend(folder)
    space = "{training.learning_rate: {choices: [1.0e-3, 1.0e-2]}}"
    flags = ["--data", data, "--out", folder / "out", "--space", space, "--algorithm", "grid", "--at_once", 1]
    flags += ["--split.val", "chr3", "--split.test", "chr4", "--folds", 1, "--asha", "false"]
    flags += ["--training.epochs", EPOCHS, "--training.early_stopping", "null", "--training.batch_size", 26]
    flags += ["--model.name", "external", "--model.factory", f"failing_nets:{name}", "--trust_code", "true"]
    return exit_code(tune, *flags)


@pytest.mark.ray
@pytest.mark.slow
def test_a_gpu_that_fails_ends_the_search_and_is_no_fault_of_the_configuration(
    ray_cluster: object,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert search("sick", data, tmp_path, monkeypatch) == 1
    error = capsys.readouterr().err
    assert "trial 1 failed 3 times without progress, at last by a GPU error on node " in error
    assert "CUDA error: uncorrectable ECC error encountered Search for it; leave that node out" in error
    assert error.count("\n") == 1
    assert len(list(tmp_path.glob("tried_*"))) == 3  # each time in another process
    assert not (tmp_path / "out" / "trials.csv").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_may_lose_its_process_as_often_as_it_makes_progress(
    ray_cluster: object, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert search("lost", data, tmp_path, monkeypatch) == 0
    assert len(list(tmp_path.glob("lost_*"))) == 4
    table = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert table["status"].tolist() == ["finished", "finished"]
    assert table["epochs"].tolist() == [EPOCHS, EPOCHS]


# --- without a GPU, what its driver says is made up; `test_jobs_on_gpu.py` has a real one ------------------------


def say(patch: pytest.MonkeyPatch, *, free: float, own: float) -> None:
    """Let a GPU of 80 GiB have so much free, and this process hold so much."""
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "mem_get_info", lambda: (int(free * GIB), 80 * GIB))
    patch.setattr(torch.cuda, "memory_reserved", lambda: int(own * GIB))


@pytest.mark.parametrize(
    ("share", "free", "own", "taken"),
    [
        (0.5, 1, 20, True),  # 59 GiB are others'
        (0.5, 1, 45, False),  # more than its share
        (0.5, 59.5, 20, False),  # alone, but for CUDA itself
        (1, 1, 20, False),  # it asked for the whole GPU
    ],
)
def test_memory_is_taken_by_others_where_this_process_is_within_its_share(
    monkeypatch: pytest.MonkeyPatch, share: float, free: float, own: float, taken: bool
) -> None:
    say(monkeypatch, free=free, own=own)
    assert shared_gpu.memory_is_taken(share) == taken


def full(*_: object) -> NoReturn:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_trial_whose_memory_a_neighbour_took_is_tried_again_and_one_alone_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial: Any = object.__new__(CrossValidationTrial)
    job = {"code": None, "begin": full, "resources": {"CPU": 1, "GPU": 0.5}}
    vars(trial).update(job=SimpleNamespace(**job), drawn={}, device="cuda", training=None, saved=None, scores=[])
    say(monkeypatch, free=40, own=0)
    with pytest.raises(RuntimeError, match=r"other processes held 40\.0 of the 80\.0 GiB .*Tried to allocate"):
        trial.step()
    say(monkeypatch, free=79.5, own=0)
    report = trial.step()
    assert report["done"]
    assert "out of memory" in report["reason"]


def test_the_allocator_of_gpu_memory_is_set_unless_the_user_has_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    (value,) = expandable_segments().values()
    assert value == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    assert expandable_segments() == {}
