"""Genome, genes and expression, or a table of sequences and values, in; `promoters.parquet` out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from upath import UPath

from jobs.cli.config_file import job_settings
from jobs.cli.console import console, with_flags
from jobs.cli.data_summary import show_genes, show_library
from jobs.cli.notes import kept_notes
from jobs.cli.outputs import own_folder
from jobs.cli.run import given_settings, run
from promoter import storage
from promoter.dataset.config import Align, Layout, Missing, TranscriptChoice, Transform
from promoter.errors import InputError, InputNote, InputWarning
from promoter.models.config import ARCHITECTURES

if TYPE_CHECKING:
    from promoter.dataset.prepare import Summary
    from promoter.dataset.promoters import Promoters
    from promoter.storage import AnyPath
    from promoter.storage.ownership import Output

# settings of one kind of input -> why they mean nothing for the other
_OF_GENES = {
    **dict.fromkeys(("genome", "genes", "expression", "dataset", "cache"), "--sequences takes the place of genes"),
    **dict.fromkeys(
        ("upstream", "downstream", "window", "context", "transcript", "tss"),
        "the sequences of --sequences are taken as they are",
    ),
    **dict.fromkeys(
        ("layout", "gene_column", "replicates", "contrast", "tx2gene"), "is for tables of --expression"
    ),
    **dict.fromkeys(
        ("attribute", "feature", "biotype", "gene_map", "ignore_version", "skip_invalid"), "is for --genes"
    ),
    **dict.fromkeys(
        ("chrom_names", "chroms", "exclude_chroms"), "the sequences of --sequences lie on no chromosome"
    ),
}
# settings that name inputs, or a folder that holds some
_PATHS = (
    *("genome", "genes", "expression", "tx2gene", "replicates", "tss", "gene_map", "chrom_names"),
    "cache",
)
_OF_SEQUENCES = ("id_column", "sequence_column", "split_column", "group_column", "weight_column", "align")


def prepare(  # noqa: PLR0915 # its imports count as statements
    out: str,
    genome: str | None = None,
    genes: str | None = None,
    expression: str | None = None,
    sequences: str | None = None,
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
    id_column: str | None = None,
    sequence_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    weight_column: str | None = None,
    align: Align | None = None,
    dataset: Literal["yeast", "yeast_levels"] | None = None,
    cache: str | None = None,
    overwrite: bool = False,
) -> None:
    """Make a data set: of the promoters and the expression of genes, or of a table of sequences and values.

    Args:
        out: folder to write promoters.parquet, config.yaml and summary.json to.
        genome: FASTA, plain, gzip or bgzip.
        genes: BED, GTF or GFF3, plain or gzip.
        expression: table with one row per gene, text or .parquet; or a folder, or a pattern in quotes such as
            'quants/*/quant.sf', of files with a sample each.
        sequences: instead of these three: table with a sequence and its measured values in each row, such as an
            MPRA gives, text or .parquet.
        upstream: number of bases before the transcription start site.
        downstream: number of bases from the transcription start site on.
        window: instead of these two: enformer or borzoi, for the window that this network reads, or a number of
            bases; the transcription start site stands in the middle.
        context: number of bases of a --window enformer or borzoi, if fewer than the network was trained on.
        transform: transform of the expression values: none, log1p (natural), log2p1, or cpm_log2p1 for raw
            counts.
        targets: columns or samples of the table to predict; by default those that its layout says, in a plain
            table all numbers but lengths, coordinates, p-values and identifiers; of --sequences neither
            predictions, numbers of barcodes nor amounts of DNA.
        layout: tool that wrote the expression table; by default known by its header or shape.
        gene_column: column of the expression table with the gene ids; by default by its layout, else the first.
        missing: what to do about an empty or NaN value: keep it as missing in this target alone, drop the gene or
            sequence, or end with an error.
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
        max_n: leave out windows or sequences of which more than this share is N; the N of --align do not count.
        allow_loss: go on where more than half of the genes or sequences are left out for one reason.
        id_column: column of --sequences with the ids; by default id, or one with such a name whose cells all
            differ; else they are seq_1, seq_2 and so on. Without a header, columns are named by their number.
        sequence_column: column of --sequences with the sequences; by default sequence, or the only one with bases.
        split_column: column of --sequences with the set of each, train, val or test; by default split if there.
        group_column: column of --sequences with groups that no split divides; by default group if there.
        weight_column: column of --sequences with the weight of each in the loss; by default weight if there.
        align: pad shorter sequences with N, so that they have their end (right), start (left) or middle (center)
            in common; by default sequences of several lengths are refused.
        dataset: name of a public data set to use instead of files: yeast (response to salt) or yeast_levels (TPM
            in eight conditions); files given beside it take the place of its own.
        cache: folder that holds, or will hold, the downloads of --dataset.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced.
    """
    settings = job_settings(prepare, locals())
    _require_one_kind(settings)
    if sequences is not None:
        _prepare_library(settings, overwrite)
        return
    if window is None and context is not None:
        raise InputError(f"--context {context}: goes with --window enformer or borzoi; else give --upstream")
    if window is not None and (upstream, downstream) != (2000, 0):
        raise InputError(f"--window {window}: takes the place of --upstream and --downstream; leave these out")
    for flag, value in (("genome", genome), ("genes", genes), ("expression", expression)):
        if value is None and dataset is None:
            raise InputError(
                f"--{flag} is missing; give its file, or a named data set with --dataset, or --sequences"
            )

    from promoter.dataset import prepare as preparation
    from promoter.dataset.aliases import aliases_of_descriptions, aliases_of_gff, read_chrom_names
    from promoter.dataset.annotation import read_genes, transcript_genes
    from promoter.dataset.expression import read_expression
    from promoter.dataset.genome import Genome
    from promoter.dataset.named import fetch_yeast
    from promoter.dataset.samples import read_replicates
    from promoter.dataset.transcripts import read_tx2gene

    if window is not None:
        upstream, downstream = preparation.centred_window(window, context, ARCHITECTURES)
        settings |= {"upstream": upstream, "downstream": downstream}
    for name in ("window", "context", "sequences", *_OF_SEQUENCES):  # the first two are in upstream and downstream
        del settings[name]
    preparation.require_window(upstream, downstream)
    named = [settings[name] for name in _PATHS if settings[name] and name != "cache"]
    with ExitStack() as stack:
        output = stack.enter_context(
            own_folder("prepare", out, settings, dict.fromkeys(named, ""), paths=_PATHS, overwrite=overwrite)
        )
        notes = stack.enter_context(kept_notes())
        if dataset is not None:
            stack.enter_context(output.nothing_if_refused())
            source = output.path / "source"
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
        others = [path for path in (tx2gene, replicates, tss, gene_map, chrom_names) if path]
        read = [genome, genes, *table.files, *others]
        path = _write(output, promoters, summary, read=read, notes=notes, overwrite=overwrite)
    show_genes(summary, promoters.length, transform)
    console.print(f"{summary.genes_kept:,} promoters of {promoters.length:,} bases in {path}")


def _require_one_kind(settings: Mapping[str, Any]) -> None:
    """Refuse settings that mean nothing for this kind of input: genes on a genome, or a table of sequences.

    A default counts where it is given as a flag; a `--config` file holds defaults that nobody chose.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(prepare).parameters.items()}
    flags = {setting.name for setting in given_settings() if not setting.source}
    is_library = settings["sequences"] is not None
    for name in _OF_GENES if is_library else _OF_SEQUENCES:
        value = settings[name]
        if name in flags or value != defaults[name]:
            reason = f"{_OF_GENES[name]}; leave out one of them" if is_library else "goes with --sequences TABLE"
            raise InputError(with_flags(f"`{name}={value!r}`: {reason}"))


