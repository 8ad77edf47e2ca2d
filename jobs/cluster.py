"""Connecting to Ray, and spreading tasks over it without flooding it."""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from upath import UPath

from jobs.cli import console, terminate
from promoter import storage
from promoter.checkpoint import PackedModel, unpack_model
from promoter.errors import InputError
from promoter.memory import keep_freed_memory
from promoter.networks import Network
from promoter.storage import AnyPath

Item = TypeVar("Item")
_ATTEMPTS = 4  # of a task whose worker or node is lost
_LOOKS, _BETWEEN_LOOKS = 5, 0.5  # for a file on a shared disk, which may show late elsewhere
_AHEAD = 2  # tasks submitted for each that runs, so that a worker never waits for the driver


@dataclass(frozen=True)
class Cluster:
    """What there is to compute on: CPUs, GPUs, nodes, and whether this process started it."""

    cpus: int
    gpus: int
    nodes: int
    local: bool


@dataclass(frozen=True)
class TaskLimits:
    """What a task needs, and how many may run at a time (None: as many as fit)."""

    workers: int | None
    cpus: int
    gpus: float

    def __post_init__(self) -> None:
        """Refuse numbers that nothing can be run with."""
        require_resources(self.workers, self.cpus, self.gpus)

    def apply(self, task: Any) -> Any:
        """Return the task with its resources; `fan_out` runs it again when its worker or node is lost."""
        return task.options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)

    def at_once(self, cluster: Cluster) -> int:
        """Return how many tasks can run at a time, as far as can be told: at least 1."""
        return max(1, self.workers or self._fitting(cluster))

    def in_flight(self, cluster: Cluster) -> int:
        """Return how many tasks to keep submitted.

        Raises:
            InputError: not even one fits.
        """
        fit = self._fitting(cluster)
        if cluster.local and fit < 1:
            raise InputError(
                f"a task wants {self.cpus} CPUs and {self.gpus:g} GPUs, this machine has {cluster.cpus} and "
                f"{cluster.gpus}; lower --cpus_per_worker or --gpus_per_worker"
            )
        return self.workers or max(fit, 1) * _AHEAD

    def _fitting(self, cluster: Cluster) -> int:
        fit = cluster.cpus // self.cpus if self.cpus else cluster.cpus
        return min(fit, int(cluster.gpus / self.gpus)) if self.gpus else fit


def require_resources(workers: int | None, cpus: int | None, gpus: float | None) -> None:
    """Refuse numbers that nothing can be run with; None leaves one to the job.

    Raises:
        InputError: names the flag.
    """
    for flag, value, least in (
        ("workers", workers, 1),
        ("cpus_per_worker", cpus, 0),
        ("gpus_per_worker", gpus, 0),
    ):
        if value is not None and value < least:
            raise InputError(f"--{flag} {value:g}: must be at least {least}")


def is_debug() -> bool:
    """Tell whether `--debug` was given."""
    return os.environ.get("PROMOTER_DEBUG") == "1"


def connect() -> Cluster:
    """Connect to the cluster in `RAY_ADDRESS` (set inside a submitted job), else start one on this machine.

    The local one listens on loopback, wants a token that only this run knows, reports no usage, and
    prints nothing unless `--debug`.
    """
    local = "RAY_ADDRESS" not in os.environ
    if not ray.is_initialized():
        # the dashboard would take seconds to start; without it one of Ray Train's helpers logs warnings,
        # which only --debug shows
        options: dict[str, Any] = {"include_dashboard": is_debug()} if local else {}
        ray.init(
            address="local" if local else None,
            log_to_driver=is_debug(),
            logging_level=logging.INFO if is_debug() else logging.ERROR,
            **options,
        )
        if threading.current_thread() is threading.main_thread():
            # Ray's own handlers would end the process with SIGABRT and stack traces
            signal.signal(signal.SIGTERM, terminate)
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if not is_debug():
        logging.getLogger("ray.train").setLevel(logging.ERROR)
    resources = ray.cluster_resources()
    alive = [node for node in ray.nodes() if node["Alive"]]
    cluster = Cluster(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)), len(alive), local)
    _announce(cluster)
    return cluster


