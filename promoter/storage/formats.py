"""Read and write text, JSON, YAML and Parquet, local or remote, and take the SHA-256 of a file.

PyArrow is imported for Parquet only, so that a command line and its YAML files are parsed without it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from promoter.errors import InputError
from promoter.storage.atomic import Outputs, open_atomic
from promoter.storage.checks import require_file
from promoter.storage.disk import INSTEAD
from promoter.storage.parsing import parse_json, parse_yaml, to_yaml
from promoter.storage.paths import AnyPath, is_local, resolve
from promoter.storage.remote import first_line, is_store_error, wrap_store_errors

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from upath import UPath

_FOOTER_SEAL = b"SHA-256 of footer:"  # comes before the 32 bytes of the checksum
_SEAL_BYTES = len(_FOOTER_SEAL) + 32
_FOOTER_READ = 1 << 16  # bytes at the end of a file that hold most footers; as many as pyarrow reads there


def write_text(path: AnyPath, text: str, instead: str = INSTEAD) -> None:
    """Write `text` to `path` as UTF-8, atomically; `instead` as for `open_atomic`."""
    with open_atomic(path, instead=instead) as file:
        file.write(text.encode())


def copy_file(source: AnyPath, target: AnyPath, instead: str = INSTEAD) -> None:
    """Copy a file, from or to a store too, atomically; `instead` as for `open_atomic`."""
    resolved = resolve(source)
    with (
        open_atomic(target, instead=instead) as copy,
        wrap_store_errors(resolved, "read"),
        resolved.open("rb") as file,
    ):
        shutil.copyfileobj(file, copy, 1 << 24)


def read_bytes(path: AnyPath) -> bytes:
    """Return a file's content.

    Raises:
        StorageError: a store refused to read it.
    """
    resolved = resolve(path)
    with wrap_store_errors(resolved, "read"):
        return resolved.read_bytes()


def write_json(path: AnyPath, value: Any) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        ValueError: `value` holds NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: AnyPath, fix: str = "write it again") -> Any:
    """Read a JSON file.

    Args:
        path: local or remote.
        fix: how to make the file anew, for the message (default "write it again").

    Raises:
        InputError: the file is missing or not JSON.
    """
    resolved = require_file(path, "JSON file")
    return parse_json(read_bytes(resolved), resolved, fix)


def write_yaml(path: AnyPath, value: Any) -> None:
    """Write `value` as YAML without aliases, atomically; mappings keep their order of keys."""
    write_text(path, to_yaml(value))


def read_yaml(path: AnyPath, fix: str = "fix it or write it again") -> dict[str, Any]:
    """Read a YAML mapping of plain values; tags that would make Python objects are refused.

    Args:
        path: local or remote.
        fix: how to repair the file, for the message (default "fix it or write it again").

    Raises:
        InputError: the file is missing, not YAML, or not a mapping.
    """
    resolved = require_file(path, "YAML file")
    value = parse_yaml(read_bytes(resolved), resolved, fix)
    if not isinstance(value, dict):
        raise InputError(f"{resolved}: holds no 'key: value' lines; is it the right file?")
    return value


@dataclass(frozen=True)
class Checksums:
    """The checksums of a Parquet file: hexadecimal SHA-256 of the file, and of its footer; None where unknown."""

    file: str | None = None
    footer: str | None = None


def write_table(
    path: AnyPath, table: pa.Table, metadata: Mapping[str, Any] | None = None, row_group_size: int | None = None
) -> Checksums:
    """Write `table` as zstd Parquet with checksums of its pages and footer, atomically; return those of the file.

    Arguments are those of `write_tables`, but for the one table.
    """
    return write_tables(path, iter([table]), metadata, row_group_size)


def write_tables(
    path: AnyPath,
    tables: Iterator[pa.Table],
    metadata: Mapping[str, Any] | None = None,
    row_group_size: int | None = None,
) -> Checksums:
    """Write tables of one schema to a file as `write_table` does, one after another, so that one is in memory.

    Args:
        path: local or remote.
        tables: the tables, at least one.
        metadata: plain values, stored as JSON under the key `promoter` of the schema's metadata, instead of the
            tables' own; None, the default, leaves that of the first.
        row_group_size: number of rows in a row group, the unit that a reader can take alone; None, the default,
            means pyarrow's default, about a million. Each table begins a row group.
    """
    table: pa.Table | None = next(tables)
    schema = table.schema if metadata is None else table.schema.with_metadata({"promoter": json.dumps(metadata)})
    with open_atomic(path) as file:
        with _make_writer(file, schema) as writer:
            while table is not None:
                writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size)
                table = None  # before the next one is made
                table = next(tables, None)
        return _seal_footer(file)


@contextmanager
def open_table_writer(
    path: AnyPath, schema: pa.Schema, outputs: Outputs | None = None
) -> Iterator[pq.ParquetWriter]:
    """Open a Parquet file to write tables to, one after another, as `write_table` writes one, for the block.

    Args:
        path: local or remote; the file appears, complete, only if the block ends without an exception.
        schema: schema of the tables.
        outputs: outputs that the file appears together with; None, the default, means at the end of the block.

    Yields:
        The writer, whose `write_table` takes them.
    """
    with open_atomic(path, appear=outputs and outputs.appear) as file:
        with _make_writer(file, schema) as writer:
            yield writer
        _seal_footer(file)


def _make_writer(file: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    import pyarrow.parquet as pq  # noqa: PLC0415 # see above

    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=["chrom", "strand"],  # type: ignore[arg-type] # repeated values; stubs know only bool
        write_page_checksum=True,
    )


def _seal_footer(file: IO[bytes]) -> Checksums:
    """Put the SHA-256 of the footer before it, where readers of Parquet look at nothing; return both checksums.

    Each page's header has a checksum of the page. The format has none for the footer, which says where the columns
    lie, how they are coded, and the table's schema and metadata.
    """
    start, footer = _read_footer(file)
    digest = hashlib.sha256(footer)
    file.seek(start)
    file.write(_FOOTER_SEAL + digest.digest() + footer)
    return Checksums(_digest(file), digest.hexdigest())


def _read_footer(file: IO[bytes]) -> tuple[int, bytes]:
    """Return where the footer of a Parquet file starts, and its bytes to the end; none if there is none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _FOOTER_READ, 0))
    tail = file.read()
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] != b"PAR1" or length > size:
        return size, b""
    if length > len(tail):
        file.seek(size - length)
        tail = file.read()
    return size - length, tail[-length:]


