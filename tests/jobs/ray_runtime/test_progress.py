"""What is seen of a long run: lines in a log, and metrics."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest
import ray
from ray.exceptions import WorkerCrashedError
from support.processes import TIMEOUT

from jobs.ray_runtime.capacity import Cluster
from jobs.ray_runtime.devices import DeviceError
from jobs.ray_runtime.progress import Progress


def wait_for_lines(capsys: pytest.CaptureFixture[str], count: int) -> list[str]:
    lines: list[str] = []
    deadline = time.monotonic() + TIMEOUT
    while len(lines) < count:
        assert time.monotonic() < deadline, lines
        time.sleep(0.05)
        lines += capsys.readouterr().out.splitlines()
    return lines


@pytest.mark.ray
def test_off_a_terminal_lines_tell_how_far_a_run_is_while_nothing_ends(
    ray_cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cpus = ray_cluster.cpus
    with Progress("ism", 750, "genes").shown(seconds=0.1) as shown:
        first = wait_for_lines(capsys, 1)[0]
        assert re.fullmatch(
            rf"ism 0/750  0\.00 genes/s  time left unknown  1 node, \d+ of {cpus} CPUs?.* in use", first
        )
        shown.advance(300)
        shown.count_loss(WorkerCrashedError())
        shown.count_loss(DeviceError("CUDA error: unspecified launch failure", "n1", "host1"))
        line = wait_for_lines(capsys, 2)[-1]
        assert re.match(r"ism 300/750  [\d,.]+ genes/s  0:00:\d\d left  1 node, ", line)
        assert line.endswith("2 tasks lost and repeated (1 by WorkerCrashedError, 1 by DeviceError on host1)")
        shown.advance(450)
    assert "ism 750/750" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.ray
def test_counters_reach_the_metrics_that_ray_exports(ray_cluster: Cluster) -> None:
    shown = Progress("test", 10, "genes")
    shown.advance(7)
    shown.advance(0)
    shown.count_loss(DeviceError("CUDA error", "n1", "host1"))
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = [
        r'ray_promoter_genes_total\{.*job="test".*unit="genes".*\} 7\.0',
        r'ray_promoter_parts_done_total\{.*job="test".*\} 2\.0',
        r'ray_promoter_failures_total\{.*node="host1".*reason="DeviceError".*\} 1\.0',
    ]
    deadline = time.monotonic() + TIMEOUT
    while True:
        assert time.monotonic() < deadline
        text = urllib.request.urlopen(url).read().decode()  # of this machine
        if all(re.search(pattern, text) for pattern in wanted):
            return
        time.sleep(0.5)
