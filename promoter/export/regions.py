"""Write `regions.bed`: the regions of each gene whose bases have high contributions.

Regions are found for each gene by itself, so that those of neighbours may overlap: windows of 7 known bases whose
mean absolute actual contribution is above the 95% quantile of the gene's, merged. Score: the region's mean
absolute contribution, 1000 for the largest of all genes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from promoter.dataset.gene_names import bed_names
from promoter.export.writer import Batch, ExportSource, FormatWriter
from promoter.labels import bed_field
from promoter.storage import Outputs

_WINDOW, _QUANTILE = 7, 0.95  # bases, about a motif's core; a gene of 2,000 bases has some ten such regions


class BedWriter(FormatWriter):
    """Collect the regions of all genes and write them as BED6, in the order of the genome."""

    files = ("regions.bed",)

    def __init__(self, source: ExportSource, outputs: Outputs) -> None:
        super().__init__(source, outputs)
        self.regions: list[tuple[Any, ...]] = []

    def add(self, batch: Batch) -> None:
        """Find the regions of the batch's genes: chrom, start, end, name, score (mean |contribution|), strand."""
        actual_NL = np.abs(batch.actual_contributions())
        if actual_NL.shape[1] < _WINDOW:
            return
        # each window by itself, since running sums would leave traces of rounding; NaN where a base is not known
        means_NW = np.lib.stride_tricks.sliding_window_view(actual_NL, _WINDOW, axis=1).mean(axis=-1)
        genes = self.source.genes.iloc[batch.rows]
        columns = [genes["chrom"].map(bed_field), genes["start"], genes["end"], bed_names(genes), genes["strand"]]
        for chrom, start, end, name, strand, actual, means in zip(*columns, actual_NL, means_NW, strict=True):
            known = means[~np.isnan(means)]
            high = means > (np.quantile(known, _QUANTILE) if len(known) else 0)
            covered = np.convolve(high, np.ones(_WINDOW)) > 0
            borders = np.flatnonzero(np.diff(covered, prepend=False, append=False))
            for first, last in borders.reshape(-1, 2).tolist():
                interval = (start + first, start + last) if strand == "+" else (end - last, end - first)
                self.regions.append((chrom, *interval, name, float(actual[first:last].mean()), strand))

    def finish(self) -> None:
        """Write the regions; their scores are relative to the largest of all."""
        import pandas as pd  # noqa: PLC0415 # the command line needs the formats' names, not pandas

        regions = pd.DataFrame(self.regions, columns=["chrom", "start", "end", "name", "score", "strand"])
        largest = regions["score"].max() if len(regions) else 0
        regions["score"] = (1000 * regions["score"] / (largest or 1)).round().astype(int)
        file = self.outputs.open_atomic(self.source.out_dir / self.files[0])
        regions.sort_values(["chrom", "start", "end"], kind="stable").to_csv(
            file, sep="\t", header=False, index=False, quoting=3
        )
