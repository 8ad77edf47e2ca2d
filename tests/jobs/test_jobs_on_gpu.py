"""What the jobs compute on GPUs. `tests/promoter/test_on_gpu.py` has the library, and needs no Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

ray = pytest.importorskip("ray", reason="the jobs need Ray, which is not installed")

from jobs.ism import ism
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.devices import DeviceError, ends_process_on_device_error
from jobs.ray_runtime.fan_out import Retry, fan_out
from jobs.ray_runtime.model_cache import task_device
from jobs.ray_runtime.progress import Progress
from jobs.train import train
from jobs.tune import tune
from jobs.tuning.shared_gpu import memory_is_taken, release_memory, wait_for_memory
from promoter.checkpoint import load_model
from promoter.dataset.promoters import read_promoters
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig
from promoter.splits.config import SplitConfig
from promoter.training import TrainingConfig


def gpu(count: int = 1) -> pytest.MarkDecorator:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return pytest.mark.skipif(there < count, reason=f"needs {count} GPU, there are {there}")


@pytest.mark.gpu
@pytest.mark.ray
@gpu()
def test_two_tasks_share_a_real_gpu(ray_cluster: Cluster, data: Path, run: Path, tmp_path: Path) -> None:
    ism(str(run / "model"), str(data), str(tmp_path / "ism"), split="test", genes_per_task=5, gpus_per_worker=0.5)
    found = load_scores(tmp_path / "ism")
    promoters = read_promoters(data)
    rows = promoters.genes.index[promoters.genes["gene_id"].isin(found.genes["gene_id"])]
    expected = saturation_mutagenesis(load_model(run / "model"), promoters.tokens[rows])
    np.testing.assert_allclose(found.scores, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    both = [task.options(num_cpus=0, num_gpus=0.5).remote() for task in [_device] * 2]
    assert ray.get(both) == ["0", "0"]


@pytest.mark.gpu
@pytest.mark.ray
@gpu()
def test_without_a_flag_tasks_take_the_card(
    ray_cluster: Cluster, data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ism(str(run / "model"), str(data), str(tmp_path / "ism"), split="test")
    assert "a GPU each" in capsys.readouterr().out
    limits = TaskLimits(None, 1, None).on(ray_cluster)
    assert ray.get(limits.apply(_device).remote()) == "0"


@ray.remote
@ends_process_on_device_error
def _fail_on_the_card(folder: str, item: int) -> tuple[int, float]:
    """Read past the end of an array on the card, once: CUDA then refuses all that this process asks of it."""
    mark = Path(folder) / str(item)
    values = torch.arange(4.0, device="cuda")
    if item == 1 and not mark.exists():
        mark.touch()
        values = values[torch.tensor([7], device="cuda")]
    return os.getpid(), float(values.sum())


@pytest.mark.gpu
@pytest.mark.ray
@gpu()
def test_a_process_whose_cuda_failed_ends_and_the_task_is_repeated(ray_cluster: Cluster, tmp_path: Path) -> None:
    limits, progress = TaskLimits(1, 1, 1).on(ray_cluster), Progress("test", 6, "tasks")
    results = dict(
        fan_out(
            lambda item, _: limits.apply(_fail_on_the_card).remote(str(tmp_path), item),
            range(6),
            limits,
            ray_cluster,
            progress=progress,
        )
    )
    assert {item: total for item, (_, total) in results.items()} == dict.fromkeys(range(6), 6.0)
    assert progress.losses in (1, 2)  # the next task may have reached the process before it ended
    assert any("DeviceError" in reason for reason in progress.reasons)
    assert len({process for process, _ in results.values()}) == 2


@ray.remote
@ends_process_on_device_error
def _fill_the_card() -> None:
    torch.empty(torch.cuda.get_device_properties(0).total_memory, dtype=torch.float64, device="cuda")


@pytest.mark.gpu
@pytest.mark.ray
@gpu()
def test_a_full_card_is_an_error_of_the_card_that_blames_no_node(
    ray_cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = TaskLimits(1, 1, 1).on(ray_cluster)
    tries = []

    def submit(item: int, retry: Retry) -> Any:
        tries.append(retry)
        return limits.apply(_fill_the_card).remote()

    with pytest.raises(DeviceError, match="out of memory"):
        list(fan_out(submit, [0], limits, ray_cluster))
    assert [retry.batch_size for retry in tries] == [None, 64, 16, 4]
    assert "left out" not in capsys.readouterr().out


@ray.remote
def _device() -> str:
    torch.zeros(1, device="cuda")
    return os.environ["CUDA_VISIBLE_DEVICES"]


HOLD = """
import sys, torch
held = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


