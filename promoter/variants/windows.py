"""Find the windows that an allele alters, and rebuild a window with the allele in it.

The rules, in one place:

- A window is anchored at its TSS. A deletion between its far end and the TSS moves bases in at the far end, an
  insertion pushes bases out there; beyond the TSS the same holds for the other end. Past the chromosome's ends
  come N.
- An allele is first trimmed of the bases that ALT and REF share, at the end before the beginning, so that it is
  leftmost, as VCF prescribes. The bases `[start, end)` that remain become `new`. It falls in a window if it alters
  any base of it; of a deletion across the window's border the part outside counts as deleted too.
- Bases inserted right before the first transcribed base are upstream of it, on either strand.
- Where a variant spans the TSS, `new` is laid from the left: as many of its bases as were left of the boundary
  between upstream and downstream stay left of it, the others go right. So each base of a substitution of several
  bases keeps its position.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from promoter.dataset.chromosomes import Aliases, Match, find_matches, match_chromosomes, note_matches
from promoter.dataset.genome import Genome
from promoter.dataset.genome import window as window_interval
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.sequence import BASES, encode, reverse_complement
from promoter.variants.vcf import REASONS, CachedGenome, VcfRecord, reason_to_skip


class TrimmedVariant(NamedTuple):
    """An allele without the bases that REF and ALT share: `[start, end)` of the chromosome becomes `new`.

    Attributes:
        start: first replaced base, 0-based.
        end: base after the last replaced one; equal to `start` for an insertion.
        new: bases put there, upper case, on the forward strand; empty for a deletion.
    """

    start: int
    end: int
    new: str

    @property
    def is_snv(self) -> bool:
        """Tell whether one base replaces one."""
        return self.end - self.start == len(self.new) == 1 and self.new in BASES


class TssWindow(NamedTuple):
    """A gene's window on its chromosome.

    Attributes:
        tss: position of the first transcribed base, 0-based.
        strand: `+` or `-`.
        upstream: number of bases before the TSS.
        downstream: number of bases from the TSS on, the TSS included.
    """

    tss: int
    strand: str
    upstream: int
    downstream: int

    @property
    def interval(self) -> tuple[int, int]:
        """Start and end on the chromosome, 0-based, half-open."""
        return window_interval(self.tss, self.strand, self.upstream, self.downstream)

    @property
    def tss_boundary(self) -> int:
        """The position, on the chromosome, between upstream and downstream bases."""
        return self.tss if self.strand == "+" else self.tss + 1


@dataclass(frozen=True)
class WindowVariants:
    """The alleles of a VCF, or of a table of a library's variants, that alter windows.

    Attributes:
        alleles: a row per allele and window, by gene in the data's order, then by position: `gene` (row of the
            data), `pos` (1-based), `ref`, `alt` (upper case, as in the VCF), `start`, `end`, `new` (see
            `TrimmedVariant`).
        counts: `variants` (records), `alleles`, `in_windows` (alleles), `rows` (of `alleles`), `spanning_tss`
            (rows), `outside`, and per reason in `REASONS` how many were skipped.
    """

    alleles: pd.DataFrame
    counts: dict[str, int]


class GeneVariants(NamedTuple):
    """The variants of one gene, and the bases that scoring them needs.

    Attributes:
        tokens: tokens of the gene's window, 5'→3' along the gene, uint8, shape (length,).
        window: the gene's window on the chromosome.
        context: tokens of the chromosome's forward strand from before the window to after it, as `apply_variant`
            needs them.
        context_start: position of the first token of `context` on the chromosome.
        variants: the gene's variants, in the order of the alleles.
    """

    tokens: np.ndarray
    window: TssWindow
    context: np.ndarray
    context_start: int
    variants: list[TrimmedVariant]


def find_alleles(
    records: Iterator[VcfRecord],
    genome: Genome,
    promoters: Promoters,
    *,
    rows: Sequence[int],
    skip: Callable[[VcfRecord, str, str], None] = lambda record, alt, reason: None,
    chrom_names: Aliases | None = None,
) -> WindowVariants:
    """Find which alleles fall in which windows; only alleles in windows are kept in memory.

    Args:
        records: records as `read_records` yields them, in any order.
        genome: genome that the promoters were extracted from.
        promoters: data set with coordinates; its `metadata` must say the window.
        rows: row numbers, in `promoters`, of the genes to consider.
        skip: function called with each allele that is left out: the record, the ALT and a key of `REASONS`; by
            default nothing is called.
        chrom_names: names that chromosomes have in other files, as `read_chrom_names` returns them; by default
            those are matched that differ in spelling only.

    Raises:
        InputError: the promoters have no coordinates, or are not of this genome.
    """
    cached = CachedGenome(genome)
    windows = tss_windows(promoters)
    chrom_of = match_chromosomes(promoters.genes["chrom"].iloc[list(rows)].unique(), genome.lengths, chrom_names)
    _require_same_genome(cached, promoters, windows, rows=rows, chrom_of=chrom_of)
    index = _WindowIndex(promoters, windows, rows, chrom_of)
    matches: dict[str, Match | None] = {}  # chromosome of the VCF -> the genome's
    counts = Counter(dict.fromkeys(["variants", "alleles", "in_windows", "rows", "spanning_tss", "outside"], 0))
    counts.update(dict.fromkeys(REASONS, 0))
    seen: set[tuple[str, int, str, str]] = set()
    alleles: list[tuple[int, int, str, str, int, int, str]] = []
    for record in records:
        counts["variants"] += 1
        if record.chrom not in matches:
            matches[record.chrom] = Match(record.chrom, "")  # a draft genome has thousands of equal names
            if record.chrom not in genome.lengths:
                found = find_matches(matches, genome.lengths, chrom_names)
                matches[record.chrom] = found.get(record.chrom)
        chrom = match.name if (match := matches[record.chrom]) else ""
        for alt in record.alts or ["."]:
            counts["alleles"] += bool(record.alts)
            reason = reason_to_skip(record, alt, chrom, cached)
            upper = (record.ref.upper(), alt.upper())
            variant = trim_alleles(record.pos - 1, *upper)
            altered = index.altered_by(chrom, variant) if reason is None else []
            if altered and (chrom, record.pos, *upper) in seen:
                reason = "duplicate"
            if reason is not None:
                counts[reason] += 1
                skip(record, alt, reason)
                continue
            counts["in_windows" if altered else "outside"] += 1
            if altered:
                seen.add((chrom, record.pos, *upper))
            for row in altered:
                counts["spanning_tss"] += variant.start < windows[row].tss_boundary < variant.end
                alleles.append((row, record.pos, *upper, variant.start, variant.end, variant.new))
    note_matches(matches, genome.lengths, {name: match for name, match in matches.items() if match})
    counts["rows"] = len(alleles)
    columns = pd.Index(["gene", "pos", "ref", "alt", "start", "end", "new"])
    table = pd.DataFrame(alleles, columns=columns)
    table = table.sort_values(["gene", "pos", "ref", "alt"], kind="stable", ignore_index=True)
    return WindowVariants(table, dict(counts))


def tss_windows(promoters: Promoters) -> list[TssWindow]:
    """Return the window of each gene of a data set, in its order.

    Raises:
        InputError: the promoters have no coordinates, because they were made from a FASTA of sequences.
    """
    shape = promoters.metadata.get("window")
    if not shape or shape.get("upstream") is None:
        raise InputError("the data set has no coordinates; give a folder that prepare wrote")
    genes = promoters.genes
    return [
        TssWindow(int(tss), strand, shape["upstream"], shape["downstream"])
        for tss, strand in zip(genes["tss"], genes["strand"], strict=True)
    ]


def trim_alleles(start: int, ref: str, alt: str) -> TrimmedVariant:
    """Remove the bases that REF and ALT share, first at their end, then at their beginning.

    Args:
        start: position of the first base of REF, 0-based.
        ref: reference allele, upper case.
        alt: alternative allele, upper case.
    """
    shared = 0
    while shared < min(len(ref), len(alt)) and ref[-1 - shared] == alt[-1 - shared]:
        shared += 1
    ref, alt = ref[: len(ref) - shared], alt[: len(alt) - shared]
    shared = 0
    while shared < min(len(ref), len(alt)) and ref[shared] == alt[shared]:
        shared += 1
    return TrimmedVariant(start + shared, start + len(ref), alt[shared:])


def overlaps(variant: TrimmedVariant, window: TssWindow) -> bool:
    """Tell whether a variant alters a base of a window, or moves a base into or out of it."""
    start, end = window.interval
    if variant.start < variant.end:
        return variant.start < end and start < variant.end
    if variant.start == window.tss_boundary:
        return window.upstream > 0
    return start < variant.start < end


def distance_to_tss(variant: TrimmedVariant, window: TssWindow) -> int:
    """Return a variant's distance from the TSS in bases along the gene: 0 is the TSS, -1 the base before it.

    Of several bases the one nearest to the TSS counts; of inserted bases, the position that the nearest gets.
    """
    first, last = variant.start, variant.end - 1
    if last < first:  # an insertion
        first = last = variant.start if variant.start > window.tss else variant.start - 1
    nearest = max(first - window.tss, min(last - window.tss, 0))
    return nearest if window.strand == "+" else -nearest


def apply_variant(
    context: np.ndarray, context_start: int, variant: TrimmedVariant, window: TssWindow
) -> np.ndarray:
    """Build a gene's window with a variant in it, anchored at the TSS.

    Args:
        context: tokens of the chromosome's forward strand, which reach beyond the window on both sides by at least
            as many bases as the variant deletes; N past the chromosome's ends.
        context_start: position of the first token of `context` on the chromosome.
        variant: variant that alters the window.
        window: the gene's window.

    Returns:
        uint8, shape (upstream + downstream,), 5'→3' along the gene.
    """
    new = encode(variant.new)
    boundary, start, end = window.tss_boundary, variant.start, variant.end
    upstream_on_left = window.strand == "+"
    if start < boundary < end:
        cut = min(boundary - start, len(new))
    elif end < boundary or (end == boundary and (start < end or upstream_on_left)):
        cut = len(new)
    else:
        cut = 0
    # the bases on either side of the boundary, of which the window has so many
    before, after = np.split(context, [boundary - context_start])
    left = np.concatenate(
        [before[: min(start, boundary) - context_start], new[:cut], before[end - context_start :]]
    )
    right = np.concatenate([after[: max(start - boundary, 0)], new[cut:], after[max(end - boundary, 0) :]])
    low, high = window.interval
    sequence = np.concatenate([left[len(left) - (boundary - low) :], right[: high - boundary]])
    return sequence if window.strand == "+" else np.asarray(reverse_complement(sequence))


def offset_in_window(variant: TrimmedVariant, window: TssWindow) -> int:
    """Return the index, in the window's sequence, of the base of the chromosome at `variant.start`."""
    start, end = window.interval
    return variant.start - start if window.strand == "+" else end - 1 - variant.start


