"""How many tasks and workers fit on the nodes of a cluster, now and once its autoscaler has done what it may."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jobs.cli.console import console
from promoter import storage
from promoter.errors import InputError
from promoter.limits import require_limits

_REFRESH_SECONDS = 2.0  # age up to which a count of nodes is believed: asking costs a call to the head
_PREFETCH_FACTOR = 2  # tasks submitted for each that runs, so that a worker never waits for the driver


class Node(NamedTuple):
    """CPUs and GPUs that a node offers to tasks."""

    cpus: float
    gpus: float

    def tasks_that_fit(self, cpus: float, gpus: float) -> int:
        """Return how many tasks fit on the node at the same time.

        Args:
            cpus: number of CPUs that each task reserves; 0: one task a CPU.
            gpus: number of GPUs, or fraction of one, that each task reserves.
        """
        fit = self.cpus / cpus if cpus else self.cpus
        # // would make four of 1 // 0.2
        return int(1e-6 + (min(fit, self.gpus / gpus) if gpus else fit))


@dataclass(frozen=True)
class Cluster:
    """The nodes of a Ray cluster.

    Attributes:
        nodes: nodes that are alive.
        local: true if this process started the cluster, on this machine.
        max_nodes: all nodes that an autoscaler may bring it to; None if that is not known.
    """

    nodes: tuple[Node, ...]
    local: bool
    max_nodes: tuple[Node, ...] | None = None

    @property
    def cpus(self) -> int:
        """CPUs of all nodes."""
        return int(sum(node.cpus for node in self.nodes))

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return int(sum(node.gpus for node in self.nodes))

    def check_capacity(self, count: int, cpus: float, gpus: float, flags: str) -> None:
        """Raise InputError if the request can never be met; otherwise print what the job is waiting for.

        Args:
            count: number of tasks or workers, which must all run at the same time.
            cpus: number of CPUs that each reserves.
            gpus: number of GPUs, or fraction of one, that each reserves.
            flags: names of the flags to lower, for the message.

        Raises:
            InputError: they do not fit on this machine, or on all nodes that the autoscaler may start.
        """
        if tasks_that_fit(self.nodes, cpus, gpus) >= count:
            return
        wants = f"{count * cpus:g} CPUs and {count * gpus:g} GPUs"
        present = f"{len(self.nodes)} nodes with {self.cpus} CPUs and {self.gpus} GPUs"
        request = f"--workers {count}: they want {wants}" if count > 1 else f"a worker wants {wants}"
        if self.local:
            raise InputError(f"{request}, this machine has {self.cpus} and {self.gpus}; lower {flags}")
        if self.max_nodes is None:
            console.print(f"{request}, the cluster has {present} so far: waiting for more", style="dim")
            return
        if tasks_that_fit(self.max_nodes, cpus, gpus) < count:
            largest = Cluster(self.max_nodes, local=False)
            raise InputError(
                f"{request}, which this cluster can never give: its autoscaler stops at "
                f"{len(self.max_nodes)} nodes with {largest.cpus} CPUs and {largest.gpus} GPUs; lower {flags}, "
                "or raise max_workers of the cluster"
            )
        console.print(f"{request}, the cluster has {present} so far: waiting for its autoscaler", style="dim")


@dataclass(frozen=True)
class TaskLimits:
    """What each task reserves, and how many tasks may run at the same time.

    Args:
        workers: maximum number of tasks at the same time; None: as many as fit.
        cpus: number of CPUs that each task reserves.
        gpus: number of GPUs, or fraction of one, that each task reserves.

    Raises:
        InputError: a number that nothing can run with; names its flag.
    """

    workers: int | None
    cpus: int
    gpus: float

    def __post_init__(self) -> None:
        """Refuse numbers that nothing can run with."""
        require_resources(self.workers, self.cpus, self.gpus)

    def apply(self, task: Any, **options: Any) -> Any:
        """Return the task with its resources; `fan_out` runs it again when its worker or node is lost."""
        return task.options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, **options)

    def max_concurrent_tasks(self, cluster: Cluster) -> int:
        """Return how many tasks can run at the same time on the cluster at its largest: at least 1."""
        return max(1, self.workers or tasks_that_fit(cluster.max_nodes or cluster.nodes, self.cpus, self.gpus))

    def in_flight(self, cluster: Cluster) -> Callable[[], int]:
        """Return a callable that gives the current limit on submitted tasks, which tracks the cluster's size.

        Raises:
            InputError: not even one task fits, nor ever will.
        """
        cluster.check_capacity(1, self.cpus, self.gpus, "--cpus_per_worker or --gpus_per_worker")
        if self.workers:
            workers = self.workers
            return lambda: workers

        @functools.lru_cache(maxsize=1)
        def limit(period: float) -> int:
            # at least one, and twice what runs: so an autoscaling cluster grows as long as there is work
            return max(1, tasks_that_fit(alive_nodes(), self.cpus, self.gpus)) * _PREFETCH_FACTOR

        return lambda: limit(time.monotonic() // _REFRESH_SECONDS)


def require_resources(workers: int | None, cpus: int | None, gpus: float | None) -> None:
    """Raise InputError for numbers of workers, CPUs or GPUs that nothing can run with.

    Args:
        workers: number of workers; None: left to the job.
        cpus: number of CPUs for each worker; None: left to the job.
        gpus: number of GPUs, or fraction of one, for each worker; None: left to the job.

    Raises:
        InputError: names the flag.
    """
    require_limits({"workers": workers, "cpus_per_worker": cpus, "gpus_per_worker": gpus})
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise InputError(f"--gpus_per_worker {gpus:g}: must be a whole number, or a fraction below 1")


def alive_nodes() -> tuple[Node, ...]:
    """Return the nodes that are alive now."""
    import ray  # here, since a command line is refused without it

    return tuple(_node(node["Resources"]) for node in ray.nodes() if node["Alive"])


def autoscaler_max_nodes() -> tuple[Node, ...] | None:
    """Return the nodes of an autoscaling cluster at its largest, if this is its head; None if nothing tells.

    Ray 2.60 has no call for it: its own `get_max_resources_from_cluster_config` is filled by Anyscale's autoscaler
    alone. But `ray up` leaves the file that it started from on the head, where drivers of submitted jobs run, and
    deploy/kuberay-account.yaml puts one of the same form there.
    """
    bootstrap = Path("~/ray_bootstrap_config.yaml").expanduser()
    try:
        config = storage.read_yaml(bootstrap) if bootstrap.is_file() else {}
        kinds = dict(config["available_node_types"])
        head = _node(kinds.pop(config["head_node_type"])["resources"])
        limit = config["max_workers"]
        workers = [
            _node(kind["resources"])
            for kind in kinds.values()
            for _ in range(min(limit, kind.get("max_workers", limit)))
        ]
    except (InputError, LookupError, TypeError, ValueError, AttributeError):  # not of `ray up`, or of another Ray
        return None
    # the largest first: what these cannot give no choice of nodes can
    return (head, *sorted(workers, key=lambda node: (node.gpus, node.cpus), reverse=True)[:limit])


def _node(resources: Mapping[str, float]) -> Node:
    return Node(resources.get("CPU", 0), resources.get("GPU", 0))


def tasks_that_fit(nodes: Iterable[Node], cpus: float, gpus: float) -> int:
    """Return how many tasks, each with these CPUs and GPUs, fit on the nodes at the same time."""
    return sum(node.tasks_that_fit(cpus, gpus) for node in nodes)
