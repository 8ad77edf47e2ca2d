"""Read strand-aware, N-padded windows around transcription start sites from an indexed FASTA.

Coordinates are 0-based and half-open. A window on `+` is `[tss - upstream, tss + downstream)`; on
`-` it is `[tss + 1 - downstream, tss + 1 + upstream)`, reverse-complemented, so that each sequence
reads 5'→3' along its gene with the upstream bases first.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import pooch
import pyfaidx
from upath import UPath

from promoter import storage
from promoter.errors import InputError
from promoter.sequence import decode, encode, reverse_complement
from promoter.storage import AnyPath

_FASTA_LETTERS = re.compile(rb"[A-Za-z*\-\s]*")


class Genome:
    """Open a FASTA for random access.

    Args:
        path: FASTA, plain or bgzip, local or remote. Its index (`.fai`, and `.gzi` for bgzip) is read from the
            same folder, or made there, or made in the cache folder if that folder cannot be written. A remote
            FASTA is copied to the cache once.

    Attributes:
        path: the FASTA as given.
        lengths: chromosome name -> number of bases, in the order of the file.

    Raises:
        InputError: the file is missing, not FASTA, or plain gzip.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = storage.require_file(path, "genome FASTA")
        _require_fasta(self.path)
        self._fasta = _open_fasta(_local_copy(self.path))
        _require_fitting_index(self._fasta.faidx, self.path)
        self.lengths: dict[str, int] = {name: len(self._fasta[name]) for name in self._fasta.keys()}  # noqa: SIM118 # iterating it gives records

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Return the forward strand of `[start, end)`, upper case, `N` where it passes the chromosome's ends."""
        length = self.lengths[chrom]
        inner_start, inner_end = min(max(start, 0), length), max(min(end, length), 0)
        inside = ""
        if inner_start < inner_end:
            inside = str(self._fasta.faidx.fetch(chrom, inner_start + 1, inner_end)).upper()
            if len(inside) != inner_end - inner_start:  # pyfaidx returns short reads silently
                raise InputError(
                    f"{self.path}: {chrom}:{inner_start}-{inner_end} gave {len(inside)} bases; "
                    "the index does not fit the FASTA: delete its .fai (and .gzi) and run again"
                )
        left = min(max(-start, 0), end - start)
        return "N" * left + inside + "N" * (end - start - left - len(inside))

    def promoter(self, chrom: str, tss: int, strand: str, *, upstream: int, downstream: int) -> str:
        """Return a promoter, 5'→3' along the gene, exactly `upstream + downstream` bases long."""
        start, end = window(tss, strand, upstream, downstream)
        forward = self.fetch(chrom, start, end)
        if strand == "+":
            return forward
        tokens = reverse_complement(encode(forward))
        return decode(np.asarray(tokens)[None])[0]

    def close(self) -> None:
        """Close the file."""
        self._fasta.close()


def window(tss: int, strand: str, upstream: int, downstream: int) -> tuple[int, int]:
    """Compute a promoter's window `[start, end)` on the chromosome; it may pass the chromosome's ends.

    Args:
        tss: position of the first transcribed base, 0-based.
        strand: `+` or `-`.
        upstream: number of bases before the TSS.
        downstream: number of bases from the TSS on.
    """
    if strand == "+":
        return tss - upstream, tss + downstream
    return tss + 1 - downstream, tss + 1 + upstream


def _require_fasta(path: UPath) -> None:
    """Raise InputError for what pyfaidx would index without complaint: HTML, plain gzip, any other text."""
    if storage.is_gzip(path):
        if not storage.is_bgzip(path):
            raise InputError(
                f"{path}: is plain gzip, which cannot be read at random; "
                "unpack it (gunzip) or convert it (gunzip -c IN.fa.gz | bgzip > OUT.fa.gz)"
            )
        if not path.name.lower().endswith((".gz", ".bgz")):
            raise InputError(f"{path}: is bgzip but not named so; rename it to end in .gz")
        storage.require_end_of_bgzip(path)
    head = first_bytes(path)
    lines = head.splitlines()
    if not head.startswith(b">"):
        what = "HTML" if head.lstrip()[:1] == b"<" else "no FASTA"
        raise InputError(f"{path}: is {what} (it must begin with '>'); download it again")
    complete_lines = lines[1:-1] if len(lines) > 2 else lines[1:]
    for number, line in enumerate(complete_lines, start=2):
        if not line.startswith(b">") and not _FASTA_LETTERS.fullmatch(line):
            raise InputError(f"{path}: line {number} is no sequence ({line[:40]!r}); is it the right file?")


