"""What tasks and workers ask of GPUs, on nodes that only say they have some; where there are, what they compute.

The tests marked `gpu` have not been run so far: no machine with a GPU was at hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from jobs import cluster
from jobs.ism import ism
from jobs.train import train
from jobs.training_run import at_once, scaling_config
from promoter.checkpoint import ModelInfo, load_model, save_model
from promoter.dataset import read_promoters
from promoter.errors import InputError
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.model import CNNConfig, PromoterCNN
from promoter.sequence import decode
from promoter.splits import SplitConfig
from promoter.training import Examples, TrainingConfig, fit, predict

ROOT = Path(__file__).parents[2]
GPU_NODE = cluster.Node(8, 4)


def gpu(count: int = 1) -> pytest.MarkDecorator:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return pytest.mark.skipif(there < count, reason=f"needs {count} GPU, there are {there}")


# --- what is asked for -------------------------------------------------------------------------------------------


def test_workers_ask_for_a_gpu_each_where_there_are_gpus() -> None:
    place = cluster.Cluster((cluster.Node(4, 0), GPU_NODE, GPU_NODE), local=False)
    scaling = scaling_config(place, 4)
    assert (scaling.num_workers, scaling.use_gpu) == (4, True)
    assert scaling.resources_per_worker == {"CPU": 1, "GPU": 1}
    assert at_once(place, scaling) == 2
    assert at_once(place, scaling_config(place, 1, gpus_per_worker=0.5)) == 16
    without = scaling_config(place, 2, gpus_per_worker=0)
    assert not without.use_gpu
    assert without.resources_per_worker == {"CPU": 10}


def test_elastic_workers_ask_for_a_range() -> None:
    place = cluster.Cluster((GPU_NODE,), local=False, most=(GPU_NODE, GPU_NODE))
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
def test_what_gpus_cannot_do_is_refused(workers: int, gpus: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scaling_config(cluster.Cluster((GPU_NODE,), local=True), workers, gpus)


def test_one_and_a_half_gpus_are_refused() -> None:
    with pytest.raises(InputError, match=r"--gpus_per_worker 1\.5: must be a whole number, or a fraction below 1"):
        cluster.TaskLimits(None, 1, 1.5)


SHARING = """
    import json, os, time
    import ray
    from jobs import cluster

    @ray.remote
    def work(began):
        time.sleep(max(0, began + 12 - time.time()))  # until all have begun
        return os.environ["CUDA_VISIBLE_DEVICES"], ray.get_gpu_ids(), time.time()

    place = cluster.connect()
    limits = cluster.TaskLimits(None, 1, 0.5)
    task, began = limits.apply(work), time.time()
    found = cluster.fan_out(lambda item, attempt: task.remote(began), range(4), limits.in_flight(place))
    print(json.dumps([place.gpus, limits.at_once(place), [result for _, result in found]]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_two_tasks_share_a_gpu_and_each_sees_one(tmp_path: Path) -> None:
    """Ray believes what a node says of its GPUs, and gives them out all the same."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "num_gpus": 2})
    environment = {**os.environ, "RAY_ADDRESS": str(nodes.address)}
    try:
        words = [sys.executable, "-c", textwrap.dedent(SHARING)]
        ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        gpus, fitting, found = json.loads(ended.stdout.splitlines()[-1])
        assert (gpus, fitting) == (2, 4)
        assert sorted(visible for visible, _, _ in found) == ["0", "0", "1", "1"]
        assert all(ids == [int(visible)] for visible, ids, _ in found)
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


# --- on a GPU ----------------------------------------------------------------------------------------------------


def network() -> tuple[PromoterCNN, np.ndarray]:
    torch.manual_seed(0)
    model = PromoterCNN(CNNConfig()).eval()
    return model, np.random.default_rng(0).integers(0, 5, (3, 700), dtype=np.uint8)


@pytest.mark.gpu
@gpu()
def test_scores_are_those_of_the_cpu() -> None:
    model, tokens = network()
    expected = saturation_mutagenesis(model, tokens)
    found = saturation_mutagenesis(model, tokens, device="cuda")
    largest = np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
    assert np.abs(found - expected).max() <= (2e-5 * largest).max()  # each side is off by at most 1e-5
    predicted = predict(model, tokens, torch.device("cuda"))
    np.testing.assert_allclose(predicted, predict(model, tokens, torch.device("cpu")), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@gpu()
def test_bf16_is_off_by_a_few_hundredths_of_the_largest_score() -> None:
    model, tokens = network()
    expected = saturation_mutagenesis(model, tokens)
    found = saturation_mutagenesis(model, tokens, device="cuda", precision="bf16")
    assert np.abs(found - expected).max() <= 5e-2 * np.abs(expected).max()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


@pytest.mark.gpu
@gpu()
def test_a_full_gpu_is_answered_by_smaller_batches() -> None:
    model, tokens = network()
    expected = saturation_mutagenesis(model, tokens)
    free = torch.cuda.mem_get_info()[0]
    hog = torch.empty(max(0, free - (400 << 20)), dtype=torch.uint8, device="cuda")
    try:
        found = saturation_mutagenesis(model, tokens, device="cuda", batch_size=1 << 16)
    finally:
        del hog
        torch.cuda.empty_cache()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.gpu
@gpu()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fit_on_a_gpu_learns_as_on_a_cpu(precision: Any) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (256, 100), dtype=np.uint8)
    targets = (tokens == 2).mean(axis=1, keepdims=True).astype(np.float32)  # G content
    some, others = Examples(tokens[:200], targets[:200]), Examples(tokens[200:], targets[200:])
    config = TrainingConfig(epochs=8, batch_size=16, learning_rate=3e-3, precision=precision)
    r = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = PromoterCNN(CNNConfig((16, 16), (7, 3), (4,)), length=100)
        state = fit(model, some, others, config, device)
        r[device] = max(record["val_pearson"] for record in state.history)
    assert r["cuda"] == pytest.approx(r["cpu"], abs=0.05)


@pytest.mark.gpu
@pytest.mark.ray
@gpu()
def test_two_tasks_share_a_real_gpu(ray_cluster: cluster.Cluster, data: Path, run: Path, tmp_path: Path) -> None:
    ism(str(run / "model"), str(data), str(tmp_path / "ism"), split="test", genes_per_task=5, gpus_per_worker=0.5)
    found = load_scores(tmp_path / "ism")
    promoters = read_promoters(data)
    rows = promoters.genes.index[promoters.genes["gene_id"].isin(found.genes["gene_id"])]
    expected = saturation_mutagenesis(load_model(run / "model"), promoters.tokens[rows])
    np.testing.assert_allclose(found.scores, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    both = [task.options(num_cpus=0, num_gpus=0.5).remote() for task in [_device] * 2]
    assert ray.get(both) == ["0", "0"]


@ray.remote
def _device() -> str:
    torch.zeros(1, device="cuda")
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.gpu
@pytest.mark.ray
@pytest.mark.parametrize("workers", [pytest.param(1, marks=gpu()), pytest.param(2, marks=gpu(2))])
def test_training_by_nccl(ray_cluster: cluster.Cluster, data: Path, tmp_path: Path, workers: int) -> None:
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
