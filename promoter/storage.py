"""Files on a disk or in a bucket: the same few verbs for local paths and for `s3://`, `gs://` and so on.

Outputs are written whole or not at all: to a sibling that is then renamed, or by one put where
the store knows no rename.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from upath import UPath

from promoter.errors import InputError

AnyPath: TypeAlias = "str | os.PathLike[str] | UPath"

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


def resolve(path: AnyPath) -> UPath:
    """Return `path` as an absolute path, so that a process in another working directory can use it.

    Raises:
        InputError: an address of a kind that is unknown, or whose package is not installed.
    """
    try:
        where = UPath(path)
        if not is_local(where):
            _ = where.fs  # imports the store's package
            return where
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be opened ({error}); name a local path, "
            "or s3:// or gs:// with promoter[s3] or promoter[gcs] installed"
        ) from error
    return UPath(os.path.abspath(where.expanduser().path))  # noqa: PTH100 # resolve() would follow links


def is_local(path: UPath) -> bool:
    """Tell whether `path` is on a file system that `open` reads."""
    return path.protocol in ("", "file", "local")


def require_file(path: AnyPath, what: str) -> UPath:
    """Return `path` resolved.

    Raises:
        InputError: there is no such file, it is a folder, it is empty, or it may not be read.
    """
    where = resolve(path)
    try:
        if not where.exists():
            raise InputError(f"{where}: no such {what}; check the path")
        if where.is_dir():
            raise InputError(f"{where}: is a folder, not a {what}; name the file in it")
        if where.stat().st_size == 0:
            raise InputError(f"{where}: the {what} is empty; was it written to the end?")
        where.open("rb").close()
    except PermissionError as error:
        raise InputError(f"{where}: may not be read ({error.strerror}); change its permissions") from error
    return where


def require_writable(folder: AnyPath) -> UPath:
    """Return `folder` resolved, once it is known that a file can be written in it.

    A local folder is made only for the attempt: what is written later makes it again.

    Raises:
        InputError: it cannot be made or written.
    """
    where = resolve(folder)
    probe = where / f".write-test-{uuid.uuid4().hex}"
    missing = _missing_folders(where)
    try:
        where.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{where}: cannot write here ({reason}); choose another output folder") from error
    finally:
        _remove_empty(missing)
    return where


@contextmanager
def removed_on_error(folder: AnyPath) -> Iterator[UPath]:
    """Remove `folder` with all it holds if the block fails, unless it was there before."""
    where = resolve(folder)
    there, missing = where.exists(), _missing_folders(where)
    try:
        yield where
    except BaseException:
        if not there:
            remove_folder(where)
            _remove_empty(missing)
        raise


def _missing_folders(where: UPath) -> list[Path]:
    """Return a local folder and those above it that are not there, the deepest first; stores have none."""
    if not is_local(where):
        return []
    folder = Path(str(where))
    try:
        return [one for one in (folder, *folder.parents) if not one.exists()]
    except OSError:  # may not be looked at, so nothing can be made in it either
        return []


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # not there, or another process has put something in it
        for folder in folders:
            if folder.is_dir():
                folder.rmdir()


@contextmanager
def open_whole(path: AnyPath) -> Iterator[IO[bytes]]:
    """Open `path` for writing so that it appears complete, when the block ends well, or not at all."""
    where = resolve(path)
    where.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(where):  # a put to an object store is atomic as it is: build the object, then put it
        buffer = io.BytesIO()
        yield buffer
        where.write_bytes(buffer.getvalue())
        return
    with whole_path(where) as partial, partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole_path(path: AnyPath) -> Iterator[Path]:
    """Name a local file to write, for libraries that open one themselves; it then appears at `path` or not at all.

    The name ends as `path` does, since some libraries go by it.
    """
    where = resolve(path)
    where.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(where):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / where.name
            where.fs.put_file(str(Path(folder) / where.name), where.path)
        return
    partial = Path(str(where.parent)) / f".{uuid.uuid4().hex}.partial.{where.name}"
    try:
        yield partial
        partial.replace(str(where))
    finally:
        partial.unlink(missing_ok=True)


def remove_folder(folder: AnyPath) -> None:
    """Remove a folder with all it holds; one that is not there is fine."""
    where = resolve(folder)
    if where.exists():
        where.fs.rm(where.path, recursive=True)


def write_text(path: AnyPath, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with open_whole(path) as file:
        file.write(text.encode())


def copy_file(source: AnyPath, target: AnyPath) -> None:
    """Copy a file, from or to remote storage too, whole or not at all."""
    with open_whole(target) as file:
        file.write(resolve(source).read_bytes())


def write_json(path: AnyPath, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: AnyPath) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing or not JSON.
    """
    where = require_file(path, "JSON file")
    try:
        return json.loads(where.read_text())
    except ValueError as error:
        raise InputError(f"{where}: is not JSON ({error}); write it again") from error


