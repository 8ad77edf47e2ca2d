from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError
from support.commands import read_until, start
from support.processes import command_lines, held, ray_workers, read_children

from jobs.ray_runtime import process_group
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.fan_out import Retry, fan_out

pytestmark = pytest.mark.ray
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@ray.remote(num_cpus=0)
class _Gauge:
    """Counts tasks that are running, and the most there ever were."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def change(self, by: int) -> int:
        self.now += by
        self.most = max(self.most, self.now)
        return self.most


@ray.remote(num_cpus=0)
def _work(gauge: Any, item: int) -> int:
    ray.get(gauge.change.remote(1))
    time.sleep(0.02)
    ray.get(gauge.change.remote(-1))
    return item * item


def test_fan_out_yields_each_result_once_and_bounds_what_is_submitted(ray_cluster: Cluster):
    gauge: Any = _Gauge.remote()
    submitted: list[int] = []

    def submit(item: int, _: Retry) -> ray.ObjectRef:
        submitted.append(item)
        return _work.remote(gauge, item)

    results = {}
    for item, result in fan_out(submit, range(20), TaskLimits(3, 1, 0), ray_cluster):
        assert len(submitted) - len(results) <= 3
        results[item] = result
    assert results == {item: item * item for item in range(20)}
    most: Any = ray.get(gauge.change.remote(0))
    assert most <= 3


@ray.remote(num_cpus=1)
def _fail(item: int) -> int:
    if item == 3:
        raise KeyError("gene 3")
    return item


def test_fan_out_raises_what_the_task_raised(ray_cluster: Cluster):
    with pytest.raises(KeyError, match="gene 3"):
        list(fan_out(lambda item, _: _fail.remote(item), range(10), TaskLimits(2, 1, 0), ray_cluster))


@ray.remote(num_cpus=1, max_retries=0)
def _die_once(item: int, folder: str) -> int:
    mark = Path(folder) / str(item)
    if item == 2 and not mark.exists():
        mark.touch()
        os._exit(1)
    return item


def test_fan_out_loses_no_item_when_a_worker_dies(ray_cluster: Cluster, tmp_path: Path):
    found = fan_out(lambda i, _: _die_once.remote(i, str(tmp_path)), range(6), TaskLimits(2, 1, 0), ray_cluster)
    results = sorted(item for item, _ in found)
    assert results == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "2").exists()


def _connections(process: psutil.Process) -> list[Any]:
    return process.net_connections(kind="tcp")


def listening(connections: Mapping[psutil.Process, list[Any]]) -> set[str]:
    """Return the addresses that processes listen on."""
    every = [connection for of_process in connections.values() for connection in of_process]
    return {connection.laddr.ip for connection in every if connection.status == psutil.CONN_LISTEN}


def test_local_ray_listens_on_loopback_only(ray_cluster: Cluster):
    if not ray_cluster.local:
        pytest.skip("the tests use a cluster that was there before them")
    open_ports = listening(read_children(_connections))
    assert open_ports
    assert open_ports <= LOOPBACK


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_listens_on_loopback_only(
    ray_cluster: Cluster, long_flags: list[str], tmp_path: Path, workers: int
):
    if not ray_cluster.local:
        pytest.skip("the tests use a cluster that was there before them")
    flags = [*long_flags, "--workers", workers, "--cpus_per_worker", 1, "--gpus_per_worker", 0, "--out", tmp_path]
    process = start("train", flags, ray.get_runtime_context().gcs_address)
    read_until(process, "  2/30")
    with held(lambda: ray_workers("RayTrainWorker"), process) as found:
        open_ports = listening(read_children(_connections))
    process.terminate()
    process.wait()
    assert len(found) == workers
    assert open_ports
    assert open_ports <= LOOPBACK


def test_workers_of_one_node_meet_in_a_folder_of_their_owner_and_those_of_several_on_one_address(
    ray_cluster: Cluster,
):
    path = process_group._open_store(one_node=True, size=2)
    assert isinstance(path, str)
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    host, port = process_group._open_store(one_node=False, size=2)
    assert host == ray.util.get_node_ip_address()
    sockets = [one for one in _connections(psutil.Process()) if one.laddr.port == port]
    assert {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN} == {host}
    process_group._leave()
    assert not Path(path).parent.exists()


def test_the_token_is_in_no_command_line_and_no_file(ray_cluster: Cluster):
    if not ray_cluster.local:
        pytest.skip("the tests use a cluster that was there before them")
    token = os.environ["RAY_AUTH_TOKEN"]
    names = read_children(psutil.Process.name)
    raylet = next(process for process, name in names.items() if name == "raylet")
    assert raylet.environ()["RAY_AUTH_TOKEN"] == token
    assert not [line for line in command_lines().values() if token in line]
    modes = read_children(lambda process: Path(f"/proc/{process.pid}/environ").stat().st_mode)
    assert modes
    assert not any(mode & 0o077 for mode in modes.values())  # nobody else reads the token there
    session = Path(ray.get_runtime_context().get_session_name())
    files = [path for path in (Path("/tmp/ray") / session).rglob("*") if path.is_file()]  # noqa: S108 # Ray's place
    assert files
    assert not [path for path in files if token.encode() in path.read_bytes()]


@ray.remote(num_cpus=1, max_retries=0)
def _die_always(item: int) -> int:
    if item == 1:
        os._exit(1)
    return item


def test_fan_out_gives_up_an_item_lost_four_times_and_finishes_the_others(ray_cluster: Cluster):
    tries: list[Retry] = []

    def submit(item: int, attempt: Retry) -> ray.ObjectRef:
        if item == 1:
            tries.append(attempt)
        return _die_always.remote(item)

    def give_up(item: int, error: Exception) -> str:
        return f"{item}: {type(error).__name__}"

    results = dict(fan_out(submit, range(4), TaskLimits(2, 1, 0), ray_cluster, give_up=give_up))
    assert results == {0: 0, 1: "1: WorkerCrashedError", 2: 2, 3: 3}
    # from the second loss on memory is suspected, and smaller batches are asked for
    assert tries == [Retry(0, 0), Retry(1, 0), Retry(2, 1), Retry(3, 2)]
    with pytest.raises(WorkerCrashedError):
        list(fan_out(lambda item, _: _die_always.remote(item), [1], TaskLimits(1, 1, 0), ray_cluster))


def test_out_of_memory_asks_for_smaller_batches_at_once():
    assert Retry().after(OutOfMemoryError("killed")) == Retry(1, 1)