@contextmanager
def open_table(
    path: AnyPath, what: str, footer: str | None = None, fix: str = "write it again"
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, local or remote, for the block, to read some of its rows or columns.

    Of a file of ours, the footer is checked by its checksum, and so is each page that is read.

    Args:
        path: local or remote.
        what: name of the file's kind for the message, such as `data set`.
        footer: SHA-256 that its footer must have; None, the default, where it is listed nowhere.
        fix: how to fix a damaged file, for the message.

    Yields:
        The open file.

    Raises:
        InputError: the file is missing, truncated, damaged, not Parquet or not the one that is listed.
        StorageError: a store refused to read it.
    """
    resolved = require_file(path, what)
    with wrap_store_errors(resolved, "read"), cast("IO[bytes]", resolved.open("rb")) as file:
        _check_footer(resolved, file, footer, fix)
        with _parsed(resolved, file, fix) as table:
            yield table


@contextmanager
def open_whole_table(
    path: AnyPath, what: str, expected: Checksums | None = None, fix: str = "write it again"
) -> Iterator[tuple[pq.ParquetFile, Checksums]]:
    """Open a Parquet file for the block as `open_table` does, to read all of it: a store is asked for it once.

    Args:
        path: local or remote.
        what: name of the file's kind for the message, such as `data set`.
        expected: checksums that it must have; None, the default, where it is listed nowhere.
        fix: how to fix a damaged file, for the message.

    Yields:
        The open file, and its checksums.
    """
    resolved, expected = require_file(path, what), expected or Checksums()
    with (
        wrap_store_errors(resolved, "read"),
        cast(
            "IO[bytes]", resolved.open("rb") if is_local(resolved) else io.BytesIO(resolved.read_bytes())
        ) as file,
    ):
        digest = _digest(file)
        if expected.file not in {None, digest}:
            raise InputError(f"{resolved}: is not what was written (its SHA-256 differs): damaged", fix=fix)
        checksums = Checksums(digest, _check_footer(resolved, file, expected.footer, fix))
        with _parsed(resolved, file, fix) as table:
            yield table, checksums


def verify_table(path: AnyPath, fix: str = "write it again") -> bool:
    """Read all of a Parquet file; return whether it has checksums, as all but those of earlier versions have.

    Args:
        path: local or remote.
        fix: how to fix a damaged file, for the message.

    Raises:
        InputError: the file is damaged, or not Parquet.
    """
    with open_whole_table(path, "Parquet file", fix=fix) as (table, _):
        for group in range(table.num_row_groups):  # one at a time needs little memory
            table.read_row_group(group)
    with cast("IO[bytes]", resolve(path).open("rb")) as file:
        return _read_seal(file, _read_footer(file)[0]).startswith(_FOOTER_SEAL)


def _read_seal(file: IO[bytes], start: int) -> bytes:
    """Return what comes before the footer: its checksum; in a file of an earlier version, the end of a column."""
    file.seek(max(start - _SEAL_BYTES, 0))
    return file.read(min(start, _SEAL_BYTES))


def _check_footer(path: UPath, file: IO[bytes], expected: str | None, fix: str) -> str:
    """Return the SHA-256 of the footer, after comparing it with the one before it and with what is expected."""
    start, footer = _read_footer(file)
    digest = hashlib.sha256(footer)
    seal = _read_seal(file, start)
    damaged = seal.startswith(_FOOTER_SEAL) and seal != _FOOTER_SEAL + digest.digest()
    if damaged or expected not in {None, digest.hexdigest()}:
        problem = "is not what was written (the SHA-256 of its footer differs): damaged"
        raise InputError(f"{path}: {problem}", fix=fix)
    return digest.hexdigest()


@contextmanager
def _parsed(path: UPath, file: IO[bytes], fix: str) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa  # noqa: PLC0415 # see above
    import pyarrow.parquet as pq  # noqa: PLC0415 # see above

    file.seek(0)
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        if not is_local(path) and is_store_error(error):
            raise
        raise InputError(f"{path}: is not a complete Parquet file ({first_line(error)})", fix=fix) from error
    try:
        yield table
    except (pa.ArrowException, OSError) as error:  # damage before the footer shows only when columns are read
        if not is_local(path) and is_store_error(error):
            raise
        raise InputError(f"{path}: cannot be read ({first_line(error)})", fix=fix) from error


def read_table_metadata(table: pq.ParquetFile, source: object, fix: str = "write it again") -> dict[str, Any]:
    """Return the metadata that `write_table` was given, or an empty mapping.

    Args:
        table: the open file.
        source: name of the file, for the message.
        fix: how to make the file anew, for the message (default "write it again").

    Raises:
        InputError: the metadata are not JSON, or no mapping.
    """
    raw = (table.schema_arrow.metadata or {}).get(b"promoter")
    metadata = parse_json(raw, f"{source}: its metadata", fix) if raw else {}
    if not isinstance(metadata, dict):
        raise InputError(f"{source}: its metadata are no mapping; {fix}")
    return metadata


def sha256(path: AnyPath) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with cast("IO[bytes]", resolve(path).open("rb")) as file:
        return _digest(file)


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, hashlib.sha256).hexdigest()  # type: ignore[arg-type] # any binary file
