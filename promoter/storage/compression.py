"""Recognise gzip and bgzip by content, and read text through them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from promoter.errors import InputError
from promoter.storage.paths import AnyPath, resolve

_GZIP_MAGIC = b"\x1f\x8b"
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")  # SAM specification, 4.1.2


def is_gzip(path: AnyPath) -> bool:
    """Return whether a file's first bytes are those of gzip, which bgzip shares."""
    with cast("IO[bytes]", resolve(path).open("rb")) as file:
        return file.read(2) == _GZIP_MAGIC


def is_bgzip(path: AnyPath) -> bool:
    """Return whether a gzip file is bgzip, which has the extra field `BC` (SAM specification, section 4.1)."""
    with resolve(path).open("rb") as file:
        head = file.read(18)
    return len(head) == 18 and bool(head[3] & 4) and head[12:14] == b"BC"


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
def open_text(path: AnyPath) -> Iterator[IO[str]]:
    """Open a UTF-8 text file for reading, unpacking gzip or bgzip by its content, whatever its name.

    Args:
        path: local or remote.

    Yields:
        The text file.

    Raises:
        InputError: the compressed data is damaged, or the content is not text.
    """
    resolved = resolve(path)
    compressed = is_gzip(resolved)
    with cast("IO[bytes]", resolved.open("rb")) as raw:
        try:
            plain = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if compressed else raw
            yield io.TextIOWrapper(plain, encoding="utf-8")
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{resolved}: the gzip data ends early or is damaged; fetch it again") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{resolved}: is not a text file ({error.reason}); is it the right file?") from error
