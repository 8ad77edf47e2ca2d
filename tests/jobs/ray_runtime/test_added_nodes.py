"""Clusters that grow while a job runs, that may grow, and whose nodes do not share a disk."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from ray.cluster_utils import Cluster as RayCluster
from support.commands import ROOT, read_until, start
from support.processes import TIMEOUT, held, ray_workers

from jobs.ray_runtime.capacity import Cluster, Demand, Node, TaskLimits, autoscaler_limits
from promoter.checkpoint import ModelInfo, save_model
from promoter.dataset.promoters import read_promoters
from promoter.errors import InputError
from promoter.models.cnn import CNNConfig, PromoterCNN

GPU_NODE = Node(4, 1)
HEAD = Node(4, 0)


def test_tasks_that_fit_are_counted_node_by_node() -> None:
    assert Node(4, 1).tasks_that_fit(Demand(1, 0)) == 4
    assert Node(4, 1).tasks_that_fit(Demand(1, 0.5)) == 2
    assert Node(1, 1).tasks_that_fit(Demand(1, 0.25)) == 1
    assert [Node(64, 1).tasks_that_fit(Demand(1, gpus)) for gpus in (0.1, 0.2, 0.3, 0.5)] == [10, 5, 3, 2]
    assert Node(4, 0).tasks_that_fit(Demand(1, 1)) == 0
    assert Node(4, 1).tasks_that_fit(Demand(0, 0)) == 4  # tasks that want nothing: one a CPU
    place = Cluster((HEAD, GPU_NODE, GPU_NODE), local=False)
    assert TaskLimits(None, 1, 1).max_concurrent_tasks(place) == 2
    growing = Cluster((HEAD,), local=False, max_nodes=(HEAD, *[GPU_NODE] * 8))
    assert TaskLimits(None, 1, 0.5).max_concurrent_tasks(growing) == 16  # so that parts are small enough for all
    # two GPUs in all, but no node has two
    assert TaskLimits(None, 1, 2).max_concurrent_tasks(Cluster((GPU_NODE,) * 2, local=False)) == 1


def test_more_than_the_autoscaler_may_start_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    place = Cluster((HEAD,), local=False, max_nodes=(HEAD, GPU_NODE, GPU_NODE))
    place.check_capacity(2, Demand(1, 1), "--workers")  # not there yet: waited for
    assert (
        "they want 2 CPUs and 2 GPUs, the cluster has 1 nodes with 4 CPUs and 0 GPUs so far"
        in capsys.readouterr().out
    )
    with pytest.raises(
        InputError, match=r"--workers 3: they want 3 CPUs and 3 GPUs.*stops at 3 nodes with 12 CPUs and 2"
    ):
        place.check_capacity(3, Demand(1, 1), "--workers")
    with pytest.raises(InputError, match="a worker wants 1 CPUs and 2 GPUs"):
        TaskLimits(None, 1, 2).on(place)


def test_workers_are_waited_for_where_the_maximum_of_nodes_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    Cluster((HEAD,), local=False).check_capacity(100, Demand(1, 1), "--workers")
    assert "waiting for more" in capsys.readouterr().out


def test_the_maximum_of_nodes_is_read_from_the_file_of_ray_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert autoscaler_limits() is None
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
    limits = autoscaler_limits()
    assert limits is not None
    assert (limits[0][0].cpus, limits[0][0].gpus, limits[1]) == (4, 0, 8)
    # eight workers in all, those that fit most of what is asked for: on small GPU nodes, large ones, or CPUs alone
    cluster = Cluster((HEAD,), False, *limits)
    for gpus, memory in ((1, 0), (0, 2e9), (4, 0)):
        limits_of_task = TaskLimits(None, 1, gpus, None, memory)
        head, *others = [node.tasks_that_fit(limits_of_task.demand) for node in limits[0]]
        assert limits_of_task.max_concurrent_tasks(cluster) == head + sum(sorted(others, reverse=True)[:8])
    assert TaskLimits(None, 1, 1).max_concurrent_tasks(cluster) == 6 + 2 * 4
    (tmp_path / "ray_bootstrap_config.yaml").write_text("available_node_types: 3\n")
    assert autoscaler_limits() is None


# --- real nodes --------------------------------------------------------------------------------------------------


@pytest.fixture
def nodes() -> Iterator[RayCluster]:
    """A head without CPUs for tasks, and a node of one CPU."""
    started = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0})
    started.add_node(num_cpus=1)
    yield started
    started.shutdown()


GROWING = """
    import sys, time
    from dataclasses import replace
    from pathlib import Path
    import ray
    from jobs.ray_runtime import capacity, fan_out
    from jobs.ray_runtime.connect import connect

    capacity._REFRESH_SECONDS = fan_out._POLL_SECONDS = 0.2

    @ray.remote
    def work():
        time.sleep(0.3)
        return ray.get_runtime_context().get_node_id()

    place = connect()
    place = replace(place, max_nodes=place.nodes)  # else many tasks are submitted: they may be what it grows by
    limits = capacity.TaskLimits(None, 1, 0)
    task, submitted, done, used = limits.apply(work), 0, 0, set()

    def submit(item, attempt):
        global submitted
        submitted += attempt.number == 0
        return task.remote()

    def items():
        while not Path(sys.argv[1]).exists():
            yield 0

    for _, node in fan_out.fan_out(submit, items(), limits, place):
        done += 1
        used.add(node)
        print(submitted - done, len(used), flush=True)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_the_number_of_tasks_follows_the_number_of_nodes(nodes: RayCluster, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(GROWING), str(stop)],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": str(nodes.address)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None

    def read_until(most: int, used: int) -> list[int]:
        """Read what the driver prints until it says this; return how many tasks there were, each time."""
        seen: list[int] = []
        assert driver.stdout is not None
        for line in driver.stdout:
            if line.startswith("Ray"):
                continue
            flying, on = map(int, line.split())
            seen.append(flying)
            if flying >= most and on >= used:
                return seen
        raise AssertionError(f"the driver ended: {seen}")

    try:
        # one has just ended when the driver prints: one less than are kept submitted
        assert max(read_until(1, 1)) == 1
        added = nodes.add_node(num_cpus=2)
        assert max(read_until(5, 2)) == 5  # three CPUs, two tasks each
        nodes.remove_node(added, allow_graceful=False)
        for line in driver.stdout:
            if line.startswith("1 "):
                break
        else:
            raise AssertionError("it never shrank")
    finally:
        stop.touch()
        driver.communicate(timeout=TIMEOUT)
    assert driver.returncode == 0


