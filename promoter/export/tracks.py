"""Write `contributions.bw` and `contributions.bedgraph`: the actual contribution of each base of the genome.

N and positions past a chromosome's end are left out. Where promoters overlap, a base shows its contribution to the
gene whose TSS is nearest (of two equally near, the first in the scores). A mean would show it to neither: a motif
near one TSS would be diluted by its contribution, mostly nothing, to a gene whose TSS is far.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from promoter import storage
from promoter.errors import InputError
from promoter.export.bigwig import write_bigwig
from promoter.export.writer import Batch, ExportSource, FormatWriter
from promoter.labels import bed_field
from promoter.storage import Outputs

if TYPE_CHECKING:
    import pandas as pd


class TrackBlock(NamedTuple):
    """A region of a track, covered by one or several overlapping windows: runs of equal values, ascending.

    Attributes:
        chrom: name of the chromosome.
        starts: first position of each run, 0-based.
        ends: position after the last of each run.
        values: value of each run, float32, target units.
    """

    chrom: str
    starts: np.ndarray
    ends: np.ndarray
    values: np.ndarray


class _TrackWriter(FormatWriter):
    """Keep the contributions of all genes on disk until their overlaps can be resolved."""

    uses_tss = True

    def __init__(self, source: ExportSource, outputs: Outputs) -> None:
        super().__init__(source, outputs)
        # on disk: contributions of all genes are a quarter of the scores, and still more than memory may hold
        self.values = outputs.enter_context(storage.temporary_file())

    def add(self, batch: Batch) -> None:
        """Append actual contributions by ascending coordinate, NaN where no base is known."""
        genes, sizes = self.source.genes.iloc[batch.rows], self.source.sizes
        actual_NL = batch.actual_contributions()
        minus = (genes["strand"] == "-").to_numpy()
        actual_NL[minus] = actual_NL[minus, ::-1]
        known_NL = ~np.isnan(actual_NL)
        first = genes["start"].to_numpy(np.int64) + known_NL.argmax(axis=1)
        end = genes["end"].to_numpy(np.int64) - known_NL[:, ::-1].argmax(axis=1)
        limit = genes["chrom"].map(sizes).to_numpy() if sizes else np.full(len(genes), np.iinfo(np.int64).max)
        wrong = np.flatnonzero(known_NL.any(axis=1) & ((first < 0) | (end > limit)))
        if len(wrong):
            row = wrong[0]
            gene, chrom = genes["gene_id"].iloc[row], genes["chrom"].iloc[row]
            raise InputError(
                f"{storage.resolve(self.source.genome or '')}: {chrom} has {limit[row]:,} bases, but {gene} has "
                f"some at {first[row]:,}-{end[row]:,}; give the genome that the data were prepared from"
            )
        self.values.write(actual_NL.astype(np.float32, copy=False).tobytes())

    def track(self) -> Iterator[TrackBlock]:
        """Yield the track of all genes."""
        genes = self.source.genes
        on_genome_NL = np.memmap(self.values, np.float32, "r", shape=(len(genes), self.source.length))
        return genome_track(genes, on_genome_NL, self.source.downstream or 0)


class BigWigWriter(_TrackWriter):
    """Write the track as bigWig."""

    files = ("contributions.bw",)
    needs_sizes = True

    def finish(self) -> None:
        """Resolve overlaps and write the track."""
        path = self.source.out_dir / self.files[0]
        partial = self.outputs.atomic_path(path)
        if not write_bigwig(partial, self.track(), self.source.sizes, path):
            problem = "the sequences hold no known base"
            raise InputError(problem, setting="formats", value="bigwig", fix="choose other genes")


class BedGraphWriter(_TrackWriter):
    """Write the track as bedGraph."""

    files = ("contributions.bedgraph",)

    def finish(self) -> None:
        """Resolve overlaps and write the track."""
        import pyarrow as pa  # noqa: PLC0415 # the command line needs the formats' names, not PyArrow
        import pyarrow.csv  # noqa: PLC0415

        file = self.outputs.open_atomic(self.source.out_dir / self.files[0])
        columns = {"chrom": pa.string(), "start": pa.int64(), "end": pa.int64(), "value": pa.float32()}
        schema = pa.schema(list(columns.items()))
        options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
        with pyarrow.csv.CSVWriter(cast("str", file), schema, write_options=options) as writer:
            for block in self.track():
                chrom = pa.repeat(bed_field(block.chrom), len(block.starts))
                writer.write_batch(pa.record_batch([chrom, *map(pa.array, block[1:])], schema=schema))


def genome_track(genes: pd.DataFrame, on_genome_NL: np.ndarray, downstream: int) -> Iterator[TrackBlock]:
    """Yield a track by chromosome name and coordinate, a region that windows cover at a time.

    Args:
        genes: table of genes with `chrom`, `start`, `end` and `strand`.
        on_genome_NL: values of each gene's window by ascending coordinate, NaN where there is none.
        downstream: number of bases of the windows from the TSS on.
    """
    tss = np.where(genes["strand"] == "+", genes["end"] - downstream, genes["start"] - 1 + downstream)
    for chrom, of_chrom in genes.reset_index(drop=True).groupby("chrom", sort=True):
        ordered = of_chrom.sort_values("start", kind="stable")
        reach = ordered["end"].cummax().shift(fill_value=ordered["start"].iloc[0])
        for _, overlapping in ordered.groupby((ordered["start"] > reach).cumsum()):
            yield _resolve_overlaps(str(chrom), overlapping.sort_index(), on_genome_NL, tss)


def _resolve_overlaps(chrom: str, genes: pd.DataFrame, on_genome_NL: np.ndarray, tss: np.ndarray) -> TrackBlock:
    """Give each base the value of the gene whose TSS is nearest, of equally near ones the first."""
    origin = int(genes["start"].min())
    values = np.full(int(genes["end"].max()) - origin, np.float32("nan"))
    nearest = np.full(len(values), np.iinfo(np.int64).max)
    for row, start, end in zip(genes.index, genes["start"], genes["end"], strict=True):
        window = slice(start - origin, end - origin)
        distance = np.abs(np.arange(start, end) - tss[row])
        take = ~np.isnan(on_genome_NL[row]) & (distance < nearest[window])
        nearest[window][take] = distance[take]
        values[window][take] = on_genome_NL[row][take]
    positions = np.flatnonzero(~np.isnan(values))
    values = values[positions] + np.float32(0)  # -0 would be written so
    begins_run = np.ones(len(positions), bool)
    begins_run[1:] = (np.diff(positions) > 1) | (values[1:] != values[:-1])
    ends_run = np.roll(begins_run, -1)  # the next position begins another run, or there is none
    starts, ends = positions[begins_run] + origin, positions[ends_run] + 1 + origin
    return TrackBlock(chrom, starts, ends, values[begins_run])
