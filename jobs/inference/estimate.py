"""Measure on a worker how long passes take, and print the estimate before they begin.

The first task of the work itself would be a poor measure: with a pretrained network it is a gene, three passes a
base, and may take longer than the user wants to wait in all.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import ray
import torch

from jobs.cli.console import console, plural
from jobs.inference.inputs import Inputs
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.devices import ends_process_on_device_error
from jobs.ray_runtime.fan_out import Retry, fan_out
from jobs.ray_runtime.model_cache import loaded_model
from promoter.attribution import Method, explain
from promoter.checkpoint import SerializedModel
from promoter.errors import InputError
from promoter.models.pretrained import genes_per_pass
from promoter.training import predict

_MAX_PER_PASS = 32
_REPEATS = 3  # the first warms up


def seconds_per_pass(
    inputs: Inputs, limits: TaskLimits, cluster: Cluster, kind: Literal["fp32", "bf16"] | Method
) -> float:
    """Measure on a worker how long all models take for a pass of one sequence, in a full batch.

    Args:
        inputs: models, and genes to measure with.
        limits: resources of each task, which must fit on the cluster.
        cluster: cluster that computes them.
        kind: precision of forward passes, or the method whose passes go back too.

    Raises:
        InputError: the model has no gradients.
    """
    targets = (inputs.outputs or [0])[:1]
    compute = (
        functools.partial(explain, method=kind.single_pass(), targets=targets)
        if isinstance(kind, Method)
        else functools.partial(predict, precision=kind)
    )

    def submit(tokens: np.ndarray, retry: Retry) -> ray.ObjectRef:
        task = limits.apply(_seconds_per_sequence, label_selector=retry.label_selector)
        return task.remote(inputs.models[0], tokens, compute)

    ((_, seconds),) = fan_out(submit, [inputs.promoters.tokens[0]], limits, cluster)
    return float(seconds) * len(inputs.models)


def announce_time(
    passes: int, what: str, seconds: float, *, limits: TaskLimits, cluster: Cluster, max_hours: float | None
) -> None:
    """Print how long the passes will take on the workers.

    Args:
        passes: number of passes of one sequence, by all models.
        what: plural noun for them, for the message.
        seconds: seconds that one takes, by `seconds_per_pass`.
        limits: resources of each task.
        cluster: cluster that computes them.
        max_hours: longest duration that is accepted, in hours; None: any.

    Raises:
        InputError: the estimate is longer than `max_hours`; gives both.
    """
    slots = limits.max_concurrent_tasks(cluster)
    hours = passes * seconds / slots / 3600
    message = (
        f"{passes:,} {what} of {1000 * seconds:,.3g} ms on {plural(slots, 'worker')} will take {_in_words(hours)}"
    )
    if max_hours is not None and hours > max_hours:
        raise InputError(
            f"--max_hours {max_hours:g}: {message}; ask for less (--genes, and with promoter ism --positions) "
            "or give more workers"
        )
    console.print(message)


def _in_words(hours: float) -> str:
    if hours < 1 / 60:
        return "less than a minute"
    return f"about {hours * 60:.0f} min" if hours < 2 else f"about {hours:,.1f} hours"


@ray.remote
@ends_process_on_device_error
def _seconds_per_sequence(model: SerializedModel, tokens: np.ndarray, compute: Callable[..., Any]) -> float:
    """Measure, in a worker process, a function of network and tokens; return the seconds of one sequence."""
    network = loaded_model(model)
    size = genes_per_pass(len(tokens), _MAX_PER_PASS)
    batch = np.repeat(tokens[None], size, axis=0)
    fastest = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        compute(network, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - began)
    return fastest / size
