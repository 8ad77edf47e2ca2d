"""The owner of an output: one job, one run, and no other run beside it.

A job writes into a new or empty folder, or into that of the same run, which it resumes. It refuses a folder that
another job, another run or a person has filled, an output that is one of its inputs or that another job's folder
needs, and one that a live run is writing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from upath import UPath

from promoter.errors import InputError, listed
from promoter.storage.atomic import remove_folder
from promoter.storage.checks import require_writable
from promoter.storage.disk import disk_errors
from promoter.storage.formats import sha256
from promoter.storage.leases import hold_lease
from promoter.storage.leftovers import remove_leftovers
from promoter.storage.parts import PART_PATTERN
from promoter.storage.paths import AnyPath, is_local, resolve
from promoter.storage.records import RECORD, Record, read_record, record_of_file, write_record
from promoter.storage.remote import wrap_store_errors
from promoter.storage.runs import Run, is_off

_CHOOSE = "choose another output, or `overwrite=True`"
_MAX_LEVELS = 3  # folders above an output in which a job's record is looked for
_held: set[str] = set()  # outputs of this process, in whose folders its inner runs may write
_lock = threading.Lock()


@dataclass
class Output:
    """An output that this run owns.

    Attributes:
        path: the folder, or the file.
        run: the run.
        earlier: record of the same run, from an earlier start; None for a new one.
    """

    path: UPath
    run: Run
    earlier: Record | None

    @property
    def record_path(self) -> UPath:
        """Return the path of the record."""
        return self.path / RECORD

    def begin(self, inputs: Mapping[str, str] | None = None, *, overwrite: bool = False) -> None:
        """Write the record: from now on the output is this run's, and not finished.

        The files of the run that it replaces are removed, if any run of the job may be replaced.

        Args:
            inputs: path of each input -> its SHA-256, where these were not known before; None (default) otherwise.
            overwrite: true to replace the files of a run with other inputs.

        Raises:
            InputError: the output is of a run with other inputs.
        """
        if inputs is not None:
            self.run = replace(self.run, record=replace(self.run.record, inputs=inputs))
            reason = None if self.earlier is None else _why_other(self.earlier, self.run)
            if reason and not overwrite:
                raise InputError(f"{self.path}: {reason}; {_CHOOSE}")
        if self.earlier is not None and self.run.may_differ is None:
            _remove_files(self.path, self.earlier, self.run)
        write_record(self.record_path, self.run.record)

    @contextmanager
    def nothing_if_refused(self) -> Iterator[None]:
        """Begin a new run, and leave nothing of it if the block refuses an input."""
        if self.earlier is None:
            self.begin()
        try:
            yield
        except InputError:
            if self.earlier is None:
                clear(self.path, self.run)
            raise

    @property
    def finished(self) -> bool:
        """Tell whether an earlier start of the run has finished it."""
        return self.earlier is not None and self.earlier.outputs is not None

    def finish(self, files: Sequence[UPath] | None = None, *, without: Sequence[str] = ()) -> None:
        """Write into the record which files the output consists of.

        Args:
            files: the files; None (default): all of the job's names that exist.
            without: names that are removed afterwards.
        """
        if files is None:
            names = [name for name in self.run.names[self.run.record.job] if name not in without]
            files = list(_files(self.path, names))
        write_record(self.record_path, self.run.record.finished(self.record_path.parent, files))

    def damaged(self) -> list[str]:
        """Return the files of the finished run that are missing, or not what was written."""
        outputs = (self.earlier and self.earlier.outputs) or {}
        folder = self.record_path.parent
        paths = {name: folder / name for name in outputs}
        return [name for name, path in paths.items() if not path.is_file() or sha256(path) != outputs[name]]

    def is_finished(self, last: str, *, overwrite: bool) -> bool:
        """Tell whether an earlier start has finished the run, and check its files.

        Args:
            last: name of the last file that the job writes, by which a run of an earlier version is finished.
            overwrite: true to remove a finished run that is damaged, and start anew.

        Raises:
            InputError: a file is missing, or not what was written, and `overwrite` is false.
        """
        if self.earlier is not None and not self.earlier.job:
            return (self.path / last).exists()
        if not self.finished:
            return False
        if not (damaged := self.damaged()):
            return True
        if not overwrite:
            problem = f"{self.path}: holds a finished run that is damaged ({listed(damaged, 3)})"
            raise InputError(problem, fix="copy it again from its source, or make it anew by `overwrite=True`")
        clear(self.path, self.run)
        self.earlier = None
        return False


class OutputFile(Output):
    """An output that is one file, with a record and perhaps others beside it."""

    @property
    def record_path(self) -> UPath:
        """Return the path of the record."""
        return record_of_file(self.path)


@contextmanager
def own_folder(out: AnyPath, run: Run, *, overwrite: bool = False) -> Iterator[Output]:
    """Own an output folder while the block runs.

    Args:
        out: the folder, local or remote.
        run: what identifies the run.
        overwrite: true to remove what another run of a job has left there; of a person's files only those of the
            same names are replaced.

    Raises:
        InputError: the folder is not this run's to write, or a live run is writing there.
    """
    folder = _require_lasting(out)
    job = run.record.job
    _require_no_input(folder, [*run.names[job], RECORD], run)
    _require_not_within(folder, folder, run)
    _earlier(folder, run, overwrite)  # refuses before it waits for a lease
    # a store's error that no writer has put into words, as a HEAD with expired credentials, names the folder
    with wrap_store_errors(folder, "used"), hold_lease(folder), _holding(folder):
        earlier = _earlier(folder, run, overwrite)
        if earlier is None:
            clear(folder, run)
        remove_leftovers(folder)
        yield Output(folder, run, earlier)
        remove_leftovers(folder)  # of tasks that have outlived a killed driver for a moment


@contextmanager
def own_file(out: AnyPath, run: Run, *, beside: Sequence[str] = (), overwrite: bool = False) -> Iterator[Output]:
    """Own an output that is one file while the block runs; an earlier one of the same job is replaced.

    Args:
        out: the file, local or remote.
        run: what identifies the run.
        beside: endings of other files that the job writes beside it, such as `.metrics.json`.
        overwrite: true to replace a file that another job or a person wrote.

    Raises:
        InputError: the file is not this job's to write, or a live run is writing it.
    """
    path = resolve(out)
    folder = _require_lasting(path.parent)
    names = [path.name, record_of_file(path).name, *(path.with_suffix(ending).name for ending in beside)]
    _require_no_input(folder, names, run)
    record = read_record(record_of_file(path))
    if record is None or record.job != run.record.job:
        _require_not_within(folder, path, run)
        existing = [name for name in names if (folder / name).exists()]
        if existing and not overwrite:
            raise InputError(f"{folder / existing[0]}: was not written by {run.record.job}; {_CHOOSE}")
    with hold_lease(folder, path.name):
        remove_leftovers(folder, names)
        yield OutputFile(path, run, None)


def _require_lasting(folder: AnyPath) -> UPath:
    """Check that a folder can be written, and keeps what is written; return its resolved path."""
    if resolve(folder).protocol == "memory":
        raise InputError(f"{folder}: keeps nothing once the job ends; choose another output")
    return require_writable(folder)


@contextmanager
def _holding(folder: UPath) -> Iterator[None]:
    with _lock:
        _held.add(str(folder))
    try:
        yield
    finally:
        with _lock:
            _held.discard(str(folder))


def _earlier(folder: UPath, run: Run, overwrite: bool) -> Record | None:
    """Return the record of the same run; None for a new or empty folder, or one to take over.

    Raises:
        InputError: the folder is not this run's to write.
    """
    record = read_record(folder / RECORD)
    reason = None if record is None else _why_other(record, run)
    if record is not None and reason is None:
        return record
    if reason and not overwrite:
        raise InputError(f"{folder}: {reason}; {_CHOOSE}")
    if record is not None and record.job:
        _require_no_input(folder, _names_of(record, run), run)
        return None
    existing = _visible(folder)
    if existing and not overwrite:
        fix = f"choose a new folder, such as {folder / run.record.job}, or `overwrite=True`"
        raise InputError(f"{folder}: holds {listed(existing, 3)}, which no job recorded", fix=fix)
    folders = [name for name in existing if name in run.names[run.record.job] and (folder / name).is_dir()]
    if folders:
        raise InputError(f"{folder}: holds a folder {folders[0]}, which no job recorded; choose another output")
    return None


def _why_other(record: Record, run: Run) -> str | None:
    """Return why an output is not this run's; None if it is."""
    if record.job not in {"", run.record.job}:
        return f"holds the output of promoter {record.job}"
    settings = set(run.record.settings)
    compared = {
        name for name in settings - set(run.may_differ or settings) if not is_off(run.record.settings[name])
    }
    # earlier versions did not say which job: one with the same settings is taken for this
    if not record.job and not compared <= set(record.settings) <= settings:
        return "holds a run of an earlier version"
    different = run.differences(record)
    return f"holds another run (different: {', '.join(different)})" if different else None


