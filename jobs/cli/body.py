"""Keep what a job does apart from its command line, so that `--help` imports none of it."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import ParamSpec

from jobs.cli.config_file import job_settings

P = ParamSpec("P")


def lazy_body(job: Callable[P, None]) -> Callable[P, None]:
    """Take a job's command line from this function, and its code from another module, imported when it is called.

    The code of `jobs.NAME.NAME` is the function `NAME` in `jobs/bodies/NAME.py`. It takes the settings first, as
    plain values for config.yaml, and then the job's arguments by their names.

    Args:
        job: function whose signature and docstring make the command line; its code is never run, and its
            annotations name types of modules without PyTorch, Ray, pandas and PyArrow.
    """

    @functools.wraps(job)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        given = inspect.signature(job).bind(*args, **kwargs)
        given.apply_defaults()
        body = getattr(importlib.import_module(f"jobs.bodies.{job.__name__}"), job.__name__)
        body(job_settings(job, given.arguments), **given.arguments)

    return call
