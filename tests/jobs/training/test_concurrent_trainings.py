"""Several trainings at the same time: how many, on a cluster that grows, and when one fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cluster_fixtures import MODEL, SPLIT, TRAINING
from ray.cluster_utils import Cluster as RayCluster
from support.commands import read_until, start
from support.processes import held, ray_workers, wait_until
from upath import UPath

from jobs.ray_runtime.capacity import Cluster, Node
from jobs.training.folds import train_all
from jobs.training.job import TrainingJob, network_for, read_training_data
from jobs.training.resources import max_concurrent_trainings, scaling_config
from promoter.errors import TrainingDivergedError
from promoter.splits.homology import find_once

GPU_NODE, HEAD = Node(4, 1), Node(4, 0)


def test_as_many_trainings_are_asked_for_as_the_largest_cluster_holds() -> None:
    def at_a_time(cluster: Cluster, **options: Any) -> int:
        return max_concurrent_trainings(cluster, scaling_config(cluster, 1, **options))

    machine = Cluster((Node(4, 0),), local=True)
    assert at_a_time(machine) == 1  # one takes all CPUs
    assert at_a_time(machine, cpus_per_worker=1) == 4
    growing = Cluster((HEAD,), local=False, max_nodes=(HEAD, *[GPU_NODE] * 3))
    assert at_a_time(growing, gpus_per_worker=1) == 3
    assert at_a_time(Cluster((HEAD,), local=False), gpus_per_worker=1) > 1  # nobody knows how large it may become
    wide = Cluster((HEAD,) * 2, local=False)
    assert max_concurrent_trainings(wide, scaling_config(wide, 4, cpus_per_worker=1, min_workers=1)) == 1


def test_a_worker_takes_no_more_cpus_than_a_node_has() -> None:
    """Three nodes of four CPUs: a share of twelve would wait for ever."""
    cluster = Cluster((HEAD,) * 3, local=False)
    shares = [scaling_config(cluster, workers).resources_per_worker for workers in (1, 3, 4, 12)]
    assert shares == [{"CPU": 4}, {"CPU": 4}, {"CPU": 2}, {"CPU": 1}]


@pytest.mark.ray
def test_a_training_that_fails_is_told_at_once_the_others_end_and_none_begins(
    ray_cluster: Cluster, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promoters = read_training_data(str(data))
    job = TrainingJob(
        data=str(data),
        promoters=promoters,
        split=SPLIT,
        model=network_for(MODEL, promoters),
        training=replace(TRAINING, epochs=30, early_stopping=None),
        workers=1,
        baselines=False,
        gpus_per_worker=0,
        cpus_per_worker=1,
    )
    diverging = replace(job, training=replace(TRAINING, learning_rate=1e6, gradient_clip=1e9))
    trainings = {"good": job, "bad": diverging} | {f"later_{number}": job for number in range(ray_cluster.cpus)}
    scaling = job.scaling_config(ray_cluster)
    with pytest.raises(TrainingDivergedError):
        train_all(trainings, UPath(tmp_path), find_once(promoters), cluster=ray_cluster, scaling=scaling)
    printed = capsys.readouterr().out
    told = "bad: the loss is not a number in epoch 1; lower --training.learning_rate"
    assert told in printed
    assert printed.index(told) < printed.index("good: test r")
    assert "networks in training run to their end, no other begins" in printed
    assert not (tmp_path / f"later_{ray_cluster.cpus - 1}").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_networks_of_folds_are_trained_on_nodes_that_join(data: Path, tmp_path: Path) -> None:
    nodes = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        flags = ["--data", data, "--out", tmp_path / "run", "--folds", 3, "--baselines", "false"]
        flags += ["--model.channels", "8,8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", 4]
        flags += ["--training.epochs", 20, "--training.batch_size", 16, "--training.early_stopping", "null"]
        driver = start("train", flags, nodes.address)
        printed = read_until(driver, "3 networks, ")
        assert printed[-1] == "3 networks, as many at a time as find room (now 1, at most 3)\n"
        with held(lambda: ray_workers("RayTrainWorker"), driver):
            nodes.add_node(num_cpus=2)
            wait_until(lambda: len(ray_workers("RayTrainWorker")) == 3, while_runs=driver)
        rest = driver.communicate()[0]
        assert driver.returncode == 0, rest
    finally:
        nodes.shutdown()
    assert len(pd.read_csv(tmp_path / "run" / "folds.csv")) == 3
