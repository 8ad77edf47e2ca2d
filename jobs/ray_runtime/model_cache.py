"""The models that a worker process has built, kept for its next tasks."""

from __future__ import annotations

import functools

import ray
import torch

from promoter.checkpoint import SerializedModel, deserialize_model
from promoter.models.build import Network
from promoter.training.allocator import keep_freed_memory


@functools.lru_cache(maxsize=32)  # the models of an ensemble
def loaded_model(model: SerializedModel) -> Network:
    """Return the model on the GPU of this task, or on the CPU; each worker process builds it once."""
    keep_freed_memory()
    device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
    return deserialize_model(model, device)[0]
