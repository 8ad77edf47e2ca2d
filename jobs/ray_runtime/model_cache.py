"""The models that a worker process has built, kept for its next tasks."""

from __future__ import annotations

import functools
import os

import ray
import torch

from promoter.checkpoint import SerializedModel, deserialize_model
from promoter.models.build import Network
from promoter.training.allocator import expandable_segments, keep_freed_memory


def task_device() -> str:
    """Return `cuda` for a task that reserves a GPU, else `cpu`; call it before the task uses its GPU."""
    if not ray.get_gpu_ids() or not torch.cuda.is_available():
        return "cpu"
    os.environ.update(expandable_segments())
    return "cuda"


@functools.lru_cache(maxsize=32)  # the models of an ensemble
def loaded_model(model: SerializedModel) -> Network:
    """Return the model on the GPU of this task, or on the CPU; each worker process builds it once."""
    keep_freed_memory()
    return deserialize_model(model, task_device())[0]
