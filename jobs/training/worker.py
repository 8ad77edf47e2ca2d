"""A training's loop, from checkpoint to checkpoint: what a worker of Ray Train does.

It stands by itself since each worker is a new process, and would take longer to import what splits and evaluates
than to import PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
import torch
from ray.train import Checkpoint
from ray.train.torch import get_device

from jobs.ray_runtime.train_controller import WorkerReports
from promoter import checkpoint
from promoter.checkpoint import ModelInfo
from promoter.models.build import Learner, build_learner, network_with_trunk
from promoter.models.external_training import explained
from promoter.models.weights import SerializedTrunk
from promoter.training import Examples, TrainingConfig, TrainingState, fit, predict
from promoter.training.losses import LOSSES
from promoter.training.warm_start import start_from

STATE = "state.pt"
PREDICTIONS = "predictions.npy"


class Reports(Protocol):
    """The way of a training to its driver, and to its last checkpoint; `WorkerReports` is that of Ray Train."""

    def last_checkpoint(self) -> Checkpoint | None:
        """Return the last checkpoint; None without one."""
        ...

    def start(self, position: str | None) -> None:
        """Report the start, and the position of the checkpoint that it resumes from."""
        ...

    def report(self, record: dict[str, Any], position: str, write: Callable[[Path], None]) -> None:
        """Report progress with a checkpoint, whose folder `write` fills."""
        ...

    def leaving(self) -> list[str]:
        """Return the ids of nodes whose end has been announced since the last call."""
        ...


def train_on_worker(job: dict[str, Any]) -> None:
    """Train on one of the workers; `job` is the loop's configuration that `jobs.training.run` makes."""
    train(job, WorkerReports(), get_device())


def train(job: dict[str, Any], reports: Reports, device: torch.device) -> None:
    """Train on a device; `job` is the loop's configuration."""
    with explained(job["code"]):
        _train(job, reports, device)


def _train(job: dict[str, Any], reports: Reports, device: torch.device) -> None:
    last = reports.last_checkpoint()
    restored = None if last is None else _read_state(last)
    reports.start(restored and restored.position)
    tokens: np.ndarray = ray.get(job["tokens"])
    targets: np.ndarray = ray.get(job["targets"])
    split: np.ndarray = job["split"]
    training: TrainingConfig = job["training"]
    info: ModelInfo = job["info"]
    genes = Examples(tokens, targets, ray.get(job["weights"]))
    examples = {name: genes.rows(split == name) for name in ("train", "val")}
    torch.manual_seed(training.seed)
    embedded = tokens.ndim > 2
    trunk: SerializedTrunk | None = (job["trunk"] and not embedded and ray.get(job["trunk"])) or None
    model: Learner = build_learner(job["model"], tokens.shape[-1], trunk, job["code"])

    def on_epoch(state: TrainingState) -> None:
        record = state.history[-1] | {"best_epoch": state.best_epoch}
        reports.report(record, state.position, lambda folder: _write_state(folder, state))

    def on_batch(snapshot: Callable[[], TrainingState]) -> None:
        if leaving := reports.leaving():
            state = snapshot()  # on all workers
            reports.report({"leaving": len(leaving)}, state.position, lambda folder: _write_state(folder, state))

    if restored is None and job["start"]:
        start_from(model, ray.get(job["start"]), examples["train"], LOSSES[training.loss]())
    state = fit(
        model,
        examples["train"],
        examples["val"],
        config=training,
        device=device,
        state=restored,
        on_epoch=on_epoch,
        on_batch=on_batch,
        max_workers=job["max_workers"],
    )
    predicted = predict(model, tokens, device=device, precision=training.precision, distributed=True)

    def write(folder: Path) -> None:
        _write_state(folder, state)
        np.save(folder / PREDICTIONS, predicted, allow_pickle=False)
        best = replace(info, training={**info.training, "best_epoch": state.best_epoch})
        complete = network_with_trunk(model, job["length"], ray.get(job["trunk"]) if embedded else None)
        checkpoint.save_model(folder / "model", complete, best)

    reports.report({"finished": True}, state.position, write)


def _read_state(saved: Checkpoint) -> TrainingState:
    """Read the state of a training from a checkpoint."""
    with saved.as_directory() as folder:
        return TrainingState.from_bytes((Path(folder) / STATE).read_bytes())


def _write_state(folder: Path, state: TrainingState) -> None:
    (folder / STATE).write_bytes(state.to_bytes())