def first_bytes(path: UPath) -> bytes:
    """Return the first 4,096 bytes of a file, decompressed if it is gzip.

    Raises:
        InputError: the gzip data is damaged.
    """
    packed = storage.is_gzip(path)
    with cast("IO[bytes]", path.open("rb")) as file:
        try:
            return gzip.GzipFile(fileobj=file).read(4096) if packed else file.read(4096)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: the bgzip data is damaged; fetch or make it again") from error


def _local_copy(path: UPath) -> Path:
    if storage.is_local(path):
        return Path(str(path))
    copy = _cache_path(path)
    if not copy.exists():
        with path.open("rb") as source, storage.open_atomic(copy) as target:
            while chunk := source.read(1 << 24):
                target.write(chunk)
    return copy


def _open_fasta(path: Path) -> pyfaidx.Fasta:
    def opened(index: Path) -> pyfaidx.Fasta:
        fasta = pyfaidx.Fasta(
            str(path),
            indexname=f"{index}.fai",
            gzi_indexname=f"{index}.gzi",
            as_raw=True,
            sequence_always_upper=True,
        )
        if blocks := getattr(fasta.faidx, "gzi_index", None):
            corrected: list[pyfaidx.BgzfBlock] = [_Block(*block) for block in blocks]
            fasta.faidx.gzi_index = corrected
        return fasta

    try:
        try:
            return opened(path)
        except OSError as error:
            if isinstance(error, pyfaidx.FastaNotFoundError):
                raise
            return opened(_cache_path(path))
    except (pyfaidx.FastaIndexingError, pyfaidx.FastaNotFoundError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be indexed ({reason}); fix the FASTA") from error
    except OSError as error:
        raise InputError(
            f"{path}: its index can be written neither beside it nor in the cache ({error.strerror or error}); "
            "make it with 'samtools faidx', or name a folder in XDG_CACHE_HOME"
        ) from error
    except (zlib.error, struct.error) as error:
        raise InputError(f"{path}: the bgzip data is damaged ({error}); fetch or make it again") from error


class _Block(pyfaidx.BgzfBlock):
    """Make a bgzip block contain its own first byte.

    pyfaidx looks that byte up past the end of the previous block, an offset that does not exist if the previous
    block is full (65,536 bytes), as the blocks that Biopython writes are.
    """

    def __lt__(self, other: object) -> bool:
        """Compare with an offset, for pyfaidx's `bisect_left`."""
        return self.ustart <= (other.ustart if isinstance(other, pyfaidx.BgzfBlock) else other)


def _require_fitting_index(faidx: pyfaidx.Faidx, path: UPath) -> None:
    """Raise InputError for an index that is newer than the FASTA but was made from another one.

    pyfaidx itself renews an index older than the FASTA. Here the last record must end where the file ends; for
    bgzip this is not checked, and only a short read shows it.
    """
    last = max(faidx.index.values(), key=lambda record: record.offset)
    if faidx._bgzf or last.rlen == 0:
        return
    lines, rest = divmod(last.rlen - 1, last.lenc)
    with Path(faidx.filename).open("rb") as file:
        file.seek(last.offset + lines * last.lenb + rest)
        tail = file.read(4096)
    if not tail[:1].strip() or tail[1:].strip():  # must be the last base, and only a line end after it
        raise InputError(
            f"{path}: its index {faidx.indexname} was made of another FASTA; delete the index and run again"
        )


def _cache_path(path: Path | UPath) -> Path:
    """Return the path in the cache folder for a FASTA of this address, size and time."""
    stat = path.stat()
    key = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime}".encode()).hexdigest()[:16]
    folder = Path(pooch.os_cache("promoter")) / "genomes"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{key}-{path.name}"
