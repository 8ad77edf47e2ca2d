"""Several nodes, on one machine by `ray.cluster_utils`; nodes that are lost and nodes that join."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ray.cluster_utils import Cluster

from promoter.checkpoint import ModelInfo, save_model
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head without CPUs for tasks, and two nodes of one CPU each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def start(nodes: Cluster, job: str, *flags: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", f"jobs.{job}", *map(str, flags)],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": str(nodes.address)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    printed, _ = process.communicate(timeout=300)  # only so that a broken run ends the test
    assert process.returncode == 0, printed
    return printed


def wait_for(pattern: str, folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_scores_are_the_same_when_a_node_is_lost_and_another_joins(nodes: Cluster, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PromoterCNN(CNNConfig((128, 64), (15, 5), (4,))).eval()
    length, genes = 600, 80
    save_model(
        tmp_path / "model", model, ModelInfo(["y"], {"upstream": None, "downstream": None, "length": length})
    )
    tokens = np.random.default_rng(0).integers(0, 4, (genes, length), dtype=np.uint8)
    (tmp_path / "p.fa").write_text("".join(f">g{i:02d}\n{one}\n" for i, one in enumerate(decode(tokens))))
    flags = ["--model", tmp_path / "model", "--data", tmp_path / "p.fa", "--genes_per_task", 4]
    process = start(nodes, "ism", *flags, "--out", tmp_path / "ism")
    wait_for("scores/part-*.parquet", tmp_path / "ism", 3, process)
    lost = nodes.worker_nodes.copy().pop()
    nodes.remove_node(lost, allow_graceful=False)  # kills its processes
    nodes.add_node(num_cpus=1)
    printed = end(process)
    assert "3 nodes" in printed
    scores = load_scores(tmp_path / "ism")
    assert scores.genes["gene_id"].tolist() == [f"g{i:02d}" for i in range(genes)]
    expected = saturation_mutagenesis(model, tokens)
    # on more threads and in other batches than a task: rounding
    np.testing.assert_allclose(scores.scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_training_on_two_nodes_equals_two_workers_on_one_and_outlives_a_node(
    nodes: Cluster, run: Path, train_flags: list[str], tmp_path: Path
) -> None:
    flags = [*train_flags, "--out", tmp_path / "run", "--cpus_per_worker", 1]
    process = start(nodes, "train", *flags)
    assert process.stdout is not None
    for line in process.stdout:
        if line.lstrip().startswith("2/6"):
            break
    nodes.add_node(num_cpus=1)
    nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
    end(process)
    found, expected = (pd.read_csv(folder / "history.csv") for folder in (tmp_path / "run", run))
    timeless = ["epoch", "train_mse", "val_mse", "val_pearson", "val_loss"]
    # two processes that add up the same numbers, on other threads than the run on one node
    pd.testing.assert_frame_equal(found[timeless], expected[timeless], rtol=1e-4)


def test_a_search_finishes_all_its_trials_when_a_node_is_lost(nodes: Cluster, data: Path, tmp_path: Path) -> None:
    space = "{training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}}"
    flags = ["--data", data, "--out", tmp_path / "out", "--space", space, "--split.test", "chr4", "--trials", 2]
    flags += ["--folds", 2, "--asha", "false", "--training.epochs", 40, "--training.early_stopping", "null"]
    flags += ["--model.channels", "8,8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", 4]
    process = start(nodes, "tune", *flags)
    wait_for("search/trial_*/checkpoint_*", tmp_path / "out", 2, process)
    nodes.add_node(num_cpus=1)
    nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
    end(process)
    trials = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert trials["status"].tolist() == ["finished"] * 2
    assert trials["epochs"].tolist() == [40] * 2
    assert (tmp_path / "out" / "metrics.json").exists()
