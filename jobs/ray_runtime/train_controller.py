"""Reports of Ray Train's workers: made on a worker, with a checkpoint, and read in the driver."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, ControllerError, Result, UserCallback, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.ray_runtime.connect import require_space


def report(record: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Report from a worker, with a checkpoint.

    Args:
        record: what the driver is told of the first worker's progress.
        write: function that fills the checkpoint's folder; only the first worker calls it.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = None
        if ray.train.get_context().get_world_rank() == 0:
            write(Path(folder))
            saved = Checkpoint.from_directory(folder)
        ray.train.report(record, checkpoint=saved)


def read_checkpoint(name: str) -> bytes | None:
    """Return, on a worker, a file of the last checkpoint of this run or an earlier one; None without one."""
    saved = ray.train.get_checkpoint()
    if saved is None:
        return None
    with saved.as_directory() as folder:
        return (Path(folder) / name).read_bytes()


class Run:
    """A trainer that runs in a thread, and the reports of its first worker.

    Ray's own `TuneReportCallback` passes reports on too, but can block for ever when two come at once (seen with
    Ray 2.60: its reader puts into a queue that only it empties); so a queue of our own carries them.

    Args:
        build: function that returns the trainer; the callback it is given must be among the trainer's.
    """

    def __init__(self, build: Callable[[UserCallback], TorchTrainer]) -> None:
        # on this node: another may be lost, and the run with it
        this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._records = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": this_node})
        self._trainer = build(_Relay(self._records))
        self._outcome: list[Result | BaseException] = []
        self._thread = threading.Thread(target=self._fit, daemon=True)  # the caller's stays free for Ctrl-C
        self._thread.start()

    def _fit(self) -> None:
        try:
            self._outcome.append(self._trainer.fit())
        except BaseException as error:  # whatever it is, `result` raises it in the caller's thread
            self._outcome.append(error)

    def next(self) -> dict[str, Any] | None:
        """Wait for the next report and return it; None at the end.

        Raises:
            StorageError: the disk of Ray's files is full.
        """
        while True:
            running = self._thread.is_alive()
            try:
                return self._records.get(timeout=0.5)
            except Empty:
                if not running:
                    return None
                require_space()

    def result(self) -> Result:
        """Wait for the end of the training, and return its result.

        Raises:
            Exception: the error of a worker or of Ray Train, as it was raised there.
        """
        self._thread.join()
        self._records.shutdown(force=True)
        result = self._outcome[0]
        if isinstance(result, WorkerGroupError) and result.worker_failures:
            raise next(iter(result.worker_failures.values())) from result
        if isinstance(result, ControllerError):  # such as a store that fails as it keeps the checkpoints
            raise result.controller_failure from result
        if isinstance(result, BaseException):
            raise result
        return result


class _Relay(UserCallback):
    """Passes each committed report on; runs in the process of Ray Train's controller."""

    def __init__(self, records: Queue) -> None:
        self.records = records

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        self.records.put_nowait(metrics[0])