@pytest.mark.ray
@pytest.mark.slow
def test_an_elastic_training_continues_with_fewer_workers(
    nodes: RayCluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = nodes.add_node(num_cpus=1)
    flags = ["--data", data, "--out", tmp_path / "run", "--split.val", "chr3", "--split.test", "chr4"]
    flags += ["--model.channels", "8,8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", "4"]
    flags += ["--training.epochs", 40, "--training.batch_size", 16, "--training.schedule", "one_cycle"]
    flags += ["--training.early_stopping", "null", "--cpus_per_worker", 1, "--baselines", "false"]
    flags += ["--workers", 2, "--min_workers", 1]
    # Ray Train counts on the lost node a while, and waits this long for a worker there (default: 60 s)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
    driver = start("train", flags, nodes.address)
    before = "".join(read_until(driver, "  2/40"))
    with held(lambda: ray_workers("RayTrainWorker"), driver):
        nodes.remove_node(lost, allow_graceful=False)
    after, _ = driver.communicate()
    assert driver.returncode == 0, before + after
    assert "1 to 2 workers with 1 CPU each" in before
    assert "resuming after epoch" in after
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 41))
    assert history["learning_rate"].iloc[-1] < 1e-6  # the cycle ended where it should: as many steps as planned


# `ray start` would give it the machine's own address, where the head of cluster_utils does not listen
NODE = """if True:
    import sys
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    params = RayParams(
        gcs_address=sys.argv[1], redis_address=sys.argv[1], node_ip_address="127.0.0.1", num_cpus=1, num_gpus=0,
        object_store_memory=150 * 1024 * 1024, min_worker_port=0, max_worker_port=0, include_log_monitor=False,
        node_manager_port=0, dashboard_agent_listen_port=None,
    )
    node = Node(params, head=False, shutdown_at_exit=False, spawn_reaper=True)
    sys.stdin.read()
    node.kill_all_processes(check_alive=False, allow_graceful=False)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_local_out_that_a_node_does_not_see_is_refused(nodes: RayCluster, data: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    promoters = read_promoters(data)
    window: dict[str, int | None] = {"upstream": promoters.length, "downstream": 0, "length": promoters.length}
    network = PromoterCNN(CNNConfig((8,), (7,), ()))
    save_model(tmp_path / "model", network, ModelInfo(["expression"], window))
    vcf = tmp_path / "one.vcf"
    gene = next(row for row in promoters.genes.to_dict("records") if row["strand"] == "+" and row["start"] > 0)
    ref = gene["sequence"][50]
    columns = ["CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
    values = [gene["chrom"], gene["start"] + 51, ".", ref, "C" if ref == "A" else "A", ".", ".", "."]
    vcf.write_text("##fileformat=VCFv4.2\n#" + "\t".join(columns) + "\n" + "\t".join(map(str, values)) + "\n")
    of_model = ["--model", tmp_path / "model"]
    script = f'mount -t tmpfs none "{hidden}" && exec "$0" -c "$1" {nodes.address}'
    blind = subprocess.Popen(
        ["/usr/bin/unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, sys.executable, NODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + TIMEOUT
        while len(_alive(nodes)) < 3:
            if blind.poll() is not None:
                printed = blind.communicate()[0]
                if "unshare" in printed or "mount" in printed:
                    pytest.skip(f"no mount namespaces here: {printed.strip()}")
                raise AssertionError(printed)
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for job, flags in {
            "ism": of_model,
            "variants": [*of_model, "--genome", data / "genome" / "genome.fa", "--variants", vcf],
            "train": ["--split.val", "chr3", "--split.test", "chr4"],
        }.items():
            words = [sys.executable, "-m", f"jobs.{job}", *flags, "--data", data, "--out", hidden / job]
            ended = subprocess.run(
                list(map(str, words)),
                cwd=ROOT,
                env={**os.environ, "RAY_ADDRESS": str(nodes.address)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert ended.returncode == 2, ended.stdout + ended.stderr
            assert (
                f"--out {hidden / job}: is a local path that other nodes of the cluster do not see" in ended.stderr
            )
            # jobs.variants has listed by then what it leaves out
            assert {path.name for path in hidden.rglob("*") if path.is_file()} <= {"skipped.tsv"}
    finally:
        blind.communicate(timeout=TIMEOUT)  # the end of its input is the end of the node


def _alive(nodes: RayCluster) -> list[object]:
    state = nodes.global_state
    return [node for node in state.node_table() if node["Alive"]]