def build_gene_variants(
    genome: Genome, chrom: str, *, tokens: np.ndarray, window: TssWindow, variants: list[TrimmedVariant]
) -> GeneVariants:
    """Fetch the bases around a gene's window that scoring its variants, at least one, needs.

    `chrom` is spelled as in the genome; the other arguments are as in `GeneVariants`.
    """
    start, end = window.interval
    beyond = max(variant.end - variant.start for variant in variants)
    context = encode(genome.fetch(chrom, start - beyond, end + beyond))
    return GeneVariants(tokens, window, context, start - beyond, variants)


def group_by_gene(
    alleles: pd.DataFrame,
    genome: Genome,
    promoters: Promoters,
    *,
    windows: Sequence[TssWindow],
    chrom_names: Aliases | None = None,
) -> list[GeneVariants]:
    """Collect the variants of each gene, with the bases that scoring them needs, in the data's order.

    Args:
        alleles: some rows of `WindowVariants.alleles`, all rows of each gene in them.
        genome: genome that the promoters were extracted from.
        promoters: data set that `gene` in `alleles` counts rows of.
        windows: window of each gene of the data set.
        chrom_names: names that chromosomes have in other files, as for `find_alleles`.
    """
    chroms = promoters.genes["chrom"]
    chrom_of = find_matches(chroms.iloc[alleles["gene"]].unique(), genome.lengths, chrom_names)
    return [
        build_gene_variants(
            genome,
            chrom_of[chroms.iloc[row]].name,
            tokens=promoters.tokens[row],
            window=windows[row],
            variants=list(map(TrimmedVariant, of_gene["start"], of_gene["end"], of_gene["new"])),
        )
        for row, of_gene in ((int(group["gene"].iloc[0]), group) for _, group in alleles.groupby("gene"))
    ]


