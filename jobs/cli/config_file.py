"""The settings of a job as plain values."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

TRUST_CODE = "trust_code"
# Not kept in config.yaml: repeated by it, a job would replace its own output, and consent to run code is given by
# hand.
_FOR_ONE_CALL = ("overwrite", TRUST_CODE)


def job_settings(job: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a job was called with, as plain YAML values, but for those of one call alone.

    Args:
        job: function whose parameters name the settings, in the order that config.yaml keeps.
        arguments: value of each parameter, such as `locals()` in the function; other names are left out.
    """
    names = [name for name in inspect.signature(job).parameters if name not in _FOR_ONE_CALL]
    return resolved({name: arguments[name] for name in names})


def resolved(value: Any) -> Any:
    """Return a value as YAML has it: dataclasses as mappings, tuples as lists, paths as strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return resolved(asdict(value))
    if isinstance(value, Mapping):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolved(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
