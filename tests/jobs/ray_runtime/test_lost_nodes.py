"""Several nodes, on one machine by `ray.cluster_utils`; nodes that are lost and nodes that join."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from cluster_fixtures import CommandRun
from ray.cluster_utils import Cluster
from support.commands import read_until, start
from support.examples import EXAMPLES, load_example, randomise, scores_by_loop
from support.processes import TIMEOUT, held, ray_workers, wait_until

from promoter.checkpoint import ModelInfo, save_model
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head without CPUs for tasks, and two nodes of one CPU each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def end(process: subprocess.Popen[str]) -> str:
    printed, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, printed
    return printed


def replace_a_node(nodes: Cluster) -> None:
    """Lose a node with all its processes, and add another."""
    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    nodes.add_node(num_cpus=1)


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
    process = start("ism", [*flags, "--out", tmp_path / "ism"], nodes.address)
    wait_until(lambda: len(list((tmp_path / "ism").glob("scores/part-*.parquet"))) >= 3, while_runs=process)
    with held(lambda: ray_workers("score_genes"), process):
        replace_a_node(nodes)
    printed = end(process)
    assert "3 nodes" in printed
    scores = load_scores(tmp_path / "ism")
    assert scores.genes["gene_id"].tolist() == [f"g{i:02d}" for i in range(genes)]
    expected = saturation_mutagenesis(model, tokens)
    # on more threads and in other batches than a task: rounding
    np.testing.assert_allclose(scores.scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_scores_of_a_network_of_other_code_are_those_of_one_node_when_a_node_is_lost(
    nodes: Cluster, tmp_path: Path
) -> None:
    """Its modules lie in the folder that the command is started in, and on the import path of no worker."""
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(EXAMPLES / "legnet.py", here)
    (here / "small.py").write_text("import legnet\n\n\ndef network():\n    return legnet.LegNet((24, 16, 16))\n")
    network = load_example("legnet").LegNet((24, 16, 16))
    randomise(network)
    safetensors.torch.save_model(network, str(here / "w.safetensors"))
    length, genes = 100, 24
    tokens = np.random.default_rng(0).integers(0, 4, (genes, length), dtype=np.uint8)
    (here / "p.fa").write_text("".join(f">g{i:02d}\n{one}\n" for i, one in enumerate(decode(tokens))))
    flags = ["--model", "external:small:network", "--model_weights", "w.safetensors", "--trust_code", "true"]
    flags += ["--data", "p.fa", "--genes_per_task", "1"]
    process = start("ism", [*flags, "--out", tmp_path / "two"], nodes.address, cwd=here)
    wait_until(lambda: len(list((tmp_path / "two").glob("scores/part-*.parquet"))) >= 3, while_runs=process)
    with held(lambda: ray_workers("score_genes"), process):
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    printed = end(process)
    assert "3 nodes" in printed
    assert "legnet.py, small.py, sent to all nodes" in printed
    end(start("ism", [*flags, "--out", tmp_path / "one", "--workers", 1], cwd=here))
    two, one = load_scores(tmp_path / "two"), load_scores(tmp_path / "one")
    assert two.genes["gene_id"].tolist() == [f"g{i:02d}" for i in range(genes)]
    np.testing.assert_array_equal(two.scores, one.scores)
    np.testing.assert_array_equal(two.predictions, one.predictions)
    expected = scores_by_loop(network, tokens[0])
    np.testing.assert_allclose(two.scores[0], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_training_on_two_nodes_equals_two_workers_on_one_and_outlives_a_node(
    nodes: Cluster, long_run: CommandRun, long_flags: list[str], tmp_path: Path
) -> None:
    flags = [*long_flags, "--out", str(tmp_path / "run"), "--cpus_per_worker", "1"]
    process = start("train", flags, nodes.address)
    before = read_until(process, "  2/30")
    with held(lambda: ray_workers("RayTrainWorker"), process) as workers:  # one on each node
        assert len(workers) == 2
        replace_a_node(nodes)
    assert "resuming after epoch" in "".join(before) + end(process)
    found, expected = (pd.read_csv(folder / "history.csv") for folder in (tmp_path / "run", long_run.out))
    timeless = ["epoch", "train_mse", "val_mse", "val_pearson", "val_loss"]
    # two processes that add up the same numbers, on other threads than the run on one node
    pd.testing.assert_frame_equal(found[timeless], expected[timeless], rtol=1e-4)


def test_a_search_finishes_all_its_trials_when_a_node_is_lost(nodes: Cluster, data: Path, tmp_path: Path) -> None:
    space = "{training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}}"
    flags = ["--data", data, "--out", tmp_path / "out", "--space", space, "--split.test", "chr4", "--trials", 2]
    flags += ["--folds", 2, "--asha", "false", "--training.epochs", 20, "--training.early_stopping", "null"]
    flags += ["--model.channels", "8,8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", 4]
    process = start("tune", flags, nodes.address)
    wait_until(lambda: len(list((tmp_path / "out").glob("search/trial_*/checkpoint_*"))) >= 2, while_runs=process)
    with held(lambda: ray_workers("ResourceTrainable"), process):
        replace_a_node(nodes)
    end(process)
    trials = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert trials["status"].tolist() == ["finished"] * 2
    assert trials["epochs"].tolist() == [20] * 2
    assert (tmp_path / "out" / "metrics.json").exists()
