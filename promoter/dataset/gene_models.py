"""Collect where genes and transcripts lie from the lines of an annotation, in whatever order the lines come.

In GTF and GFF3 genes are read from `gene` lines or, in a file without any, from the lines that there are. In BED
each line is a transcript of the gene that its name column names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from promoter.dataset.gff import (
    AnnotationFile,
    Line,
    Problem,
    attribute_names,
    attribute_value,
    is_gene,
    is_transcript,
    is_utr,
)
from promoter.dataset.owners import Gene, Owners

_CANONICAL = ("mane_select", "ensembl_canonical", "refseq_select")  # the best first
GENES, OTHER_GENES, TRANSCRIPTS, EXONS, CDS = range(5)  # levels of lines that genes are read from
_ALWAYS = -1  # level of lines that are too short to have a feature type
Place = tuple[str, str, str]  # owner or gene id, chromosome, strand


@dataclass(slots=True)
class Extent:
    """Hold the part of a chromosome that lines cover.

    Attributes:
        number: number of the first of these lines.
        start: first base, 0-based.
        end: base after the last one.
        gap: greatest number of bases between a line and those before it.
        n: number of lines.
    """

    number: int
    start: int
    end: int
    gap: int = 0
    n: int = 1

    def add(self, other: Extent) -> None:
        """Extend to other lines of the same gene."""
        self.gap = max(self.gap, other.gap, other.start - self.end, self.start - other.end)
        self.number = min(self.number, other.number)
        self.start, self.end = min(self.start, other.start), max(self.end, other.end)
        self.n += other.n


class Transcript(NamedTuple):
    """Hold a transcript.

    Attributes:
        extent: from its first to its last base.
        bases: number of exonic bases.
        canonical: rank of its tag, 0 for MANE Select, the best; None without one.
    """

    extent: Extent
    bases: int
    canonical: int | None


@dataclass
class GeneModels:
    """Collect the genes of an annotation; see the module.

    Args:
        attribute: attribute that holds the gene id; None for the usual ones.
        features: feature types whose lines are genes; None for `gene` or, without any, what there is.
        with_transcripts: whether transcripts are wanted beside the genes.

    Attributes:
        attributes_seen: attributes of the lines without `attribute`.
        owners: the genes that lines belong to.
    """

    attribute: str | None = None
    features: Sequence[str] | None = None
    with_transcripts: bool = False
    attributes_seen: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:  # noqa: D105 # see the class
        self.owners = Owners(self.attribute)
        self._levels: list[dict[Place, Extent]] = [{} for _ in range(CDS + 1)]
        self._chroms: dict[str, str] = {}  # owner of exons or CDSs -> its chromosome
        self._problems: list[tuple[int, str | None, int, str]] = []  # level, owner, line number, text
        self._transcripts: dict[Place, tuple[int, Extent]] = {}  # with the level of the lines
        self._bases: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # of exons; of CDSs and UTRs
        self._canonical: dict[str, int] = {}
        self._levels_of_kinds: dict[str, tuple[int | None, bool]] = {}

    def read(self, file: AnnotationFile) -> None:
        """Add all lines of an annotation."""
        for line in file.lines(lambda kind: self._level_of_kind(kind) != (None, False)):
            if file.format == "bed":
                self._add_bed(line)
            elif not line.kind:
                self._problems.append((_ALWAYS, None, line.number, line.problem or ""))
            else:
                self._add(line, gtf=file.format == "gtf")

    def levels(self) -> list[int]:
        """Return the levels that genes are read from: gene lines or, without any, all those below."""
        seen = {level for level, lines in enumerate(self._levels) if lines} | {
            level for level, *_ in self._problems
        }
        best = next((level for level in (GENES, OTHER_GENES) if level in seen), None)
        return [level for level in range(TRANSCRIPTS, CDS + 1) if level in seen] if best is None else [best]

    def extents(self) -> tuple[dict[Place, Extent], dict[str, int]]:
        """Join the lines of each gene.

        Returns:
            (gene id, chromosome, strand) -> extent, in file order; gene id -> level that it was read from.
        """
        rows: dict[Place, Extent] = {}
        level_of: dict[str, int] = {}
        for level in self.levels():
            for (owner, chrom, strand), extent in self._levels[level].items():
                gene_id = self.owners.gene_of(owner).gene_id
                if level_of.setdefault(gene_id, level) == level:
                    _extend(rows, (gene_id, chrom, strand), extent)
        return dict(sorted(rows.items(), key=lambda row: row[1].number)), level_of

    def genes(self) -> dict[str, Gene]:
        """Return the genes that `extents` has, by id."""
        owners = (owner for level in self.levels() for owner, _, _ in self._levels[level])
        genes: dict[str, Gene] = {}
        for gene in map(self.owners.gene_of, owners):
            genes.setdefault(gene.gene_id, gene)
        return genes

    def transcripts(self) -> dict[Place, list[Transcript]]:
        """Return the transcripts of each gene by (gene id, chromosome, strand)."""
        found: dict[Place, list[Transcript]] = defaultdict(list)
        for (owner, chrom, strand), (_, extent) in self._transcripts.items():
            exons, others = self._bases.get(owner, (0, 0))
            bases = exons or others or extent.end - extent.start
            place = self.owners.gene_of(owner).gene_id, chrom, strand
            found[place].append(Transcript(extent, bases, self._canonical.get(owner)))
        return found

    def problems(self) -> list[Problem]:
        """List the lines that cannot be used, of the levels that are, in file order."""
        used = {_ALWAYS, *self.levels(), *(range(TRANSCRIPTS, CDS + 1) if self.with_transcripts else ())}
        listed = [
            Problem(number, None if owner is None else self.owners.gene_of(owner).gene_id, text)
            for level, owner, number, text in self._problems
            if level in used
        ]
        return sorted(listed, key=lambda problem: problem.number)

    def _level_of_kind(self, kind: str) -> tuple[int | None, bool]:
        """Return the level that lines of this type are read for, if any, and whether they are wanted besides."""
        found = self._levels_of_kinds.get(kind)
        if found is None:
            found = self._levels_of_kinds[kind] = self._new_level_of_kind(kind)
        return found

    def _new_level_of_kind(self, kind: str) -> tuple[int | None, bool]:
        gene, transcript, exon, cds = is_gene(kind), is_transcript(kind), _is(kind, "exon"), _is(kind, "CDS")
        besides = self.with_transcripts and (gene or transcript or exon or cds or is_utr(kind))
        if self.features is not None:
            parents = (gene or transcript) and not all(map(is_gene, self.features))
            return (GENES if kind in self.features else None), besides or parents
        if kind == "gene":
            return GENES, True
        if self._levels[GENES]:
            return None, besides
        fits = {OTHER_GENES: gene, TRANSCRIPTS: transcript, EXONS: exon, CDS: cds}
        return next((level for level in fits if fits[level]), None), besides

    def _add_bed(self, line: Line) -> None:
        name = line.attributes.get("gene_id")
        problem = line.problem
        if problem is None and line.strand not in ("+", "-"):
            problem = "has no strand '+' or '-' in column 6; a promoter needs one: add the strand"
        if problem is None and name is None:
            problem = "has no gene id in column 4; add one"
        if problem is not None or name is None:
            self._problems.append((GENES, name, line.number, problem or ""))
            return
        self.owners.add_name(name, "column 4")
        _extend(self._levels[GENES], (name, line.chrom, line.strand), _extent(line))
        if self.with_transcripts:
            owner = f"{name}\t{line.number}"
            self.owners.add_transcript(owner, name)
            self._bases[owner][0] = line.bases
            self._transcripts[owner, line.chrom, line.strand] = TRANSCRIPTS, _extent(line)

    def _add(self, line: Line, *, gtf: bool) -> None:
        level, _ = self._level_of_kind(line.kind)
        if level == GENES and self.features is None and not self._levels[GENES]:
            self._levels_of_kinds.clear()  # the levels below are not wanted any more
        given = attribute_value(line.attributes, self.attribute) if self.attribute else None
        owners = self.owners.add(line, given, gtf=gtf)
        problem = line.problem or self._problem(line, level, owners)
        if problem is not None:
            if level is None:
                level = TRANSCRIPTS if not is_gene(line.kind) else None
            if level is not None:
                self._problems.append((level, owners[0] if owners else None, line.number, problem))
            return
        if level is not None and given is None and self.attribute:
            self.attributes_seen.update(attribute_names(line.attributes))
        for owner in owners:
            if level is not None:
                _extend(self._levels[level], (owner, line.chrom, line.strand), _extent(line))
                if given:
                    self.owners.prefer(owner, given)
            if self.with_transcripts and not is_gene(line.kind):
                self._add_to_transcript(line, owner)

    def _problem(self, line: Line, level: int | None, owners: list[str]) -> str | None:
        if line.strand not in ("+", "-"):
            return "has no strand '+' or '-'"
        if not owners:
            names = attribute_names(line.attributes)
            return f"has no gene id in its attributes ({', '.join(names) or 'none'}); choose with `attribute`"
        if level is None:
            return None
        other = "-" if line.strand == "+" else "+"
        if any((owner, line.chrom, other) in self._levels[level] for owner in owners):
            return "lies on the other strand than a line above with the same id (trans-splicing?)"
        if not is_gene(line.kind) and not is_transcript(line.kind):  # whole genes may be on X and on Y
            chroms = {self._chroms.setdefault(owner, line.chrom) for owner in owners}
            if chroms != {line.chrom}:
                return "lies on another chromosome than a line above with the same id (trans-splicing?)"
        return None

    def _add_to_transcript(self, line: Line, owner: str) -> None:
        exon, cds = _is(line.kind, "exon"), _is(line.kind, "CDS")
        if exon or cds or is_utr(line.kind):
            self._bases[owner][0 if exon else 1] += line.bases
        if tags := line.attributes.get("tag"):
            names = tags.lower().replace(" ", "_").split(",")
            best = next((rank for rank, tag in enumerate(_CANONICAL) if tag in names), None)
            if best is not None:
                self._canonical[owner] = min(best, self._canonical.get(owner, best))
        level = TRANSCRIPTS if is_transcript(line.kind) else EXONS if exon else CDS
        place = owner, line.chrom, line.strand
        old = self._transcripts.get(place)
        if old is None or old[0] > level:
            self._transcripts[place] = level, _extent(line)
        elif old[0] == level:
            old[1].add(_extent(line))


def _is(kind: str, other: str) -> bool:
    return kind.lower() == other.lower()


def _extent(line: Line) -> Extent:
    return Extent(line.number, line.start, line.end)


def _extend(extents: dict[Place, Extent], place: Place, extent: Extent) -> None:
    if place in extents:
        extents[place].add(extent)
    else:
        extents[place] = Extent(extent.number, extent.start, extent.end, extent.gap, extent.n)
