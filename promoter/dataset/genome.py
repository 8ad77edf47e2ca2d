"""Strand-aware, N-padded windows around transcription start sites, from an indexed FASTA.

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
from collections.abc import Iterable, Mapping
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

_MITOCHONDRION = {"m", "mt", "mito", "mitochondrion"}
_FASTA_LETTERS = re.compile(rb"[A-Za-z*\-\s]*")


class Genome:
    """A FASTA opened for random access.

    Args:
        path: FASTA, plain or bgzip. The index (`.fai`, and `.gzi` for bgzip) is read beside it, else
            made there, else, where that folder cannot be written, in a cache folder. A remote FASTA
            is copied to the cache once.

    Raises:
        InputError: no such file, not FASTA, or plain gzip.
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
            if len(inside) != inner_end - inner_start:  # pyfaidx returns short reads without a word
                raise InputError(
                    f"{self.path}: {chrom}:{inner_start}-{inner_end} gave {len(inside)} bases; "
                    "the index does not fit the FASTA: delete its .fai (and .gzi) and run again"
                )
        left = min(max(-start, 0), end - start)
        return "N" * left + inside + "N" * (end - start - left - len(inside))

    def promoter(self, chrom: str, tss: int, strand: str, upstream: int, downstream: int) -> str:
        """Return the promoter, 5'→3' along the gene, exactly `upstream + downstream` bases."""
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
    """Return the window `[start, end)` on the chromosome; it may pass the chromosome's ends."""
    if strand == "+":
        return tss - upstream, tss + downstream
    return tss + 1 - downstream, tss + 1 + upstream


def chromosome_sizes(path: AnyPath) -> dict[str, int]:
    """Read the lengths of chromosomes from a FASTA, its index (.fai), or a table of name and length (chrom.sizes).

    Raises:
        InputError: missing, or none of these.
    """
    where = storage.require_file(path, "genome")
    if storage.is_gzip(where) or _head(where).startswith(b">"):
        fasta = Genome(where)
        fasta.close()
        return fasta.lengths
    sizes = {}
    with storage.open_text(where) as file:
        for number, line in enumerate(file, start=1):
            cells = line.split("\t")
            if len(cells) < 2 or not cells[1].strip().isdecimal():
                raise InputError(
                    f"{where}: line {number} has no chromosome and length ({line.strip()[:40]!r}); "
                    "give the FASTA, its .fai, or a chrom.sizes file"
                )
            sizes[cells[0]] = int(cells[1])
    return sizes


def match_chromosomes(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Match chromosome names that differ in spelling only: `chr1` and `1`, `chrM` and `MT` or `Mito`.

    Args:
        wanted: names to look up.
        available: names to find them among.

    Returns:
        For each wanted name that was found, the available name; an equal name wins over another spelling.
    """
    available = list(available)
    exact, folded = set(available), {}
    for name in available:
        folded.setdefault(_fold(name), name)
    matched = {}
    for name in wanted:
        if name in exact:
            matched[name] = name
        elif _fold(name) in folded:
            matched[name] = folded[_fold(name)]
    return matched


def renamed(matched: Mapping[str, str]) -> dict[str, str]:
    """Return the part of a match in which the spelling differs."""
    return {name: other for name, other in matched.items() if name != other}


def _fold(name: str) -> str:
    bare = name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name
    return "m" if bare.lower() in _MITOCHONDRION else bare


def _require_fasta(path: UPath) -> None:
    """Refuse what pyfaidx would index without complaint: HTML, plain gzip, some other text."""
    if storage.is_gzip(path):
        if not storage.is_bgzip(path):
            raise InputError(
                f"{path}: is plain gzip, which cannot be read at random; "
                "unpack it (gunzip) or convert it (gunzip -c IN.fa.gz | bgzip > OUT.fa.gz)"
            )
        if not path.name.lower().endswith((".gz", ".bgz")):
            raise InputError(f"{path}: is bgzip but not named so; rename it to end in .gz")
        storage.require_end_of_bgzip(path)
    head = _head(path)
    lines = head.splitlines()
    if not head.startswith(b">"):
        what = "HTML" if head.lstrip()[:1] == b"<" else "no FASTA"
        raise InputError(f"{path}: is {what} (it must begin with '>'); download it again")
    whole_lines = lines[1:-1] if len(lines) > 2 else lines[1:]
    for number, line in enumerate(whole_lines, start=2):
        if not line.startswith(b">") and not _FASTA_LETTERS.fullmatch(line):
            raise InputError(f"{path}: line {number} is no sequence ({line[:40]!r}); is it the right file?")


def _head(path: UPath) -> bytes:
    packed = storage.is_gzip(path)
    with cast("IO[bytes]", path.open("rb")) as file:
        try:
            return gzip.GzipFile(fileobj=file).read(4096) if packed else file.read(4096)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: the bgzip data is damaged; fetch or make it again") from error


def _local_copy(path: UPath) -> Path:
    if storage.is_local(path):
        return Path(str(path))
    stat = path.stat()
    key = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime}".encode()).hexdigest()[:16]
    copy = _cache_folder() / f"{key}-{path.name}"
    if not copy.exists():
        with path.open("rb") as source, storage.open_whole(copy) as target:
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
            stat = path.stat()
            key = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
            return opened(_cache_folder() / f"{key}-{path.name}")
    except (pyfaidx.FastaIndexingError, pyfaidx.FastaNotFoundError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be indexed ({reason}); mend the FASTA") from error
    except OSError as error:
        raise InputError(
            f"{path}: its index can be written neither beside it nor in the cache ({error.strerror or error}); "
            "make it with 'samtools faidx', or name a folder in XDG_CACHE_HOME"
        ) from error
    except (zlib.error, struct.error) as error:
        raise InputError(f"{path}: the bgzip data is damaged ({error}); fetch or make it again") from error


class _Block(pyfaidx.BgzfBlock):
    """A block that holds its own first byte.

    pyfaidx looks that byte up past the end of the block before, an offset that does not exist when
    that block is full (65,536 bytes), as Biopython's are.
    """

    def __lt__(self, other: object) -> bool:
        """Compare with an offset, for pyfaidx's `bisect_left`."""
        return self.ustart <= (other.ustart if isinstance(other, pyfaidx.BgzfBlock) else other)


def _require_fitting_index(faidx: pyfaidx.Faidx, path: UPath) -> None:
    """Refuse an index newer than the FASTA but made of another one (pyfaidx renews older ones).

    The last record must end where the file does. Of bgzip only short reads show it.
    """
    last = max(faidx.index.values(), key=lambda record: record.offset)
    if faidx._bgzf or last.rlen == 0:
        return
    lines, rest = divmod(last.rlen - 1, last.lenc)
    with Path(faidx.filename).open("rb") as file:
        file.seek(last.offset + lines * last.lenb + rest)
        tail = file.read(4096)
    if not tail[:1].strip() or tail[1:].strip():  # the last base, and nothing but a line's end behind it
        raise InputError(
            f"{path}: its index {faidx.indexname} was made of another FASTA; delete the index and run again"
        )


def _cache_folder() -> Path:
    folder = Path(pooch.os_cache("promoter")) / "genomes"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
