"""Connecting to Ray, and spreading tasks over it without flooding it."""

from __future__ import annotations

import functools
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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

from jobs.cli.run import console, terminate
from jobs.ray_runtime.import_path import without_shadowing
from promoter import storage
from promoter.checkpoint import PackedModel, unpack_model
from promoter.errors import InputError
from promoter.models.build import Network
from promoter.storage import AnyPath
from promoter.training.allocator import keep_freed_memory

Item = TypeVar("Item")
_ATTEMPTS = 4  # of a task whose worker or node is lost
_LOOKS, _BETWEEN_LOOKS = 5, 0.5  # for a file on a shared disk, which may show late elsewhere
_BETWEEN_SIZES = 2.0  # seconds between two looks at how large the cluster is
_AHEAD = 2  # tasks submitted for each that runs, so that a worker never waits for the driver


class Node(NamedTuple):
    """What a node offers to tasks."""

    cpus: float
    gpus: float

    def fitting(self, cpus: float, gpus: float) -> int:
        """Return how many tasks that each want so much fit at a time."""
        fit = self.cpus / cpus if cpus else self.cpus
        # // would make four of 1 // 0.2
        return int(1e-6 + (min(fit, self.gpus / gpus) if gpus else fit))


@dataclass(frozen=True)
class Cluster:
    """What there is to compute on.

    Attributes:
        nodes: those that are there.
        local: this process started it, on this machine.
        most: all nodes that an autoscaler may bring it to; None where that is not known.
    """

    nodes: tuple[Node, ...]
    local: bool
    most: tuple[Node, ...] | None = None

    @property
    def cpus(self) -> int:
        """CPUs of all nodes."""
        return int(sum(node.cpus for node in self.nodes))

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return int(sum(node.gpus for node in self.nodes))

    def require_room(self, count: int, cpus: float, gpus: float, flags: str) -> None:
        """Refuse what can never be had; say what is waited for where it may yet come.

        Args:
            count: tasks or workers, that must all run at the same time.
            cpus: of each.
            gpus: of each.
            flags: what to lower.

        Raises:
            InputError: they do not fit on this machine, or on all that the autoscaler may start.
        """
        if sum(node.fitting(cpus, gpus) for node in self.nodes) >= count:
            return
        wants = f"{count * cpus:g} CPUs and {count * gpus:g} GPUs"
        there = f"{len(self.nodes)} nodes with {self.cpus} CPUs and {self.gpus} GPUs"
        wanted = f"--workers {count}: they want {wants}" if count > 1 else f"a worker wants {wants}"
        if self.local:
            raise InputError(f"{wanted}, this machine has {self.cpus} and {self.gpus}; lower {flags}")
        if self.most is None:
            console.print(f"{wanted}, the cluster has {there} so far: waiting for more", style="dim")
            return
        if sum(node.fitting(cpus, gpus) for node in self.most) < count:
            most = Cluster(self.most, local=False)
            raise InputError(
                f"{wanted}, which this cluster can never give: its autoscaler stops at {len(self.most)} nodes "
                f"with {most.cpus} CPUs and {most.gpus} GPUs; lower {flags}, or raise max_workers of the cluster"
            )
        console.print(f"{wanted}, the cluster has {there} so far: waiting for its autoscaler", style="dim")


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
        """Return how many tasks can run at a time once the cluster is as large as it may be: at least 1."""
        return max(1, self.workers or self._fitting(cluster.most or cluster.nodes))

    def in_flight(self, cluster: Cluster) -> Callable[[], int]:
        """Return what tells, at any time, how many tasks to keep submitted: it follows the cluster's size.

        Raises:
            InputError: not even one fits, nor ever will.
        """
        cluster.require_room(1, self.cpus, self.gpus, "--cpus_per_worker or --gpus_per_worker")
        if self.workers:
            workers = self.workers
            return lambda: workers
        # one is always asked for, and twice what runs: so an autoscaling cluster grows as long as there is work
        ahead = Recent(lambda: max(1, self._fitting(_nodes())) * _AHEAD, _BETWEEN_SIZES)
        return ahead.value

    def _fitting(self, nodes: Iterable[Node]) -> int:
        return sum(node.fitting(self.cpus, self.gpus) for node in nodes)


