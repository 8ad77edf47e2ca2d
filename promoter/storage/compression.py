"""Recognise compressed files by content, whatever their names, and unpack them while they are read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Literal, cast

from upath import UPath

from promoter.errors import InputError
from promoter.storage.paths import AnyPath, resolve

Compression = Literal["bgzip", "gzip", "bzip2", "xz", "zip", "zstd"]
_MAGIC: list[tuple[bytes, Compression]] = [
    (rb"\x1f\x8b.[\x04-\x07].{8}BC", "bgzip"),  # its extra field: SAM specification, section 4.1
    (rb"\x1f\x8b", "gzip"),
    (rb"BZh[1-9]1AY&SY", "bzip2"),
    (rb"\xfd7zXZ\0", "xz"),
    (rb"PK[\x03\x05][\x04\x06]", "zip"),
    (rb"\x28\xb5\x2f\xfd", "zstd"),
]
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")  # SAM specification, 4.1.2
_DAMAGED = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile, EOFError)


def compression(path: AnyPath) -> Compression | None:
    """Return how a file is compressed, by its first bytes; None if it is not."""
    with resolve(path).open("rb") as file:
        head = file.read(18)
    return next((name for magic, name in _MAGIC if re.match(magic, head, re.DOTALL)), None)


def require_end_of_bgzip(path: AnyPath) -> None:
    """Check that a bgzip file ends with the block that marks its end.

    Raises:
        InputError: the block is missing, so the file is truncated.
    """
    resolved = resolve(path)
    with cast("IO[bytes]", resolved.open("rb")) as file:
        file.seek(max(resolved.stat().st_size - len(_BGZIP_END), 0))
        if file.read() != _BGZIP_END:
            raise InputError(f"{resolved}: the bgzip data ends early (no end marker); fetch or make it again")


@contextmanager
def open_bytes(path: AnyPath) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked if it is gzip, bgzip, bzip2, xz, or zip with one file in it.

    Args:
        path: local or remote.

    Yields:
        The binary file.

    Raises:
        InputError: the compressed data is damaged, or cannot be unpacked here.
    """
    resolved = resolve(path)
    kind = compression(resolved)
    with cast("IO[bytes]", resolved.open("rb")) as raw:
        try:
            yield _unpacked(raw, kind, resolved)
        except OSError as error:
            if not isinstance(error, _DAMAGED) and (kind != "bzip2" or error.errno is not None):
                raise
            raise _damaged(resolved, kind) from error
        except _DAMAGED as error:
            raise _damaged(resolved, kind) from error


def first_bytes(path: AnyPath, count: int = 4096) -> bytes:
    """Return the first bytes of a file, unpacked if it is compressed.

    Raises:
        InputError: the compressed data is damaged, or cannot be unpacked here.
    """
    with open_bytes(path) as file:
        return file.read(count)


def _unpacked(raw: IO[bytes], kind: Compression | None, path: UPath) -> IO[bytes]:
    match kind:
        case "bgzip" | "gzip":
            return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
        case "bzip2":
            return cast("IO[bytes]", bz2.BZ2File(raw))
        case "xz":
            return cast("IO[bytes]", lzma.LZMAFile(raw))
        case "zip":
            return _only_file(zipfile.ZipFile(raw), path)
        case "zstd":
            raise InputError(f"{path}: is zstd; unpack it (zstd -d)")
        case None:
            return raw


def _only_file(archive: zipfile.ZipFile, path: UPath) -> IO[bytes]:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if "[Content_Types].xml" in names:
        raise InputError(f"{path}: is an Excel workbook or another Office file; save it as tab-separated text")
    if len(names) != 1:
        raise InputError(
            f"{path}: is a zip of {len(names)} files ({', '.join(names[:3])}); unpack it and name one file"
        )
    return archive.open(names[0])


def _damaged(path: UPath, kind: Compression | None) -> InputError:
    name = "gzip" if kind == "bgzip" else kind
    return InputError(f"{path}: the {name} data ends early or is damaged; fetch it again")
