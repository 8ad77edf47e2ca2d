"""What of this machine a Ray started here may use: Ray itself takes all that the machine has.

A job of Slurm, a container or `taskset` may use a part of it: CPU affinity, the limits of the process's control
group and of those around it, and what Slurm says where it does not bind. Ray obeys `CUDA_VISIBLE_DEVICES` itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_STORE_SHARE = 0.3  # of the memory, for Ray's object store, as Ray has it
_SHM_SHARE = 0.95  # of /dev/shm, beyond which Ray keeps objects on disk
_MAX_STORE = 200 * 10**9  # bytes, as Ray has it
_SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")  # the first is set only where the user gave it


class CpuLimit(NamedTuple):
    """How many CPUs a job may use on this machine, and why not all; `reason` is None if it may."""

    cpus: int
    reason: str | None


def cpu_limit(environment: Mapping[str, str] = os.environ) -> CpuLimit:
    """Return how many CPUs this process may use, at least 1.

    Args:
        environment: environment variables, of which those of Slurm are read.
    """
    limits = {}
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        limits["CPU affinity"] = len(os.sched_getaffinity(0))
    if (quota := _cpu_quota()) is not None:
        limits["the CPU quota of its control group"] = max(1, int(quota))
    slurm = next((name for name in _SLURM if environment.get(name, "").isdecimal()), None)
    if slurm is not None:
        limits[slurm] = max(1, int(environment[slurm]))
    machine = os.cpu_count() or 1
    reason = min(limits, key=lambda name: limits[name], default=None)
    if reason is None or limits[reason] >= machine:
        return CpuLimit(machine, None)
    return CpuLimit(limits[reason], reason)


def memory_limit() -> int | None:
    """Return how many bytes of memory this process's control groups allow; None if all of the machine's."""
    names = ("memory.max", "memory/memory.limit_in_bytes")
    limits = [int(text) for text in _group_files(*names) if text.isdecimal()]
    limit = min(limits, default=None)
    return limit if limit is not None and limit < psutil.virtual_memory().total else None


def object_store_size(memory: int) -> int:
    """Return the size of Ray's object store, in bytes, that fits a limit on memory."""
    shm = Path("/dev/shm")  # noqa: S108 # where Ray keeps objects
    room = int(psutil.disk_usage(str(shm)).total * _SHM_SHARE) if shm.is_dir() else _MAX_STORE
    return min(int(memory * _STORE_SHARE), room, _MAX_STORE)


def _cpu_quota() -> float | None:
    """Return the smallest CPU quota of the control groups of this process, in CPUs; None if there is none."""
    quotas = [text.split() for text in _group_files("cpu.max")]
    old = zip(_group_files("cpu/cpu.cfs_quota_us"), _group_files("cpu/cpu.cfs_period_us"), strict=True)
    pairs = [*quotas, *old]
    return min((int(q) / int(p) for q, p in pairs if q.isdecimal() and int(p) > 0), default=None)


def _group_files(*names: str) -> Iterator[str]:
    """Yield the content of files in the control groups of this process, and in those around them.

    Args:
        names: names of files in version 2, or `CONTROLLER/FILE` in version 1.
    """
    try:
        lines = [line.split(":", 2) for line in _OWN_GROUPS.read_text().splitlines()]
    except OSError:  # not Linux
        return
    for name in names:
        controller, _, file = name.rpartition("/")
        # of version 2 the field of controllers is empty; version 1 may join several (cpu,cpuacct)
        own = next((path for _, controllers, path in lines if controller in controllers.split(",")), None)
        if own is None:
            continue
        top = _GROUPS / controller
        # in a container the path may be that of the host: its own group is then mounted at the top
        for group in (top / own.strip("/"), *(top / own.strip("/")).parents):
            if group.is_relative_to(top):
                try:
                    yield (group / file).read_text().strip()
                except OSError:
                    continue
