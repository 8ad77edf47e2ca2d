"""Connect to a Ray cluster, or start one on this machine that nobody else can reach."""

from __future__ import annotations

import errno
import functools
import logging
import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray

from jobs.cli.console import console
from jobs.cli.run import terminate
from jobs.ray_runtime.address import ADDRESS, refused_by_ray, require_address, require_temporary_folder
from jobs.ray_runtime.capacity import Cluster, alive_nodes, autoscaler_max_nodes
from jobs.ray_runtime.import_path import without_shadowing
from promoter import storage
from promoter.errors import StorageError

_LEAST_TO_START = 1 << 26  # bytes: Ray's logs and sockets fit in less


def is_debug() -> bool:
    """Tell whether `--debug` was given."""
    return os.environ.get("PROMOTER_DEBUG") == "1"


def connect() -> Cluster:
    """Connect to the cluster in `RAY_ADDRESS` (set inside a submitted job), else start one on this machine.

    The local one listens on loopback, wants a token that only this run knows, reports no usage, and
    prints nothing unless `--debug`.

    Raises:
        InputError: `RAY_ADDRESS` or the temporary folder cannot be used.
    """
    local = ADDRESS not in os.environ
    if not ray.is_initialized():
        require_address()
        if local:
            require_temporary_folder()
        require_space(_LEAST_TO_START)
        # the dashboard would take seconds to start; without it one of Ray Train's helpers logs warnings,
        # which only --debug shows
        options: dict[str, Any] = {"include_dashboard": is_debug()} if local else {}
        try:
            with without_shadowing():
                ray.init(
                    address="local" if local else None,
                    log_to_driver=is_debug(),
                    logging_level=logging.INFO if is_debug() else logging.ERROR,
                    **options,
                )
        except (ValueError, RuntimeError, OSError) as error:
            if local:
                raise
            raise refused_by_ray(error) from error
        if threading.current_thread() is threading.main_thread():
            # Ray's own handlers would end the process with SIGABRT and stack traces
            signal.signal(signal.SIGTERM, terminate)
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if not is_debug():
        logging.getLogger("ray.train").setLevel(logging.ERROR)
    cluster = Cluster(alive_nodes(), local, None if local else autoscaler_max_nodes())
    _announce(cluster)
    return cluster


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
def _announce(cluster: Cluster) -> None:
    """Print once what was connected to."""
    location = "on this machine" if cluster.local else f"on {len(cluster.nodes)} nodes"
    console.print(f"Ray {location}: {cluster.cpus} CPUs, {cluster.gpus} GPUs", style="dim")
