"""Run a task for each of many items without flooding Ray, repeating those whose worker or node is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from jobs.cli.console import console
from jobs.ray_runtime.connect import require_space

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
    """

    number: int = 0
    oom_retries: int = 0

    @property
    def batch_size(self) -> int | None:
        """Maximum number of sequences to compute together, fewer each time that memory runs out; None: any."""
        return max(1, _BATCH_AFTER_OOM >> 2 * (self.oom_retries - 1)) if self.oom_retries else None

    def after(self, error: RayError) -> Retry:
        """Return the next try; a second loss without a reason may be the system's answer to too much memory."""
        return Retry(self.number + 1, self.oom_retries + (isinstance(error, OutOfMemoryError) or self.number > 0))


def fan_out(
    submit: Callable[[Item, Retry], ray.ObjectRef],
    items: Iterable[Item],
    in_flight: int | Callable[[], int],
    give_up: Callable[[Item, RayError], Any] | None = None,
) -> Iterator[tuple[Item, Any]]:
    """Run a task for each item with a bounded number submitted, and yield (item, result) as they finish.

    A task whose worker or node is lost, or that runs out of memory, is submitted again.

    Args:
        submit: function that starts the task of an item.
        items: arguments of the tasks, one each.
        in_flight: maximum number of tasks submitted at the same time, or a function that returns it, called again
            whenever a task ends.
        give_up: function that returns the result of an item whose task is lost four times; by default the error is
            raised.

    Raises:
        Exception: the first error that a task raised; tasks still running are then cancelled.
    """
    pending: dict[ray.ObjectRef, tuple[Item, Retry]] = {}
    queue = iter(items)
    limit = in_flight if callable(in_flight) else lambda: in_flight
    try:
        while True:
            for item in islice(queue, max(0, limit() - len(pending))):
                pending[submit(item, Retry())] = (item, Retry())
            if not pending:
                return
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
            if not ready:
                require_space()
            for reference in ready:
                item, attempt = pending.pop(reference)
                try:
                    result = ray.get(reference)
                except RayTaskError as error:  # what the task itself raised
                    raise error.cause from error
                except TaskCancelledError:
                    raise
                except RayError as error:
                    attempt = attempt.after(error)
                    if attempt.number < _MAX_ATTEMPTS:
                        pending[submit(item, attempt)] = (item, attempt)
                        continue
                    if give_up is None:
                        raise
                    result = give_up(item, error)
                yield item, result
    finally:
        for reference in pending:
            ray.cancel(reference, force=False)


@contextmanager
def progress(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and time left on a terminal, or one line at the end elsewhere; yields `advance`."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)


class _Rate(ProgressColumn):
    """Shows the rate in units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        # rich measures between advances; a lone one leaves the mean since the start
        speed = task.finished_speed or task.speed or (task.completed / task.elapsed if task.elapsed else 0)
        return Text(f"{speed:,.{1 if speed >= 10 else 2}f} {self.unit}/s", style="dim")
