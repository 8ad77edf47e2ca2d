"""Tell what reading an annotation took for granted, and what looks wrong in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from promoter.dataset.gene_models import CDS, EXONS, GENES, OTHER_GENES, TRANSCRIPTS, Extent, Place
from promoter.dataset.gff import AnnotationFile, by_count, is_gene, is_transcript, is_utr
from promoter.dataset.owners import Gene
from promoter.errors import counted, doubt, note

_MAX_GAP = 10_000  # bases between transcripts of one gene
_MAX_INTRON = 2_000_000  # bases between exons of one gene; in human the longest is of 1.2 Mb


def tell_kinds(file: AnnotationFile, features: list[str] | None, levels: Counter[int]) -> None:
    """Tell which lines the genes were read from, unless those were asked for.

    Args:
        file: the annotation.
        features: feature types that were asked for; None for the usual ones.
        levels: level of lines -> number of genes that were read from it.
    """
    if file.format == "bed":
        return
    if features is not None:
        if missing := [feature for feature in features if feature not in file.kinds]:
            doubt(f"{file.where}: has no lines of {', '.join(missing)}; there are {by_count(file.kinds)}")
        return
    kinds = file.kinds_where(is_gene)
    if levels[GENES] and len(kinds) > 1:
        others = Counter({kind: n for kind, n in kinds.items() if kind != "gene"})
        note(
            f"{file.where}: genes are its {kinds['gene']:,} 'gene' lines; left out: {by_count(others)}; "
            f"to read these too, set `feature={','.join(kinds)!r}`"
        )
    elif levels[OTHER_GENES]:
        note(f"{file.where}: has no 'gene' lines; genes are read from {by_count(kinds)}; choose with `feature`")
    elif not levels[GENES]:
        names = {TRANSCRIPTS: "transcripts", EXONS: "exons", CDS: "CDSs"}
        parts = ", ".join(f"{counted(n, 'gene')} from {names[level]}" for level, n in sorted(levels.items()))
        note(f"{file.where}: has no 'gene' lines; read {parts}, the 5'-most start of each; choose with `feature`")


def tell_ids(
    file: AnnotationFile, attribute: str | None, genes: Iterable[Gene], transcript_is_gene: Mapping[bool, int]
) -> None:
    """Tell which attributes the ids come from, unless that is plain.

    Args:
        file: the annotation.
        attribute: attribute that was asked for; None for the usual ones.
        genes: the genes that were read.
        transcript_is_gene: number of GTF lines on which the two have one id, and on which they have two.
    """
    sources = Counter(gene.source for gene in genes)
    n_missing = sources.total() - sources[attribute or ""]
    if attribute is not None and n_missing:
        others = by_count(Counter({source: n for source, n in sources.items() if source != attribute}))
        note(
            f"{file.where}: {n_missing:,} of {sources.total():,} genes have no attribute '{attribute}'; "
            f"their ids are taken from {others}"
        )
    elif attribute is None and (len(sources) > 1 or not set(sources) <= {"gene_id", "ID", "column 4"}):
        note(f"{file.where}: gene ids are taken from {by_count(sources)}; choose with `attribute`")
    if transcript_is_gene[True] and not transcript_is_gene[False] and not file.kinds["gene"]:
        doubt(
            f"{file.where}: gene_id and transcript_id are the same on each line: each transcript counts as "
            "a gene (GTFs of the UCSC Table Browser are like that); choose another id with `attribute`, or take "
            "another GTF"
        )


def tell_start_codons(file: AnnotationFile, features: list[str] | None) -> None:
    """Warn where the lines of genes begin at start codons, since nothing tells where transcription starts.

    Args:
        file: the annotation.
        features: feature types that were asked for; None for the usual ones.
    """
    if file.format == "bed":
        return
    n_cds = file.kinds_where(lambda kind: kind.lower() == "cds").total()
    n_exons = file.kinds_where(lambda kind: kind.lower() == "exon").total()
    n_5utr = file.kinds_where(lambda kind: is_utr(kind) and not kind.lower().startswith(("3", "three"))).total()
    only_cds = features is not None and all(feature.lower() == "cds" for feature in features)
    if only_cds or (n_cds > n_exons and not n_5utr) or 0 < n_5utr < file.kinds["start_codon"] / 10:
        doubt(
            f"{file.where}: gives no 5' UTR for most genes, so that their TSS is the start codon; give "
            "measured TSSs with `tss` if there are any"
        )


def tell_places(file: AnnotationFile, features: list[str] | None, extents: Mapping[Place, Extent]) -> None:
    """Tell which genes were joined from several lines of a BED, and which lie in several places.

    Args:
        file: the annotation.
        features: feature types that were asked for; None for the usual ones.
        extents: (gene id, chromosome, strand) -> extent.
    """
    joined = [place[0] for place, extent in extents.items() if extent.n > 1]
    if joined and file.format == "bed":
        note(
            f"{file.where}: {counted(len(joined), 'gene')} with several lines, such as {joined[0]}: these are "
            "its transcripts, and the 5'-most start as the TSS"
        )
    places = Counter(gene_id for gene_id, _, _ in extents)
    several = [gene_id for gene_id, n in places.items() if n > 1]
    if several:
        note(
            f"{file.where}: {counted(len(several), 'gene')} on several chromosomes or strands, such as "
            f"{several[0]}: each place is a row"
        )
    whole = file.format == "bed" or all(is_gene(kind) or is_transcript(kind) for kind in features or ["gene"])
    max_gap = _MAX_GAP if whole else _MAX_INTRON
    apart = [place[0] for place, extent in extents.items() if extent.gap > max_gap]
    if apart:
        doubt(
            f"{file.where}: the lines of {counted(len(apart), 'gene')}, such as {apart[0]}, lie more than "
            f"{max_gap:,} bases apart on one strand, as if several genes had one id; the 5'-most start is taken"
        )
