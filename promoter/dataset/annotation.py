"""Read genes and their transcription start sites (TSS) from BED, GTF or GFF3.

Coordinates are 0-based and half-open. `tss` is the position of the first transcribed base: of the lines of a gene,
or of the transcript chosen, the smallest start on `+` and the greatest end minus one on `-`. What the file leaves
open and this module decides is told as notes and warnings (`promoter.errors`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import pandas as pd
from upath import UPath

from promoter.dataset.chromosomes import Aliases
from promoter.dataset.config import TranscriptChoice
from promoter.dataset.gene_models import CDS, EXONS, GENES, OTHER_GENES, TRANSCRIPTS, Extent, GeneModels, Place
from promoter.dataset.gff import (
    AnnotationFile,
    by_count,
    is_gene,
    is_transcript,
    is_utr,
    open_annotation,
    require_valid,
)
from promoter.dataset.identifiers import apply_gene_map
from promoter.dataset.owners import Gene
from promoter.dataset.tss import read_measured_tss, tss_of_transcripts
from promoter.errors import InputError, counted, doubt, note
from promoter.storage import AnyPath

_MAX_GAP = 10_000  # bases between transcripts of one gene
_MAX_INTRON = 2_000_000  # bases between exons of one gene; in human the longest is of 1.2 Mb
GENE_COLUMNS = ["gene_id", "gene_name", "chrom", "start", "end", "strand", "tss"]


def read_genes(
    path: AnyPath,
    attribute: str | None = None,
    feature: str | Sequence[str] | None = None,
    *,
    biotype: str | Sequence[str] | None = None,
    transcript: TranscriptChoice = "5prime_most",
    tss: AnyPath | None = None,
    gene_map: AnyPath | None = None,
    chrom_names: Aliases | None = None,
    skip_invalid: bool = False,
) -> pd.DataFrame:
    """Read the genes of an annotation, in the order of their first lines.

    The format is known by content. BED needs its first six columns: a promoter lies on one side of its gene, so
    the strand (column 6) is required, and the gene id is column 4. Several lines of one gene on one chromosome and
    strand (transcripts, exons) are one row. A gene on two chromosomes, as on X and Y, has two rows.

    Args:
        path: the annotation, plain, gzip or bgzip, local or remote.
        attribute: GTF/GFF3 attribute that holds the gene id; `Dbxref:NAME` is the value with that prefix in
            Dbxref. None (default) means gene_id, locus_tag, ID (without `gene-` or `gene:`) or Name; genes without
            the attribute get their ids from these too.
        feature: GTF/GFF3 feature types to read, one or several, also `A,B`; None (default) reads `gene` lines,
            or, in a file without any, the transcripts, exons or CDSs.
        biotype: biotypes to keep, such as `protein_coding`; None (default) keeps all.
        transcript: transcript whose first base is the TSS: `5prime_most` (default) takes the 5'-most start
            over the gene's lines, `longest` the transcript with most exonic bases, `canonical` the one that
            is tagged MANE Select, Ensembl canonical or RefSeq Select. A gene without one keeps the first.
        tss: BED of measured TSSs (CAGE, PRO-cap), which replace the annotation's; see `read_measured_tss`.
        gene_map: table of two columns, ids of the annotation and the ids to use instead.
        chrom_names: names of each chromosome in several files, for `tss`, as `aliases.read_chrom_names` returns
            them; None (default) matches by spelling alone.
        skip_invalid: whether genes with a line that cannot be used (no strand, end before start, no id,
            trans-splicing) are left out and counted, instead of ending with an error (default False).

    Returns:
        Columns `gene_id`, `gene_name` (None where unknown), `chrom`, `start`, `end`, `strand`, `tss`.

    Raises:
        InputError: the file is missing, in none of these formats, has nothing of what was asked for, or has a
            malformed line.
    """
    if transcript not in get_args(TranscriptChoice):
        fix = f"choose one of {', '.join(get_args(TranscriptChoice))}"
        raise InputError("unknown", setting="transcript", value=transcript, fix=fix)
    features = _as_list(feature)
    models = GeneModels(attribute, features, with_transcripts=transcript != "5prime_most")
    with open_annotation(path) as file:
        models.read(file)
    bad = require_valid(file.where, models.problems(), skip_invalid=skip_invalid)
    extents, level_of = models.extents()
    extents = {place: extent for place, extent in extents.items() if place[0] not in bad}
    if not extents:
        raise InputError(_nothing_found(file, features, n_bad=len(bad)))
    genes = models.genes()
    kept = {gene_id: genes[gene_id] for gene_id, _, _ in extents}
    _require_attribute(file.where, attribute, kept.values(), models.attributes_seen)
    _tell_kinds(file, features, Counter(level_of[gene_id] for gene_id in kept))
    _tell_ids(file, attribute, kept.values(), models.owners.transcript_is_gene)
    if tss is None:
        _tell_start_codons(file, features)
    if biotype is not None:
        wanted = _of_biotypes(file, _as_list(biotype) or [], kept)
        extents = {place: extent for place, extent in extents.items() if place[0] in wanted}
    _tell_places(file, features, extents)
    table = pd.DataFrame(
        {
            "gene_id": [gene_id for gene_id, _, _ in extents],
            "gene_name": pd.Series([kept[gene_id].name for gene_id, _, _ in extents], dtype="object"),
            "chrom": [chrom for _, chrom, _ in extents],
            "start": pd.Series([extent.start for extent in extents.values()], dtype="int64"),
            "end": pd.Series([extent.end for extent in extents.values()], dtype="int64"),
            "strand": [strand for _, _, strand in extents],
        }
    )
    table["tss"] = table["start"].where(table["strand"] == "+", table["end"] - 1)
    if transcript != "5prime_most":
        table["tss"] = tss_of_transcripts(file.where, table, models.transcripts(), transcript)
    annotated_ids = table["gene_id"]
    if gene_map is not None:
        table["gene_id"] = apply_gene_map(annotated_ids, gene_map)
    if tss is not None:
        names = [annotated_ids, table["gene_id"], table["gene_name"]]
        table["tss"] = read_measured_tss(tss, table, names, chrom_names=chrom_names, skip_invalid=skip_invalid)
    return table


def transcript_genes(path: AnyPath, attribute: str | None = None) -> dict[str, str]:
    """Map the transcripts of an annotation to their genes, to sum a table of transcripts.

    Args:
        path: GTF or GFF3, plain, gzip or bgzip, local or remote.
        attribute: attribute that holds the gene id, as for `read_genes`.

    Returns:
        Transcript id -> gene id, as `read_genes` names it, in each spelling that tables have: transcript_id, ID
        with and without a prefix such as `transcript:`, and with the version where there is one. Empty for BED.

    Raises:
        InputError: the file is missing or in none of these formats.
    """
    models = GeneModels(attribute, None, with_transcripts=True)
    with open_annotation(path) as file:
        models.read(file)
    return models.owners.transcript_genes()


def _as_list(names: str | Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    return [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]


def _nothing_found(file: AnnotationFile, features: list[str] | None, *, n_bad: int) -> str:
    if n_bad:
        return f"{file.where}: no gene is left, all {n_bad:,} have invalid lines; is it the right file?"
    if file.format == "bed" or not file.kinds:
        return f"{file.where}: has no lines; is it the right file?"
    wanted = " or ".join(f"'{feature}'" for feature in features or ["gene", "transcript", "exon", "CDS"])
    return (
        f"{file.where}: has no lines of feature type {wanted}; there are {by_count(file.kinds)}: "
        "choose with `feature`"
    )


def _require_attribute(where: UPath, attribute: str | None, genes: Iterable[Gene], seen: set[str]) -> None:
    if attribute is not None and all(gene.source != attribute for gene in genes):
        raise InputError(
            f"{where}: no gene has the attribute '{attribute}'; there are {sorted(seen)}: choose with `attribute`"
        )


def _of_biotypes(file: AnnotationFile, biotypes: list[str], genes: dict[str, Gene]) -> set[str]:
    counts = Counter(gene.biotype for gene in genes.values() if gene.biotype is not None)
    if not counts:
        transcripts = file.kinds_where(is_transcript)
        fix = (
            f"its transcripts have types: {by_count(transcripts)}; choose with `feature`, such as "
            f"`feature={transcripts.most_common(1)[0][0]!r}`"
            if transcripts
            else "leave out the genes in the expression table, or take an annotation that has biotypes"
        )
        problem = f"{file.where} has no gene_biotype, gene_type or biotype"
        raise InputError(problem, setting="biotype", value=",".join(biotypes), fix=fix)
    unknown = [biotype for biotype in biotypes if biotype not in counts]
    if unknown:
        raise InputError(
            f"{file.where} has none such",
            setting="biotype",
            value=",".join(unknown),
            fix=f"it has {by_count(counts)}",
        )
    kept = {gene_id for gene_id, gene in genes.items() if gene.biotype in biotypes}
    n_unknown = len(genes) - counts.total()
    unknown_text = f" ({n_unknown:,} of those left out have no biotype)" if n_unknown else ""
    note(f"{file.where}: {len(kept):,} of {len(genes):,} genes are {' or '.join(biotypes)}{unknown_text}")
    return kept


def _tell_kinds(file: AnnotationFile, features: list[str] | None, levels: Counter[int]) -> None:
    """Tell which lines the genes were read from, unless those were asked for."""
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


def _tell_ids(
    file: AnnotationFile, attribute: str | None, genes: Iterable[Gene], transcript_is_gene: Mapping[bool, int]
) -> None:
    """Tell which attributes the ids come from, unless that is plain."""
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


def _tell_start_codons(file: AnnotationFile, features: list[str] | None) -> None:
    """Warn where the lines of genes begin at start codons, since nothing tells where transcription starts."""
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


def _tell_places(file: AnnotationFile, features: list[str] | None, extents: Mapping[Place, Extent]) -> None:
    """Tell which genes were joined from several lines of a BED, and which lie in several places."""
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