def require_shared(out: AnyPath) -> None:
    """Refuse a local output folder that another node does not see: workers there write to it, too.

    Nothing is concluded from the kind of path or the names of hosts: a file is written, and each node that there
    is now looks for it. So a shared disk passes, and so do several nodes on one machine; `require_same_disk` looks
    again on nodes that join later.

    Raises:
        InputError: names the nodes.
    """
    where = storage.resolve(out)
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not storage.is_local(where) or not others:
        return
    with storage.probe_file(where) as probe:
        looking = {}
        for node in others:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = _sees.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            looking[node["NodeManagerHostname"], node["NodeManagerAddress"]] = task.remote(str(probe))
        blind = []
        for (host, address), answer in looking.items():
            try:
                if not ray.get(answer):
                    blind.append(f"{host} ({address})")
            except RayError:  # lost meanwhile; its tasks will go elsewhere
                continue
    if blind:
        more = f" and {len(blind) - 3} more" if len(blind) > 3 else ""
        raise InputError(_unseen(where, ", ".join(blind[:3]) + more))


def require_same_disk(mark: AnyPath) -> None:
    """Refuse, in a task, to write where this node does not see what the driver has written before.

    Args:
        mark: file that the driver has written in its output folder.

    Raises:
        InputError: it is not there.
    """
    where = storage.resolve(mark)
    if storage.is_local(where) and not _looks_for(str(where)):
        raise InputError(_unseen(where.parent, socket.gethostname()))


def _unseen(where: UPath, nodes: str) -> str:
    return (
        f"--out {where}: is a local path that other nodes of the cluster do not see: {nodes}; give an address "
        "such as s3://BUCKET/FOLDER, or a folder on a disk that all nodes share"
    )


@ray.remote
def _sees(path: str) -> bool:
    return _looks_for(path)


def _looks_for(path: str) -> bool:
    for _ in range(_LOOKS):
        if os.path.exists(path):  # noqa: PTH110 # as plain as the question
            return True
        time.sleep(_BETWEEN_LOOKS)
    return False


@functools.lru_cache(maxsize=1)
def _announce(cluster: Cluster) -> None:
    """Say once what was connected to."""
    where = "on this machine" if cluster.local else f"on {cluster.nodes} nodes"
    console.print(f"Ray {where}: {cluster.cpus} CPUs, {cluster.gpus} GPUs", style="dim")


@dataclass(frozen=True)
class Attempt:
    """Which try at a task this is.

    Attributes:
        number: 0 for the first.
        tight: times that memory, or what may have been memory, ended it: compute in smaller batches.
    """

    number: int = 0
    tight: int = 0

    def after(self, error: RayError) -> Attempt:
        """Return the next; a second loss without a word may be the system's answer to too much memory."""
        return Attempt(self.number + 1, self.tight + (isinstance(error, OutOfMemoryError) or self.number > 0))


def fan_out(
    submit: Callable[[Item, Attempt], ray.ObjectRef],
    items: Iterable[Item],
    in_flight: int,
    give_up: Callable[[Item, RayError], Any] | None = None,
) -> Iterator[tuple[Item, Any]]:
    """Run a task for each item with a bounded number submitted, and yield (item, result) as they finish.

    A task whose worker or node is lost, or that runs out of memory, is submitted again.

    Args:
        submit: starts the task of an item.
        items: what to do.
        in_flight: most tasks submitted at a time.
        give_up: gives the result of an item whose task is lost time and again; by default the error is raised.

    Raises:
        Exception: the first that a task raised; tasks still running are then cancelled.
    """
    pending: dict[ray.ObjectRef, tuple[Item, Attempt]] = {}
    queue = iter(items)
    try:
        while True:
            while len(pending) < in_flight and (item := next(queue, _END)) is not _END:
                pending[submit(item, Attempt())] = (item, Attempt())
            if not pending:
                return
            ready, _ = ray.wait(list(pending), num_returns=1)
            for reference in ready:
                item, attempt = pending.pop(reference)
                try:
                    result = ray.get(reference)
                except RayTaskError as error:  # what the task itself raised
                    raise error.cause from error
                except TaskCancelledError:
                    raise
                except RayError as error:
                    attempt = attempt.after(error)
                    if attempt.number < _ATTEMPTS:
                        pending[submit(item, attempt)] = (item, attempt)
                        continue
                    if give_up is None:
                        raise
                    result = give_up(item, error)
                yield item, result
    finally:
        for reference in pending:
            ray.cancel(reference, force=False)


_END: Any = object()


@functools.lru_cache(maxsize=32)  # the members of an ensemble
def loaded_model(packed: PackedModel) -> Network:
    """Return the model on this worker's device; each worker process builds it once."""
    keep_freed_memory()
    device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
    return unpack_model(packed, device)[0]


@contextmanager
def progress(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and time left on a terminal, or one line at the end elsewhere; yields `advance`."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        # rich measures between advances; a lone one leaves the mean since the start
        speed = task.finished_speed or task.speed or (task.completed / task.elapsed if task.elapsed else 0)
        return Text(f"{speed:,.{1 if speed >= 10 else 2}f} {self.unit}/s", style="dim")
