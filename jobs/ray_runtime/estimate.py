"""How long forward passes will take, measured where they are going to run, and said before they begin."""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
import ray
import torch

from jobs.cli.run import console, plural
from jobs.ray_runtime import cluster
from promoter.checkpoint import PackedModel
from promoter.errors import InputError
from promoter.models.pretrained import genes_per_pass
from promoter.training import predict

_MOST_PER_PASS = 32
_REPEATS = 3  # the first warms up


def announce_time(
    passes: int,
    what: str,
    members: list[PackedModel],
    tokens: np.ndarray,
    precision: Literal["fp32", "bf16"],
    limits: cluster.TaskLimits,
    place: cluster.Cluster,
    max_hours: float | None,
) -> None:
    """Say how long so many forward passes will take on the workers.

    Args:
        passes: sequences to predict, by each model.
        what: name of what they are of.
        members: the models.
        tokens: a sequence, shape (length,).
        precision: of the passes.
        limits: of a task.
        place: to compute on.
        max_hours: the most that is wanted; None for no limit.

    Raises:
        InputError: it will take longer; with the numbers.
    """
    limits.in_flight(place)  # refuses tasks that do not fit
    measured = limits.apply(_seconds_of_a_pass).remote(members[0], tokens, precision)
    seconds = float(ray.get(measured)) * len(members)
    slots = limits.at_once(place)
    hours = passes * seconds / slots / 3600
    said = (
        f"{passes:,} forward passes ({what}) of {1000 * seconds:,.3g} ms on "
        f"{plural(slots, 'worker')} will take about {_in_words(hours)}"
    )
    if max_hours is not None and hours > max_hours:
        raise InputError(
            f"--max_hours {max_hours:g}: {said}; ask for less (--genes, in jobs.ism also --positions) "
            "or give more workers"
        )
    console.print(said)


def _in_words(hours: float) -> str:
    if hours < 1 / 60:
        return "less than a minute"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:,.1f} hours"


@ray.remote
def _seconds_of_a_pass(packed: PackedModel, tokens: np.ndarray, precision: Any) -> float:
    """Measure, in a worker process, a pass of as many sequences as go together; return the seconds of one."""
    model = cluster.loaded_model(packed)
    size = genes_per_pass(len(tokens), _MOST_PER_PASS)
    some = np.repeat(tokens[None], size, axis=0)
    least = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        predict(model, some, precision=precision)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        least = min(least, time.perf_counter() - began)
    return least / size
