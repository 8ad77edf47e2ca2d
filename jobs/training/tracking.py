"""Follow runs in TensorBoard or MLflow, epoch by epoch; no point is written twice when they resume."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from tensorboardX import SummaryWriter
from upath import UPath

from jobs.cli.console import console
from promoter import storage
from promoter.errors import InputError

Tracker = Literal["tensorboard", "mlflow"]
TENSORBOARD = "tensorboard"  # folder of the output folder
RUN_IDS = "mlflow.json"  # file of the output folder: name of a run -> its id in MLflow
_ADDRESS = "MLFLOW_TRACKING_URI"
_INSTALL = "pip install -c constraints.txt -e '.[mlflow]'"
_PARAMS_AT_ONCE = 100  # limit of MLflow
_OTHER_LETTERS = re.compile(r"[^\w\-. :/]")  # than MLflow takes in a name
_lock = threading.Lock()  # of the file of ids, to which trainings that run side by side add theirs


class _Sink(Protocol):
    """What one tracker does with the points of a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of an epoch, unless they are there."""

    def close(self, status: Literal["FINISHED", "FAILED"]) -> None:
        """End the run."""


class TrackedRun:
    """One training or trial; nothing is opened before its first point.

    Args:
        opens: function for each tracker, which opens the run there.
    """

    def __init__(self, opens: Sequence[Callable[[], _Sink]]) -> None:
        self._opens, self._sinks, self._last = opens, list[_Sink](), 0

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Write the values that are finite numbers.

        Args:
            step: epoch, from 1.
            values: name -> value.
        """
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self._sinks = self._sinks or [opened() for opened in self._opens]
        self._last = step
        for sink in self._sinks:
            sink.log(step, numbers)

    def before(self, on_epoch: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        """Return a function that writes the record of an epoch, and then calls `on_epoch`."""

        def log_first(record: dict[str, Any]) -> None:
            self._last = record.get("restored", self._last)
            if "epoch" in record:
                self.log(int(record["epoch"]), {name: value for name, value in record.items() if name != "epoch"})
            on_epoch(record)

        return log_first

    def finish(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the metrics of the test set by target as those of the epoch after the last, and end the run."""
        names = [(name, target) for target in metrics for name in ("mse", "pearson", "spearman")]
        self.log(self._last + 1, {f"test_{name}/{target}": metrics[target][name] for name, target in names})
        self.close("FINISHED")

    def close(self, status: Literal["FINISHED", "FAILED"]) -> None:
        """End the run, if it is open."""
        while self._sinks:
            self._sinks.pop().close(status)


@dataclass(frozen=True)
class Tracking:
    """Where a job's runs are followed.

    Attributes:
        out_dir: output folder of the command, in which TensorBoard's logs and MLflow's ids are kept.
        trackers: names of the trackers; empty: nothing is followed.
    """

    out_dir: UPath
    trackers: tuple[Tracker, ...]

    @contextmanager
    def follow(self, folder: UPath, settings: Mapping[str, Any]) -> Iterator[TrackedRun]:
        """Give the run of a training; it counts as failed where an error ends the block.

        Args:
            folder: output folder of the training: that of the command, or one within.
            settings: its settings.
        """
        run = self.open(folder.name if folder != self.out_dir else "", settings)
        try:
            yield run
        except BaseException:
            run.close("FAILED")
            raise

    def open(self, name: str, settings: Mapping[str, Any]) -> TrackedRun:
        """Return a run, or the one of that name which an interrupted command has begun.

        Args:
            name: name among the command's runs; empty for the only or main one.
            settings: settings to show with it.
        """
        opens: Mapping[Tracker, Callable[[], _Sink]] = {
            "tensorboard": lambda: _TensorBoard(self.out_dir / TENSORBOARD / name, settings),
            "mlflow": lambda: _MLflow(self.out_dir, name, settings),
        }
        return TrackedRun([opens[tracker] for tracker in self.trackers])


class _TensorBoard:
    """Writes the log files of TensorBoard; one that begins at an epoch hides what others have from there on."""

    def __init__(self, folder: UPath, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        self._local = Path(folder.path) if storage.is_local(folder) else Path(tempfile.mkdtemp(prefix="promoter-"))
        self._writer: SummaryWriter | None = None
        self._last = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        writer = self._writer
        if writer is None or step <= self._last:  # epochs are repeated after the loss of a worker
            writer = self._open(step)
        self._last = step
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()
        if not storage.is_local(self._folder):
            for path in self._local.iterdir():
                storage.copy_file(path, self._folder / path.name)

    def _open(self, step: int) -> SummaryWriter:
        self.close("FINISHED")
        suffix = f".{time.time_ns()}"  # two files of a second would have one name
        self._writer = writer = SummaryWriter(logdir=str(self._local), purge_step=step, filename_suffix=suffix)
        if step == 1:
            shown = yaml.safe_dump(dict(self._settings), sort_keys=False).replace("\n", "\n    ")
            writer.add_text("settings", f"    {shown}", step)
        return writer

    def close(self, status: Literal["FINISHED", "FAILED"]) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _MLflow:
    """Writes to the server, database or folder in MLFLOW_TRACKING_URI; what fails there stops no training."""

    def __init__(self, out_dir: UPath, name: str, settings: Mapping[str, Any]) -> None:
        self._id, self._logged, self._client, self._warned = "", 0, mlflow_client(), False
        self._try(lambda: self._open(out_dir, name, settings))

    def _open(self, out_dir: UPath, name: str, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        with _lock:
            ids = storage.read_json(out_dir / RUN_IDS) if (out_dir / RUN_IDS).exists() else {}
            if name in ids and self._continue(ids[name]):
                return
            run = self._client.create_run(
                _experiment(self._client),
                run_name="/".join(filter(None, (out_dir.name, name))),
                tags={"promoter.out": str(out_dir), "promoter.run": name},
            )
            self._id = run.info.run_id
            storage.write_json(out_dir / RUN_IDS, ids | {name: self._id})
        params = [Param(key, str(value)) for key, value in _flat(settings)]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[first : first + _PARAMS_AT_ONCE])

    def _continue(self, run_id: str) -> bool:
        """Take up a run of an interrupted command; return False if it has been deleted."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if run.info.lifecycle_stage != "active":
            return False
        self._id = run_id
        self._client.update_run(run_id, status="RUNNING")
        logged = [self._client.get_metric_history(run_id, name) for name in run.data.metrics]
        self._logged = max((point.step for points in logged for point in points), default=0)
        return True

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        if not self._id or step <= self._logged:  # MLflow keeps both of two points of one step
            return
        now = int(time.time() * 1000)
        metrics = [Metric(_OTHER_LETTERS.sub("_", name), value, now, step) for name, value in values.items()]
        self._try(lambda: self._client.log_batch(self._id, metrics=metrics))
        self._logged = step

    def close(self, status: Literal["FINISHED", "FAILED"]) -> None:
        if self._id:
            self._try(lambda: self._client.set_terminated(self._id, status))

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # of the network, the server or its database: the training is worth more
            if not self._warned:
                self._warned = True
                console.print(f"--track mlflow: could not be written, points will be missing ({_line(error)})")


def start_tracking(out_dir: UPath, track: Sequence[Tracker] | None) -> Tracking:
    """Return where a job's runs are followed, once it is sure that they can be.

    Args:
        out_dir: output folder of the command.
        track: names of the trackers; None: none.

    Raises:
        InputError: MLflow is not installed, has no address, or does not answer.
    """
    tracking = Tracking(out_dir, tuple(dict.fromkeys(track or ())))
    if "mlflow" in tracking.trackers:
        if importlib.util.find_spec("mlflow") is None:
            raise InputError(f"--track mlflow: MLflow is not installed; {_INSTALL}")
        if not os.environ.get(_ADDRESS):
            raise InputError(
                f"--track mlflow: {_ADDRESS} is not set; give it the address of a server, such as "
                "http://HOST:5000, or a database, such as sqlite:////home/me/mlflow.db"
            )
        try:
            mlflow_client().search_experiments(max_results=1)
        except Exception as error:
            raise InputError(f"--track mlflow: {_ADDRESS}={os.environ[_ADDRESS]}: {_line(error)}") from error
    return tracking


def mlflow_client() -> Any:
    """Return a client of the server in MLFLOW_TRACKING_URI, which reports no usage and soon gives up."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient()


def _experiment(client: Any) -> str:
    """Return the id of the experiment that MLflow's own variables name, by default `promoter`."""
    if known := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return known
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "promoter")
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
