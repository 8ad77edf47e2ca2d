"""Every file of an output against its checksum, and the command that repairs a damaged one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.cli.console import console, plural
from jobs.cli.run import run
from promoter import storage
from promoter.errors import InputError
from promoter.storage.records import RECORD, SEAL, Record, read_record, require_seal

if TYPE_CHECKING:
    from upath import UPath

_READERS = 8  # files read at a time, of which some may be in memory
_COPY = "copy it again from its source"
_OVERWRITTEN = ("train", "tune")  # these replace a finished run only if they are asked to


class _Listed(NamedTuple):
    """What a record, a manifest or a model says of a file: its SHA-256, and how to repair it."""

    sha256: str
    fix: str


def verify(folder: str, /) -> None:
    """Check that the files of an output are what was written, and say which command repairs a damaged one.

    It writes nothing. The exit code is 1 if a file is damaged or missing, and 2 if no job wrote the folder.

    Args:
        folder: folder that a job wrote, with the runs in it, or one of its files: a data set, a run, a model
            folder, scores, predictions; local or remote.
    """
    path = storage.resolve(folder)
    with storage.wrap_store_errors(path, "read"):
        if not path.exists():
            raise InputError(f"{path}: no such folder or file; check the path")
        files = list(_walk(path)) if path.is_dir() else [path]
        listed, faults = _read_lists(files if path.is_dir() else _lists_of(path))
        if not path.is_dir():
            listed = {file: entry for file, entry in listed.items() if file == path}
        with ThreadPoolExecutor(_READERS) as readers:
            results = dict(
                zip(files, readers.map(lambda file: _check(file, listed.get(file)), files), strict=True)
            )
    faults |= {file: result for file, result in results.items() if isinstance(result, str)}
    faults |= {file: f"is missing; {entry.fix}" for file, entry in listed.items() if file not in results}
    intact = sum(result is True for result in results.values())
    if not intact and not faults:
        raise InputError(f"{path}: has no checksums; no job wrote it, or one of an earlier version did")
    for file in sorted(faults, key=str):
        console.print(f"{file}: {faults[file]}", soft_wrap=True, markup=False)
    unknown = sum(result is None for result in results.values())
    summary = f"{path}: {plural(intact, 'file')} intact, {len(faults):,} damaged or missing"
    if unknown:
        summary += (
            f"; {unknown:,} without checksum: of an earlier version, of a run that is not finished, or yours"
        )
    console.print(summary, soft_wrap=True, markup=False)
    if faults:
        sys.exit(1)


def _walk(folder: UPath) -> Iterator[UPath]:
    """Yield the files of a folder and of the folders in it, without hidden ones."""
    for path in sorted(folder.iterdir(), key=str):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _lists_of(file: UPath) -> list[UPath]:
    """Return the files that may list a single file."""
    from promoter.checkpoint import DESCRIPTION
    from promoter.storage.parts import MANIFEST

    places = (file.parent, file.parent.parent)
    candidates = [place / name for place in places for name in (RECORD, MANIFEST, DESCRIPTION)]
    return [*file.parent.glob(f"*.{RECORD}"), *(path for path in candidates if path.is_file())]


def _read_lists(files: list[UPath]) -> tuple[dict[UPath, _Listed], dict[UPath, str]]:
    """Return what the records, manifests and models among some files list, and which of them are damaged."""
    from promoter.checkpoint import DESCRIPTION
    from promoter.storage.parts import MANIFEST

    readers: dict[str, Callable[[UPath], Mapping[str, _Listed]]] = {
        RECORD: _list_record,
        MANIFEST: _list_manifest,
        DESCRIPTION: _list_model,
    }
    listed: dict[UPath, _Listed] = {}
    faults: dict[UPath, str] = {}
    for kind, read in readers.items():
        for file in files:
            if file.name == kind or (kind == RECORD and file.name.endswith(f".{RECORD}")):
                try:
                    for name, entry in read(file).items():
                        listed.setdefault(file.parent / name, entry)
                except InputError as error:
                    faults[file] = _reason(error, file)
    return listed, faults


def _list_record(file: UPath) -> dict[str, _Listed]:
    record = read_record(file)
    if record is None or not record.outputs:
        return {}
    fix = _command(file, record)
    return {name: _Listed(checksum, fix) for name, checksum in record.outputs.items()}


def _list_manifest(file: UPath) -> dict[str, _Listed]:
    from promoter.storage.parts import RunManifest, listed_checksums, read_manifest
    from promoter.storage.schema import checked

    manifest = checked(read_manifest(file), RunManifest, file, _COPY)
    checksums = listed_checksums(manifest.get("parts"))
    try:
        record = read_record(file.parent / RECORD)
    except InputError:  # named by itself
        record = None
    fix = _command(file.parent / RECORD, record) if record else "run the same job again"
    return {name: _Listed(checksum.file, fix) for name, checksum in checksums.items() if checksum.file}


def _list_model(file: UPath) -> dict[str, _Listed]:
    from promoter.checkpoint import GENES, WEIGHTS
    from promoter.storage.parts import MANIFEST

    description = _read_sealed(file)
    if (file.parent / MANIFEST).exists():  # of an external model, whose weights lie elsewhere
        return {}
    checksums = {WEIGHTS: description.get("weights_sha256"), GENES: description.get("genes_sha256")}
    fix = "copy the model folder again"
    return {name: _Listed(checksum, fix) for name, checksum in checksums.items() if checksum}


def _command(file: UPath, record: Record) -> str:
    """Return the command that makes the output of a record again.

    Args:
        file: path of the record.
        record: its content.
    """
    if not record.job:
        return f"{_COPY}, or run its job again"
    words = ["promoter", record.job, "--config", str(file)]
    out = file.parent if file.name == RECORD else file.parent / next(iter(record.outputs or {}), "")
    if storage.resolve(record.settings.get("out") or out) != out:  # moved or copied since
        words += ["--out", str(out)]
    if record.job in _OVERWRITTEN:
        words += ["--overwrite", "true"]
    return shlex.join(words)


def _check(file: UPath, listed: _Listed | None) -> bool | str | None:
    """Return True for a file that is intact, None for one without checksum, and what is wrong with another."""
    try:
        if listed is not None:
            return storage.sha256(file) == listed.sha256 or f"is damaged; {listed.fix}"
        return _is_sealed(file) or None
    except InputError as error:
        return _reason(error, file)
    except PermissionError as error:
        return f"may not be read ({error.strerror}); change its permissions"


def _is_sealed(file: UPath) -> bool:
    """Tell whether a file that nothing lists carries checksums of its own, and check it by these."""
    from promoter.checkpoint import DESCRIPTION, KEPT_BASELINES, serialize_model
    from promoter.kept_baselines import load_baselines
    from promoter.storage.formats import verify_table

    if file.suffix == ".parquet":
        return verify_table(file, _COPY)
    if file.name == KEPT_BASELINES:
        load_baselines(file.parent, serialize_model(file.parent).checksum, 0)
        return b'"sha256":' in file.read_bytes()  # in its header
    if file.name == RECORD or file.name.endswith(f".{RECORD}"):
        record = read_record(file)
        return record is not None and bool(record.job)
    if file.name == DESCRIPTION or file.suffix == ".json":
        return SEAL in _read_sealed(file)
    return False


def _read_sealed(file: UPath) -> dict[str, Any]:
    content = storage.read_json(file) if file.suffix == ".json" else storage.read_yaml(file)
    if not isinstance(content, dict):
        return {}
    require_seal(content, file, _COPY)
    return content


def _reason(error: InputError, file: UPath) -> str:
    reason = str(error).removeprefix(f"{file}: ").rsplit("; ", 1)[0]  # without its own hint
    return f"{reason}; {_COPY}, or run its job again"


if __name__ == "__main__":
    run(verify)
