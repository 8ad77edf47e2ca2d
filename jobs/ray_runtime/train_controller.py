"""Reports of Ray Train's workers: made on a worker, with a checkpoint, and read in the driver."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, ControllerError, Result, UserCallback
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from upath import UPath

from jobs.ray_runtime.connect import require_space
from jobs.ray_runtime.preemption import PreemptionNotices
from jobs.ray_runtime.worker_failures import WorkerFailures
from promoter import storage

SNAPSHOT = "checkpoint_manager_snapshot.json"  # in a run's folder: Ray Train's list of the checkpoints
_WHOLE = "whole_snapshot.json"  # beside it: the last one that was written to its end
_POLL_SECONDS = 0.1  # how often the controller looks at its workers; the report of an epoch waits for it
_MAX_POLLS = 200  # of workers in a second: a call each, from one Python process


class WorkerReports:
    """What a worker of Ray Train tells the driver and is told."""

    def __init__(self) -> None:
        self._notices = PreemptionNotices()

    def last_checkpoint(self) -> Checkpoint | None:
        """Return the last checkpoint of this run or an earlier one; None without one."""
        return ray.train.get_checkpoint()

    def start(self, position: str | None) -> None:
        """Report that the worker has started, and on which node; all workers must, before anything else.

        Args:
            position: how far the checkpoint is that it resumes from, for messages; None: it starts anew.
        """
        ray.train.report({"started": ray.util.get_node_ip_address(), "position": position})

    def report(self, record: dict[str, Any], position: str, write: Callable[[Path], None]) -> None:
        """Report with a checkpoint.

        Args:
            record: what the driver is told of the first worker's progress.
            position: how far the training has come, for messages.
            write: function that fills the checkpoint's folder; only the first worker calls it.
        """
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if ray.train.get_context().get_world_rank() == 0:
                write(Path(folder))
                saved = Checkpoint.from_directory(folder)
            ray.train.report(record | {"position": position}, checkpoint=saved)

    def leaving(self) -> list[str]:
        """Return the ids of nodes whose end has been announced since the last call; all workers must ask."""
        return self._notices.new()


class Run:
    """A trainer that runs in a thread, and the reports of its first worker.

    Ray's own `TuneReportCallback` passes reports on too, but can block for ever when two come at once (seen with
    Ray 2.60: its reader puts into a queue that only it empties); so a queue of our own carries them.

    The trainer's own limit on failures must be -1: the run is ended by `WorkerFailures`.

    Args:
        build: function that returns the trainer; the callback it is given must be among the trainer's.
        workers: number of workers, or the maximum of a range.
        folder: folder of the trainer's checkpoints.
    """

    def __init__(self, build: Callable[[UserCallback], TorchTrainer], workers: int, folder: UPath) -> None:
        # Ray Train hands this on to the controller; what the user has set stays
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", f"{poll_interval(workers):g}")
        # on this node: another may be lost, and the run with it
        this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._records = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": this_node})
        restore_snapshot(folder)
        self._trainer = build(_Relay(self._records, folder))
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

        Beside what workers report there are records `{"failed": line}` of failures that are tried again.

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
        if isinstance(result, ControllerError):  # what the relay raised, or a store that fails to keep checkpoints
            raise result.controller_failure from result
        if isinstance(result, BaseException):
            raise result
        return result


def poll_interval(workers: int) -> float:
    """Return the seconds between two looks of the controller at its workers."""
    return max(_POLL_SECONDS, workers / _MAX_POLLS)


def restore_snapshot(folder: UPath) -> None:
    """Put the snapshot before in place of one that a kill or a full disk has cut off.

    Ray Train writes it in place, and cannot start on half of one (Ray 2.60). It removes checkpoints only once the
    snapshot without them is written, so all that the one before lists are there.
    """
    snapshot, whole = folder / SNAPSHOT, folder / _WHOLE
    try:
        json.loads(snapshot.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        if whole.exists():
            storage.copy_file(whole, snapshot)
        else:  # that of the first checkpoint
            snapshot.unlink()
    else:
        _keep_snapshot(folder)


def _keep_snapshot(folder: UPath) -> None:
    if storage.is_local(folder):  # a store's files are whole or not there
        storage.copy_file(folder / SNAPSHOT, folder / _WHOLE)


class _Relay(UserCallback):
    """Passes each committed report on, and ends a run that gets no further; runs in Ray Train's controller.

    Args:
        records: queue of the driver, which gets them.
        folder: folder of the checkpoints.
    """

    def __init__(self, records: Queue, folder: UPath) -> None:
        self.records, self.folder = records, folder
        self.failures = WorkerFailures()

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        if "started" in metrics[0]:
            self.failures.started([metric["started"] for metric in metrics], metrics[0]["position"])
        if checkpoint is not None:
            _keep_snapshot(self.folder)  # Ray Train has just written it
            self.failures.progressed(metrics[0]["position"])
        self.records.put_nowait(metrics[0])

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        # What this raises ends the run: Ray Train repeats no error of a callback.
        if line := self.failures.describe(worker_exceptions):
            self.records.put_nowait({"failed": line})