def _require_no_input(folder: UPath, names: Sequence[str], run: Run) -> None:
    """Refuse outputs that are inputs, lie in one that is a folder and has their name, or hold one."""
    for name in names:
        target = folder / name
        for source in run.record.inputs:
            if _is_or_holds(target, resolve(source)):
                raise InputError(f"{target}: is an input of this job, or holds one; choose another output")
    for source in run.config_files:
        path = resolve(source)
        if path.name == RECORD and _is_or_holds(folder / RECORD, path) and read_record(path) is None:
            raise InputError(f"{path}: the settings were read from it; choose another output")


def _is_or_holds(target: UPath, source: UPath) -> bool:
    """Tell whether a file or folder is, or holds, another."""
    if is_local(target) != is_local(source):
        return False
    if not is_local(target):
        return f"{source}/".startswith(f"{target}/")
    real_target, real_source = (os.path.realpath(str(path)) for path in (target, source))
    if f"{real_source}/".startswith(f"{real_target}/"):
        return True
    with suppress(OSError):  # one of them does not exist
        return Path(real_target).samefile(real_source)
    return False


def _require_not_within(folder: UPath, target: UPath, run: Run) -> None:
    """Refuse an output in another run's folder under a name that its job uses."""
    for above in list(target.parents)[:_MAX_LEVELS]:
        if str(above) in _held:
            return
        record = read_record(above / RECORD)
        if record is None:
            continue
        first = str(target).removeprefix(f"{above}/").split("/")[0]
        if first in (*_names_of(record, run), RECORD):
            same = target == folder and read_record(folder / RECORD) is not None
            if not same:  # a part of that run that is run again
                raise InputError(
                    f"{target}: lies in the output of promoter {record.job} under a name that it uses; "
                    "choose another output"
                )
        return


