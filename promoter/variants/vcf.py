"""Read VCF files, check their alleles against the genome, and give the reason for each allele that is skipped.

Skipped are symbolic alleles, breakends, `*`, records without ALT, letters other than ACGT, ALT equal to REF, REF
unlike the genome, chromosomes that the genome lacks, and repeated alleles.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from upath import UPath

from promoter import storage
from promoter.dataset.genome import Genome
from promoter.errors import InputError
from promoter.storage import AnyPath

REASONS = {
    "chromosome": "the genome has no such chromosome",
    "no_alt": "no alternative allele",
    "symbolic": "symbolic allele, breakend or *",
    "non_acgt": "letters other than ACGT",
    "ref_mismatch": "REF is not what the genome has there",
    "same": "ALT equals REF",
    "duplicate": "the same allele again",
}
_BLOCK = 1 << 18  # bases read from the genome at a time; records are mostly sorted by position
_MAX_BLOCKS = 64  # kept in memory: 16 million bases
_SYMBOLIC = re.compile(r"[<>\[\]*.]")
_ACGT = re.compile(r"[ACGT]+")


class VcfRecord(NamedTuple):
    """One line of a VCF.

    Attributes:
        chrom: chromosome name, spelled as in the VCF.
        pos: position of the first base of REF, 1-based as in the VCF.
        ref: reference allele, REF.
        alts: alternative alleles, ALT; empty if the line has none.
    """

    chrom: str
    pos: int
    ref: str
    alts: list[str]


class CachedGenome:
    """Read a genome in large blocks and cache them: each read from a compressed FASTA is slow."""

    def __init__(self, genome: Genome) -> None:
        self.genome = genome
        self._block = lru_cache(maxsize=_MAX_BLOCKS)(self._read)

    def _read(self, chrom: str, block: int) -> str:
        return self.genome.fetch(chrom, block * _BLOCK, (block + 1) * _BLOCK)

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Return the bases `[start, end)`, as `Genome.fetch` does."""
        first, last = start // _BLOCK, (end - 1) // _BLOCK
        if first != last or start < 0:
            return self.genome.fetch(chrom, start, end)
        return self._block(chrom, first)[start - first * _BLOCK : end - first * _BLOCK]


def read_records(path: AnyPath) -> Iterator[VcfRecord]:
    """Read a VCF or BCF line by line, plain or compressed, local or remote; no index is needed.

    Raises:
        InputError: the file is missing, neither VCF nor BCF, has a malformed line, or compressed data that ends
            early.
    """
    # takes a while to import, which other jobs need not wait for
    from cyvcf2 import VCF  # noqa: PLC0415
    from cyvcf2.cyvcf2 import set_htslib_log_level  # noqa: PLC0415

    set_htslib_log_level(0)  # it warns, once a chromosome, of headers that lack them
    source = storage.require_file(path, "VCF")
    _require_well_formed(source)
    with _local_copy(source) as local:
        try:
            vcf = VCF(str(local), lazy=True)
        except OSError as error:
            raise InputError(
                f"{source}: is neither VCF nor BCF; give a file as bcftools or a caller writes it"
            ) from error
        try:
            for record in vcf:
                yield VcfRecord(record.CHROM, record.POS, record.REF, record.ALT)
        except Exception as error:  # it raises plain Exceptions
            reason = " ".join(str(error).split())[:100]
            raise InputError(f"{source}: cannot be read to its end ({reason}); fetch or make it again") from error
        finally:
            vcf.close()


def reason_to_skip(record: VcfRecord, alt: str, chrom: str, genome: CachedGenome) -> str | None:
    """Return why an allele cannot be scored, a key of `REASONS`, or None if it can.

    Repeated alleles are not noticed here: that takes all records, not one. `chrom` is the genome's name of the
    chromosome, empty if the genome lacks it.
    """
    if not chrom:
        return "chromosome"
    if not record.alts or alt == ".":
        return "no_alt"
    if _SYMBOLIC.search(alt):
        return "symbolic"
    ref, alt = record.ref.upper(), alt.upper()
    if not _ACGT.fullmatch(ref) or not _ACGT.fullmatch(alt):
        return "non_acgt"
    if record.pos < 1 or genome.fetch(chrom, record.pos - 1, record.pos - 1 + len(ref)) != ref:
        return "ref_mismatch"
    return "same" if ref == alt else None


def _require_well_formed(source: UPath) -> None:
    """Refuse files that htslib accepts as a VCF and then crashes on, or stops reading without an error."""
    compressed = storage.is_gzip(source)
    with source.open("rb") as file:
        head = file.read(5)
    if compressed:
        with source.open("rb") as raw:
            try:
                head = gzip.GzipFile(fileobj=raw).read(5)  # type: ignore[arg-type] # a binary file
            except (OSError, EOFError) as error:
                raise InputError(f"{source}: the compressed data is damaged; fetch or make it again") from error
    if compressed and storage.is_bgzip(source):
        storage.require_end_of_bgzip(source)  # cut between two blocks it would pass for a shorter file
    if head[:3] == b"BCF":
        return
    if head[:2] != b"##":
        raise InputError(
            f"{source}: is neither VCF nor BCF (it must begin with '##fileformat'); is it the right file?"
        )
    headed = False
    with storage.open_text(source) as lines:
        for number, line in enumerate(lines, start=1):
            if line.startswith("#"):
                headed = headed or line.startswith("#CHROM")
                continue
            if not line.strip():
                continue
            cells = line.split("\t", 8)
            if not headed:
                raise InputError(f"{source}: line {number} comes before any line '#CHROM'; write the header again")
            if len(cells) < 8 or not cells[1].isdecimal() or not cells[3]:
                raise InputError(
                    f"{source}: line {number} is no variant ({line.strip()[:40]!r}); it needs at least 8 columns, "
                    "split by tabs, and a position"
                )
    if not headed:
        raise InputError(f"{source}: has no line '#CHROM'; was it written to the end?")


@contextmanager
def _local_copy(source: UPath) -> Iterator[Path]:
    if storage.is_local(source):
        yield Path(str(source))
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / source.name
        storage.copy_file(source, copy)
        yield copy
