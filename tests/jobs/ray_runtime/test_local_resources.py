"""Limits of CPUs and memory, from control groups as Slurm and containers make them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from jobs.ray_runtime import local_resources
from jobs.ray_runtime.local_resources import CpuLimit, cpu_limit, memory_limit, object_store_size

GIB = 1 << 30
V1 = "9:name=systemd:/\n4:memory:/slurm/uid_1/job_2\n3:cpu,cpuacct:/slurm/uid_1/job_2\n"
V2 = "0::/system.slice/job_2/step_0\n"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 CPUs and 256 GiB, without limits."""
    groups = tmp_path / "groups"
    groups.mkdir()
    monkeypatch.setattr(local_resources, "_GROUPS", groups)
    monkeypatch.setattr(local_resources, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 256 * GIB}))
    return tmp_path


def put(machine: Path, own: str, files: dict[str, str]) -> None:
    (machine / "own").write_text(own)
    for name, text in files.items():
        path = machine / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_without_limits_a_job_takes_the_whole_machine(machine: Path) -> None:
    assert cpu_limit({}) == CpuLimit(64, None)
    assert memory_limit() is None
    put(machine, V2, {"system.slice/job_2/step_0/cpu.max": "max 100000", "system.slice/job_2/memory.max": "max"})
    assert cpu_limit({}) == CpuLimit(64, None)
    assert memory_limit() is None
    huge = {"memory/slurm/uid_1/job_2/memory.limit_in_bytes": str((1 << 63) - 4096)}
    put(machine, V1, huge | {"cpu,cpuacct/slurm/uid_1/job_2/cpu.cfs_quota_us": "-1"})
    assert memory_limit() is None


@pytest.mark.parametrize(
    ("own", "files"),
    [
        (V2, {"system.slice/job_2/cpu.max": "850000 100000", "system.slice/job_2/memory.max": str(32 * GIB)}),
        (  # in a container: the path is the host's, and the limits are at the top
            "0::/kubepods/pod_1/container\n",
            {"cpu.max": "800000 100000", "memory.max": str(32 * GIB)},
        ),
        (
            V1,
            {
                "cpu/slurm/uid_1/job_2/cpu.cfs_quota_us": "800000",
                "cpu/slurm/uid_1/job_2/cpu.cfs_period_us": "100000",
                "cpu/slurm/cpu.cfs_quota_us": "-1",
                "cpu/slurm/cpu.cfs_period_us": "100000",
                "memory/slurm/uid_1/memory.limit_in_bytes": str(32 * GIB),
                "memory/memory.limit_in_bytes": str((1 << 63) - 4096),
            },
        ),
    ],
)
def test_the_smallest_limit_of_the_control_groups_holds(machine: Path, own: str, files: dict[str, str]) -> None:
    put(machine, own, files)
    assert cpu_limit({}) == CpuLimit(8, "the CPU quota of its control group")
    assert memory_limit() == 32 * GIB


def test_less_than_one_cpu_is_one(machine: Path) -> None:
    put(machine, V2, {"system.slice/job_2/step_0/cpu.max": "50000 100000"})
    assert cpu_limit({}).cpus == 1


def test_affinity_and_slurm_are_upper_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_limit({"SLURM_CPUS_ON_NODE": "16"}) == CpuLimit(16, "SLURM_CPUS_ON_NODE")
    slurm = {"SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4"}
    assert cpu_limit(slurm) == CpuLimit(4, "SLURM_CPUS_PER_TASK")
    assert cpu_limit({"SLURM_CPUS_ON_NODE": "128"}) == CpuLimit(64, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cpu_limit(slurm) == CpuLimit(2, "CPU affinity")


def test_the_object_store_takes_less_than_a_third_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "disk_usage", lambda _: type("Disk", (), {"total": 128 * GIB}))
    assert object_store_size(10 * GIB) == 3 * GIB
    monkeypatch.setattr(psutil, "disk_usage", lambda _: type("Disk", (), {"total": GIB}))
    assert object_store_size(10 * GIB) < GIB
