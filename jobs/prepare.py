"""Genome, genes and expression in; `promoters.parquet` out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from jobs.cli.config_file import job_settings, write_config
from jobs.cli.console import console, new_table, plural, with_flags
from jobs.cli.notes import kept_notes
from jobs.cli.run import run
from promoter import storage
from promoter.dataset.config import Layout, Missing, TranscriptChoice, Transform
from promoter.errors import InputError, InputNote, InputWarning, listed
from promoter.models.config import ARCHITECTURES

if TYPE_CHECKING:
    from promoter.dataset.prepare import Summary

_MAX_TARGETS_SHOWN = 20


def prepare(
    out: str,
    genome: str | None = None,
    genes: str | None = None,
    expression: str | None = None,
    upstream: int = 2000,
    downstream: int = 0,
    window: str | None = None,
    context: int | None = None,
    transform: Transform = "none",
    targets: list[str] | None = None,
    layout: Layout | None = None,
    gene_column: str | None = None,
    missing: Missing = "keep",
    replicates: str | None = None,
    contrast: list[str] | None = None,
    tx2gene: str | None = None,
    attribute: str | None = None,
    feature: list[str] | None = None,
    biotype: list[str] | None = None,
    transcript: TranscriptChoice = "5prime_most",
    tss: str | None = None,
    gene_map: str | None = None,
    ignore_version: bool = False,
    skip_invalid: bool = False,
    chrom_names: str | None = None,
    chroms: list[str] | None = None,
    exclude_chroms: list[str] | None = None,
    max_n: float = 0.5,
    allow_loss: bool = False,
    dataset: Literal["yeast", "yeast_levels"] | None = None,
    cache: str | None = None,
) -> None:
    """Cut the promoter of every gene and join it with the gene's expression.

    Args:
        out: folder to write promoters.parquet, config.yaml and summary.json to.
        genome: FASTA, plain, gzip or bgzip.
        genes: BED, GTF or GFF3, plain or gzip.
        expression: table with one row per gene, text or .parquet; or a folder, or a pattern in quotes such as
            'quants/*/quant.sf', of files with a sample each.
        upstream: number of bases before the transcription start site.
        downstream: number of bases from the transcription start site on.
        window: instead of these two: enformer or borzoi, for the window that this network reads, or a number of
            bases; the transcription start site stands in the middle.
        context: number of bases of a --window enformer or borzoi, if fewer than the network was trained on.
        transform: transform of the expression values: none, log1p (natural), log2p1, or cpm_log2p1 for raw
            counts.
        targets: columns or samples of the expression table to predict; by default those that its layout says, in a
            plain table all numbers but lengths, coordinates, p-values and identifiers.
        layout: tool that wrote the expression table; by default known by its header or shape.
        gene_column: column of the expression table with the gene ids; by default by its layout, else the first.
        missing: what to do about an empty or NaN value: keep it as missing in this target alone, drop the gene, or
            end with an error.
        replicates: table of sample and condition; the targets are then the conditions, means over their samples.
        contrast: two conditions or samples A,B; the target is then A minus B, after the transform.
        tx2gene: table of transcript and gene, to sum transcripts to genes; by default the annotation says it.
        attribute: GTF/GFF3 attribute that holds the gene id, such as locus_tag or Dbxref:PomBase; by default
            gene_id, locus_tag, ID or Name.
        feature: GTF/GFF3 feature types that are genes; by default gene, or what there is in a file without.
        biotype: biotypes of the genes to keep, such as protein_coding; by default all.
        transcript: transcript whose start is the gene's transcription start site: the 5'-most start, that of the
            longest transcript, or of the canonical one.
        tss: BED of measured transcription start sites, which take the place of the annotation's.
        gene_map: table of two columns: the annotation's gene id, and the expression table's.
        ignore_version: take ENSG01.5 and ENSG01 for the same gene, where no two genes become one by it.
        skip_invalid: leave out genes whose lines cannot be used, such as those without a strand.
        chrom_names: table of two or more columns with the names of each chromosome, such as UCSC's chromAlias.
        chroms: keep only genes on these chromosomes.
        exclude_chroms: leave out genes on these chromosomes.
        max_n: leave out windows of which more than this share is N.
        allow_loss: go on where more than half of the genes are left out for one reason.
        dataset: name of a public data set to use instead of files: yeast (response to salt) or yeast_levels (TPM
            in eight conditions); files given beside it take the place of its own.
        cache: folder that holds, or will hold, the downloads of --dataset.
    """
    settings = job_settings(prepare, locals())
    if window is None and context is not None:
        raise InputError(f"--context {context}: goes with --window enformer or borzoi; else give --upstream")
    if window is not None and (upstream, downstream) != (2000, 0):
        raise InputError(f"--window {window}: takes the place of --upstream and --downstream; leave these out")
    for flag, value in (("genome", genome), ("genes", genes), ("expression", expression)):
        if value is None and dataset is None:
            raise InputError(f"--{flag} is missing; give its file, or a named data set with --dataset")

    from promoter.dataset import prepare as preparation
    from promoter.dataset.aliases import aliases_of_descriptions, aliases_of_gff, read_chrom_names
    from promoter.dataset.annotation import read_genes, transcript_genes
    from promoter.dataset.expression import read_expression
    from promoter.dataset.genome import Genome
    from promoter.dataset.named import fetch_yeast
    from promoter.dataset.promoters import write_promoters
    from promoter.dataset.samples import read_replicates
    from promoter.dataset.transcripts import read_tx2gene

    if window is not None:
        upstream, downstream = preparation.centred_window(window, context, ARCHITECTURES)
        settings |= {"upstream": upstream, "downstream": downstream}
    del settings["window"], settings["context"]  # the two others hold the same
    preparation.require_window(upstream, downstream)
    preparation.require_max_n(max_n)
    out_dir = storage.require_writable(out)
    with kept_notes() as notes, storage.removed_on_error(out_dir / "source") as source:  # bad input leaves nothing
        if dataset is not None:
            files = fetch_yeast(source, cache, lambda name: console.print(f"downloading {name} …"))
            genome, genes = genome or str(files.genome), genes or str(files.genes)
            expression = expression or str(files.salt_response if dataset == "yeast" else files.levels)
        assert genome and genes and expression  # noqa: S101, PT018 # checked above; for the type checker
        annotation = genes
        storage.require_file(genome, "genome FASTA")
        storage.require_file(genes, "gene annotation")
        table = read_expression(
            expression,
            targets,
            transform=transform,
            gene_column=gene_column,
            missing=missing,
            layout=layout,
            transcripts=lambda: transcript_genes(annotation, attribute),
            tx2gene=None if tx2gene is None else read_tx2gene(tx2gene),
            replicates=None if replicates is None else read_replicates(replicates),
            contrast=contrast,
        )
        fasta = Genome(genome)
        if chrom_names is None:
            names = [*aliases_of_gff(genes), *aliases_of_descriptions(fasta.descriptions())]
        else:
            names = read_chrom_names(chrom_names)
        annotated = read_genes(
            genes,
            attribute,
            feature,
            biotype=biotype,
            transcript=transcript,
            tss=tss,
            gene_map=gene_map,
            chrom_names=names,
            skip_invalid=skip_invalid,
        )
        promoters, summary = preparation.prepare(
            fasta,
            annotated,
            table,
            upstream=upstream,
            downstream=downstream,
            chroms=chroms,
            exclude_chroms=exclude_chroms,
            ignore_version=ignore_version,
            chrom_names=names,
            max_n=max_n,
            allow_loss=allow_loss,
            annotation=str(storage.resolve(genes)),
        )
    read = [
        genome,
        genes,
        *table.files,
        *(path for path in (tx2gene, replicates, tss, gene_map, chrom_names) if path),
    ]
    inputs = {str(storage.resolve(path)): storage.sha256(path) for path in read}
    promoters.metadata.update(transform=transform, sources=inputs)
    (out_dir / "config.yaml").unlink(missing_ok=True)  # of an earlier run: it comes last, to tell a whole output
    path = write_promoters(out_dir, promoters)
    storage.write_json(out_dir / "summary.json", {**asdict(summary), "transform": transform, **_said(notes)})
    write_config(out_dir / "config.yaml", settings, inputs)
    _show(summary, promoters.length, transform)
    console.print(f"{summary.genes_kept:,} promoters of {promoters.length:,} bases in {path}")


def _said(notes: list[InputNote]) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {"assumptions": [], "warnings": []}
    for one in notes:
        said["warnings" if isinstance(one, InputWarning) else "assumptions"].append(with_flags(str(one)))
    return said


def _show(summary: Summary, length: int, transform: str) -> None:
    counts = Table(box=None, pad_edge=False, show_header=False)
    counts.add_column(justify="right")
    counts.add_column()
    counts.add_column(style="dim")
    counts.add_row(f"{summary.genes_kept:,}", "genes kept", "")
    if summary.padded:
        counts.add_row(
            f"{summary.padded:,}", f"of them with N where the {length:,} bases pass a chromosome end", ""
        )
    for reason, count in summary.dropped.items():
        examples = summary.examples.get(reason, [])
        more = [] if len(examples) < 3 or count == 3 else ["…"]
        counts.add_row(f"{count:,}", f"left out: {reason}", ", ".join([*examples, *more]))
    console.print(counts)
    gc = "–" if summary.gc is None else f"{summary.gc:.1%}"
    console.print(f"GC {gc}, N {summary.n:.2%} of all bases")
    if summary.renamed_chromosomes:
        pairs = [f"{name} → {other}" for name, other in summary.renamed_chromosomes.items()]
        console.print(f"chromosome names mapped to the FASTA's: {listed(pairs, 3)}")
    for columns, what in (
        (summary.ignored_columns, "without numbers"),
        (summary.left_out_columns, "that are no targets"),
    ):
        if columns:
            console.print(f"columns {what} passed over: {listed(columns, 5)}")
    columns = ("target", "genes", "missing", "min", "mean", "max", "zeros")
    table = new_table(*columns, right=set(columns[1:]))
    for target in summary.targets[:_MAX_TARGETS_SHOWN]:
        numbers: list[Any] = [target.min, target.mean, target.max]
        shown = ["–" if value is None else f"{value:.4g}" for value in numbers]
        zeros = "–" if target.zeros is None else f"{target.zeros:.1%}"
        table.add_row(target.name, f"{target.n:,}", f"{target.missing:,}", *shown, zeros)
    if len(summary.targets) > _MAX_TARGETS_SHOWN:
        table.caption = f"and {len(summary.targets) - _MAX_TARGETS_SHOWN} more targets, in summary.json"
    console.print(table)
    console.print(f"layout of the table: {summary.layout}; transform: {transform}")
    for condition, replicates in summary.replicates.items():
        spread = "" if replicates.sd is None else f", spread {replicates.sd:.3g} (mean SD)"
        console.print(f"{condition}: mean of {plural(len(replicates.samples), 'sample')}{spread}")


if __name__ == "__main__":
    run(prepare)