def write_yaml(path: AnyPath, value: Any) -> None:
    """Write `value` as YAML in its own key order, whole or not at all."""
    write_text(path, yaml.safe_dump(value, sort_keys=False))


def read_yaml(path: AnyPath) -> dict[str, Any]:
    """Read a YAML mapping (safely: plain values only).

    Raises:
        InputError: it is missing, not YAML, or not a mapping.
    """
    where = require_file(path, "YAML file")
    try:
        value = yaml.safe_load(where.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: is not YAML ({reason}); mend it or write it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: holds no 'key: value' lines; is it the right file?")
    return value


def write_table(
    path: AnyPath,
    table: pa.Table,
    metadata: Mapping[str, Any] | None = None,
    row_group_size: int | None = None,
) -> None:
    """Write `table` as zstd Parquet, whole or not at all, with `metadata` as JSON under the key `promoter`.

    Args:
        path: local or remote.
        table: to write.
        metadata: plain values.
        row_group_size: rows that can be read by themselves; many by default.
    """
    if metadata is not None:
        table = table.replace_schema_metadata({"promoter": json.dumps(metadata)})
    with open_whole(path) as file:
        # dictionaries serve repeated values; sequences and scores have none
        pq.write_table(
            table,
            file,
            row_group_size,
            compression="zstd",
            use_dictionary=["chrom", "strand"],  # type: ignore[arg-type] # stubs know only bool
        )


@contextmanager
def open_table(path: AnyPath, what: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, local or remote.

    Raises:
        InputError: it is missing, truncated or no Parquet.
    """
    where = require_file(path, what)
    with cast("IO[bytes]", where.open("rb")) as file:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"{where}: is not a whole Parquet file ({_first_line(error)}); write it again"
            ) from error
        try:
            yield table
        except (pa.ArrowException, OSError) as error:  # damage past the footer shows only when columns are read
            raise InputError(f"{where}: cannot be read ({_first_line(error)}); write it again") from error


def read_table_metadata(table: pq.ParquetFile) -> dict[str, Any]:
    """Return what `write_table` was given as metadata, or an empty mapping."""
    raw = (table.schema_arrow.metadata or {}).get(b"promoter")
    return json.loads(raw) if raw else {}


def sha256(path: AnyPath) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with cast("IO[bytes]", resolve(path).open("rb")) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_gzip(path: AnyPath) -> bool:
    """Tell by its first bytes whether a file is gzip (bgzip included)."""
    with cast("IO[bytes]", resolve(path).open("rb")) as file:
        return file.read(2) == _GZIP_MAGIC


@contextmanager
def open_text(path: AnyPath) -> Iterator[IO[str]]:
    """Open a text file for reading, unpacking gzip or bgzip by its content, whatever its name."""
    where = resolve(path)
    packed = is_gzip(where)
    with cast("IO[bytes]", where.open("rb")) as raw:
        try:
            plain = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
            yield io.TextIOWrapper(plain, encoding="utf-8")
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{where}: the gzip data ends early or is damaged; fetch it again") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: is not a text file ({error.reason}); is it the right file?") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
