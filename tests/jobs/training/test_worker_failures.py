"""Workers of a training that are lost, that fail, or whose node will be taken away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError
from support.commands import read_until, start
from support.processes import held, ray_workers

from jobs.ray_runtime.train_controller import poll_interval
from jobs.ray_runtime.worker_failures import NoProgressError, WorkerFailures
from promoter.errors import NetworkError, TrainingDivergedError


def failures(workers: int = 2, position: str | None = "epoch 6") -> WorkerFailures:
    known = WorkerFailures()
    known.started([f"10.0.0.{number}" for number in range(1, workers + 1)], position)
    return known


def lost(preempted: bool = False) -> Exception:
    return RayActorError(error_msg="The actor died", preempted=preempted)


def test_any_number_of_losses_is_made_good_where_checkpoints_come_between_them() -> None:
    known = failures()
    for epoch in range(7, 17):
        for _ in range(2):
            assert known.describe({1: lost()}) == "worker 2 of 2 on 10.0.0.2 lost"
        known.progressed(f"epoch {epoch}")


def test_a_third_failure_without_a_checkpoint_ends_the_run_with_the_way_to_resume() -> None:
    known = failures()
    known.describe({0: lost(), 1: RuntimeError("Connection closed by peer")})
    known.describe({0: RuntimeError("Connection closed by peer")})  # of gloo, before the loss itself is seen
    with pytest.raises(NoProgressError) as ended:
        known.describe({0: lost(), 1: lost()})
    assert str(ended.value) == (
        "failed 3 times after epoch 6 and got no further: workers 1, 2 of 2 on 10.0.0.1, 10.0.0.2 lost; run the "
        "same command again to resume after epoch 6"
    )
    begun = failures(position=None)
    for _ in range(2):
        begun.describe({0: lost()})
    with pytest.raises(NoProgressError, match=r"before the first epoch was done .* again to start anew"):
        begun.describe({0: lost()})


def test_nodes_that_leave_as_announced_are_no_failures_and_told_once() -> None:
    known, told = failures(), "worker 2 of 2 on 10.0.0.2 left with the node, as announced"
    for _ in range(5):
        known.started(["10.0.0.1", "10.0.0.2"], "batch 3 of epoch 7")
        assert [known.describe({1: lost(preempted=True)}) for _ in range(2)] == [told, ""]


@pytest.mark.parametrize("error", [NetworkError("code"), TrainingDivergedError("no number"), ValueError("")])
def test_what_another_try_would_repeat_ends_the_run_at_once(error: Exception) -> None:
    with pytest.raises(type(error)):
        failures().describe({0: error})


def test_a_plain_error_of_a_lone_worker_ends_the_run_at_once_and_that_of_a_device_is_tried_again() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        failures(1).describe({0: RuntimeError("shapes cannot be multiplied")})
    known = failures(1)
    told = known.describe({0: torch.AcceleratorError("CUDA error: an illegal memory access")})
    assert told == "worker 1 of 1 on 10.0.0.1 failed (AcceleratorError: CUDA error: an illegal memory access)"
    known.describe({0: RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")})
    with pytest.raises(NoProgressError, match=r"lower --training.batch_size"):
        known.describe({0: torch.OutOfMemoryError("CUDA out of memory")})


def test_few_workers_are_looked_at_ten_times_a_second_and_many_at_most_200_of_them() -> None:
    assert [poll_interval(workers) for workers in (1, 20, 200, 512)] == [0.1, 0.1, 1, 2.56]


# --- real workers and nodes --------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.slow
def test_a_training_outlives_four_losses(long_flags: list[str], tmp_path: Path) -> None:
    flags = [*long_flags, "--workers", 1, "--cpus_per_worker", 1, "--training.epochs", 5000]
    driver = start("train", [*flags, "--out", tmp_path / "run"])
    for _ in range(4):
        read_until(driver, "/5000 ")
        with held(lambda: ray_workers("RayTrainWorker", driver.pid), driver) as workers:
            workers[0].kill()
        read_until(driver, "worker 1 of 1 on 127.0.0.1 lost\n")
        read_until(driver, "resuming after epoch")
    (controller,) = ray_workers("TrainController", driver.pid)  # it has the interval that the job has chosen
    assert controller.environ()["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.1"
    driver.terminate()
    driver.communicate()


# tried in the driver, it computes; in a worker it ends the process, as a lack of memory would
DEADLY = """
import os, sys
from torch import nn

class Deadly(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        if sys.argv[0].endswith("default_worker.py"):
            os._exit(1)
        return self.layer(x.mean(dim=2))

def network(length, n_targets):
    return Deadly()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_training_whose_workers_die_again_and_again_ends_and_says_why(data: Path, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    flags = ["--data", data, "--out", tmp_path / "run", "--split.val", "chr3", "--split.test", "chr4"]
    flags += ["--model.name", "external", "--model.factory", "deadly:network", "--trust_code", "true"]
    driver = start("train", [*flags, "--baselines", "false"], cwd=tmp_path)
    lines = driver.communicate()[0].splitlines()
    assert driver.returncode == 1, lines
    assert lines.count("worker 1 of 1 on 127.0.0.1 lost") == 2
    assert lines[-1].startswith(
        "error: failed 3 times before the first epoch was done and got no further: worker 1 of 1 on 127.0.0.1 "
        "lost; run the same command again to start anew"
    )


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head without CPUs for tasks, and a node of one CPU, started as by a person: not for one command alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", raising=False)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_a_notice_that_the_node_will_be_taken_away_saves_a_checkpoint_within_the_epoch(
    nodes: Cluster, train_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.1")
    flags = [*train_flags, "--workers", 1, "--training.batch_size", 2, "--training.epochs", 8]
    flags += ["--training.early_stopping", "null", "--baselines", "false"]
    driver = start("train", [*flags, "--out", tmp_path / "drained"], nodes.address)
    read_until(driver, "  1/8")
    leaving = next(iter(nodes.worker_nodes))
    with held(lambda: ray_workers("RayTrainWorker"), driver):
        words = ["drain-node", "--address", nodes.address, "--node-id", leaving.node_id, "--reason"]
        words += [
            "DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message",
            "spot",
            "--deadline-remaining-seconds",
            "600",
        ]
        ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
        subprocess.run([*ray, *map(str, words)], check=True, capture_output=True, text=True)
        nodes.add_node(num_cpus=1)
    told = read_until(driver, "1 of its nodes will be taken away: saved after batch")[-1]
    with held(lambda: ray_workers("RayTrainWorker"), driver):
        nodes.remove_node(leaving, allow_graceful=False)
    rest = driver.communicate()[0]
    assert driver.returncode == 0, rest
    position = told.strip().removeprefix("1 of its nodes will be taken away: saved ")
    assert f"resuming {position}" in rest or "resuming after epoch" in rest  # an epoch may have ended since
    undisturbed = start("train", [*flags, "--out", tmp_path / "undisturbed"], nodes.address)
    assert undisturbed.wait() == 0
    models = [tmp_path / name / "model" / "model.safetensors" for name in ("drained", "undisturbed")]
    assert models[0].read_bytes() == models[1].read_bytes()
    timeless = ["epoch", "train_mse", "val_mse", "val_pearson", "val_loss"]
    drained, expected = (pd.read_csv(model.parents[1] / "history.csv")[timeless] for model in models)
    pd.testing.assert_frame_equal(drained, expected)