def _prepare_library(settings: Mapping[str, Any], overwrite: bool) -> None:
    from promoter.dataset.library import read_library

    table = settings["sequences"]
    options = {name: settings[name] for name in (*_OF_SEQUENCES, "transform", "missing", "max_n", "allow_loss")}
    used = {name: value for name, value in settings.items() if name not in _OF_GENES}
    owned = own_folder("prepare", settings["out"], used, {table: ""}, paths=["sequences"], overwrite=overwrite)
    with owned as output, kept_notes() as notes:
        promoters, summary = read_library(table, settings["targets"], **options)
        path = _write(output, promoters, summary, read=[table], notes=notes, overwrite=overwrite)
    show_library(summary, settings["transform"])
    console.print(f"{summary.genes_kept:,} sequences of {promoters.length:,} bases in {path}")


def _write(
    output: Output,
    promoters: Promoters,
    summary: Summary,
    *,
    read: Sequence[AnyPath],
    notes: Sequence[InputNote],
    overwrite: bool,
) -> UPath:
    """Write the data set and its summary; return the path of the data set."""
    from promoter.dataset.promoters import write_promoters

    inputs = {str(storage.resolve(path)): storage.sha256(path) for path in read}
    transform = output.run.record.settings["transform"]
    promoters.metadata.update(transform=transform, sources=inputs)
    output.begin(inputs, overwrite=overwrite)
    path = write_promoters(output.path, promoters)
    said: dict[str, list[str]] = {"assumptions": [], "warnings": []}
    for one in notes:
        said["warnings" if isinstance(one, InputWarning) else "assumptions"].append(with_flags(str(one)))
    storage.write_json(output.path / "summary.json", {**asdict(summary), "transform": transform, **said})
    output.finish()
    return path


if __name__ == "__main__":
    run(prepare)
