"""What identifies a run of a job, and in what it differs from an earlier one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promoter.storage.paths import AnyPath
from promoter.storage.records import Record


@dataclass(frozen=True)
class Run:
    """What identifies a run.

    Attributes:
        record: job, settings, inputs and versions; a checksum that is not known yet is empty.
        may_differ: settings that may be others when the run is resumed; None: all, as any run of the job may be
            replaced.
        names: job -> names of the files and folders that it writes into its output folder.
        config_files: files that settings were read from.
        defaults: group -> settings of it that earlier versions did not record, with what they did.
    """

    record: Record
    may_differ: Collection[str] | None
    names: Mapping[str, Sequence[str]]
    config_files: Sequence[AnyPath] = ()
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def differences(self, earlier: Record) -> list[str]:
        """Return in what this run differs from another of the job: names of settings, paths of inputs."""
        if self.may_differ is None:
            return []
        known, inputs, different = earlier.inputs.values(), self.record.inputs, []
        if known and all(known):  # else that run was killed before it knew them
            different = [path for path, checksum in inputs.items() if checksum and checksum not in known]
            if inputs and not different and all(inputs.values()) and list(inputs.values()) != list(known):
                different = ["the inputs' number or order"]
        past = {name: {**values, **(earlier.settings.get(name) or {})} for name, values in self.defaults.items()}
        gone = [name for name, value in earlier.settings.items() if not is_off(value)]
        different += [name for name in gone if name not in self.record.settings and name not in self.may_differ]
        return different + [
            difference
            for name, value in self.record.settings.items()
            if name not in self.may_differ and (name in earlier.settings or not is_off(value))
            for difference in _differences(name, past.get(name, earlier.settings.get(name)), value)
        ]


def is_off(value: Any) -> bool:
    """Tell whether a setting changes nothing, so that a record of a version without it says the same."""
    return value is None or value is False


def _differences(name: str, was: Any, now: Any) -> list[str]:
    """Return in which values two settings of a name differ; of a group of settings, each that differs."""
    groups = isinstance(was, dict) and isinstance(now, dict)
    if groups:
        was = {key: value for key, value in now.items() if is_off(value)} | was
    if was == now:
        return []
    if groups:
        return [words for key in now for words in _differences(f"{name}.{key}", was.get(key), now[key])] or [name]
    return [name if isinstance(was, list | dict) or isinstance(now, list | dict) else f"{name} {was}, not {now}"]
