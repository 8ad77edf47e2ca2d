"""A search on a cluster whose nodes come later: it asks for what may come, and draws no more ahead than that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from ray.cluster_utils import Cluster
from support.commands import SMALL_NETWORK, start
from support.processes import TIMEOUT, held, ray_workers, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TRIALS = 5


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without CPUs for tasks, and a home without a file of `ray up`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    cluster.shutdown()


def flags(data: Path, out: Path) -> list[object]:
    space = "{training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}}"
    words: list[object] = ["--data", data, "--out", out, "--space", space, "--trials", TRIALS, "--folds", 2]
    words += ["--split.test", "chr4", *SMALL_NETWORK, "--training.epochs", 20, "--asha", "false"]
    return [*words, "--gpus_per_worker", 0, "--cpus_per_worker", 1]


def waiting(nodes: Cluster) -> int:
    """Return how many trials have asked for a place on a node, and wait for it."""
    groups = nodes.global_state.placement_group_table().values()
    return sum(group["state"] == "PENDING" for group in groups)


def test_as_many_trials_as_the_cluster_may_hold_ask_for_nodes_at_once(
    nodes: Cluster, data: Path, tmp_path: Path
) -> None:
    types = {"head": {"resources": {"CPU": 0}}, "worker": {"resources": {"CPU": 1}}}
    config = {"available_node_types": types, "head_node_type": "head", "max_workers": 2}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
    driver = start("tune", flags(data, tmp_path / "out"), nodes.address)
    wait_until(lambda: waiting(nodes) == 2, while_runs=driver)
    first = held(lambda: two if len(two := ray_workers("CrossValidationTrial")) == 2 else [], driver)
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        holding = pool.submit(stack.enter_context, first)  # they may be over before `add_node` returns
        nodes.add_node(num_cpus=2)
        holding.result()
        wait_until(lambda: waiting(nodes) == 1, while_runs=driver)  # the next one, as on any cluster
    printed, _ = driver.communicate(timeout=TIMEOUT)
    assert driver.returncode == 0, printed
    assert sorted(pd.read_csv(tmp_path / "out" / "trials.csv")["trial"]) == list(range(1, TRIALS + 1))


def test_draws_that_look_at_no_results_wait_for_nodes_where_nothing_tells_the_maximum(
    nodes: Cluster, data: Path, tmp_path: Path
) -> None:
    driver = start("tune", flags(data, tmp_path / "out"), nodes.address)
    try:
        wait_until(lambda: waiting(nodes) == TRIALS, while_runs=driver)
    finally:
        driver.kill()
        printed, _ = driver.communicate(timeout=TIMEOUT)
    assert f"nothing tells how far this cluster can grow: {TRIALS} trials may wait for nodes at first" in printed
