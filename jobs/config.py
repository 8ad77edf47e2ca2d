"""The resolved configuration that every job writes beside its output."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from jobs.cli import PROVENANCE
from promoter import checkpoint, storage
from promoter.storage import AnyPath

_PACKAGES = ("ray", "pyarrow", "pyfaidx", "pybedtools")


def resolved(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's arguments as plain YAML values: dataclasses as mappings, paths as strings."""
    return {name: _plain(value) for name, value in arguments.items()}


def write_config(path: AnyPath, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Write a configuration that the job takes with `--config`.

    Args:
        path: of the YAML file.
        settings: as `resolved` returns them.
        inputs: path of each input -> its SHA-256.
    """
    versions = checkpoint.versions() | {name: importlib.metadata.version(name) for name in _PACKAGES}
    storage.write_yaml(path, {**settings, PROVENANCE: {"versions": versions, "inputs": dict(inputs)}})


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
