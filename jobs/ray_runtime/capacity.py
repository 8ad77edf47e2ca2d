"""How many tasks and workers fit on the nodes of a cluster, now and once its autoscaler has done what it may."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from jobs.cli.console import console, plural
from promoter import storage
from promoter.errors import InputError, doubt
from promoter.limits import require_limits

_REFRESH_SECONDS = 2.0  # age up to which a count of nodes is believed: asking costs a call to the head
_PREFETCH_FACTOR = 2  # tasks submitted for each that runs, so that a worker never waits for the driver
_MIN_ASKED = 64  # tasks submitted to a cluster that may grow to nobody knows what: they are what makes it grow
ACCELERATOR = "accelerator_type:"  # what Ray puts before the name of a card among the resources of its node


class Node(NamedTuple):
    """What a node offers to tasks.

    Attributes:
        cpus: number of CPUs.
        gpus: number of GPUs.
        memory: bytes that Ray gives to tasks; infinite where that is not stated.
        accelerators: names of its cards, as Ray has them, such as `L4`.
    """

    cpus: float
    gpus: float
    memory: float = math.inf
    accelerators: frozenset[str] = frozenset()

    def tasks_that_fit(self, demand: Demand) -> int:
        """Return how many tasks that each reserve this fit on the node at the same time; of 0 CPUs one a CPU."""
        if demand.accelerator_type and demand.accelerator_type not in self.accelerators:
            return 0
        shares = [self.cpus / demand.cpus if demand.cpus else self.cpus]
        shares += [self.gpus / demand.gpus] if demand.gpus else []
        shares += [self.memory / demand.memory] if demand.memory else []
        return int(1e-6 + min(shares))  # // would make four of 1 // 0.2


class Demand(NamedTuple):
    """What a task or worker reserves.

    Attributes:
        cpus: number of CPUs.
        gpus: number of GPUs, or fraction of one.
        memory: bytes of memory; 0: none.
        accelerator_type: name of the card it must have, as Ray has it; None: any.
    """

    cpus: float
    gpus: float
    memory: float = 0
    accelerator_type: str | None = None

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Demand:
        """Return the same from resources as Ray names them."""
        card = next((name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)), None)
        return cls(resources.get("CPU", 0), resources.get("GPU", 0), resources.get("memory", 0), card)

    def __str__(self) -> str:
        """Say it in a message, memory apart."""
        card = f" of type {self.accelerator_type}" if self.accelerator_type else ""
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs{card}"

    def times(self, count: int) -> Demand:
        """Return what so many reserve together."""
        return self._replace(cpus=self.cpus * count, gpus=self.gpus * count, memory=self.memory * count)


@dataclass(frozen=True)
class Cluster:
    """The nodes of a Ray cluster.

    Attributes:
        nodes: nodes that are alive.
        local: true if this process started the cluster, on this machine.
        max_nodes: the head, and all nodes that an autoscaler may start; None if that is not known.
        max_workers: maximum number of nodes beside the head; None: all of `max_nodes`.
    """

    nodes: tuple[Node, ...]
    local: bool
    max_nodes: tuple[Node, ...] | None = None
    max_workers: int | None = None

    @property
    def cpus(self) -> int:
        """CPUs of all nodes."""
        return int(sum(node.cpus for node in self.nodes))

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return int(sum(node.gpus for node in self.nodes))

    def largest(self, demand: Demand) -> tuple[Node, ...]:
        """Return its nodes once the autoscaler has done what it may for tasks that each reserve this."""
        if self.max_nodes is None:
            return self.nodes
        head, *workers = self.max_nodes
        workers.sort(key=lambda node: node.tasks_that_fit(demand), reverse=True)
        return (head, *workers[: self.max_workers])

    def choose_gpus(self, asked: float | None, accelerator_type: str | None = None) -> float:
        """Return the number of GPUs for each task or worker: what was asked for, or by default what suits.

        By default it is 1 where the cluster has GPUs or may start some, and 0 elsewhere; which is printed.

        Args:
            asked: number that the user gave; None for the default.
            accelerator_type: name of the card that is wanted, for which the default is 1; None: any, or none.
        """
        if asked is not None:
            return asked
        if accelerator_type:
            return 1
        if self.local and self.gpus and (reason := _why_no_cuda()) is not None:
            doubt(f"{reason}, so the {plural(self.gpus, 'GPU')} of this machine will not be used")
            return 0
        if any(node.gpus for node in (*self.nodes, *(self.max_nodes or ()))):
            console.print("a GPU each, since there are GPUs; --gpus_per_worker 0: on CPUs alone", style="dim")
            return 1
        if not self.local and self.max_nodes is None:
            console.print(
                "no GPU each, since there is none so far; where the cluster may start some: --gpus_per_worker 1",
                style="dim",
            )
        return 0

    def fit_memory(self, wanted: float) -> float:
        """Return how many bytes a task should reserve, so that it can run: none where not all nodes state theirs.

        Args:
            wanted: bytes that it is expected to need.
        """
        nodes = (*self.nodes, *(self.max_nodes or ())[1:])  # the head is there, and knows
        largest = max((node.memory for node in nodes if node.cpus), default=math.inf)
        return 0 if math.isinf(largest) else min(wanted, largest)

    def check_capacity(self, count: int, demand: Demand, flags: str) -> None:
        """Raise InputError if the request can never be met; otherwise print what the job is waiting for.

        Args:
            count: number of tasks or workers, which must all run at the same time.
            demand: what each reserves.
            flags: names of the flags to lower, for the message.

        Raises:
            InputError: they do not fit on this machine, or on all nodes that the autoscaler may start.
        """
        if tasks_that_fit(self.nodes, demand) >= count:
            return
        wants = demand.times(count)
        present = f"{len(self.nodes)} nodes with {self.cpus} CPUs and {self.gpus} GPUs"
        request = f"--workers {count}: they want {wants}" if count > 1 else f"a worker wants {wants}"
        if demand.accelerator_type and (kinds := self._accelerators()):
            present += f" ({', '.join(kinds)})"
            flags += " or --accelerator_type"
        if self.local:
            has = f"{self.cpus} and {self.gpus}" if not demand.accelerator_type else present
            raise InputError(f"{request}, this machine has {has}; lower {flags}")
        if self.max_nodes is None:
            console.print(f"{request}, the cluster has {present} so far: waiting for more", style="dim")
            return
        if tasks_that_fit(self.largest(demand), demand) < count:
            largest = Cluster(self.largest(demand), local=False)
            raise InputError(
                f"{request}, which this cluster can never give: its autoscaler stops at "
                f"{len(largest.nodes)} nodes with {largest.cpus} CPUs and {largest.gpus} GPUs; lower {flags}, "
                "or raise max_workers of the cluster"
            )
        console.print(f"{request}, the cluster has {present} so far: waiting for its autoscaler", style="dim")

    def _accelerators(self) -> list[str]:
        nodes = (*self.nodes, *(self.max_nodes or ()))
        return sorted(frozenset().union(*(node.accelerators for node in nodes)))


def _why_no_cuda() -> str | None:
    """Return why PyTorch cannot use the GPUs of this machine; None if it can."""
    import torch  # here, since a command line is refused without it

    if torch.cuda.is_available():
        return None
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    return "PyTorch finds no usable driver for GPUs" if built else "this PyTorch is built for CPUs alone"


@dataclass(frozen=True)
class TaskLimits:
    """What each task reserves, and how many tasks may run at the same time.

    Args:
        workers: maximum number of tasks at the same time; None: as many as fit.
        cpus: number of CPUs that each task reserves.
        gpus: number of GPUs, or fraction of one, that each task reserves; None: 1 where there are GPUs.
        accelerator_type: name of the card that each task must have, as Ray has it; None: any.
        memory: bytes that each task reserves.

    Raises:
        InputError: a number that nothing can run with; names its flag.
    """

    workers: int | None
    cpus: int
    gpus: float | None
    accelerator_type: str | None = None
    memory: float = 0

    def __post_init__(self) -> None:
        """Refuse numbers that nothing can run with."""
        require_resources(self.workers, self.cpus, self.gpus, self.accelerator_type)

    @property
    def demand(self) -> Demand:
        """What each task reserves."""
        return Demand(self.cpus, self.gpus or 0, self.memory, self.accelerator_type)

    def on(self, cluster: Cluster, memory: float = 0) -> TaskLimits:
        """Return the limits for a cluster: with the default number of GPUs, and memory.

        Args:
            cluster: cluster that the tasks will run on.
            memory: bytes that a task is expected to need; 0 (default): that is not known.

        Raises:
            InputError: not even one task fits, nor ever will.
        """
        gpus = cluster.choose_gpus(self.gpus, self.accelerator_type)
        limits = replace(self, gpus=gpus, memory=cluster.fit_memory(memory))
        cluster.check_capacity(1, limits.demand, "--cpus_per_worker or --gpus_per_worker")
        return limits

    def apply(self, task: Any, **options: Any) -> Any:
        """Return the task with its resources; `fan_out` runs it again when its worker or node is lost."""
        demand = self.demand
        resources: dict[str, Any] = {"num_cpus": demand.cpus, "num_gpus": demand.gpus}
        resources |= {"memory": int(demand.memory)} if demand.memory else {}
        resources |= {"accelerator_type": demand.accelerator_type} if demand.accelerator_type else {}
        return task.options(**resources, max_retries=0, **options)

    def max_concurrent_tasks(self, cluster: Cluster) -> int:
        """Return how many tasks can run at the same time on the cluster at its largest: at least 1."""
        return max(1, self.workers or tasks_that_fit(cluster.largest(self.demand), self.demand))

    def in_flight(self, cluster: Cluster) -> Callable[[], int]:
        """Return a callable that gives the current limit on submitted tasks, which tracks the cluster's size.

        It is twice what runs now, and no less than what the cluster may run at its largest: tasks that wait are
        what an autoscaler starts nodes for, all at once.
        """
        if self.workers:
            workers = self.workers
            return lambda: workers
        growing = not cluster.local and cluster.max_nodes is None
        least = max(_MIN_ASKED if growing else 1, self.max_concurrent_tasks(cluster))

        @functools.lru_cache(maxsize=1)
        def limit(period: float) -> int:
            return max(least, tasks_that_fit(alive_nodes(), self.demand) * _PREFETCH_FACTOR)

        return lambda: limit(time.monotonic() // _REFRESH_SECONDS)


def require_resources(
    workers: int | None, cpus: int | None, gpus: float | None, accelerator_type: str | None = None
) -> None:
    """Raise InputError for numbers of workers, CPUs or GPUs that nothing can run with.

    Args:
        workers: number of workers; None: left to the job.
        cpus: number of CPUs for each worker; None: left to the job.
        gpus: number of GPUs, or fraction of one, for each worker; None: left to the job.
        accelerator_type: name of the card that each worker must have; None: any.

    Raises:
        InputError: names the flag.
    """
    if workers == 0:
        raise InputError("--workers 0: must be at least 1")
    require_limits({"workers": workers, "cpus_per_worker": cpus, "gpus_per_worker": gpus})
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise InputError(f"--gpus_per_worker {gpus:g}: must be a whole number, or a fraction below 1")
    if accelerator_type is not None and gpus == 0:
        raise InputError(
            f"--accelerator_type {accelerator_type}: a worker without GPU has no card to choose; leave out "
            "--gpus_per_worker 0"
        )


def alive_nodes() -> tuple[Node, ...]:
    """Return the nodes that are alive now."""
    return tuple(alive_nodes_by_id().values())


def alive_nodes_by_id() -> dict[str, Node]:
    """Return the nodes that are alive now, by Ray's id."""
    import ray  # here, since a command line is refused without it

    return {node["NodeID"]: _node(node["Resources"]) for node in ray.nodes() if node["Alive"]}


def autoscaler_limits() -> tuple[tuple[Node, ...], int] | None:
    """Return the head and all nodes that an autoscaler may start, and how many at the same time; None if unknown.

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
    return (head, *workers), limit


def _node(resources: Mapping[str, float]) -> Node:
    cards = frozenset(name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR))
    return Node(
        resources.get("CPU", 0), resources.get("GPU", 0), resources.get("memory", math.inf), accelerators=cards
    )


def tasks_that_fit(nodes: Iterable[Node], demand: Demand) -> int:
    """Return how many tasks that each reserve this fit on the nodes at the same time."""
    return sum(node.tasks_that_fit(demand) for node in nodes)
