"""What tasks and workers ask of GPUs, on nodes that only say they have some."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.cluster_utils import Cluster as RayCluster
from support.commands import ROOT

from jobs.ray_runtime.capacity import Cluster, Node, TaskLimits
from jobs.training.resources import scaling_config, trainings_that_fit
from promoter.checkpoint import ModelInfo, save_model
from promoter.errors import InputError
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode

GPU_NODE = Node(8, 4)


def test_workers_ask_for_a_gpu_each_where_there_are_gpus() -> None:
    place = Cluster((Node(4, 0), GPU_NODE, GPU_NODE), local=False)
    scaling = scaling_config(place, 4)
    assert (scaling.num_workers, scaling.use_gpu) == (4, True)
    assert scaling.resources_per_worker == {"CPU": 1, "GPU": 1}
    assert trainings_that_fit(place.nodes, scaling) == 2
    assert trainings_that_fit(place.nodes, scaling_config(place, 1, gpus_per_worker=0.5)) == 16
    without = scaling_config(place, 2, gpus_per_worker=0)
    assert not without.use_gpu
    assert without.resources_per_worker == {"CPU": 8}  # an equal share of 20 CPUs would fit no node


def test_elastic_workers_ask_for_a_range() -> None:
    place = Cluster((GPU_NODE,), local=False, max_nodes=(GPU_NODE, GPU_NODE))
    assert scaling_config(place, 8, min_workers=2).num_workers == (2, 8)
    assert scaling_config(place, 8, min_workers=8).num_workers == 8
    with pytest.raises(InputError, match="can never give"):
        scaling_config(place, 16, min_workers=9)


@pytest.mark.parametrize(
    ("workers", "gpus", "message"),
    [
        (2, 0.5, "each worker needs a GPU of its own"),
        (1, 8, "this machine has 8 and 4"),
    ],
)
def test_impossible_gpus_per_worker_are_refused(workers: int, gpus: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scaling_config(Cluster((GPU_NODE,), local=True), workers, gpus_per_worker=gpus)


def test_one_and_a_half_gpus_per_worker_are_refused() -> None:
    with pytest.raises(InputError, match=r"--gpus_per_worker 1\.5: must be a whole number, or a fraction below 1"):
        TaskLimits(None, 1, 1.5)


SHARING = """
    import json, os, sys, time
    from pathlib import Path
    import ray
    from jobs.ray_runtime.capacity import TaskLimits
    from jobs.ray_runtime.connect import connect
    from jobs.ray_runtime.fan_out import fan_out

    @ray.remote
    def work(item, folder):
        (folder / str(item)).touch()
        while len(list(folder.iterdir())) < 4:  # until all have begun
            time.sleep(0.05)
        return os.environ["CUDA_VISIBLE_DEVICES"], ray.get_gpu_ids()

    place = connect()
    limits = TaskLimits(None, 1, 0.5)
    task, folder = limits.apply(work), Path(sys.argv[1])
    found = fan_out(lambda item, attempt: task.remote(item, folder), range(4), limits, place)
    print(json.dumps([place.gpus, limits.max_concurrent_tasks(place), [result for _, result in found]]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_two_tasks_share_a_gpu_and_each_sees_one(tmp_path: Path) -> None:
    """Ray believes what a node says of its GPUs, and gives them out all the same."""
    nodes = RayCluster(initialize_head=True, head_node_args={"num_cpus": 8, "num_gpus": 2})
    environment = {**os.environ, "RAY_ADDRESS": str(nodes.address)}
    try:
        (tmp_path / "begun").mkdir()
        words = [sys.executable, "-c", textwrap.dedent(SHARING), tmp_path / "begun"]
        ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        gpus, fitting, found = json.loads(ended.stdout.splitlines()[-1])
        assert (gpus, fitting) == (2, 4)
        assert sorted(visible for visible, _ in found) == ["0", "0", "1", "1"]
        assert all(ids == [int(visible)] for visible, ids in found)
        # the job, whose tasks find that there is no such GPU, and compute on the CPU
        torch.manual_seed(0)
        model = PromoterCNN(CNNConfig((8,), (7,), ())).eval()
        save_model(
            tmp_path / "model", model, ModelInfo(["y"], {"upstream": None, "downstream": None, "length": 50})
        )
        tokens = np.random.default_rng(0).integers(0, 4, (6, 50), dtype=np.uint8)
        (tmp_path / "p.fa").write_text("".join(f">g{i}\n{one}\n" for i, one in enumerate(decode(tokens))))
        flags = ["--model", tmp_path / "model", "--data", tmp_path / "p.fa", "--out", tmp_path / "ism"]
        words = [sys.executable, "-m", "jobs.ism", *map(str, flags), "--gpus_per_worker", "0.5"]
        ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        expected = saturation_mutagenesis(model, tokens)
        # in other batches than a task: rounding
        np.testing.assert_allclose(load_scores(tmp_path / "ism").scores, expected, rtol=0, atol=1e-6)
    finally:
        nodes.shutdown()
