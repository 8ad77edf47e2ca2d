"""Files on a disk or in a bucket: the same few verbs for local paths and for `s3://`, `gs://` and so on.

Outputs are written whole or not at all: to a sibling that is then renamed, or by one put where
the store knows no rename. A large put goes in parts that show only together, and are dropped if one
fails. The store's library tries again what may pass (errors 500 and 503, lost connections); what does
not is a `StorageError`.
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
import pyarrow.fs
import pyarrow.parquet as pq
import yaml
from upath import UPath

from promoter.errors import InputError, StorageError

AnyPath: TypeAlias = "str | os.PathLike[str] | UPath"

_GZIP_MAGIC = b"\x1f\x8b"
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")  # SAM specification, 4.1.2
_CHUNK = 1 << 20
_CACHE = "use_listings_cache"
_BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
# of s3fs, gcsfs and adlfs
_LIBRARIES = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure", "fsspec", "s3fs", "adlfs"}


def resolve(path: AnyPath) -> UPath:
    """Return `path` as an absolute path, so that a process in another working directory can use it.

    Raises:
        InputError: an address of a kind that is unknown, or whose package is not installed.
    """
    try:
        where = UPath(path)
        if not is_local(where):
            # a listing that is kept would hide what other processes have written since
            where = where if _CACHE in where.storage_options else UPath(where, use_listings_cache=False)
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


def arrow_filesystem(path: AnyPath) -> tuple[pyarrow.fs.FileSystem | None, str]:
    """Return a file system of pyarrow's and the path on it, for libraries that write by pyarrow, such as Ray.

    That of a store is the one that this module uses: the same credentials, endpoint and patience. It is None for
    a local path, which pyarrow reads itself.
    """
    where = resolve(path)
    if is_local(where):
        return None, str(where)
    handler = pyarrow.fs.FSSpecHandler(where.fs)  # type: ignore[abstract] # its methods are missing in the stubs
    return pyarrow.fs.PyFileSystem(handler), where.path


@contextmanager
def failures(path: AnyPath, done: str) -> Iterator[None]:
    """Turn what a store's library raises in the block into one line.

    Args:
        path: for the message; of a local one errors pass as they are.
        done: what could not be done to it, such as `written`.

    Raises:
        StorageError: names the address, the reason and the mend.
    """
    try:
        yield
    except Exception as error:
        where = resolve(path)
        if is_local(where) or isinstance(error, InputError | StorageError) or not is_of_store(error):
            raise
        raise StorageError(f"{where}: could not be {done} ({_first_line(error)}); {mend(error)}") from error


def is_of_store(error: BaseException) -> bool:
    """Tell whether a store's library raised it, by itself or as what Python calls such an error."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        refused = isinstance(one, PermissionError | ConnectionError | TimeoutError)
        if refused or type(one).__module__.split(".")[0] in _LIBRARIES:
            return True
        seen.append(one)
        one = one.__cause__ or one.__context__
    return False


def mend(error: BaseException) -> str:
    """Say what to do about an error of a store."""
    reason = f"{type(error).__name__} {error}".lower()
    if "expired" in reason or "credential" in reason or "token" in reason:
        return "renew the credentials and run the same command again"
    if "bad request" in reason:  # all that S3 says to a HEAD with credentials that have expired
        return "renew the credentials, which may have expired, and run the same command again"
    if isinstance(error, PermissionError):
        return "check what the credentials allow, and run the same command again"
    if isinstance(error, FileNotFoundError):
        return "check the address"
    return "run the same command again"


def require_file(path: AnyPath, what: str) -> UPath:
    """Return `path` resolved.

    Raises:
        InputError: there is no such file, it is a folder, it is empty, or it may not be read.
    """
    where = resolve(path)
    with failures(where, "read"):
        _require_file(where, what)
    return where


def _require_file(where: UPath, what: str) -> None:
    try:
        if not where.exists():
            raise InputError(f"{where}: no such {what}; check the path")
        if where.is_dir():
            raise InputError(f"{where}: is a folder, not a {what}; name the file in it")
        if where.stat().st_size == 0:
            raise InputError(f"{where}: the {what} is empty; was it written to the end?")
        where.open("rb").close()
    except PermissionError as error:
        if not is_local(where):
            raise
        raise InputError(f"{where}: may not be read ({error.strerror}); change its permissions") from error


