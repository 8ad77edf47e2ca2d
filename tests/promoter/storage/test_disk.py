"""Full and failing disks: every writer names its file and the fix, and leaves nothing that looks complete."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, NoReturn

import numpy as np
import pytest
from support.disks import limited

from promoter import storage
from promoter.errors import StorageError
from promoter.storage.disk import OutputFile, full_folders


def _write(
    opened: AbstractContextManager[IO[bytes]], content: bytes, meanwhile: Callable[[], object] = lambda: None
) -> None:
    with opened as file:
        for start in range(0, len(content), 4096):
            file.write(content[start : start + 4096])
        meanwhile()
        file.flush()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("size", [0, 1, 10_000])
@pytest.mark.parametrize("before", [None, b"earlier"])
def test_a_full_disk_is_one_line_with_path_and_fix_and_leaves_the_earlier_file(
    tmp_path: Path, late: bool, size: int, before: bytes | None
) -> None:
    path = tmp_path / "folder" / "out.bin"
    if before is not None:
        path.parent.mkdir()
        path.write_bytes(before)
    with limited(size), pytest.raises(StorageError) as raised:
        _write(storage.open_atomic(path, late_errors=late), bytes(40_000))
    assert str(raised.value) == (
        f"{path}: could not be written ({os.strerror(errno.EFBIG)}); raise the limit on the size of files "
        "(ulimit -f), or choose another output folder, and run the same command again"
    )
    assert [item.read_bytes() for item in path.parent.iterdir()] == ([] if before is None else [before])
    storage.write_text(path, "whole")  # there is space again
    assert path.read_text() == "whole"


def test_files_that_appear_together_do_so_only_if_the_last_byte_of_each_is_written(tmp_path: Path) -> None:
    def write(size: int) -> None:
        with storage.Outputs() as outputs:
            outputs.open_atomic(tmp_path / "first").write(bytes(size))
            outputs.atomic_path(tmp_path / "second").write_bytes(b"2")
            outputs.open_atomic(tmp_path / "third").write(b"3")

    with limited(1), pytest.raises(StorageError, match=r"^.*/first: could not be written"):
        write(2)  # which the buffer holds until the end
    assert list(tmp_path.iterdir()) == []
    write(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second", "third"]


def test_an_error_of_an_input_is_not_put_down_to_the_output(tmp_path: Path) -> None:
    opened = storage.open_atomic(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="input"):
        _write(opened, b"text", (tmp_path / "input").read_bytes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free some space, or choose another output folder, and run the same command again"),
        (errno.EDQUOT, "free some space, or choose"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EIO, "check the disk, or choose"),
        (errno.EROFS, "; choose another output folder"),
        (errno.EACCES, "change the permissions, or choose"),
    ],
)
@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "promoter.storage.atomic.make_folder"])
def test_every_error_of_a_disk_names_the_file_and_its_own_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fix: str, call: str
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(call, fail)
    with pytest.raises(StorageError) as raised:
        storage.write_text(tmp_path / "out", "text")
    assert str(raised.value).startswith(f"{tmp_path}/out: could not be written ({os.strerror(number)})")
    assert fix in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_space_is_met_by_the_file_itself() -> None:
    with OutputFile(Path("/dev/full")) as file, pytest.raises(OSError, match="space"):
        file.write(b"x")
    with OutputFile(Path("/dev/full"), late_errors=True) as file:
        assert [file.write(b"xyz"), file.write(np.zeros(3))] == [3, 24]
        assert file.error is not None
        assert file.error.errno == errno.ENOSPC


def test_a_folder_taken_away_while_a_file_is_written_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "out"
    with pytest.raises(StorageError, match=f"^{path}: could not be written"):
        _write(storage.open_atomic(path), b"text", lambda: shutil.rmtree(path.parent))


@pytest.mark.parametrize("remote", [False, True])
def test_a_full_temporary_folder_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = storage.open_atomic("memory://bucket/key") if remote else storage.temporary_file()
    with limited(100), pytest.raises(StorageError, match=f"^{tmp_path}: .*TMPDIR"):
        _write(opened, bytes(1000))
    assert list(tmp_path.iterdir()) == []
    assert not storage.resolve("memory://bucket/key").exists()


def test_an_error_told_by_a_library_in_words_alone_is_found() -> None:
    assert storage.find_disk_error(ValueError("x")) is None
    told = storage.find_disk_error(RuntimeError("ray::f() OSError: [Errno 28] No space left on device"))
    assert told is not None
    assert told.errno == errno.ENOSPC
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = OSError(errno.EDQUOT, "quota")
    assert storage.find_disk_error(wrapped) is wrapped.__cause__


def test_full_folders_are_those_without_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs
    space = {tmp_path: SimpleNamespace(f_bavail=4, f_frsize=4096), tmp_path.parent: real(tmp_path)}
    monkeypatch.setattr(os, "statvfs", lambda path: space[path])
    assert full_folders([tmp_path / "not" / "made"]) == [tmp_path]
    space[tmp_path].f_bavail = 256
    assert full_folders([tmp_path]) == []
