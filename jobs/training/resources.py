"""What Ray Train gives the workers of a training, and how many trainings fit on a cluster."""

from __future__ import annotations

from typing import Any

from ray.train import ScalingConfig

from jobs.ray_runtime.capacity import Cluster, tasks_that_fit
from promoter.errors import InputError


def scaling_config(
    cluster: Cluster,
    workers: int,
    *,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
    min_workers: int | None = None,
) -> ScalingConfig:
    """Return the number of workers and their resources, as Ray Train wants them.

    Args:
        cluster: cluster that the workers will run on.
        workers: number of workers, the maximum with `min_workers`.
        gpus_per_worker: number of GPUs for each worker, or fraction of one; None: 1 if the cluster has
            GPUs, else 0.
        cpus_per_worker: number of CPUs for each worker; None: 1 for a worker with a GPU, else an equal
            share of the cluster's.
        min_workers: minimum number of workers, for as many as find room; None: always `workers`.

    Raises:
        InputError: the cluster has less, and can never have more; or several workers would share a GPU.
    """
    gpus = float(cluster.gpus > 0) if gpus_per_worker is None else gpus_per_worker
    cpus = cpus_per_worker or (1 if gpus else max(1, cluster.cpus // workers))
    cluster.check_capacity(min_workers or workers, cpus, gpus, "--workers, --cpus_per_worker or --gpus_per_worker")
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    if 0 < gpus < 1 and workers > 1:
        raise InputError(
            f"--gpus_per_worker {gpus:g} with --workers {workers}: by nccl, which sums up their gradients, each "
            "worker needs a GPU of its own; take --gpus_per_worker 1, or one worker"
        )
    number = workers if min_workers in (None, workers) else (min_workers, workers)
    return ScalingConfig(num_workers=number, use_gpu=gpus > 0, resources_per_worker=resources)


def trainings_that_fit(cluster: Cluster, scaling: ScalingConfig) -> int:
    """Return how many trainings, each with all of its workers, fit on the cluster at the same time: at least 1."""
    each: Any = scaling.resources_per_worker or {}
    workers = tasks_that_fit(cluster.nodes, each.get("CPU", 0), each.get("GPU", 0))
    return max(1, workers // max_workers(scaling))


def max_workers(scaling: ScalingConfig) -> int:
    """Return the number of workers, or the maximum of a range."""
    number: Any = scaling.num_workers  # typed as a search space, too
    return number[1] if isinstance(number, tuple) else number
