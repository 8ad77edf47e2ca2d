"""Failures of a training's workers: which are tried again, how they are told, and when the run gives up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.cli.console import one_line, plural
from promoter.device_errors import is_device_error, is_out_of_memory
from promoter.errors import NetworkError

_MAX_FAILURES = 3  # failures without another checkpoint between them, after which the run gives up


class NoProgressError(RuntimeError):
    """A training's workers have failed again and again at the same point; the message says how to resume."""


class WorkerFailures:
    """Count the failures of a training's workers since its last checkpoint.

    Attributes:
        nodes: address of each worker's node, in the order of their ranks; empty until the workers have told.
        position: how far the last checkpoint has come; None before the first.
    """

    def __init__(self) -> None:
        self.nodes: Sequence[str] = ()
        self.position: str | None = None
        self._failures = 0
        self._taken: set[int] = set()  # ranks whose node was taken away as announced: Ray tells again and again

    def started(self, nodes: Sequence[str], position: str | None) -> None:
        """Note that workers have started, on these nodes, and how far the checkpoint is that they resume from."""
        self.nodes, self.position = nodes, position
        self._taken.clear()

    def progressed(self, position: str | None) -> None:
        """Note a new checkpoint, and how far it has come."""
        self.position, self._failures = position, 0

    def describe(self, errors: Mapping[int, Exception]) -> str:
        """Return a line on a failure that is tried again; empty if it was told before.

        Args:
            errors: rank of each worker that failed -> its error.

        Raises:
            NoProgressError: it is the third without another checkpoint.
            Exception: the error of a worker that another try would only repeat.
        """
        lost = {rank: _cause(error) for rank, error in errors.items() if _is_lost(error)}
        taken = {rank for rank, cause in lost.items() if getattr(cause, "preempted", False)}
        if taken:  # announced: no failure, however often it happens
            new, self._taken = taken - self._taken, self._taken | taken
            return f"{self._workers(new)} left with the node, as announced" if new else ""
        for error in errors.values():
            if not lost and not _is_transient(error, alone=len(self.nodes) == 1):
                raise error
        text = self._describe_lost(lost) if lost else self._describe_error(errors)
        self._failures += 1
        if self._failures < _MAX_FAILURES:
            return text
        since = f"after {self.position}" if self.position else "before the first epoch was done"
        again = f"to resume after {self.position}" if self.position else "to start anew"
        fix = f"run the same command again {again}"
        if any(is_device_error(error) and is_out_of_memory(error) for error in errors.values()):
            fix = "lower --training.batch_size, or take a GPU with more memory"
        raise NoProgressError(f"failed {_MAX_FAILURES} times {since} and got no further: {text}; {fix}")

    def _describe_lost(self, lost: Mapping[int, Exception]) -> str:
        low = any("low on memory" in str(error) for error in lost.values())
        return f"{self._workers(lost)} {'killed for lack of memory' if low else 'lost'}"

    def _describe_error(self, errors: Mapping[int, Exception]) -> str:
        rank, error = next(iter(errors.items()))
        return f"{self._workers([rank])} failed ({one_line(error)[:200]})"

    def _workers(self, ranks: Sequence[int] | Mapping[int, object] | set[int]) -> str:
        """Return `worker 2 of 4 on 10.0.0.3`, for messages."""
        total = len(self.nodes)
        if not total:
            return plural(len(ranks), "worker")
        numbers = ", ".join(str(rank + 1) for rank in sorted(ranks))
        nodes = ", ".join(dict.fromkeys(self.nodes[rank] for rank in sorted(ranks)))
        return f"worker{'s' * (len(ranks) != 1)} {numbers} of {total} on {nodes}"


def _is_lost(error: Exception) -> bool:
    """Tell whether Ray raised an error itself, which it does where a process or a node is gone or hangs."""
    return type(error).__module__.startswith("ray.")


def _cause(error: Exception) -> Exception:
    """Return why a worker did not answer."""
    return getattr(error, "health_check_failure", error)


def _is_transient(error: Exception, alone: bool) -> bool:
    """Tell whether another try may end otherwise; `alone` is true for a training with one worker.

    With several, the loss of one is a RuntimeError in the others, of gloo or nccl, which may be seen first.
    """
    if isinstance(error, OSError) or is_device_error(error) or is_out_of_memory(error):
        return True
    return isinstance(error, RuntimeError) and not isinstance(error, NetworkError) and not alone