def take(size: float) -> torch.Tensor:
    return torch.empty(int(size), dtype=torch.uint8, device="cuda")


@pytest.mark.gpu
@gpu()
def test_memory_that_a_neighbour_took_is_told_from_that_of_a_process_itself() -> None:
    release_memory()
    total = torch.cuda.mem_get_info()[1]
    words = [sys.executable, "-c", HOLD, str(int(0.8 * total))]
    neighbour = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert neighbour.stdout is not None
        assert neighbour.stdout.readline() == "held\n"
        with pytest.raises(torch.OutOfMemoryError):
            take(0.4 * total)
        assert memory_is_taken(0.5)
        assert not memory_is_taken(1)
    finally:
        neighbour.communicate()  # the end of its input is its end
    assert not memory_is_taken(0.5)  # what CUDA takes for this process is nobody else's
    own = take(0.6 * total)
    with pytest.raises(torch.OutOfMemoryError):
        take(0.6 * total)
    assert not memory_is_taken(0.5)
    del own
    assert torch.cuda.memory_reserved() >= 0.6 * total
    assert wait_for_memory(0.5).startswith("other processes held ")  # at once: it has released its own
    assert torch.cuda.memory_reserved() < 0.1 * total


@pytest.mark.gpu
@pytest.mark.ray
@gpu()
def test_trials_that_share_a_gpu_finish_and_blocks_of_its_memory_grow(
    ray_cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    space = {"training.learning_rate": {"choices": [1e-3, 3e-3, 1e-2]}}
    tune(
        data=str(data),
        out=str(tmp_path),
        space=space,
        algorithm="grid",
        folds=2,
        split=SplitConfig(test=["chr4"]),
        model=CNNConfig((8, 8), (7, 3), (4,), hidden=8),
        training=TrainingConfig(epochs=2, batch_size=16),
        gpus_per_worker=0.5,
        at_once=2,
    )
    table = pd.read_csv(tmp_path / "trials.csv")
    assert set(table["status"]) <= {"finished", "stopped"}
    assert ray.get(_grows.options(num_gpus=0.5).remote())


@ray.remote
def _grows() -> bool:
    held = torch.zeros(1 << 26, device=task_device())
    return held.is_cuda and any(block["is_expandable"] for block in torch.cuda.memory_snapshot())


@pytest.mark.gpu
@pytest.mark.ray
@pytest.mark.parametrize("workers", [pytest.param(1, marks=gpu()), pytest.param(2, marks=gpu(2))])
def test_training_by_nccl_learns_as_by_gloo(
    ray_cluster: Cluster, data: Path, tmp_path: Path, workers: int
) -> None:
    split, model = SplitConfig(val=["chr3"], test=["chr4"]), CNNConfig((8, 8), (7, 3), (4,), hidden=8)
    training = TrainingConfig(epochs=4, batch_size=16, learning_rate=3e-3)
    for gpus in (0, 1):
        out = str(tmp_path / str(gpus))
        train(
            data=str(data),
            out=out,
            split=split,
            model=model,
            training=training,
            workers=workers,
            gpus_per_worker=gpus,
        )
    on_cpu, on_gpu = (pd.read_csv(tmp_path / str(gpus) / "history.csv") for gpus in (0, 1))
    np.testing.assert_allclose(on_gpu["val_mse"], on_cpu["val_mse"], rtol=0.05)
