"""Read FASTA as it comes, check its letters, and index it for random access.

U counts as T. The other IUPAC letters are N, and so are gaps and masks (`-`, `.`, `*`, `X`), which a note counts.
Other letters are refused with line and record. Blank lines, comments before the first record, spaces, byte-order
marks and any line ends are passed over.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from upath import UPath

from promoter import storage
from promoter.errors import InputError, doubt, note

_IUPAC = b"ACGTUNRYSWKMBDHVacgtunryswkmbdhv"
_MASKS = b"Xx-.*"
_KNOWN = _IUPAC + _MASKS
CACHE = "another cache folder in XDG_CACHE_HOME"
_BOM = b"\xef\xbb\xbf"


class IrregularError(Exception):
    """The lines of a FASTA do not lend themselves to an index; the message says why."""


class IndexEntry(NamedTuple):
    """One line of a `.fai`, as `samtools faidx` writes it.

    Attributes:
        name: name of the record.
        length: number of bases.
        offset: position of the first base in the (unpacked) file, in bytes.
        line_bases: number of bases in a line.
        line_bytes: number of bytes in a line, with its end.
    """

    name: str
    length: int
    offset: int
    line_bases: int
    line_bytes: int


@dataclass
class _Records:
    """Names of the records read so far, and what is wrong with them."""

    path: UPath
    line_of: dict[str, int] = field(default_factory=dict)
    name: str | None = None

    def begin(self, number: int, header: str) -> str:
        """Take the header of a record, without its `>`, and return the record's name."""
        words = header.split()
        if not words:
            raise InputError(f"{self.path}: line {number}: the record has no name after '>'; name it")
        if words[0] in self.line_of:
            raise InputError(
                f"{self.path}: lines {self.line_of[words[0]]} and {number}: two records are named '{words[0]}'; "
                "rename or delete one"
            )
        self.name = words[0]
        self.line_of[self.name] = number
        return self.name

    def refuse(self, number: int, line: str) -> NoReturn:
        """Raise InputError for a line that holds no bases."""
        text = line.strip()[:40]
        if self.name is None:
            kinds = {"<": ("HTML", "download it again"), "@": ("FASTQ", "give FASTA")}
            what, fix = kinds.get(text[:1], ("no FASTA", "is it the right file?"))
            raise InputError(f"{self.path}: is {what} (it must begin with '>'): '{text}'", fix=fix)
        letter = next(letter for letter in line.strip() if not letter.isspace() and not _is_known(letter))
        raise InputError(
            f"{self.path}: line {number} (record '{self.name}') is no sequence of bases: '{text}' has "
            f"'{letter}'; is it the right file, and not a protein FASTA?"
        )


def read_fasta(path: UPath) -> Iterator[tuple[str, str]]:
    """Read the records of a FASTA of sequences.

    Args:
        path: local or remote, compressed or not.

    Yields:
        Name, up to the first space, and sequence of each record, upper case, T for U.

    Raises:
        InputError: the file is not FASTA, a line holds letters that are no bases, or a record has no name, the
            name of another one, or no bases.
    """
    name, parts, masked = "", [], 0
    for header, bases in _lines(path):
        if header is None:
            parts.append(bases)
            masked += len(unknown_letters(bases.encode())[0])
            continue
        if name:
            yield name, _sequence(path, name, parts)
        name, parts = header.split()[0], []
    yield name, _sequence(path, name, parts)
    if masked:
        note_masked(path, f"{masked:,} letters X, '-', '.' or '*'")


def note_masked(path: UPath, letters: str) -> None:
    """Say that gaps and masks are read as N."""
    note(f"{path}: {letters} are read as N")


def unknown_letters(bases: bytes) -> tuple[bytes, bytes]:
    """Return the gaps and masks in a sequence, and what are no bases at all."""
    rest = bases.translate(None, _IUPAC)
    return (rest, rest.translate(None, _MASKS)) if rest else (rest, rest)


