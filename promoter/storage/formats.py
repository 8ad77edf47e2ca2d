"""Read and write text, JSON, YAML and Parquet, local or remote, and take the SHA-256 of a file.

PyArrow is imported for Parquet only, so that a command line and its YAML files are parsed without it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from promoter.errors import InputError
from promoter.storage.atomic import open_atomic
from promoter.storage.checks import require_file
from promoter.storage.parsing import parse_json, parse_yaml, to_yaml
from promoter.storage.paths import AnyPath, is_local, resolve
from promoter.storage.remote import first_line, is_store_error, wrap_store_errors

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_CHUNK = 1 << 20  # bytes read at a time, so that memory does not grow with the file


def write_text(path: AnyPath, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with open_atomic(path) as file:
        file.write(text.encode())


def copy_file(source: AnyPath, target: AnyPath) -> None:
    """Copy a file, from or to a store too, atomically."""
    resolved = resolve(source)
    with open_atomic(target) as copy, wrap_store_errors(resolved, "read"), resolved.open("rb") as file:
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


def write_table(
    path: AnyPath, table: pa.Table, metadata: Mapping[str, Any] | None = None, row_group_size: int | None = None
) -> None:
    """Write `table` as zstd Parquet, atomically.

    Args:
        path: local or remote.
        table: table to write.
        metadata: plain values, stored as JSON under the key `promoter` of the schema's metadata, instead of the
            table's own; None, the default, leaves the table's.
        row_group_size: number of rows in a row group, the unit that a reader can take alone; None, the default,
            means pyarrow's default, about a million.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 # see above

    if metadata is not None:
        table = table.replace_schema_metadata({"promoter": json.dumps(metadata)})
    with open_atomic(path) as file:
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
    """Open a Parquet file, local or remote, for the block.

    Args:
        path: local or remote.
        what: name of the file's kind for the message, such as `data set`.

    Yields:
        The open file.

    Raises:
        InputError: the file is missing, truncated, damaged or not Parquet.
        StorageError: a store refused to read it.
    """
    import pyarrow as pa  # noqa: PLC0415 # see above
    import pyarrow.parquet as pq  # noqa: PLC0415 # see above

    resolved = require_file(path, what)
    with wrap_store_errors(resolved, "read"), cast("IO[bytes]", resolved.open("rb")) as file:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            if not is_local(resolved) and is_store_error(error):
                raise
            raise InputError(
                f"{resolved}: is not a complete Parquet file ({first_line(error)}); write it again"
            ) from error
        try:
            yield table
        except (pa.ArrowException, OSError) as error:  # damage before the footer shows only when columns are read
            if not is_local(resolved) and is_store_error(error):
                raise
            raise InputError(f"{resolved}: cannot be read ({first_line(error)}); write it again") from error


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
    digest = hashlib.sha256()
    with cast("IO[bytes]", resolve(path).open("rb")) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
