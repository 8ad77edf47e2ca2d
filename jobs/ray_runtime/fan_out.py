"""Run a task for each of many items without flooding Ray, repeating those whose worker or node is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError

from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.connect import require_space
from jobs.ray_runtime.devices import SECONDS_TO_TELL, DeviceError, SickNodes
from jobs.ray_runtime.progress import Progress

Item = TypeVar("Item")
_MAX_ATTEMPTS = 4  # runs of a task whose worker or node is lost, before the item is given up
_BATCH_AFTER_OOM = 64  # sequences computed together once memory has run out
_POLL_SECONDS = 2.0  # longest wait for a result before the limit on submitted tasks is asked for again


@dataclass(frozen=True)
class Retry:
    """The count of tries at a task, which the task is started with.

    Attributes:
        number: tries before this one, 0 for the first.
        oom_retries: tries that ended for lack of memory, or may have; the task should compute in smaller batches.
        tried: ids of the nodes whose card has failed the task.
        label_selector: nodes that the task may run on, as Ray's tasks take them.
    """

    number: int = 0
    oom_retries: int = 0
    tried: frozenset[str] = frozenset()
    label_selector: dict[str, str] = field(default_factory=dict)

    @property
    def batch_size(self) -> int | None:
        """Maximum number of sequences to compute together, fewer each time that memory runs out; None: any."""
        return max(1, _BATCH_AFTER_OOM >> 2 * (self.oom_retries - 1)) if self.oom_retries else None

    def after(self, error: RayError | DeviceError) -> Retry:
        """Return the next try; a second loss without a reason may be the system's answer to too much memory."""
        if isinstance(error, DeviceError):
            tried = self.tried | {error.node}
            return replace(
                self, number=self.number + 1, oom_retries=self.oom_retries + error.out_of_memory, tried=tried
            )
        lacked_memory = isinstance(error, OutOfMemoryError) or self.number > 0
        return replace(self, number=self.number + 1, oom_retries=self.oom_retries + lacked_memory)


def fan_out(
    submit: Callable[[Item, Retry], ray.ObjectRef],
    items: Iterable[Item],
    limits: TaskLimits,
    cluster: Cluster,
    *,
    progress: Progress | None = None,
    give_up: Callable[[Item, RayError | DeviceError], Any] | None = None,
) -> Iterator[tuple[Item, Any]]:
    """Run a task for each item with a bounded number submitted, and yield (item, result) as they finish.

    A task whose worker or node is lost, that runs out of memory, or whose card fails, is submitted again; of the
    latter elsewhere, and after three errors of its card a node gets no more tasks.

    Args:
        submit: function that starts the task of an item, by `TaskLimits.apply`.
        items: arguments of the tasks, one each.
        limits: resources of each task, and how many are submitted at the same time.
        cluster: cluster that they run on.
        progress: counts the losses; None (default): nobody does.
        give_up: function that returns the result of an item whose task is lost four times; by default the error is
            raised.

    Raises:
        Exception: the first error that a task raised; tasks still running are then cancelled.
    """
    pending: dict[ray.ObjectRef, tuple[Item, Retry]] = {}
    queue = iter(items)
    limit, sick = limits.in_flight(cluster), SickNodes(limits)

    def start(item: Item, retry: Retry) -> None:
        retry = replace(retry, label_selector=sick.label_selector(retry.tried))
        pending[submit(item, retry)] = item, retry

    def count(loss: RayError | DeviceError) -> None:
        if progress is not None:
            progress.count_loss(loss)
        if isinstance(loss, DeviceError):
            sick.count(loss)
            sick.require_others(may_grow=not cluster.local)
            if not loss.out_of_memory:
                time.sleep(2 * SECONDS_TO_TELL)  # until its process has ended, and cannot be given the task again

    try:
        while True:
            for item in islice(queue, max(0, limit() - len(pending))):
                start(item, Retry())
            if not pending:
                sick.show()
                return
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
            if not ready:
                require_space()
                sick.require_others(may_grow=not cluster.local)
            for reference in ready:
                item, retry = pending.pop(reference)
                result, loss = _result_or_loss(reference)
                if loss is None:
                    yield item, result
                    continue
                count(loss)
                retry = retry.after(loss)
                if retry.number < _MAX_ATTEMPTS:
                    start(item, retry)
                elif give_up is None:
                    raise loss
                else:
                    yield item, give_up(item, loss)
    finally:
        for reference in pending:
            ray.cancel(reference, force=False)


def _result_or_loss(reference: ray.ObjectRef) -> tuple[Any, RayError | DeviceError | None]:
    """Return the result of a task, or by what it was lost; raise what it raised itself."""
    try:
        return ray.get(reference), None
    except RayTaskError as error:
        if isinstance(error.cause, DeviceError):
            return None, error.cause
        raise error.cause from error
    except TaskCancelledError:
        raise
    except RayError as error:
        return None, error