class _WindowIndex:
    """Find the windows that a variant alters; all windows are of one length, so sorted starts suffice."""

    def __init__(
        self, promoters: Promoters, windows: Sequence[TssWindow], rows: Sequence[int], chrom_of: dict[str, str]
    ) -> None:
        self.windows, self.length = windows, promoters.length
        self.of_chrom: dict[str, list[tuple[int, int]]] = {}  # (start of the window, row of the gene), sorted
        for row in rows:
            chrom = chrom_of[promoters.genes["chrom"].iloc[row]]
            self.of_chrom.setdefault(chrom, []).append((windows[row].interval[0], int(row)))
        for entries in self.of_chrom.values():
            entries.sort()
        self.starts = {chrom: [start for start, _ in entries] for chrom, entries in self.of_chrom.items()}

    def altered_by(self, chrom: str, variant: TrimmedVariant) -> list[int]:
        """Return the rows of the genes whose windows a variant alters."""
        starts = self.starts.get(chrom, [])
        near = slice(bisect_left(starts, variant.start - self.length), bisect_right(starts, variant.end))
        return [row for _, row in self.of_chrom.get(chrom, [])[near] if overlaps(variant, self.windows[row])]


def _require_same_genome(
    genome: CachedGenome,
    promoters: Promoters,
    windows: Sequence[TssWindow],
    *,
    rows: Sequence[int],
    chrom_of: dict[str, str],
) -> None:
    genes = promoters.genes
    path = genome.genome.path
    for row in rows:
        gene, chrom = genes["gene_id"].iloc[row], genes["chrom"].iloc[row]
        fix_hint = "give the genome that the data were prepared from"
        if chrom not in chrom_of:
            raise InputError(f"{path}: has no chromosome {chrom}, where {gene} lies; {fix_hint}")
        tokens = encode(genome.fetch(chrom_of[chrom], *windows[row].interval))
        if windows[row].strand == "-":
            tokens = np.asarray(reverse_complement(tokens))
        if not np.array_equal(tokens, promoters.tokens[row]):
            raise InputError(f"{path}: has another promoter of {gene} than the data; {fix_hint}")
