"""Read VCF files, check their alleles against the genome, and give the reason for each allele that is skipped.

Skipped are symbolic alleles, breakends, `*`, records without ALT, letters other than ACGT, ALT equal to REF, REF
unlike the genome, chromosomes that the genome lacks, and repeated alleles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from upath import UPath

from promoter import storage
from promoter.dataset.genome import Genome
from promoter.errors import InputError, doubt, note
from promoter.storage import AnyPath
from promoter.variants.bcf import bcf_lines

REASONS = {
    "chromosome": "the genome has no such chromosome",
    "no_alt": "no alternative allele",
    "symbolic": "symbolic allele, breakend or *",
    "non_acgt": "letters other than ACGT",
    "ref_mismatch": "REF is not what the genome has there",
    "same": "ALT equals REF",
    "duplicate": "the same allele again",
}
_COLUMNS = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
_MAX_DIGITS = 18  # of a position, so that it fits 64 bits
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

    VCFs that were joined to one file are read to the end, each after its own header.

    Raises:
        InputError: the file is missing, neither VCF nor BCF, holds no records, has a malformed header or line, or
            compressed data that ends early.
    """
    source = storage.require_file(path, "VCF")
    if storage.compression(source) == "bgzip":
        storage.require_end_of_bgzip(source)  # cut between two blocks it would pass for a shorter file
    is_bcf = storage.first_bytes(source, 3) == b"BCF"
    read = 0
    for record in _bcf_records(source) if is_bcf else _vcf_records(source):
        read += 1
        yield record
    if not read:
        raise InputError(f"{source}: holds no variants; was it written to the end?")


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


def require_usable(source: AnyPath, genome: AnyPath, counts: Mapping[str, int]) -> None:
    """Check that some of a VCF's alleles can be scored, and warn if most are unlike the genome.

    Args:
        source: the VCF, for messages.
        genome: the genome, for messages.
        counts: number of alleles and of those skipped for each reason, as in `WindowVariants.counts`.

    Raises:
        InputError: all alleles are skipped.
    """
    skipped = {reason: counts[reason] for reason in REASONS if counts[reason]}
    compared = counts["in_windows"] + counts["outside"] + counts["ref_mismatch"]
    unlike = f"REF of {counts['ref_mismatch']:,} of {compared:,} alleles is not what {genome} has there"
    if not counts["in_windows"] + counts["outside"]:
        reasons = ", ".join(f"{count:,}: {REASONS[reason]}" for reason, count in skipped.items())
        fixes = {
            "ref_mismatch": "is the VCF of another assembly? Give the genome that the variants were called on",
            "chromosome": "use files of one assembly, or map the names with `chrom_names`",
        }
        most = max(skipped, key=lambda reason: skipped[reason])
        raise InputError(
            f"{source}: no allele can be used ({reasons})", fix=fixes.get(most, "is it the right file?")
        )
    if 2 * counts["ref_mismatch"] > compared:
        doubt(f"{source}: {unlike}; is it of another assembly?")
    if not counts["in_windows"]:
        doubt(f"{source}: none of {counts['outside']:,} alleles alters a window of the genes")


def _vcf_records(source: UPath) -> Iterator[VcfRecord]:
    columns = 0  # of the header last read
    started = False
    with storage.open_text(source) as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1 and not line.startswith(("##", "#CHROM")):
                raise InputError(
                    f"{source}: is neither VCF nor BCF (it must begin with '##fileformat'); is it the right file?"
                )
            if line.startswith("#"):
                if started:
                    note(f"{source}: line {number} is a header among the records; it is read as several VCFs")
                    started = False
                if line.startswith("#CHROM"):
                    columns = _count_columns(source, number, line)
            elif line.strip():
                if not columns:
                    raise InputError(
                        f"{source}: line {number} comes before any line '#CHROM'; write the header again"
                    )
                started = True
                yield _record(source, number, line, columns)
    if not columns:
        raise InputError(f"{source}: has no line '#CHROM'; was it written to the end?")


def _count_columns(source: UPath, number: int, line: str) -> int:
    """Return the number of columns that a header announces."""
    names = line.rstrip().split("\t")  # tabs at the end of lines are passed over
    samples = names[len(_COLUMNS) + 1 :]
    problem = None
    if names[: len(_COLUMNS)] != _COLUMNS:
        problem = f"must begin with {' '.join(_COLUMNS)}, split by tabs"
    elif len(names) > len(_COLUMNS) and names[len(_COLUMNS)] != "FORMAT":
        problem = f"has '{names[len(_COLUMNS)][:40]}' for its column 9, which must be FORMAT"
    elif len(set(samples)) < len(samples):
        twice = next(name for name in samples if samples.count(name) > 1)
        problem = f"has two samples named '{twice[:40]}'"
    if problem:
        raise InputError(f"{source}: line {number}, the header, {problem}; write the header again")
    return len(names)


def _record(source: UPath, number: int, line: str, columns: int) -> VcfRecord:
    """Take the first five columns of a line apart."""
    count = line.rstrip().count("\t") + 1
    cells = line.split("\t", 5)
    problem = None
    if count < len(_COLUMNS):
        problem = f"has {count} columns, split by tabs; at least {len(_COLUMNS)} are needed"
    elif count != columns:
        problem = f"has {count} columns, the header {columns}"
    elif not (cells[1].isascii() and cells[1].isdigit()) or len(cells[1]) > _MAX_DIGITS:
        problem = f"has the position '{cells[1][:40]}', no number of a base"
    elif not cells[0] or not cells[3] or "" in cells[4].split(","):
        problem = "lacks a chromosome, REF or ALT"
    if problem:
        raise InputError(
            f"{source}: line {number} is no variant ('{line.strip()[:40]}'): it {problem}; correct it"
        )
    alts = [] if cells[4] == "." else cells[4].split(",")
    return VcfRecord(cells[0], int(cells[1]), cells[3], alts)


def _bcf_records(source: UPath) -> Iterator[VcfRecord]:
    for number, line in enumerate(bcf_lines(source), start=1):
        yield _record(source, number, line, len(_COLUMNS))