def require_writable(folder: AnyPath) -> UPath:
    """Return `folder` resolved, once it is known that a file can be written in it.

    A local folder is made only for the attempt: what is written later makes it again.

    Raises:
        InputError: it cannot be made or written.
    """
    where = resolve(folder)
    try:
        with probe_file(where):
            pass
    except Exception as error:
        if not isinstance(error, OSError | ValueError) and not is_of_store(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        other = "" if is_local(where) else f"{mend(error)}, or "
        raise InputError(f"{where}: cannot write here ({reason}); {other}choose another output folder") from error
    return where


@contextmanager
def probe_file(folder: AnyPath) -> Iterator[UPath]:
    """Write an empty file into `folder` while the block runs; nothing is left, nor a folder made for it."""
    where = resolve(folder)
    probe = where / f".write-test-{uuid.uuid4().hex}"
    missing = _missing_folders(where)
    try:
        _make_folder(where)
        probe.write_bytes(b"")
        try:
            yield probe
        finally:
            probe.unlink()
    finally:
        _remove_empty(missing)


def _make_folder(where: UPath) -> None:
    """Make a folder where there are any; a bucket has none, and one that is not there may be a misspelt name."""
    if where.protocol not in _BUCKETS:
        where.mkdir(parents=True, exist_ok=True)


@contextmanager
def removed_on_error(folder: AnyPath, unless: str | None = None) -> Iterator[UPath]:
    """Remove `folder` with all it holds if the block fails, unless it was there before.

    Nor is it removed if another process has put the file `unless` into it, by which it has become that one's.
    """
    where = resolve(folder)
    there, missing = where.exists(), _missing_folders(where)
    try:
        yield where
    except BaseException:
        if not there and not (unless and (where / unless).exists()):
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
    _make_folder(where.parent)
    if not is_local(where):  # a put to an object store is atomic as it is: build the object, then put it
        buffer = io.BytesIO()
        yield buffer
        with failures(where, "written"):
            where.fs.pipe_file(where.path, buffer.getvalue())
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
    _make_folder(where.parent)
    if not is_local(where):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / where.name
            with failures(where, "written"):
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
    with failures(where, "removed"):
        if where.exists():
            where.fs.rm(where.path, recursive=True)


def write_text(path: AnyPath, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with open_whole(path) as file:
        file.write(text.encode())


def copy_file(source: AnyPath, target: AnyPath) -> None:
    """Copy a file, from or to remote storage too, whole or not at all."""
    with open_whole(target) as file:
        file.write(read_bytes(source))


def read_bytes(path: AnyPath) -> bytes:
    """Return a file's content."""
    where = resolve(path)
    with failures(where, "read"):
        return where.read_bytes()


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
        return json.loads(read_bytes(where))
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
        value = yaml.safe_load(read_bytes(where).decode())
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
    with failures(where, "read"), cast("IO[bytes]", where.open("rb")) as file:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            if not is_local(where) and is_of_store(error):
                raise
            raise InputError(
                f"{where}: is not a whole Parquet file ({_first_line(error)}); write it again"
            ) from error
        try:
            yield table
        except (pa.ArrowException, OSError) as error:  # damage past the footer shows only when columns are read
            if not is_local(where) and is_of_store(error):
                raise
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


def is_bgzip(path: AnyPath) -> bool:
    """Tell bgzip from plain gzip by the extra field `BC` in its header (SAM specification, section 4.1)."""
    with resolve(path).open("rb") as file:
        head = file.read(18)
    return len(head) == 18 and bool(head[3] & 4) and head[12:14] == b"BC"


def require_end_of_bgzip(path: AnyPath) -> None:
    """Refuse bgzip data that end early.

    Raises:
        InputError: the block that marks the end is missing.
    """
    where = resolve(path)
    with cast("IO[bytes]", where.open("rb")) as file:
        file.seek(max(where.stat().st_size - len(_BGZIP_END), 0))
        if file.read() != _BGZIP_END:
            raise InputError(f"{where}: the bgzip data ends early (no end marker); fetch or make it again")


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
