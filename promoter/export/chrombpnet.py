"""Write `contributions.h5` and its regions as chrombpnet's tools write and read them.

`raw/seq` (one-hot), `shap/seq` (hypothetical) and `projected_shap/seq` (actual), (genes, 4, length), on the
forward strand, so that rows can be placed by `contributions.h5.regions.bed` (narrowPeak; the window's middle is
start + summit). Windows that pass a chromosome's end are left out, as chrombpnet leaves them out. The sequences of
a library, which lie on no genome, are written as they are, with their ids and without regions.
"""

from __future__ import annotations

import h5py
import numpy as np

from promoter.dataset.gene_names import bed_names
from promoter.errors import InputError
from promoter.export.writer import Batch, ExportSource, FormatWriter
from promoter.labels import bed_field
from promoter.sequence import BASES, reverse_complement
from promoter.storage import Outputs

_CHUNK = 16  # genes that are compressed together


class H5Writer(FormatWriter):
    """Write the HDF5 file and the narrowPeak file beside it."""

    files = ("contributions.h5", "contributions.h5.regions.bed")
    needs_coordinates = False
    needs_sizes = True

    def __init__(self, source: ExportSource, outputs: Outputs) -> None:
        super().__init__(source, outputs)
        genes = source.genes
        self.inside = np.ones(len(genes), bool)
        if source.located:
            self.inside = ((genes["start"] >= 0) & (genes["end"] <= genes["chrom"].map(source.sizes))).to_numpy()
        else:
            self.files = self.files[:1]
        self.left_out = int((~self.inside).sum())
        self.kept = genes[self.inside]
        self.done = 0
        if not len(self.kept):
            problem = "every window passes a chromosome's end"
            raise InputError(problem, setting="formats", value="h5", fix="choose other formats")
        # h5py ends the process if a write fails
        self.output = outputs.open_atomic(source.out_dir / self.files[0], late_errors=True)
        file = outputs.enter_context(h5py.File(self.output, "w"))
        shape = (len(self.kept), len(BASES), source.length)
        chunk = (min(_CHUNK, len(self.kept)), *shape[1:])
        # gzip, since blosc, which chrombpnet takes, needs a plug-in to be read
        self.raw, self.shap, self.projected = (
            file.create_dataset(f"{group}/seq", shape, dtype, chunks=chunk, compression="gzip", compression_opts=1)
            for group, dtype in (("raw", np.int8), ("shap", np.float32), ("projected_shap", np.float32))
        )
        strand = "; forward strand" if source.located else ""
        file.attrs["meaning"] = (
            f"shap: hypothetical contributions (scores by {source.method} minus their mean over the bases), "
            f"projected_shap: actual ones (times one-hot){strand}, (genes, ACGT, position)"
        )
        texts = {"coords_chrom": "chrom", "coords_strand": "strand"} if source.located else {}
        for key, column in {**texts, "gene_id": "gene_id"}.items():
            values = [text.replace("\0", "%00") for text in self.kept[column]]  # which HDF5's texts cannot hold
            file.create_dataset(key, data=values, dtype=h5py.string_dtype())
        for key, column in {"coords_start": "start", "coords_end": "end"}.items() if source.located else ():
            file.create_dataset(key, data=self.kept[column].to_numpy(np.int64))

    def add(self, batch: Batch) -> None:
        """Write the batch's genes that lie within their chromosomes, turned to the forward strand."""
        if (error := getattr(self.output, "error", None)) is not None:  # the disk is full: add no more
            raise error
        keep = self.inside[batch.rows]
        minus_N11 = (self.source.genes["strand"].iloc[batch.rows][keep] == "-").to_numpy()[:, None, None]
        ones_NAL, shap_NAL = (
            np.where(minus_N11, reverse_complement(x_NAL[keep].astype(np.float32)), x_NAL[keep])
            for x_NAL in (batch.one_hot_NAL, batch.hypothetical_NAL)
        )
        rows = slice(self.done, self.done + len(ones_NAL))
        self.raw[rows], self.shap[rows], self.projected[rows] = ones_NAL, shap_NAL, shap_NAL * ones_NAL
        self.done = rows.stop

    def finish(self) -> None:
        """Write the regions, if the genes have any."""
        if not self.source.located:
            return
        peaks = self.kept[["chrom", "start", "end"]].assign(name=bed_names(self.kept), score=0)
        peaks["chrom"] = peaks["chrom"].map(bed_field)
        summit = self.source.length // 2
        peaks = peaks.assign(strand=self.kept["strand"], signal=0, p=-1, q=-1, summit=summit)
        text = self.outputs.open_atomic(self.source.out_dir / self.files[1])
        peaks.to_csv(text, sep="\t", header=False, index=False, quoting=3)
