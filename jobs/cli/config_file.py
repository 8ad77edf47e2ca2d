"""The settings of a job, and the resolved configuration that it writes beside its output."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, is_dataclass
from typing import Any

from upath import UPath

from promoter import storage
from promoter.errors import InputError
from promoter.storage import AnyPath

PROVENANCE = "provenance"  # key of config.yaml that records versions and checksums; ignored when read back
_PACKAGES = ("ray", "pyarrow", "pyfaidx", "pybedtools")


def job_settings(job: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a job was called with, as plain YAML values.

    Args:
        job: function whose parameters name the settings, in the order that config.yaml keeps.
        arguments: value of each parameter, such as `locals()` in the function; other names are left out.
    """
    return resolved({name: arguments[name] for name in inspect.signature(job).parameters})


def resolved(value: Any) -> Any:
    """Return a value as YAML has it: dataclasses as mappings, tuples as lists, paths as strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return resolved(asdict(value))
    if isinstance(value, Mapping):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolved(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def write_config(path: AnyPath, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Write a configuration that the job takes with `--config`.

    Args:
        path: YAML file to write.
        settings: plain values, as `job_settings` returns them.
        inputs: path of each input -> its SHA-256.
    """
    from promoter import checkpoint  # here, since it imports PyTorch

    versions = checkpoint.versions() | {name: importlib.metadata.version(name) for name in _PACKAGES}
    storage.write_yaml(path, {**settings, PROVENANCE: {"versions": versions, "inputs": dict(inputs)}})


def require_same(
    out_dir: UPath,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    ignored: Set[str],
    outputs: Sequence[str],
) -> None:
    """Refuse a folder that holds a run of other settings or inputs.

    Args:
        out_dir: output folder of this run.
        settings: plain values, as `job_settings` returns them.
        inputs: path of each input -> its SHA-256; only the checksums must agree.
        ignored: settings that may differ.
        outputs: names of the files that a run leaves; without a config.yaml none may be there.

    Raises:
        InputError: names what differs.
    """
    if not (out_dir / "config.yaml").exists():
        if any((out_dir / name).exists() for name in outputs):
            raise InputError(f"{out_dir}: holds a run without its config.yaml; choose another --out")
        return
    earlier = storage.read_yaml(out_dir / "config.yaml")
    earlier_inputs = (earlier.pop(PROVENANCE, None) or {}).get("inputs", {})
    different = [key for key in settings if key not in ignored and settings[key] != earlier.get(key)]
    if list(earlier_inputs.values()) != list(inputs.values()):
        different.insert(0, "data")
    if different:
        raise InputError(
            f"{out_dir}: holds a run with other settings (different: {', '.join(different)}); "
            "choose another --out, or delete the folder"
        )
