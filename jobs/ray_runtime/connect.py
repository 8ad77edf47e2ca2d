"""Connect to a running Ray, or start one on this machine that nobody else can reach."""

from __future__ import annotations

import errno
import functools
import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from jobs.cli.console import console, plural
from jobs.cli.run import terminate
from jobs.ray_runtime.address import (
    ADDRESS,
    refused_by_ray,
    require_address,
    require_log_encoding,
    require_temporary_folder,
)
from jobs.ray_runtime.capacity import Cluster, alive_nodes, autoscaler_limits
from jobs.ray_runtime.environment import has_token, is_debug
from jobs.ray_runtime.import_path import without_shadowing
from jobs.ray_runtime.local_resources import cpu_limit, memory_limit, object_store_size
from jobs.ray_runtime.running import RunningRay, find_running, ignored
from promoter import storage
from promoter.errors import InputError, StorageError

_ASK_FOR_IT = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it, or keep it in ~/.ray/auth_token"
_LEAST_TO_START = 1 << 26  # bytes: Ray's logs and sockets fit in less


def connect() -> Cluster:
    """Connect to the Ray that `find_running` names, else start one on this machine.

    The local one listens on loopback, wants a token that only this run knows, reports no usage, takes what this
    process may use of the machine, and prints nothing unless `--debug`.

    Raises:
        InputError: the address, the token or the temporary folder cannot be used, or several Rays are running.
    """
    running = find_running()
    if not ray.is_initialized():
        require_address()
        require_log_encoding()
        for note in ignored():  # before it: a start may fail
            console.print(note, style="dim")
        _start(running)
        if threading.current_thread() is threading.main_thread():
            # Ray's own handlers would end the process with SIGABRT and stack traces
            signal.signal(signal.SIGTERM, terminate)
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if not is_debug():
        logging.getLogger("ray.train").setLevel(logging.ERROR)
    max_nodes, max_workers = (running is not None and autoscaler_limits()) or (None, None)
    cluster = Cluster(alive_nodes(), running is None, max_nodes, max_workers)
    _announce(cluster, running)
    return cluster


def _start(running: RunningRay | None) -> None:
    """Connect to a running Ray, or start one."""
    if running is None:
        require_temporary_folder()
    elif running.wants_token and not has_token():
        raise InputError(f"Ray at {running.address}: wants a token, and there is none", fix=_ASK_FOR_IT)
    require_space(_LEAST_TO_START)
    # the dashboard would take seconds to start; without it one of Ray Train's helpers logs warnings, which only
    # --debug shows
    options: dict[str, Any] = {"include_dashboard": is_debug()} | _limits() if running is None else {}
    try:
        with without_shadowing():
            ray.init(
                address="local" if running is None else running.address,
                log_to_driver=is_debug(),
                logging_level=logging.INFO if is_debug() else logging.ERROR,
                **options,
            )
    except (ValueError, RuntimeError, OSError, AuthenticationError) as error:
        if running is None:
            raise
        raise refused_by_ray(running.address, error) from error


def _limits() -> dict[str, Any]:
    """Return the arguments of `ray.init` that keep a local Ray within what this process may use of the machine."""
    cpus = cpu_limit().cpus
    if (torch := sys.modules.get("torch")) is not None:  # Ray sets the threads of its workers
        torch.set_num_threads(min(cpus, torch.get_num_threads()))
    memory = memory_limit()
    if memory is None:
        return {"num_cpus": cpus}
    store = object_store_size(memory)
    return {"num_cpus": cpus, "object_store_memory": store, "_memory": memory - store}


def require_space(least: int = 1 << 20) -> None:
    """Raise StorageError if the disk of Ray's files is full: Ray does not tell, and waits for ever.

    Args:
        least: number of bytes that must be free (default 1 MiB).

    Raises:
        StorageError: names the folder.
    """
    folder = Path(tempfile.gettempdir())
    if storage.full_folders([folder], least):
        fix = storage.fix_of_disk(errno.ENOSPC, "another temporary folder in TMPDIR")
        raise StorageError(f"{folder}: has no space left for the files of Ray; {fix}")


@functools.lru_cache(maxsize=1)
def _announce(cluster: Cluster, running: RunningRay | None) -> None:
    """Print once what was connected to."""
    has = f"{cluster.cpus} CPUs, {cluster.gpus} GPUs"
    if running is None:
        reason = cpu_limit().reason
        text = f"Ray on this machine: {has}" + (f" ({reason}; the machine has {os.cpu_count()})" if reason else "")
    else:
        text = f"Ray running at {running.address} ({plural(len(cluster.nodes), 'node')}): {has}"
        text += f"; {ADDRESS}=local starts one for this job alone" if running.found else ""
    console.print(text, style="dim")
