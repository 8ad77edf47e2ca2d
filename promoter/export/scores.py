"""Export the scores of one target in one or several formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from upath import UPath

from promoter import storage
from promoter.dataset.chromosomes import chromosome_sizes, match_chromosomes, renamed
from promoter.errors import InputError
from promoter.export.formats import FORMATS, require_formats
from promoter.export.writer import Batch, ExportSource
from promoter.ism import iterate_scores
from promoter.ism.store import choose_target, load_contents
from promoter.storage import AnyPath


@dataclass(frozen=True)
class Exported:
    """Summary of what `export_scores` wrote.

    Attributes:
        genes: number of genes.
        length: length of their sequences in bases.
        target: name of the target whose contributions were written.
        files: paths of the files, in the order of the formats.
        past_ends: number of genes that the h5 leaves out, because their windows pass a chromosome's end.
        tss_known: whether the scores say where the TSS is; otherwise it was taken to be the base after the window.
        renamed: chromosomes of the scores -> the genome's spelling, which the files have, where they differ.
        noun: what a row of the scores is called: gene, or sequence.
        method: name of the method by which the scores were computed.
    """

    genes: int
    length: int
    target: str
    files: list[UPath]
    past_ends: int
    tss_known: bool
    renamed: dict[str, str]
    noun: str
    method: str


def export_scores(
    scores: AnyPath,
    out: AnyPath,
    formats: Sequence[str],
    *,
    genome: AnyPath | None = None,
    genes: Sequence[str] | None = None,
    target: str | None = None,
) -> Exported:
    """Write the scores of one target in other formats, reading some genes at a time.

    Args:
        scores: folder that ism or attribute wrote.
        out: folder for the files; all of them appear at the end.
        formats: names of formats, keys of `FORMATS`.
        genome: FASTA, .fai or chrom.sizes with the lengths of the chromosomes; None (default) where no format
            needs them.
        genes: ids or names of the genes to export; all by default.
        target: name of the target; may be left out when there is only one.

    Raises:
        InputError: a format, target or gene does not exist; coordinates or a genome are needed and missing, or
            do not fit; the scores are unfinished.
    """
    contents = load_contents(scores, genes)
    require_formats(formats, genome, located=contents.located)
    target = choose_target(contents.targets, target)
    on_genome = any(FORMATS[name].needs_coordinates or FORMATS[name].needs_sizes for name in formats)
    table = contents.genes
    sizes, spelling = _match_genome(table, genome) if genome and on_genome else ({}, {})
    table = table.assign(chrom=table["chrom"].replace(spelling))
    out_dir = storage.resolve(out)
    source = ExportSource(
        out_dir, table, contents.length, contents.downstream, genome, sizes, contents.located, contents.method_name
    )
    with storage.Outputs() as outputs:
        by_name = {name: writer(source, outputs) for name, writer in FORMATS.items() if name in formats}
        writers = list(by_name.values())
        done = 0
        for of_genes in iterate_scores(scores, genes and table["gene_id"].tolist(), [target]):
            batch = Batch.from_scores(of_genes, done)
            for writer in writers:
                writer.add(batch)
            done = batch.rows.stop
        for writer in writers:
            writer.finish()
    files = [out_dir / file for name in formats for file in by_name[name].files]
    return Exported(
        genes=len(table),
        length=contents.length,
        target=target,
        files=files,
        past_ends=max(writer.left_out for writer in writers),
        tss_known=contents.downstream is not None,
        renamed=renamed(spelling),
        noun=contents.noun,
        method=contents.method_name,
    )


def _match_genome(table: pd.DataFrame, genome: AnyPath) -> tuple[dict[str, int], dict[str, str]]:
    """Return the lengths of the genome's chromosomes, and its spelling of each chromosome of the genes."""
    sizes = chromosome_sizes(genome)
    chroms = table["chrom"].unique()
    spelling = match_chromosomes(chroms, sizes)
    unknown = [name for name in chroms if name not in spelling]
    if unknown:
        raise InputError(
            f"{storage.resolve(genome)}: has no {', '.join(unknown[:3])} (it has {', '.join(list(sizes)[:3])}); "
            "give the genome that the data were prepared from"
        )
    return sizes, spelling
