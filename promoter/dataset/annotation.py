"""Read genes and their transcription start sites (TSS) from BED, GTF or GFF3.

Coordinates are 0-based and half-open. `tss` is the position of the first transcribed base: of the lines of a gene,
or of the transcript chosen, the smallest start on `+` and the greatest end minus one on `-`. What the file leaves
open and this module decides is told as notes and warnings (`promoter.errors`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import get_args

import pandas as pd
from upath import UPath

from promoter.dataset import annotation_notes as notes
from promoter.dataset.config import TranscriptChoice
from promoter.dataset.gene_models import GeneModels
from promoter.dataset.gff import AnnotationFile, by_count, is_transcript, open_annotation, require_valid
from promoter.dataset.identifiers import apply_gene_map
from promoter.dataset.owners import Gene
from promoter.dataset.tss import read_measured_tss, tss_of_transcripts
from promoter.errors import InputError, note
from promoter.storage import AnyPath

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
    notes.tell_kinds(file, features, Counter(level_of[gene_id] for gene_id in kept))
    notes.tell_ids(file, attribute, kept.values(), models.owners.transcript_is_gene)
    if tss is None:
        notes.tell_start_codons(file, features)
    if biotype is not None:
        wanted = _of_biotypes(file, _as_list(biotype) or [], kept)
        extents = {place: extent for place, extent in extents.items() if place[0] in wanted}
    notes.tell_places(file, features, extents)
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
        table["tss"] = read_measured_tss(tss, table, names, skip_invalid=skip_invalid)
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
