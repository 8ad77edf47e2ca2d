"""What Ray Train gives the workers of a training, and how many trainings fit on a cluster."""

from __future__ import annotations

from typing import Any

from ray.train import ScalingConfig

from jobs.ray_runtime.capacity import ACCELERATOR, Cluster, Demand, tasks_that_fit
from promoter.errors import InputError


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
        workers: number of workers, the maximum with `min_workers`.
        gpus_per_worker: number of GPUs for each worker, or fraction of one; None: 1 if the cluster has
            GPUs or may start some, else 0.
        cpus_per_worker: number of CPUs for each worker; None: 1 for a worker with a GPU, else an equal
            share of the cluster's.
        min_workers: minimum number of workers, for as many as find room; None: always `workers`.
        accelerator_type: name of the card that each worker must have, as Ray has it; None: any.
        memory: bytes that each worker is expected to need; 0 (default): that is not known.

    Raises:
        InputError: the cluster has less, and can never have more; or several workers would share a GPU.
    """
    gpus = cluster.choose_gpus(1 if accelerator_type and gpus_per_worker is None else gpus_per_worker)
    cpus = cpus_per_worker or (1 if gpus else max(1, cluster.cpus // workers))
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


def trainings_that_fit(cluster: Cluster, scaling: ScalingConfig) -> int:
    """Return how many trainings, each with all of its workers, fit on the cluster at the same time: at least 1."""
    each: Any = scaling.resources_per_worker or {}
    demand = Demand(each.get("CPU", 0), each.get("GPU", 0), each.get("memory", 0), scaling.accelerator_type)
    workers = tasks_that_fit(cluster.nodes, demand)
    return max(1, workers // max_workers(scaling))


def max_workers(scaling: ScalingConfig) -> int:
    """Return the number of workers, or the maximum of a range."""
    number: Any = scaling.num_workers  # typed as a search space, too
    return number[1] if isinstance(number, tuple) else number
