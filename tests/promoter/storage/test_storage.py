from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.disks import limited
from support.files import Write
from upath import UPath

from promoter import storage
from promoter.errors import InputError, StorageError
from promoter.storage.disk import OutputFile

STORES = [("s3", "s3fs"), ("gs", "gcsfs")]  # protocol, the optional package that opens it


@pytest.fixture(params=["local", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder as a path, as a file:// address, and in fsspec's store without a disk."""
    yield {"local": "", "file": "file://", "memory": "memory:/"}[request.param] + str(tmp_path)
    storage.remove_folder(f"memory:/{tmp_path}")


def names(folder: str) -> list[str]:
    return sorted(path.name for path in UPath(folder).iterdir())


def test_an_atomic_file_appears_when_the_block_ends_and_not_before(folder: str) -> None:
    path = UPath(folder) / "deep" / "er" / "out.bin"
    for content in (b"first", b"2nd"):  # the second replaces
        with storage.open_atomic(path) as file:
            file.write(content[:3])
            assert not path.exists() or path.read_bytes() == b"first"
            file.write(content[3:])
        assert path.read_bytes() == content
    assert names(str(path.parent)) == ["out.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_in_an_atomic_write_leaves_the_earlier_file(
    folder: str, error: type[BaseException], before: bytes | None
) -> None:
    path = UPath(folder) / "out.bin"
    if before is not None:
        storage.write_text(path, before.decode())

    def fail() -> None:
        with storage.open_atomic(path) as file:
            file.write(b"x" * 100_000)  # more than a buffer
            raise error

    with pytest.raises(error):
        fail()
    assert names(folder) == ([] if before is None else ["out.bin"])
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("before", [None, b"old"])
def test_an_atomic_path_appears_when_the_block_ends_or_not_at_all(folder: str, before: bytes | None) -> None:
    path = UPath(folder) / "deep" / "out.bw"
    if before is not None:
        storage.write_text(path, before.decode())

    def write(error: type[BaseException] | None) -> None:
        with storage.atomic_path(path) as named:
            assert named.suffix == ".bw"
            named.write_bytes(b"new")
            assert not path.exists() or path.read_bytes() == before
            if error:
                raise error

    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt)
    assert names(str(path.parent)) == ([] if before is None else ["out.bw"])
    assert before is None or path.read_bytes() == before
    write(None)
    assert names(str(path.parent)) == ["out.bw"]
    assert path.read_bytes() == b"new"


def test_a_reader_keeps_the_old_file_while_a_new_one_takes_its_place(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "out", "old")
    with (tmp_path / "out").open() as reader:
        storage.write_text(tmp_path / "out", "new")
        assert reader.read() == "old"
    assert (tmp_path / "out").read_text() == "new"


def test_an_atomic_write_onto_a_folder_leaves_it_and_no_partial_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="out"):
        storage.write_text(tmp_path / "out", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("out", "{here}/out"),
        ("../x/./y", "{parent}/x/y"),
        ("~/data", "{home}/data"),
        (Path("/a/b"), "/a/b"),
        ("file:///a/b c#1", "/a/b c#1"),
        ("memory://bucket/key", "memory://bucket/key"),
    ],
)
def test_resolved_paths_are_absolute(
    given: str | Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    found = storage.resolve(given)
    assert str(found) == expected.format(here=tmp_path, parent=tmp_path.parent, home="/home/somebody")
    assert storage.resolve(found) == found
    assert storage.is_local(found) == (found.protocol != "memory")


def test_resolved_paths_follow_no_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert str(storage.resolve(tmp_path / "link")) == str(tmp_path / "link")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_checksums_are_those_of_hashlib(folder: str, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    with storage.open_atomic(f"{folder}/f") as file:
        file.write(content[:size])
    assert storage.sha256(f"{folder}/f") == hashlib.sha256(content[:size]).hexdigest()


def test_a_folder_is_removed_with_all_it_holds_and_nothing_else(folder: str) -> None:
    for name in ("a/b/c", "a/d", "ab"):
        storage.write_text(f"{folder}/{name}", name)
    for _ in range(2):  # one that is not there is fine
        storage.remove_folder(f"{folder}/a")
        assert names(folder) == ["ab"]


@pytest.mark.parametrize("value", [float("nan"), [1, {"a": float("inf")}]])
def test_NaN_is_refused_in_JSON_and_the_earlier_file_stays(folder: str, value: Any) -> None:
    storage.write_json(f"{folder}/v.json", {"r": 0.1, "none": None, "name": "Γ"})
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(f"{folder}/v.json", value)
    assert storage.read_json(f"{folder}/v.json") == {"r": 0.1, "none": None, "name": "Γ"}
    assert json.loads(UPath(f"{folder}/v.json").read_bytes()) == {"r": 0.1, "none": None, "name": "Γ"}
    assert names(folder) == ["v.json"]


def test_YAML_is_read_back_in_its_order(folder: str) -> None:
    value = {"z": [1, 2.5, None], "a": {"true": True, "on": "on", "Γ": "1e3"}}
    storage.write_yaml(f"{folder}/v.yaml", value)
    assert json.dumps(storage.read_yaml(f"{folder}/v.yaml")) == json.dumps(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the YAML file is empty"),
        (b"a: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- a", "holds no 'key: value' lines"),
        (b"a: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_a_file_that_is_no_YAML_mapping_is_refused_on_one_line(write: Write, content: bytes, message: str) -> None:
    path = write("v.yaml", content)
    with pytest.raises(InputError, match=message) as error:
        storage.read_yaml(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_JSON_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"v\.json: is not JSON"):
        storage.read_json(write("v.json", "{'a': 1}"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("none", "no such genome; check"), ("", "is a folder, not a genome"), ("empty", "the genome is empty")],
)
def test_a_missing_or_empty_file_or_a_folder_is_refused_by_name(folder: str, name: str, message: str) -> None:
    storage.write_text(f"{folder}/empty", "")
    where = f"{folder}/{name}".rstrip("/")
    with pytest.raises(InputError) as error:
        storage.require_file(where, "genome")
    assert str(error.value).startswith(f"{storage.resolve(where)}: {message}")


def test_an_existing_file_is_returned_resolved(folder: str) -> None:
    storage.write_text(f"{folder}/f", "x")
    assert storage.require_file(f"{folder}/f", "genome").read_text() == "x"


def test_checking_that_a_folder_is_writable_leaves_nothing(folder: str) -> None:
    where = storage.require_writable(f"{folder}/new/er")
    if storage.is_local(where):  # a store has no folders of its own
        assert not where.parent.exists()
        assert Path(str(where.parent.parent)).is_dir()
    storage.write_text(where / "f", "x")
    assert storage.require_writable(where) == where
    assert names(str(where)) == ["f"]  # and nothing of the two attempts


def test_an_output_below_a_file_is_refused(write: Write) -> None:
    path = write("file", "x")
    for where in (path, path / "out"):
        with pytest.raises(InputError, match=f"^{where}: cannot write here .*choose another output folder"):
            storage.require_writable(where)
    assert path.read_text() == "x"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc, where even root can make nothing")
def test_an_output_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(InputError, match=r"^/proc/out: cannot write here \(.+\); choose another output folder"):
        storage.require_writable("/proc/out")


UNKNOWN = ["s4://bucket/out", *(f"{name}://bucket/out" for name, package in STORES if find_spec(package) is None)]


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize(
    "verb", [storage.resolve, storage.require_writable, partial(storage.require_file, what="")]
)
def test_an_address_that_cannot_be_opened_is_refused_by_name(path: str, verb: Callable[[str], Any]) -> None:
    with pytest.raises(InputError, match=rf"^{path}: cannot be opened .*promoter\[s3\]"):
        verb(path)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user whom permissions bind; root becomes `nobody` for the test."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        os.seteuid(user)


def test_files_and_folders_without_permission_are_refused(unprivileged: Path) -> None:
    (unprivileged / "secret").write_text("x")
    (unprivileged / "secret").chmod(0)
    with pytest.raises(InputError, match=r"secret: may not be read .*; change its permissions"):
        storage.require_file(unprivileged / "secret", "genome")
    for name, mode in (("read-only", 0o555), ("locked", 0)):
        (unprivileged / name).mkdir(mode=mode)
        for where in (unprivileged / name, unprivileged / name / "out"):
            with pytest.raises(InputError, match=f"^{where}: cannot write here .*choose another output folder"):
                storage.require_writable(where)
    with pytest.raises(InputError, match="locked/x: may not be read"):
        storage.require_file(unprivileged / "locked" / "x", "genome")
    (unprivileged / "locked").chmod(0o700)
    assert not list((unprivileged / "locked").iterdir())


def test_a_folder_whose_permission_is_taken_away_while_it_is_written_is_one_line(unprivileged: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(storage.open_atomic(unprivileged / "out")).write(b"text")
        unprivileged.chmod(0o500)
        message = rf"^{unprivileged}/out: could not be written \(Permission denied\); change the permissions, or"
        with pytest.raises(StorageError, match=message):
            stack.close()
    unprivileged.chmod(0o700)


def test_Parquet_tables_are_read_back_with_their_metadata(folder: str) -> None:
    table = pa.table({"chrom": ["a", "a"], "x": [1.5, None]})
    metadata = {"window": {"upstream": 5}, "targets": ["Γ"]}
    storage.write_table(f"{folder}/t.parquet", table, metadata)
    with storage.open_table(f"{folder}/t.parquet", "table") as file:
        assert storage.read_table_metadata(file, "t.parquet") == metadata
        assert file.read().to_pydict() == table.to_pydict()
    plain = UPath(f"{folder}/t.parquet").read_bytes()
    assert pq.read_table(pa.BufferReader(plain)).to_pydict() == table.to_pydict()


@pytest.mark.parametrize("damage", ["head", "tail", "middle", "text"])
def test_a_damaged_Parquet_table_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.parquet"
    storage.write_table(path, pa.table({"x": list(range(5000))}))
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(
        {
            "head": whole[half:],
            "tail": whole[:half],
            "middle": whole[:40] + b"\0" * 400 + whole[440:],
            "text": b"gene\tvalue\n",
        }[damage]
    )

    def read() -> None:
        with storage.open_table(path, "table") as file:
            file.read()

    with pytest.raises(InputError, match=f"^{path}: .*write it again") as error:
        read()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, 1, 700, 3000])
@pytest.mark.parametrize("seed", range(5))
def test_what_a_full_disk_did_not_take_can_be_read_back(tmp_path: Path, size: int, seed: int) -> None:
    """A library that crashes if it reads other bytes than it wrote must not notice; io.BytesIO is the oracle."""
    rng = np.random.default_rng(seed)
    expected = io.BytesIO()
    with OutputFile(tmp_path / "f", late_errors=True) as file:
        for _ in range(200):
            position, length = (int(number) for number in rng.integers(0, 2000, 2))
            if rng.random() < 0.5:
                content = rng.bytes(length)
                for target in (file, expected):
                    target.seek(position)
                    with limited(size):
                        assert target.write(content) == length
            else:
                read = [target.seek(position) == position and target.read(length) for target in (file, expected)]
                assert read[0] == read[1]
            assert file.seek(0, os.SEEK_END) == expected.seek(0, os.SEEK_END)
        assert (file.error is None) == (size == 3000 and expected.tell() <= 3000)
