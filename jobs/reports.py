"""Reports of Ray Train's workers: made there, with a checkpoint, and read where the trainer was started."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, Result, UserCallback, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY
from ray.util.queue import Empty, Queue


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


def follow(build: Callable[[UserCallback], TorchTrainer], on_report: Callable[[dict[str, Any]], None]) -> Result:
    """Run a trainer in a thread, and call `on_report` in this one with each report of the first worker.

    Ray's own `TuneReportCallback` does this for Tune, but can block for ever when two reports come at once (seen
    with Ray 2.60: its reader puts into a queue that only it empties); so a queue of our own carries them.

    Args:
        build: returns the trainer, with the callback that it is given among its own.
        on_report: gets what was reported, with the path of its checkpoint under Tune's key where there is one.

    Raises:
        Exception: what made the workers fail, as it was raised there.
    """
    records = Queue(actor_options={"num_cpus": 0})
    trainer = build(_Relay(records))
    outcome: list[Result | BaseException] = []

    def fit_in_background() -> None:  # this thread stays free for Ctrl-C
        try:
            outcome.append(trainer.fit())
        except BaseException as error:  # whatever it is, the other thread raises it
            outcome.append(error)

    thread = threading.Thread(target=fit_in_background, daemon=True)
    thread.start()
    while True:
        running = thread.is_alive()
        try:
            record = records.get(timeout=0.5)
        except Empty:
            if not running:
                break
            continue
        on_report(record)
    records.shutdown(force=True)
    result = outcome[0]
    if isinstance(result, WorkerGroupError) and result.worker_failures:
        raise next(iter(result.worker_failures.values())) from result
    if isinstance(result, BaseException):
        raise result
    return result


class _Relay(UserCallback):
    """Passes each committed report on; runs in the process of Ray Train's controller."""

    def __init__(self, records: Queue) -> None:
        self.records = records

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        kept = {CHECKPOINT_PATH_KEY: checkpoint.path} if checkpoint else {}
        self.records.put_nowait(metrics[0] | kept)
