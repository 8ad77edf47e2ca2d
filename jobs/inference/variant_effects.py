"""Predict what alleles do to some genes as a task of `jobs.variants`, and put the parts together as tables."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import hashlib
import heapq
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from upath import UPath

from jobs.cli.console import console
from jobs.inference.inputs import Inputs
from jobs.inference.scoring import SDS_UNKNOWN
from jobs.ray_runtime.model_cache import loaded_model
from jobs.ray_runtime.part_files import Computed, PartTask
from promoter import storage
from promoter.checkpoint import SerializedModel
from promoter.dataset.aliases import read_chrom_names
from promoter.dataset.gene_names import gene_label
from promoter.dataset.genome import Genome
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.storage.parts import PartFiles, with_gene_names
from promoter.variants.effects import effects_to_table, predict_alleles
from promoter.variants.library import (
    FORMS,
    LIBRARY_REASONS,
    SequenceVariant,
    find_sequence_alleles,
    group_by_sequence,
)
from promoter.variants.vcf import REASONS, VcfRecord, read_records, require_usable
from promoter.variants.windows import (
    GeneVariants,
    TssWindow,
    WindowVariants,
    find_alleles,
    group_by_gene,
    tss_windows,
)

_GENES_PER_PART = 128  # seconds of work on a CPU; never chosen by the cluster, so that any can go on
_VALUES_PER_GENE = 32  # targets times models with which that many fit; of more, parts have fewer genes
_LONG = 1 << 14  # bases of a window that only pretrained networks read: a gene is work enough for a part
_STRONGEST = 5  # effects printed at the end
_MAX_TARGETS_SHOWN = 8  # columns that a terminal has room for; of more targets the one moved most is shown


def require_sources(
    variants: str, *, genome: str | None, chrom_names: str | None, located: bool
) -> dict[str, UPath]:
    """Return the path of each file that variants are read with.

    Args:
        variants: VCF, or table of the variants of sequences without coordinates.
        genome: genome FASTA, which a VCF needs; None for sequences without coordinates.
        chrom_names: table of names of chromosomes; None: none was given.
        located: whether the data lie on a genome.

    Raises:
        InputError: a file is missing, a VCF lacks its genome, or sequences without coordinates were given one.
    """
    if located and genome is None:
        problem = "is missing; the data lie on a genome, and a VCF needs the FASTA that they were prepared from"
        raise InputError(problem, setting="genome")
    for name, value in (("genome", genome), ("chrom_names", chrom_names)):
        if value is not None and not located:
            problem = "the sequences of the data have no coordinates"
            raise InputError(
                problem, setting=name, value=value, fix=f"leave it out; `variants` is a table of {FORMS}"
            )
    whats = {"variants": "VCF" if located else "table of variants"}
    whats |= {"genome": "genome FASTA", "chrom_names": "table of names"}
    given = {"variants": variants, "genome": genome, "chrom_names": chrom_names}
    return {name: storage.require_file(path, whats[name]) for name, path in given.items() if path is not None}


class AlleleSource:
    """Read variants, and rebuild windows with them: from a VCF and a genome, or from a table of a library's."""

    def __init__(self, promoters: Promoters, genome: str | None, chrom_names: str | None) -> None:
        self.promoters = promoters
        self.genome = Genome(genome) if genome else None
        self.chrom_names = read_chrom_names(chrom_names) if chrom_names else None
        self.windows = tss_windows(promoters) if promoters.located else []

    def read(self, source: UPath, rows: np.ndarray, skipped: UPath) -> WindowVariants:
        """Return the alleles that alter the windows of these rows, and write a table of what is left out."""
        chosen = {"rows": rows.tolist()}
        if (genome := self.genome) is None:
            with _table_of_skipped(skipped, ["id", "position"], LIBRARY_REASONS) as skip:
                return find_sequence_alleles(source, self.promoters, **chosen, skip=skip)
        with _table_of_skipped(skipped, ["chrom", "pos"], REASONS) as skip:
            options = {**chosen, "skip": skip, "chrom_names": self.chrom_names}
            alleles = find_alleles(read_records(source), genome, self.promoters, **options)
            require_usable(source, genome.path, alleles.counts)
            return alleles

    def group(self, part: pd.DataFrame) -> list[GeneVariants]:
        """Collect the variants of each gene of a part, with the bases that scoring them needs."""
        if self.genome is None:
            return group_by_sequence(part, self.promoters)
        names = self.chrom_names
        return group_by_gene(part, self.genome, self.promoters, windows=self.windows, chrom_names=names)


