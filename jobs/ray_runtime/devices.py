"""Errors of a card, which say nothing of the data: they count as losses, and a node that has several is left out.

An error of CUDA spoils its process for good, and Ray gives the next task to the same process. A task that fails at
once makes room for another: one sick card could take all tasks of a run. So the process ends, the task is tried
elsewhere, and after three errors nothing more is sent to the node.
"""

from __future__ import annotations

import functools
import gc
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import ParamSpec, TypeVar

import ray
import torch
from ray.util.metrics import Gauge

from jobs.cli.console import console, one_line, plural
from jobs.ray_runtime.capacity import Node, TaskLimits, alive_nodes_by_id
from promoter.device_errors import is_device_error, is_out_of_memory
from promoter.errors import listed

_P = ParamSpec("_P")
_R = TypeVar("_R")
_MAX_ERRORS = 3  # of one node, after which it is left out
SECONDS_TO_TELL = 0.5  # between an error and the end of its process, so that the error reaches the driver
_SECONDS_TO_END = 3600.0  # more than a process takes to end
_WAIT_SECONDS = 600.0  # for another node where all that there are have been left out, and more may come
_MAX_NAMED = 3  # nodes named in a message


class _Process:
    """The state of this process."""

    is_leaving = False  # after an error of its card


class DeviceError(RuntimeError):
    """A card failed or was full; the message is one line.

    Args:
        reason: what PyTorch said.
        node: Ray's id of the node.
        host: name of its machine.
        out_of_memory: whether the card was full, which smaller batches may fix.
    """

    def __init__(self, reason: str, node: str, host: str, out_of_memory: bool = False) -> None:
        super().__init__(reason, node, host, out_of_memory)  # the args, by which Ray copies an exception
        self.reason, self.node, self.host, self.out_of_memory = reason, node, host, out_of_memory

    def __str__(self) -> str:
        """Name node and reason."""
        return f"node {self.host}: {self.reason}"


def ends_process_on_device_error(compute: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the function of a task so that an error of its card becomes a `DeviceError`.

    The process then ends, unless the card was only full.
    """

    @functools.wraps(compute)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return _guarded(functools.partial(compute, *args, **kwargs))

    return run


def _guarded(compute: Callable[[], _R]) -> _R:
    """Compute in a task; apart from what Ray sends to the worker, so that it finds the state of its process."""
    if _Process.is_leaving:  # the next task is lost with the process: its own error would be counted as another
        time.sleep(_SECONDS_TO_END)
    try:
        result = compute()
        _report_memory()
        return result
    except Exception as error:
        if not is_device_error(error):
            raise
        full = is_out_of_memory(error)
        if not full:
            leave_process()
        failure = DeviceError(one_line(error), ray.get_runtime_context().get_node_id(), socket.gethostname(), full)
    if full:
        gc.collect()  # the error held the tensors of its frames
        torch.cuda.empty_cache()
    raise failure


def _report_memory() -> None:
    """Tell Ray's metrics how much memory of its card this process has reserved at most."""
    if torch.cuda.is_initialized():
        memory = Gauge("promoter_gpu_memory_bytes", "Most memory of the card that a process reserved.", ("node",))
        memory.set(torch.cuda.max_memory_reserved(), {"node": socket.gethostname()})


def leave_process() -> None:
    """End this process in a moment, when what it raises has reached the driver."""
    _Process.is_leaving = True

    def leave() -> None:
        time.sleep(SECONDS_TO_TELL)
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


class SickNodes:
    """The errors of cards by node, and what nodes are left out for them.

    Args:
        limits: resources of each task.
    """

    def __init__(self, limits: TaskLimits) -> None:
        self.limits = limits
        self.errors: Counter[str] = Counter()
        self.last: dict[str, DeviceError] = {}
        self._none_since: float | None = None

    @property
    def left_out(self) -> list[str]:
        """Ids of the nodes to which nothing more is sent."""
        return [node for node, count in self.errors.items() if count >= _MAX_ERRORS]

    def count(self, error: DeviceError) -> None:
        """Count an error; say so when its node is left out. A full card is no sign of a sick one."""
        self.last[error.node] = error
        if error.out_of_memory:
            return
        self.errors[error.node] += 1
        if self.errors[error.node] == _MAX_ERRORS:
            console.print(f"{error}; its card failed {_MAX_ERRORS} times: nothing more is sent to this node")

    def label_selector(self, tried: Collection[str]) -> dict[str, str]:
        """Return what keeps a task from the nodes that are left out, and if others are free from those it tried.

        Args:
            tried: ids of the nodes whose card has failed the task.
        """
        left_out = set(self.left_out)
        avoided = left_out | set(tried)
        if not avoided:  # as a rule, and then the head need not be asked for its nodes with each task
            return {}
        if not self._usable(avoided):
            avoided = left_out
        return {"ray.io/node-id": f"!in({','.join(sorted(avoided))})"} if avoided else {}

    def _usable(self, avoided: Collection[str]) -> list[Node]:
        nodes = alive_nodes_by_id().items()
        return [node for name, node in nodes if name not in avoided and node.tasks_that_fit(self.limits.demand)]

    def require_others(self, may_grow: bool) -> None:
        """Raise RuntimeError if all nodes that fit are left out; where more may join, after ten minutes.

        Args:
            may_grow: whether nodes may join.
        """
        left_out = self.left_out
        if not left_out or self._usable(left_out):
            self._none_since = None
            return
        now = time.monotonic()
        if self._none_since is None and may_grow:
            console.print("no other node can take the tasks: waiting for one", style="dim")
        self._none_since = self._none_since or now
        if not may_grow or now - self._none_since > _WAIT_SECONDS:
            raise RuntimeError(f"no node is left whose card works: {self.describe()}")

    def describe(self) -> str:
        """Return the nodes that are left out with their last errors; empty if there is none."""
        named = [f"{self.last[node].host} ({self.last[node].reason})" for node in self.left_out]
        return listed(named, _MAX_NAMED)

    def show(self) -> None:
        """Print at the end of a run which nodes were left out."""
        if left_out := self.left_out:
            console.print(f"{plural(len(left_out), 'node')} left out, for errors of the card: {self.describe()}")
