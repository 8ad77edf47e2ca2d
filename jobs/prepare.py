"""Genome, genes and expression in; `promoters.parquet` out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from rich.table import Table

from jobs.cli.config_file import job_settings, write_config
from jobs.cli.console import console
from jobs.cli.run import run
from promoter import storage
from promoter.dataset.config import Missing, Transform
from promoter.errors import InputError
from promoter.models.config import ARCHITECTURES

if TYPE_CHECKING:
    from promoter.dataset.prepare import Summary


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
    gene_column: str | None = None,
    missing: Missing = "error",
    attribute: str | None = None,
    feature: str = "gene",
    ignore_version: bool = False,
    chroms: list[str] | None = None,
    exclude_chroms: list[str] | None = None,
    dataset: Literal["yeast", "yeast_levels"] | None = None,
    cache: str | None = None,
) -> None:
    """Cut the promoter of every gene and join it with the gene's expression.

    Args:
        out: folder to write promoters.parquet, config.yaml and summary.json to.
        genome: FASTA, plain or bgzip.
        genes: BED, GTF or GFF3, plain or gzip.
        expression: table with one row per gene: tab-separated, .csv or .parquet.
        upstream: number of bases before the transcription start site.
        downstream: number of bases from the transcription start site on.
        window: instead of these two: enformer or borzoi, for the window that this network reads, or a number of
            bases; the transcription start site stands in the middle.
        context: number of bases of a --window enformer or borzoi, if fewer than the network was trained on.
        transform: transform of the expression values: none, log1p (natural), log2p1, or cpm_log2p1 for raw
            counts.
        targets: columns of the expression table to predict; by default all numeric ones.
        gene_column: column of the expression table with the gene ids; by default the first.
        missing: what to do about an empty, NaN or infinite value: end with an error, or drop the gene.
        attribute: GTF/GFF3 attribute that holds the gene id; by default gene_id, and for GFF3 also ID or Name.
        feature: GTF/GFF3 feature type that is a gene.
        ignore_version: take ENSG01.5 and ENSG01 for the same gene.
        chroms: keep only genes on these chromosomes.
        exclude_chroms: leave out genes on these chromosomes.
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
    from promoter.dataset.annotation import read_genes
    from promoter.dataset.expression import looks_untransformed, read_expression
    from promoter.dataset.genome import Genome
    from promoter.dataset.named import fetch_yeast
    from promoter.dataset.promoters import write_promoters

    if window is not None:
        upstream, downstream = preparation.centred_window(window, context, ARCHITECTURES)
        settings |= {"upstream": upstream, "downstream": downstream}
    del settings["window"], settings["context"]  # the two others hold the same
    preparation.require_window(upstream, downstream)
    out_dir = storage.require_writable(out)
    with storage.removed_on_error(out_dir / "source") as source:  # bad input leaves nothing behind
        if dataset is not None:
            files = fetch_yeast(source, cache, lambda name: console.print(f"downloading {name} …"))
            genome, genes = genome or str(files.genome), genes or str(files.genes)
            expression = expression or str(files.salt_response if dataset == "yeast" else files.levels)
        assert genome and genes and expression  # noqa: S101, PT018 # checked above; for the type checker
        storage.require_file(genome, "genome FASTA")
        storage.require_file(genes, "gene annotation")
        storage.require_file(expression, "expression table")
        table = read_expression(expression, targets, transform=transform, gene_column=gene_column, missing=missing)
        annotated = read_genes(genes, attribute, feature)
        fasta = Genome(genome)
        promoters, summary = preparation.prepare(
            fasta,
            annotated,
            table,
            upstream=upstream,
            downstream=downstream,
            chroms=chroms,
            exclude_chroms=exclude_chroms,
            ignore_version=ignore_version,
        )
    inputs = {str(storage.resolve(path)): storage.sha256(path) for path in (genome, genes, expression)}
    promoters.metadata.update(transform=transform, sources=inputs)
    (out_dir / "config.yaml").unlink(missing_ok=True)  # of an earlier run: it comes last, to tell a whole output
    path = write_promoters(out_dir, promoters)
    storage.write_json(out_dir / "summary.json", asdict(summary))
    write_config(out_dir / "config.yaml", settings, inputs)
    _show(summary, promoters.length)
    if transform == "none" and looks_untransformed(table.values):
        console.print(
            "note: the values look like TPM or counts, not logarithms; consider --transform log2p1 "
            "(or cpm_log2p1 for raw counts)"
        )
    console.print(f"{summary.genes_kept:,} promoters of {promoters.length:,} bases in {path}")


def _show(summary: Summary, length: int) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim")
    table.add_row(f"{summary.genes_kept:,}", "genes kept", "")
    if summary.padded:
        table.add_row(
            f"{summary.padded:,}", f"of them with N where the {length:,} bases pass a chromosome end", ""
        )
    for reason, count in summary.dropped.items():
        examples = ", ".join(summary.examples.get(reason, []))
        table.add_row(
            f"{count:,}", f"left out: {reason}", f"{examples}, …" if count > 3 and examples else examples
        )
    console.print(table)
    if summary.renamed_chromosomes:
        pairs = [f"{name} → {other}" for name, other in summary.renamed_chromosomes.items()]
        more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
        console.print(f"chromosome names mapped to the FASTA's: {', '.join(pairs[:3])}{more}")
    if summary.ignored_columns:
        console.print(f"columns without numbers passed over: {', '.join(summary.ignored_columns[:5])}")


if __name__ == "__main__":
    run(prepare)