@contextlib.contextmanager
def _table_of_skipped(
    path: UPath, coordinates: list[str], reasons: Mapping[str, str]
) -> Iterator[Callable[[VcfRecord | SequenceVariant, str, str], None]]:
    """Write the table of what is left out; yields the function that takes a variant, an ALT and the reason."""
    with storage.open_atomic(path) as file:
        table = csv.writer(codecs.getwriter("utf-8")(file), delimiter="\t", lineterminator="\n")
        table.writerow([*coordinates, "ref", "alt", "reason"])
        yield lambda variant, alt, reason: table.writerow([*variant[:3], alt, reasons[reason]])


def choose_genes_per_part(inputs: Inputs) -> int:
    """Return how many genes have their alleles in a part: of many targets and models fewer, for their memory."""
    if inputs.promoters.length > _LONG:
        return 1
    values = len(inputs.targets) * len(inputs.models)
    return max(1, min(_GENES_PER_PART, _GENES_PER_PART * _VALUES_PER_GENE // values))


def cut_alleles(
    in_windows: WindowVariants, inputs: Inputs, identity: Mapping[str, Any], out_dir: UPath
) -> tuple[list[pd.DataFrame], PartFiles]:
    """Return the alleles of each part, which are those of some genes, and the parts."""
    alleles = []
    if not in_windows.alleles.empty:
        part = in_windows.alleles["gene"].rank(method="dense").astype(int).sub(1) // identity["genes_per_part"]
        alleles = [group for _, group in in_windows.alleles.groupby(part)]
    gene_ids = [inputs.promoters.genes["gene_id"].iloc[group["gene"]].tolist() for group in alleles]
    names = ("format", "model", "data", "genome", "both_strands", "precision")
    shared = {**{name: identity[name] for name in names if name in identity}, "targets": inputs.targets}
    checksums = [hashlib.sha256(group.to_csv(index=False).encode()).hexdigest() for group in alleles]
    metadata = [{**shared, "alleles": checksum} for checksum in checksums]
    return alleles, PartFiles(out_dir, "parts", gene_ids, metadata, identity)


def effect_arguments(
    part: pd.DataFrame, gene_variants: list[GeneVariants], inputs: Inputs, *, both_strands: bool
) -> dict[str, Any]:
    """Return what the task of a part takes, by name: genes, alleles, these rebuilt, outputs, and strands."""
    rows = part["gene"].unique()
    numbers = {row: number for number, row in enumerate(rows)}
    return {
        "genes": inputs.promoters.genes[["gene_id", "gene_name", "chrom"]].iloc[rows],
        "alleles": part.assign(gene=part["gene"].map(numbers)),
        "gene_variants": gene_variants,
        "outputs": inputs.outputs,
        "both_strands": both_strands,
    }


def predict_effects(
    part: PartTask,
    *models: SerializedModel,
    genes: pd.DataFrame,
    alleles: pd.DataFrame,
    gene_variants: list[GeneVariants],
    outputs: list[int] | None,
    both_strands: bool,
) -> Computed:
    """Predict the alleles of some genes in a worker process and write their part."""
    predicted = [
        predict_alleles(
            loaded_model(model),
            gene_variants,
            targets=outputs,
            both_strands=both_strands,
            batch_size=part.batch_size,
            precision=part.metadata["precision"] or "fp32",
        )
        for model in models
    ]
    reference, difference = (np.stack(values) for values in zip(*predicted, strict=True))
    if not np.isfinite(reference + difference).all():
        bad = int(np.flatnonzero(~np.isfinite(reference + difference).all(axis=(0, 2)))[0])
        raise FloatingPointError(f"{part.gene_ids[bad]}: the model's output is not a finite number")
    table = effects_to_table(
        genes,
        alleles,
        targets=part.metadata["targets"],
        reference=reference,
        difference=difference,
        windows=[gene.window for gene in gene_variants],
    )
    return None, {}, storage.write_table(part.path, table, part.metadata)


def combine_parts(
    inputs: Inputs, out_dir: UPath, *, files: list[UPath], in_windows: WindowVariants, windows: list[TssWindow]
) -> list[Mapping[Any, Any]]:
    """Put the parts together, one at a time, and return the strongest effects."""
    targets, sds = inputs.targets, inputs.target_sds or 1
    none = np.zeros((len(inputs.models), 0, len(targets)), np.float32)
    columns = {"targets": targets, "reference": none, "difference": none, "windows": windows}
    schema = effects_to_table(
        inputs.promoters.genes, in_windows.alleles.iloc[:0].astype({"gene": int}), **columns
    ).schema
    strongest: list[Mapping[Any, Any]] = []
    with storage.Outputs() as outputs:
        parquet = out_dir / "variants.parquet"
        table = outputs.enter_context(storage.open_table_writer(parquet, schema, outputs))
        text = outputs.open_atomic(out_dir / "variants.tsv.gz")
        # without name and time, equal runs give equal files
        compressed = outputs.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=text, mtime=0))
        lines = outputs.enter_context(io.TextIOWrapper(compressed, encoding="utf-8", newline=""))
        pd.DataFrame(columns=schema.names).to_csv(lines, sep="\t", index=False, lineterminator="\n")
        for file in files:
            with storage.open_table(file, "part") as part:
                rows = with_gene_names(part.read()).replace_schema_metadata(None)
            if not rows.schema.equals(schema):
                raise InputError(f"{file}: has other columns than effects have; delete it and run again")
            table.write_table(rows)
            frame = rows.to_pandas()
            frame.to_csv(lines, sep="\t", header=False, index=False, float_format="%.7g", lineterminator="\n")
            # targets are compared in standard deviations, since their units differ
            effect = (frame[[f"{target}_difference" for target in targets]].abs() / sds).max(axis=1)
            candidates = frame.assign(_effect=effect).nlargest(_STRONGEST, "_effect").to_dict("records")
            strongest = heapq.nlargest(_STRONGEST, [*strongest, *candidates], key=lambda row: row["_effect"])
    return strongest