def index_fasta(fasta: Path, path: UPath) -> list[IndexEntry]:
    """Index a FASTA and check each line of it.

    Args:
        fasta: uncompressed or bgzip; whitespace at the ends of lines counts as part of the line end.
        path: the FASTA as the user named it, for messages.

    Raises:
        IrregularError: it can be read, but lines of a record differ in length, or are in UTF-16.
        InputError: it is not FASTA, a line holds letters that are no bases, or a record has no name or the name of
            another one.
    """
    head = storage.first_bytes(fasta)
    if storage.text_encoding(head, path) is not None:
        raise IrregularError("is not in UTF-8")
    records, entries = _Records(path), []
    name, offset, length, line_bases, line_bytes, ended = "", 0, 0, 0, 0, False
    position, full_line = 0, 0

    def finish() -> None:
        if records.name is not None:
            entries.append(IndexEntry(name, length, offset, line_bases, line_bytes))

    with storage.open_bytes(fasta) as file:
        if head.startswith(_BOM):
            position += len(file.read(len(_BOM)))
        for number, line in enumerate(file, start=1):
            position += len(line)
            rest = line.translate(None, _KNOWN)
            if len(line) == full_line and rest == b"\n":  # as most are, so they must take no time
                length += line_bases
                continue
            full_line = 0
            if b"\r" in line.rstrip(b"\r\n") or _BOM in line:  # either may stand before a header
                raise IrregularError(f"line {number} has a lone carriage return or a byte-order mark")
            if line.startswith(b">"):
                finish()
                name = records.begin(number, storage.decode(line[1:]))
                offset, length, line_bases, line_bytes, ended = position, 0, 0, 0, False
            elif rest.strip() or (records.name is None and rest != line):
                if records.name is None and line.startswith(b";"):
                    continue
                records.refuse(number, storage.decode(line))
            elif len(rest) < len(line):
                bases = len(line) - len(rest)
                if not length:
                    offset, line_bases, line_bytes = position - len(line), bases, len(line)
                # pyfaidx counts the end of each full line, of the last one too unless the file ends there
                other_end = bases == line_bases and len(line) != line_bytes and rest
                if ended or bases > line_bases or not line.endswith(rest) or other_end:
                    raise IrregularError(f"line {number} (record '{name}') is not as long as the lines before it")
                length += bases
                ended = bases != line_bases or len(line) != line_bytes
                full_line = line_bytes if not ended and rest == b"\n" else 0
            else:
                ended = ended or length > 0
    finish()
    _require_bases(path, entries)
    return entries


def write_regular(path: UPath, copy: Path) -> None:
    """Write a copy of a FASTA, uncompressed and with one line a record, and its index.

    Args:
        path: the FASTA, local or remote, compressed or not.
        copy: the file to write, beside which the index comes as `.fai`.

    Raises:
        InputError: as for `index_fasta`.
        StorageError: the copy cannot be written.
    """
    headers: list[tuple[str, int]] = []  # name of each record, and where its bases begin
    ends: list[int] = []
    with storage.open_atomic(copy, instead=CACHE) as target:
        position = 0
        for header, bases in _lines(path):
            if header is not None:
                ends += [position] if headers else []
                position += target.write(b"\n" * bool(headers) + f">{header}\n".encode())
                headers.append((header.split()[0], position))
            else:
                position += target.write(bases.encode())
        target.write(b"\n")
        lengths = [end - start for (_, start), end in zip(headers, [*ends, position], strict=True)]
        entries = [
            IndexEntry(name, length, start, length, length + 1)
            for (name, start), length in zip(headers, lengths, strict=True)
        ]
        _require_bases(path, entries)
    write_index(entries, copy)


def write_index(entries: list[IndexEntry], fasta: Path) -> None:
    """Write the index of a FASTA as `.fai`; `fasta` need not exist, and its name gets the suffix."""
    storage.write_text(f"{fasta}.fai", "".join("\t".join(map(str, entry)) + "\n" for entry in entries), CACHE)


def write_block_index(path: Path, fasta: Path) -> None:
    """Write the `.gzi` of a bgzip file: the offsets of its blocks, but for the first and the empty last.

    Args:
        path: the bgzip file.
        fasta: the name to which `.gzi` is appended.
    """
    from Bio.bgzf import BgzfBlocks  # noqa: PLC0415 # only bgzip needs it

    try:
        with path.open("rb") as file:
            offsets = [(start, unpacked) for start, _, unpacked, size in BgzfBlocks(file) if size and start]
    except (ValueError, RuntimeError, zlib.error, struct.error) as error:
        raise InputError(f"{path}: the bgzip data is damaged ({error}); fetch or make it again") from error
    with storage.open_atomic(f"{fasta}.gzi") as file:
        file.write(struct.pack("<Q", len(offsets)) + b"".join(struct.pack("<QQ", *pair) for pair in offsets))


def _lines(path: UPath) -> Iterator[tuple[str | None, str]]:
    """Yield the header without `>`, or None, and the bases of each line that has either; the first is a header."""
    records = _Records(path)
    with storage.open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.startswith(">"):
                records.begin(number, line[1:])
                yield line[1:].strip(), ""
                continue
            bases = "".join(line.split())
            if not bases or (records.name is None and bases.startswith(";")):
                continue
            if records.name is None or not _is_known(bases):
                records.refuse(number, line)
            yield None, bases
    if records.name is None:
        raise InputError(f"{path}: holds no record; was it written to the end?")


def _is_known(bases: str) -> bool:
    return not bases.encode("ascii", "replace").translate(None, _KNOWN)


def _sequence(path: UPath, name: str, parts: list[str]) -> str:
    if not parts:
        raise InputError(f"{path}: record '{name}' has no sequence; fix or delete it")
    return "".join(parts).upper().replace("U", "T")


def _require_bases(path: UPath, entries: list[IndexEntry]) -> None:
    empty = [entry.name for entry in entries if not entry.length]
    if len(empty) == len(entries):
        raise InputError(f"{path}: holds no bases; was it written to the end?")
    if empty:
        doubt(f"{path}: {len(empty)} records have no bases ({', '.join(empty[:3])}); was it written to the end?")
