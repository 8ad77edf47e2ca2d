"""The resolved configuration that every job writes beside its output."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from upath import UPath

from jobs.cli.run import PROVENANCE
from promoter import checkpoint, storage
from promoter.errors import InputError
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


def require_same(
    where: UPath, settings: Mapping[str, Any], inputs: Mapping[str, str], ignored: set[str], outputs: Sequence[str]
) -> None:
    """Refuse a folder that holds a run of other settings or inputs.

    Args:
        where: the folder.
        settings: as `resolved` returns them.
        inputs: path of each input -> its SHA-256; only the checksums must agree.
        ignored: settings that may differ.
        outputs: names of what a run leaves; without a config.yaml none may be there.

    Raises:
        InputError: names what differs.
    """
    if not (where / "config.yaml").exists():
        if any((where / name).exists() for name in outputs):
            raise InputError(f"{where}: holds a run without its config.yaml; choose another --out")
        return
    earlier = storage.read_yaml(where / "config.yaml")
    known = (earlier.pop(PROVENANCE, None) or {}).get("inputs", {})
    different = [key for key in settings if key not in ignored and settings[key] != earlier.get(key)]
    if list(known.values()) != list(inputs.values()):
        different.insert(0, "data")
    if different:
        raise InputError(
            f"{where}: holds a run with other settings (different: {', '.join(different)}); "
            "choose another --out, or delete the folder"
        )


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