def show_effects(counts: dict[str, int], strongest: list[Mapping[Any, Any]], inputs: Inputs) -> None:
    """Print how many variants and alleles there were, and the strongest effects, in standard deviations."""
    located, targets = inputs.promoters.located, inputs.targets
    table = Table("", "", show_header=False, box=None)
    labels = {
        "variants": "variants read",
        "alleles": "alleles",
        "in_windows": "alleles in windows" if located else "alleles used",
        "outside": "alleles in no window" if located else "alleles of other sequences",
        "rows": "effects (allele and gene)" if located else "effects",
        **({"spanning_tss": "of these across the TSS"} if located else {}),
    }
    skipped = {
        reason: f"skipped: {text}"
        for reason, text in (REASONS if located else LIBRARY_REASONS).items()
        if counts[reason]
    }
    for name, label in {**labels, **skipped}.items():
        table.add_row(label, f"{counts[name]:,}")
    console.print(table)
    if not strongest:
        return
    many = len(targets) > _MAX_TARGETS_SHOWN
    values = ("effect", "in SDs", "target") if many else targets
    best = Table("strongest", *(("gene", "to TSS") if located else ("sequence",)), *values, box=None)
    if inputs.target_sds is None and len(targets) > 1:
        console.print(f"strongest effects{SDS_UNKNOWN}", style="dim")
    sds = dict(zip(targets, inputs.target_sds or [1.0] * len(targets), strict=True))
    for row in strongest:
        differences = {target: row[f"{target}_difference"] for target in targets}
        effects = [f"{value:+.3g}" for value in differences.values()]
        if many:
            target = max(targets, key=lambda name: abs(differences[name]) / sds[name])
            effects = [f"{differences[target]:+.3g}", f"{differences[target] / sds[target]:+.2f}", target]
        distance = [f"{row['tss_distance']:+}"] if located else []
        best.add_row(_change(row), gene_label(row["gene_id"], row["gene_name"]), *distance, *effects)
    console.print(best)


def _change(row: Mapping[Any, Any]) -> str:
    """Write an allele in a line: `chr1:7 A>G`, `7 A>G` where there is no chromosome, or the complete sequence."""
    ref, alt = (
        value if not isinstance(value, str) or len(value) <= 12 else f"{value[:9]}..."
        for value in (row["ref"], row["alt"])
    )
    if pd.isna(row["pos"]):
        return alt
    chrom = "" if pd.isna(row["chrom"]) else f"{row['chrom']}:"
    return f"{chrom}{row['pos']:.0f} {ref}>{alt}"
