"""What jobs need of a Ray cluster, under one name: `cluster.connect()`, `cluster.fan_out(…)`."""

from jobs.ray_runtime.capacity import Cluster, Node, TaskLimits, require_resources
from jobs.ray_runtime.connect import connect, is_debug
from jobs.ray_runtime.fan_out import Retry, fan_out, progress
from jobs.ray_runtime.model_cache import loaded_model
from jobs.ray_runtime.shared_disk import require_same_disk, require_shared

__all__ = [
    "Cluster",
    "Node",
    "Retry",
    "TaskLimits",
    "connect",
    "fan_out",
    "is_debug",
    "loaded_model",
    "progress",
    "require_resources",
    "require_same_disk",
    "require_shared",
]
