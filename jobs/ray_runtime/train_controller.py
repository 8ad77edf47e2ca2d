"""Reports of Ray Train's workers: made there, with a checkpoint, and read where the trainer was started."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train import Checkpoint, ControllerError, Result, UserCallback, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_PATIENCE = 30  # seconds for the workers of a run that is stopped; Ray Train itself gives them 5


def report(record: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Report from a worker; the first worker's `write` fills the folder that becomes the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        saved = None
        if ray.train.get_context().get_world_rank() == 0:
            write(Path(folder))
            saved = Checkpoint.from_directory(folder)
        ray.train.report(record, checkpoint=saved)


def read_checkpoint(name: str) -> bytes | None:
    """Return, on a worker, a file of the last checkpoint, of an earlier attempt or run; None without one."""
    saved = ray.train.get_checkpoint()
    if saved is None:
        return None
    with saved.as_directory() as folder:
        return (Path(folder) / name).read_bytes()


class Run:
    """A trainer at work in a thread, and what its first worker reports.

    Ray's own `TuneReportCallback` passes reports on too, but can block for ever when two come at once (seen with
    Ray 2.60: its reader puts into a queue that only it empties); so a queue of our own carries them.

    Args:
        build: returns the trainer, with the callback that it is given among its own.
    """

    def __init__(self, build: Callable[[UserCallback], TorchTrainer]) -> None:
        # on this node: another may be lost, and the run with it
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._records = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._trainer = build(_Relay(self._records))
        self._outcome: list[Result | BaseException] = []
        self._controller: Any = None  # Ray Train's, known from the first report on
        self._thread = threading.Thread(target=self._fit, daemon=True)  # the caller's stays free for Ctrl-C
        self._thread.start()

    def _fit(self) -> None:
        try:
            self._outcome.append(self._trainer.fit())
        except BaseException as error:  # whatever it is, `result` raises it in the caller's thread
            self._outcome.append(error)

    def next(self) -> dict[str, Any] | None:
        """Wait for the next report: with its checkpoint's path under Tune's key if it has one; None at the end."""
        while True:
            running = self._thread.is_alive()
            try:
                self._controller, record = self._records.get(timeout=0.5)
            except Empty:
                if running:
                    continue
                return None
            return record

    def result(self) -> Result:
        """Wait for the end.

        Raises:
            Exception: what made the workers or Ray Train fail, as it was raised there.
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

    def stop(self) -> None:
        """End it early. Without this, the end of the process that started it leaves the workers' CPUs taken."""
        if self._thread.is_alive() and self._controller is not None:
            with suppress(RayActorError, GetTimeoutError):  # its process ends before it can answer
                ray.get(self._controller.abort.remote(), timeout=_PATIENCE)
            self._thread.join(timeout=_PATIENCE)


class _Relay(UserCallback):
    """Passes each committed report on; runs in the process of Ray Train's controller."""

    def __init__(self, records: Queue) -> None:
        self.records = records

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        kept = {CHECKPOINT_PATH_KEY: checkpoint.path} if checkpoint else {}
        self.records.put_nowait((ray.get_runtime_context().current_actor, metrics[0] | kept))
