"""The resolved configuration that every job writes beside its output.

Importing this module imports neither PyTorch nor PyArrow: what needs them is imported where it is used.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from jobs.cli.run import PROVENANCE
from promoter.errors import InputError

if TYPE_CHECKING:
    from upath import UPath

    from promoter.storage import AnyPath

_PACKAGES = ("ray", "pyarrow", "pyfaidx", "pybedtools")


def job_settings(job: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a job was called with, as plain YAML values.

    Args:
        job: function whose parameters name the settings, in the order that config.yaml keeps.
        arguments: value of each parameter, such as `locals()` in the function; other names are left out.
    """
    return resolved({name: arguments[name] for name in inspect.signature(job).parameters})


def resolved(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain YAML values: dataclasses as mappings, paths as strings.

    Args:
        arguments: name of each setting -> its value.
    """
    return {name: _plain(value) for name, value in arguments.items()}


def write_config(path: AnyPath, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Write a configuration that the job takes with `--config`.

    Args:
        path: YAML file to write.
        settings: plain values, as `job_settings` returns them.
        inputs: path of each input -> its SHA-256.
    """
    from promoter import checkpoint, storage  # noqa: PLC0415 # they import PyTorch and PyArrow

    versions = checkpoint.versions() | {name: importlib.metadata.version(name) for name in _PACKAGES}
    storage.write_yaml(path, {**settings, PROVENANCE: {"versions": versions, "inputs": dict(inputs)}})


def require_same(
    where: UPath, settings: Mapping[str, Any], inputs: Mapping[str, str], ignored: set[str], outputs: Sequence[str]
) -> None:
    """Refuse a folder that holds a run of other settings or inputs.

    Args:
        where: output folder of this run.
        settings: plain values, as `job_settings` returns them.
        inputs: path of each input -> its SHA-256; only the checksums must agree.
        ignored: settings that may differ.
        outputs: names of the files that a run leaves; without a config.yaml none may be there.

    Raises:
        InputError: names what differs.
    """
    from promoter import storage  # noqa: PLC0415 # it imports PyArrow

    if not (where / "config.yaml").exists():
        if any((where / name).exists() for name in outputs):
            raise InputError(f"{where}: holds a run without its config.yaml; choose another --out")
        return
    earlier = storage.read_yaml(where / "config.yaml")
    earlier_inputs = (earlier.pop(PROVENANCE, None) or {}).get("inputs", {})
    different = [key for key in settings if key not in ignored and settings[key] != earlier.get(key)]
    if list(earlier_inputs.values()) != list(inputs.values()):
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
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
