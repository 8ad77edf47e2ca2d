"""The record of a run: `config.yaml` says which job wrote a folder, from which settings and inputs, and its files.

For an output that is one file, `predictions.parquet` say, the record is `predictions.config.yaml` beside it. A
record carries a seal, a SHA-256 of all else in it, so that damage to it shows. Other files of ours that hold
settings (`model.yaml`, `manifest.json`) carry one too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from upath import UPath

from promoter.errors import InputError
from promoter.storage.checks import require_file
from promoter.storage.formats import Checksums, open_whole_table, read_yaml, sha256, write_yaml
from promoter.storage.paths import AnyPath, resolve

if TYPE_CHECKING:
    import pyarrow.parquet as pq

RECORD = "config.yaml"
PROVENANCE = "provenance"  # key of config.yaml that holds what is no setting; ignored when it is read as settings
SEAL = "sha256"


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document of plain values with its seal: under `sha256`, the SHA-256 of its canonical JSON."""
    content = {key: value for key, value in document.items() if key != SEAL}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, SEAL: hashlib.sha256(canonical.encode()).hexdigest()}


def require_seal(document: Mapping[str, Any], path: AnyPath, fix: str) -> None:
    """Check a document against its seal; one without, of an earlier version, passes.

    Args:
        document: plain values, as they were read.
        path: path that they were read from, for the message.
        fix: how to fix a broken one.

    Raises:
        InputError: the document is not what was written.
    """
    if SEAL in document and seal(document)[SEAL] != document[SEAL]:
        raise InputError(f"{path}: is not what was written (its SHA-256 differs): damaged, or edited", fix=fix)


@dataclass(frozen=True)
class Record:
    """What a run says about its output.

    Attributes:
        job: name of the job; empty in a record of an earlier version.
        settings: settings of the job, as plain values.
        inputs: path of each input -> its SHA-256.
        versions: software name -> version.
        outputs: path of each file of the output, relative to the record's folder -> its SHA-256; None while the
            job is not done.
    """

    job: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] | None = None

    def finished(self, folder: UPath, files: Iterable[UPath]) -> Record:
        """Return the record of the finished run, with the SHA-256 of each of its files in `folder`."""
        prefix = f"{folder}/"
        return replace(self, outputs={str(path).removeprefix(prefix): sha256(path) for path in files})


def write_record(path: AnyPath, record: Record) -> None:
    """Write a record, which the job takes as a file of settings."""
    entries = {"job": record.job, "versions": dict(record.versions), "inputs": dict(record.inputs)}
    if record.outputs is not None:
        entries["outputs"] = dict(record.outputs)
    document = {**record.settings, PROVENANCE: entries}
    entries[SEAL] = _seal_of(document)
    write_yaml(path, document)


def read_record(path: AnyPath) -> Record | None:
    """Read a record; None where there is no file, or one that no job wrote.

    Raises:
        InputError: the record is damaged or edited.
    """
    resolved = resolve(path)
    if not resolved.is_file():
        return None
    fix = "copy it again from its source, or delete the folder and run the job again"
    document = read_yaml(resolved, fix)
    entries = document.get(PROVENANCE)
    # a record of an earlier version has no seal, and names no job
    sealed = [value for value in document.values() if isinstance(value, dict) and {"job", SEAL} & value.keys()]
    try:
        intact = not sealed or (sealed == [entries] and _seal_of(document) == sealed[0].get(SEAL))
    except TypeError:  # keys or values that JSON does not have, such as dates
        intact = False
    if not intact:
        raise InputError(f"{resolved}: is not what was written (its SHA-256 differs): damaged, or edited", fix=fix)
    if not isinstance(entries, dict) or not {"versions", "inputs"} <= entries.keys():
        return None
    # not by `checked`: a path may have bytes that are not Unicode
    if not all(
        isinstance(entries[name] or {}, dict) for name in entries.keys() & {"versions", "inputs", "outputs"}
    ):
        raise InputError(f"{resolved}: {PROVENANCE} holds no mappings of versions, inputs and outputs", fix=fix)
    settings = {key: value for key, value in document.items() if key != PROVENANCE}
    return Record(
        entries.get("job", ""),
        settings,
        entries["inputs"] or {},
        entries["versions"] or {},
        entries.get("outputs"),
    )


def _seal_of(document: Mapping[str, Any]) -> str:
    entries = {key: value for key, value in document[PROVENANCE].items() if key != SEAL}
    return seal({**document, PROVENANCE: entries})[SEAL]


def record_of_file(path: AnyPath) -> UPath:
    """Return the path of the record of an output that is one file: `x.config.yaml` for `x.parquet`."""
    return resolve(path).with_suffix(f".{RECORD}")


def recorded_checksum(path: AnyPath) -> str | None:
    """Return the SHA-256 of a file by the record of the finished run that wrote it; None where no record lists it.

    The record is that of the file, or in its folder or the one above.

    Args:
        path: path of the file, local or remote.

    Raises:
        InputError: a record is damaged.
    """
    resolved = resolve(path)
    for place in (record_of_file(resolved), resolved.parent / RECORD, resolved.parent.parent / RECORD):
        if place == resolved:
            continue
        record = read_record(place)
        name = str(resolved).removeprefix(f"{place.parent}/")
        if record is not None and record.outputs and name in record.outputs:
            return record.outputs[name]
    return None


@contextmanager
def open_recorded_table(path: AnyPath, what: str, fix: str) -> Iterator[tuple[pq.ParquetFile, str]]:
    """Open a Parquet file for the block, to read all of it, after the check of `require_intact`.

    Args:
        path: path of the file, local or remote.
        what: name of the file's kind for the message, such as `data set`.
        fix: how to fix a damaged one.

    Yields:
        The open file, and its SHA-256.
    """
    recorded = Checksums(recorded_checksum(path))
    with open_whole_table(path, what, recorded, fix) as (table, checksums):
        yield table, str(checksums.file)


def require_intact(path: AnyPath, fix: str) -> str:
    """Check a file against the record of the run that wrote it, if there is one; return its SHA-256.

    Args:
        path: path of the file, local or remote.
        fix: how to fix a damaged one, such as `make it again with prepare`.

    Raises:
        InputError: the file is missing, or not what the run wrote.
    """
    actual, expected = sha256(require_file(path, "file")), recorded_checksum(path)
    if expected is not None and actual != expected:
        raise InputError(f"{resolve(path)}: is not what was written (its SHA-256 differs): damaged", fix=fix)
    return actual
