"""How far a run is: a bar on a terminal, a line a minute in a log, and metrics for whoever watches the cluster."""

from __future__ import annotations

import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import ray
from ray.exceptions import RayError
from ray.util.metrics import Counter
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from jobs.cli.console import as_clock, console, plural
from jobs.ray_runtime.capacity import alive_nodes
from jobs.ray_runtime.devices import DeviceError

_SECONDS = 60.0  # between two lines


class Progress:
    """Counts what is done and what was lost.

    Args:
        name: name of the job, such as `ism`.
        total: number of units.
        unit: plural noun for what is counted, such as `genes`.
    """

    def __init__(self, name: str, total: int, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.losses = 0, 0
        self.reasons: Tally[str] = Tally()
        self._began = time.monotonic()
        self._metrics = {
            "genes": Counter("promoter_genes", "Genes or sequences done.", ("job", "unit")),
            "tasks": Counter("promoter_parts_done", "Tasks done, each a part.", ("job",)),
            "losses": Counter(
                "promoter_failures", "Tasks lost with worker, node or card.", ("job", "reason", "node")
            ),
        }
        self._bar: Bar | None = None

    def advance(self, count: int) -> None:
        """Count units that are done; one call a task."""
        self.done += count
        if count:  # Ray's counters take nothing else
            self._metrics["genes"].inc(count, {"job": self.name, "unit": self.unit})
        self._metrics["tasks"].inc(1, {"job": self.name})
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)

    def count_loss(self, error: RayError | DeviceError) -> None:
        """Count a task that was lost, by what it was lost and where that is known."""
        self.losses += 1
        node = error.host if isinstance(error, DeviceError) else ""
        self.reasons[type(error).__name__ + (f" on {node}" if node else "")] += 1
        tags = {"job": self.name, "reason": type(error).__name__, "node": node}
        self._metrics["losses"].inc(1, tags)

    def line(self) -> str:
        """Return done, rate, time left, nodes and losses in a line."""
        seconds = time.monotonic() - self._began
        rate = self.done / seconds if seconds else 0.0
        words = [f"{self.name} {self.done:,}/{self.total:,}", _as_rate(rate, self.unit)]
        if self.done < self.total:
            words.append(f"{as_clock((self.total - self.done) / rate)} left" if rate else "time left unknown")
            words.append(_nodes())
        if self.losses:
            what = ", ".join(f"{count} by {reason}" for reason, count in self.reasons.most_common(3))
            words.append(f"{plural(self.losses, 'task')} lost and repeated ({what})")
        return "  ".join(words)

    @contextmanager
    def shown(self, seconds: float = _SECONDS) -> Iterator[Progress]:
        """Show a bar on a terminal; elsewhere a line each time so many seconds have passed, and at the end."""
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(self.unit))
            with Bar(*columns, TimeRemainingColumn(), console=console) as self._bar:
                self._bar.add_task(self.name, total=self.total)
                yield self
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._print_lines, args=(seconds, ended), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()
        console.print(self.line())

    def _print_lines(self, seconds: float, ended: threading.Event) -> None:
        while not ended.wait(seconds):
            console.print(self.line())


def progress(name: str, total: int, unit: str) -> AbstractContextManager[Progress]:
    """Return a context in which the progress of a run is shown; it yields the `Progress`."""
    return Progress(name, total, unit).shown()


def _nodes() -> str:
    """Return how many nodes there are, and what is in use; a run that waits for resources is known by it."""
    everything, free = ray.cluster_resources(), ray.available_resources()
    nodes = len(alive_nodes())
    used = [
        f"{everything[kind] - free.get(kind, 0):g} of {plural(everything[kind], kind)}"
        for kind in ("CPU", "GPU")
        if everything.get(kind)
    ]
    return f"{plural(nodes, 'node')}, {' and '.join(used) or 'no CPUs'} in use"


def _as_rate(rate: float, unit: str) -> str:
    return f"{rate:,.{1 if rate >= 10 else 2}f} {unit}/s"


class _Rate(ProgressColumn):
    """Shows the rate in units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        # rich measures between advances; a lone one leaves the mean since the start
        speed = task.finished_speed or task.speed or (task.completed / task.elapsed if task.elapsed else 0)
        return Text(_as_rate(speed, self.unit), style="dim")