class Recent:
    """A number that costs something to find out, so that it is not asked for more often than once in a while.

    Args:
        ask: finds it out.
        seconds: between two times.
    """

    def __init__(self, ask: Callable[[], int], seconds: float) -> None:
        self._ask, self._seconds = ask, seconds
        self._last, self._asked = 0, -math.inf

    def value(self) -> int:
        """Return it, at most some seconds old."""
        if time.monotonic() - self._asked >= self._seconds:
            self._last, self._asked = self._ask(), time.monotonic()
        return self._last


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
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise InputError(f"--gpus_per_worker {gpus:g}: must be a whole number, or a fraction below 1")


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
        with without_shadowing():
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
    cluster = Cluster(_nodes(), local, None if local else _most_nodes())
    _announce(cluster)
    return cluster


def _nodes() -> tuple[Node, ...]:
    """Return the nodes that are there now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(Node(resources.get("CPU", 0), resources.get("GPU", 0)) for resources in alive)


def _most_nodes() -> tuple[Node, ...] | None:
    """Return the nodes of a cluster of `ray up` at its largest, if this is its head; None where nothing tells.

    Ray 2.60 has no call for it: its own `get_max_resources_from_cluster_config` is filled by Anyscale's autoscaler
    alone. But `ray up` leaves what it starts from on the head, where drivers of submitted jobs run.
    """
    started_from = Path("~/ray_bootstrap_config.yaml").expanduser()
    try:
        config = storage.read_yaml(started_from) if started_from.is_file() else {}
        kinds = dict(config["available_node_types"])
        head = kinds.pop(config["head_node_type"])["resources"]
        most = [Node(head.get("CPU", 0), head.get("GPU", 0))]
        limit = config["max_workers"]
        workers = [
            Node(kind["resources"].get("CPU", 0), kind["resources"].get("GPU", 0))
            for kind in kinds.values()
            for _ in range(min(limit, kind.get("max_workers", limit)))
        ]
    except (InputError, LookupError, TypeError, ValueError, AttributeError):  # not of `ray up`, or of another Ray
        return None
    # the largest first: what these cannot give no choice of nodes can
    return (*most, *sorted(workers, key=lambda node: (node.gpus, node.cpus), reverse=True)[:limit])


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
        looking = []  # hosts and addresses may be the same: several nodes on one machine
        for node in others:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = _sees.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            looking.append((name, task.remote(str(probe))))
        blind = []
        for name, answer in looking:
            try:
                if not ray.get(answer):
                    blind.append(name)
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
    where = "on this machine" if cluster.local else f"on {len(cluster.nodes)} nodes"
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
    in_flight: int | Callable[[], int],
    give_up: Callable[[Item, RayError], Any] | None = None,
) -> Iterator[tuple[Item, Any]]:
    """Run a task for each item with a bounded number submitted, and yield (item, result) as they finish.

    A task whose worker or node is lost, or that runs out of memory, is submitted again.

    Args:
        submit: starts the task of an item.
        items: what to do.
        in_flight: most tasks submitted at a time; or what tells it, asked again and again.
        give_up: gives the result of an item whose task is lost time and again; by default the error is raised.

    Raises:
        Exception: the first that a task raised; tasks still running are then cancelled.
    """
    pending: dict[ray.ObjectRef, tuple[Item, Attempt]] = {}
    queue = iter(items)
    most = in_flight if callable(in_flight) else lambda: in_flight
    try:
        while True:
            while len(pending) < most() and (item := next(queue, _END)) is not _END:
                pending[submit(item, Attempt())] = (item, Attempt())
            if not pending:
                return
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_BETWEEN_SIZES)
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
