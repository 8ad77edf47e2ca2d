"""Read text as it comes: compressed or not, in UTF-8, UTF-16 or Latin-1, with or without a byte-order mark."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from upath import UPath

from promoter.errors import InputError, note
from promoter.storage.compression import open_bytes
from promoter.storage.paths import AnyPath, resolve

_CHUNK = 1 << 16  # bytes read at a time
_BYTE_ORDER_MARKS = {  # UTF-32's begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BINARY_KINDS = {
    b"BAM\1": "BAM",
    b"BCF": "BCF",
    b"CRAM": "CRAM",
    b"TBI\1": "a tabix index",
    b"\x43\x27\x41\x1a": "2bit",
    b"\x1a\x41\x27\x43": "2bit",
    b"\x26\xfc\x8f\x88": "bigWig",
    b"\xeb\xf2\x89\x87": "bigBed",
    b"\x89PNG": "a PNG image",
    b"\x89HDF": "HDF5",
    b"%PDF-": "PDF",
    b"PAR1": "Parquet",
    b"ARROW1": "Feather",
    b"\x93NUMPY": "a NumPy array",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls), which can be saved as tab-separated text",
    b"RDX": "R's data, which R's write.table saves as text",
    b"X\n": "R's data, which R's write.table saves as text",
}
_MIN_ZEROS = 0.7  # share of every second byte in UTF-16 without a mark: letters of western languages
_NOT_UTF8 = "promoter.cp1252"


@contextmanager
def open_text(path: AnyPath) -> Iterator[IO[str]]:
    """Open a text file for reading, unpacked and decoded by its content, whatever its name.

    Bytes that are not UTF-8 are read as Latin-1 (as Windows-1252 has it), and an `InputNote` says so. UTF-16 and
    UTF-32 are recognised. Byte-order marks are left out; each line ends with a line feed.

    Args:
        path: local or remote.

    Yields:
        The text file; it can be rewound to its start.

    Raises:
        InputError: the compressed data is damaged, or the content is not text.
    """
    resolved = resolve(path)
    with open_bytes(resolved) as file:
        yield io.TextIOWrapper(_Utf8(file, resolved), encoding="utf-8")


def text_encoding(head: bytes, path: AnyPath) -> str | None:
    """Return the encoding of a text file if it is UTF-16 or UTF-32, else None.

    Args:
        head: first bytes of the file, unpacked.
        path: named in the message.

    Raises:
        InputError: the content is not text; the message says what it is, if that is known.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    pairs = len(head) // 2
    first, second = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if not first and second > _MIN_ZEROS * pairs:
        return "utf-16-le"
    if not second and first > _MIN_ZEROS * pairs:
        return "utf-16-be"
    if b"\0" in head or head.startswith(b"%PDF-"):
        kind = next((name for magic, name in _BINARY_KINDS.items() if head.startswith(magic)), None)
        what = f"is {kind}, not text" if kind else "is not a text file (it has bytes that are 0)"
        raise InputError(f"{path}: {what}; is it the right file?")
    return None


def decode(data: bytes) -> str:
    """Decode UTF-8; bytes that are none are read as Latin-1."""
    return data.decode("utf-8", _NOT_UTF8)


class _Utf8(io.BufferedIOBase):
    """Hand on the text of a binary file as UTF-8."""

    def __init__(self, file: IO[bytes], path: UPath) -> None:
        self._file, self._path, self.name = file, path, str(path)
        self._begin()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if offset or whence:
            raise io.UnsupportedOperation("only to the start")
        self._file.seek(0)
        self._begin()
        return 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= 0:
            return self.read1(size)
        return b"".join(iter(self.read1, b""))

    def read1(self, size: int = -1, /) -> bytes:
        # whatever the size, since TextIOWrapper takes what it gets
        while True:
            chunk, self._head = self._head or self._file.read(_CHUNK), b""
            text = self._recoded(chunk)
            if text or not chunk:  # a chunk may be a part of a letter
                return text

    def _begin(self) -> None:
        self._lines = 0
        self._head = self._file.read(_CHUNK)
        encoding = text_encoding(self._head, self._path)
        self._is_utf8 = encoding is None
        self._decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
        if encoding is not None:
            note(f"{self._path}: is read as {encoding.upper()}")

    def _recoded(self, chunk: bytes) -> bytes:
        if not (self._is_utf8 and chunk.isascii() and not self._decoder.getstate()[0]):
            chunk = self._decoded(chunk).replace("\ufeff", "").encode()
        if b"\0" in chunk:
            line = self._lines + _line_ends(chunk[: chunk.index(b"\0")]) + 1
            raise InputError(f"{self._path}: line {line} has bytes that are 0; it is damaged, or no text file")
        self._lines += _line_ends(chunk)
        return chunk

    def _decoded(self, chunk: bytes) -> str:
        try:
            return self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            if not self._is_utf8:
                what = f"is not a text file (as {error.encoding}: {error.reason})"
                raise InputError(f"{self._path}: {what}; is it the right file?") from error
            before = error.object[: error.start]
            line = before[max(before.rfind(b"\n"), before.rfind(b"\r")) + 1 :] + error.object[error.start :][:20]
            text = decode(line.splitlines()[0]).strip()[-40:]
            note(
                f"{self._path}: line {self._lines + _line_ends(before) + 1} is not UTF-8; such letters are read "
                f"as Latin-1: '{text}'"
            )
            self._decoder.errors = _NOT_UTF8
            return self._decoder.decode(chunk, final=not chunk)


def _line_ends(data: bytes) -> int:
    return max(data.count(b"\n"), data.count(b"\r"))


def _as_latin1(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101 # for the type checker
    letters = (bytes([byte]) for byte in error.object[error.start : error.end])
    return "".join(letter.decode("cp1252", "replace") for letter in letters), error.end


codecs.register_error(_NOT_UTF8, _as_latin1)
