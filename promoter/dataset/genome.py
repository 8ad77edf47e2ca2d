"""Read strand-aware, N-padded windows around transcription start sites from an indexed FASTA.

Coordinates are 0-based and half-open. A window on `+` is `[tss - upstream, tss + downstream)`; on
`-` it is `[tss + 1 - downstream, tss + 1 + upstream)`, reverse-complemented, so that each sequence
reads 5'→3' along its gene with the upstream bases first.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pooch
import pyfaidx
from upath import UPath

from promoter import storage
from promoter.dataset.fasta import (
    CACHE,
    IrregularError,
    index_fasta,
    note_masked,
    unknown_letters,
    write_block_index,
    write_index,
    write_regular,
)
from promoter.errors import InputError, note
from promoter.sequence import decode, encode, reverse_complement
from promoter.storage import AnyPath

_BGZIP_NAMES = (".gz", ".bgz")  # the names by which pyfaidx knows bgzip


class Genome:
    """Open a FASTA for random access.

    Args:
        path: FASTA, local or remote. Its index (`.fai`, and `.gzi` for bgzip) is read from the same folder, or
            made there, or made in the cache folder if that folder cannot be written. A remote FASTA is copied to
            the cache once; so is one that cannot be indexed: gzip, lines of unequal length, UTF-16.

    Attributes:
        path: the FASTA as given.
        lengths: chromosome name -> number of bases, in the order of the file.

    Raises:
        InputError: the file is missing or not FASTA.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = storage.require_file(path, "genome FASTA")
        self._fasta = _open_fasta(self.path)
        _require_fitting_index(self._fasta.faidx, self.path)
        self._masks_are_noted = False
        self.lengths: dict[str, int] = {name: entry.rlen for name, entry in self._fasta.faidx.index.items()}

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Return the forward strand of `[start, end)`: upper case, T for U, `N` past the chromosome's ends."""
        length = self.lengths[chrom]
        inner_start, inner_end = min(max(start, 0), length), max(min(end, length), 0)
        inside = self._read(chrom, inner_start, inner_end) if inner_start < inner_end else ""
        left = min(max(-start, 0), end - start)
        return "N" * left + inside + "N" * (end - start - left - len(inside))

    def _read(self, chrom: str, start: int, end: int) -> str:
        try:
            text = str(self._fasta.faidx.fetch(chrom, start + 1, end))
        except (zlib.error, struct.error, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.path}: {chrom}:{start}-{end} cannot be read ({error}); fetch the file or make it again"
            ) from error
        bases = "".join(text.split()).replace("U", "T")
        masks, unknown = unknown_letters(bases.encode())
        if unknown or len(bases) != end - start:  # pyfaidx returns short reads silently
            what = f"the letter '{storage.decode(unknown[:1])}'" if unknown else f"{len(bases)} bases"
            raise InputError(
                f"{self.path}: {chrom}:{start}-{end} gave {what}; its index does not fit, or it is no FASTA of "
                f"bases: delete {self._fasta.faidx.indexname} (and .gzi) and run again"
            )
        if masks and not self._masks_are_noted:
            note_masked(self.path, f"letters such as '{masks[:1].decode()}' ({chrom}:{start}-{end})")
            self._masks_are_noted = True
        return bases

    def descriptions(self) -> dict[str, str]:
        """Return the text after the name in each record's header."""
        found = {}
        for name in self.lengths:
            try:
                header = self._fasta.faidx.get_long_name(name)
            except UnicodeDecodeError:  # in Latin-1
                continue
            found[name] = header.lstrip("\ufeff>\r\n").removeprefix(name).strip()
        return found

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


def _open_fasta(path: UPath) -> pyfaidx.Fasta:
    """Open a FASTA by its index, or its copy in the cache if it cannot be indexed as it is."""
    copy = _cache_path(path, ".regular.fa")
    if not copy.exists():
        packed = storage.compression(path)
        if packed == "bgzip":
            storage.require_end_of_bgzip(path)
        if packed is None or (packed == "bgzip" and path.name.lower().endswith(_BGZIP_NAMES)):
            try:
                local = _local_copy(path)
                return _with_index(local, _index(local, path))
            except IrregularError as error:
                reason = str(error)
        else:
            reason = f"is {packed}"
        write_regular(path, copy)
        note(f"{path}: {reason}, so it is read from a copy: {copy}")
    return _with_index(copy, copy)


def _local_copy(path: UPath) -> Path:
    if storage.is_local(path):
        return Path(str(path))
    copy = _cache_path(path)
    if not copy.exists():
        storage.copy_file(path, copy, CACHE)
    return copy


def _index(fasta: Path, path: UPath) -> Path:
    """Return the path to which `.fai` is appended for the index, which is made if it is missing or too old."""
    suffixes = (".fai", ".gzi") if fasta.name.lower().endswith(_BGZIP_NAMES) else (".fai",)
    written = fasta.stat().st_mtime
    stems = (fasta, _cache_path(fasta))
    for stem in stems:
        files = [Path(f"{stem}{suffix}") for suffix in suffixes]
        if all(file.exists() and file.stat().st_mtime >= written for file in files):
            return stem
    entries = index_fasta(fasta, path)
    reason = ""
    for stem in stems:
        try:
            if ".gzi" in suffixes:
                write_block_index(fasta, stem)
            write_index(entries, stem)
        except OSError as error:
            reason = getattr(error.__cause__, "strerror", None) or str(error)
        else:
            return stem
    raise InputError(
        f"{path}: its index can be written neither beside it nor in the cache ({reason}); "
        "make it with 'samtools faidx', or name a folder in XDG_CACHE_HOME"
    )


def _with_index(fasta: Path, stem: Path) -> pyfaidx.Fasta:
    try:
        opened = pyfaidx.Fasta(
            str(fasta),
            indexname=f"{stem}.fai",
            gzi_indexname=f"{stem}.gzi",
            as_raw=True,
            sequence_always_upper=True,
        )
    except (pyfaidx.FastaIndexingError, ValueError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{stem}.fai: is no index of a FASTA ({reason}); delete it (and .gzi) and run again"
        ) from error
    except (zlib.error, RuntimeError, pyfaidx.UnsupportedCompressionFormat) as error:  # of the first block
        raise InputError(f"{fasta}: cannot be unpacked ({error}); fetch the file or make it again") from error
    if blocks := getattr(opened.faidx, "gzi_index", None):
        corrected: list[pyfaidx.BgzfBlock] = [_Block(*block) for block in blocks]
        opened.faidx.gzi_index = corrected
    return opened


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


def _cache_path(path: Path | UPath, suffix: str = "") -> Path:
    """Return the path in the cache folder for a FASTA of this address, size and time, or beside a pipe's copy."""
    if storage.is_copy_of_pipe(str(path)):
        return Path(f"{path}{suffix}")
    stat = path.stat()
    key = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime}".encode()).hexdigest()[:16]
    return Path(pooch.os_cache("promoter")) / "genomes" / f"{key}-{path.name}{suffix}"
