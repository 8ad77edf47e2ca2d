"""What Ray Train gives the workers of a training, and how many trainings fit on a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psutil
from ray.train import ScalingConfig

from jobs.ray_runtime.capacity import ACCELERATOR, Cluster, Demand, Node, tasks_that_fit
from promoter.errors import InputError

_QUEUED = 16  # trainings asked for where nobody knows how large the cluster may become
_BYTES_IN_DRIVER = 1 << 29  # on the driver's node for each training: Ray Train's controller and two small actors


def scaling_config(
    cluster: Cluster,
    workers: int,
    *,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
    min_workers: int | None = None,
    accelerator_type: str | None = None,
    memory: float = 0,
) -> ScalingConfig:
    """Return the number of workers and their resources, as Ray Train wants them.

    Args:
        cluster: cluster that the workers will run on.
        workers: number of workers, the maximum with `min_workers`; 0: the driver's process trains.
        gpus_per_worker: number of GPUs for each worker, or fraction of one; None: 1 if the cluster has
            GPUs or may start some, else 0.
        cpus_per_worker: number of CPUs for each worker; None: 1 for a worker with a GPU, else an equal
            share of the cluster's, as large as a node can give.
        min_workers: minimum number of workers, for as many as find room; None: always `workers`.
        accelerator_type: name of the card that each worker must have, as Ray has it; None: any.
        memory: bytes that each worker is expected to need; 0 (default): that is not known.

    Raises:
        InputError: the cluster has less, and can never have more; or several workers would share a GPU.
    """
    if not workers:
        return ScalingConfig(num_workers=0)
    gpus = cluster.choose_gpus(gpus_per_worker, accelerator_type)
    cpus = cpus_per_worker or (1 if gpus else _equal_share(cluster, workers))
    demand = Demand(cpus, gpus, cluster.fit_memory(memory), accelerator_type)
    cluster.check_capacity(min_workers or workers, demand, "--workers, --cpus_per_worker or --gpus_per_worker")
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    resources |= {"memory": int(demand.memory)} if demand.memory else {}
    if 0 < gpus < 1 and workers > 1:
        raise InputError(
            f"--gpus_per_worker {gpus:g} with --workers {workers}: by nccl, which sums up their gradients, each "
            "worker needs a GPU of its own; take --gpus_per_worker 1, or one worker"
        )
    number = workers if min_workers in (None, workers) else (min_workers, workers)
    return ScalingConfig(
        num_workers=number, use_gpu=gpus > 0, resources_per_worker=resources, accelerator_type=accelerator_type
    )


def resources_of_worker(scaling: ScalingConfig) -> dict[str, float]:
    """Return what a worker reserves, as Ray names it, the type of its card included."""
    resources: Any = scaling.resources_per_worker or {}
    # Ray's own share, which is less than any number of tasks on a node adds up to
    card = {f"{ACCELERATOR}{scaling.accelerator_type}": 0.001} if scaling.accelerator_type else {}
    return {**resources, **card}


def _equal_share(cluster: Cluster, workers: int) -> int:
    """Return the number of CPUs with which all workers find room on the nodes: at least 1."""
    shares = range(cluster.cpus // workers, 1, -1)
    return next((cpus for cpus in shares if tasks_that_fit(cluster.nodes, Demand(cpus, 0)) >= workers), 1)


def max_concurrent_trainings(cluster: Cluster, scaling: ScalingConfig) -> int:
    """Return how many trainings, each with all of its workers, to ask for at the same time: at least 1.

    On a machine, and on a cluster whose largest size is known, as many as fit. Another cluster may grow, so it is
    asked for more: Ray starts each as soon as it finds room, and an autoscaler sees what is wanted.
    """
    # of an elastic one Ray counts whole nodes, not what other trainings leave of them
    if is_elastic(scaling) or not max_workers(scaling):
        return 1
    fitting = trainings_that_fit(cluster.largest(Demand.of(resources_of_worker(scaling))), scaling)
    if cluster.local:
        return fitting
    if cluster.max_nodes is None:
        fitting = max(fitting, _QUEUED)
    return max(1, min(fitting, int(psutil.virtual_memory().available // _BYTES_IN_DRIVER)))


def trainings_that_fit(nodes: Iterable[Node], scaling: ScalingConfig) -> int:
    """Return how many trainings, each with all of its workers, fit on the nodes at the same time: at least 1."""
    if not max_workers(scaling):
        return 1
    workers = tasks_that_fit(nodes, Demand.of(resources_of_worker(scaling)))
    return max(1, workers // max_workers(scaling))


def is_elastic(scaling: ScalingConfig) -> bool:
    """Tell whether the number of workers is a range."""
    return isinstance(scaling.num_workers, tuple)


def max_workers(scaling: ScalingConfig) -> int:
    """Return the number of workers, or the maximum of a range."""
    number: Any = scaling.num_workers  # typed as a search space, too
    return number[1] if isinstance(number, tuple) else number