def _visible(folder: UPath) -> list[str]:
    """Return the names in a folder but hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def clear(folder: UPath, run: Run) -> None:
    """Remove what an earlier run of a job has left, the record last: a kill meanwhile leaves no nameless files.

    Args:
        folder: output folder.
        run: the run that takes its place; its inputs are kept.

    Raises:
        InputError: what would be removed is an input of this run.
    """
    record = read_record(folder / RECORD)
    if record is not None:
        _remove_files(folder, record, run)
        (folder / RECORD).unlink()


def _remove_files(folder: UPath, record: Record, run: Run) -> None:
    """Remove what a run has left in its folder, but its record."""
    names = _names_of(record, run)
    _require_no_input(folder, names, run)
    for path in (folder / name for name in names):
        with disk_errors(path):  # another user's
            if path.is_dir():
                remove_folder(path)
            elif path.exists():
                path.unlink()


def _names_of(record: Record, run: Run) -> list[str]:
    """Return the names in its folder that a run uses."""
    outputs = [name.split("/")[0] for name in record.outputs or ()]
    return list(dict.fromkeys([*run.names.get(record.job, ()), *outputs]))


def _files(folder: UPath, names: Sequence[str]) -> Iterator[UPath]:
    """Yield the files of these names, and those in folders of these names that are no run of their own.

    Part files are left out, which a manifest lists.
    """
    for name in names:
        path = folder / name
        if path.is_dir() and not (path / RECORD).exists():
            yield from _files(path, sorted(inner.name for inner in path.iterdir()))
        elif path.is_file() and not name.startswith(".") and not path.match(PART_PATTERN):
            yield path
