"""The models that a worker process has built, kept for its next tasks."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import ray
import torch

from promoter.checkpoint import SerializedModel, deserialize_model
from promoter.models.build import Network
from promoter.training.allocator import expandable_segments, keep_freed_memory

# Seen: at most 0.54 GB in ISM of 2 kb by the published network; the rest is for scores of many targets.
PROCESS_BYTES = 1_000_000_000
_COPIES = 3  # of the weights: as they are sent, as they are read, in the network


def task_device() -> str:
    """Return `cuda` for a task that reserves a GPU, else `cpu`; call it before the task uses its GPU.

    Raises:
        RuntimeError: PyTorch is built for GPUs, and cannot use that of the task; it would take hours on the CPU.
    """
    if not ray.get_gpu_ids():
        return "cpu"
    if torch.cuda.is_available():
        os.environ.update(expandable_segments())
        return "cuda"
    if torch.version.cuda:
        raise RuntimeError("CUDA driver: PyTorch cannot use the GPU that this task has reserved")
    return "cpu"


def task_memory(models: Sequence[SerializedModel]) -> int:
    """Return about how many bytes of memory a task with these models needs, for Ray to pack nodes by."""
    return PROCESS_BYTES + _COPIES * sum(len(model.weights) for model in models)


@functools.lru_cache(maxsize=32)  # the models of an ensemble
def loaded_model(model: SerializedModel) -> Network:
    """Return the model on the GPU of this task, or on the CPU; each worker process builds it once."""
    keep_freed_memory()
    return deserialize_model(model, task_device())[0]
