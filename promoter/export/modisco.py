"""Write `ohe.npz` and `shap.npz`, which tf-modisco-lite reads: one-hot and hypothetical contributions.

Both have the shape (genes, 4, length), ACGT, 5'→3' along each gene; `genes.tsv` names the rows. N, padding
included, is zeros in both.
"""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np

from promoter import storage
from promoter.export.writer import Batch, ExportSource, FormatWriter
from promoter.sequence import BASES
from promoter.storage import AnyPath, Outputs

_SEQLET = 30  # bases of a seqlet by modisco's defaults
_MIN_SEQLETS, _MAX_SEQLETS = 100, 1_000_000  # the larger is the -n that chrombpnet advises


class ModiscoWriter(FormatWriter):
    """Write the two arrays as .npz, and the table of genes."""

    files = ("ohe.npz", "shap.npz", "genes.tsv")
    needs_coordinates = False

    def __init__(self, source: ExportSource, outputs: Outputs) -> None:
        super().__init__(source, outputs)
        ohe, shap, names = (source.out_dir / name for name in self.files)
        shape = (len(source.genes), len(BASES), source.length)
        self.ohe_file = outputs.enter_context(_open_npz(outputs.open_atomic(ohe), np.int8, shape))
        self.shap_file = outputs.enter_context(_open_npz(outputs.open_atomic(shap), np.float32, shape))
        names_file = outputs.open_atomic(names)
        source.genes.to_csv(names_file, sep="\t", index=False)

    def add(self, batch: Batch) -> None:
        """Append the batch to both arrays."""
        self.ohe_file.write(batch.one_hot_NAL.tobytes())
        self.shap_file.write(batch.hypothetical_NAL.astype(np.float32, copy=False).tobytes())


def modisco_command(folder: AnyPath, genes: int, length: int) -> str:
    """Return the command line that finds motifs in `ohe.npz` and `shap.npz`.

    modisco's -w takes the middle of the sequences, 400 bases by default, where a promoter's most telling bases are
    at an end; so -w is all of them (all but the last when they are odd in number, which modisco cannot take). Its
    -n keeps so many seqlets, in the order of the genes; here as many as find room, so that the last genes count.

    Args:
        folder: folder that holds the two files.
        genes: number of genes in them.
        length: length of the sequences in bases.
    """
    folder = storage.resolve(folder)
    names = [shlex.quote(str(folder / name)) for name in ("ohe.npz", "shap.npz", "modisco.h5")]
    seqlets = min(max(genes * length // _SEQLET, _MIN_SEQLETS), _MAX_SEQLETS)
    return f"modisco motifs -s {names[0]} -a {names[1]} -n {seqlets} -w {length - length % 2} -o {names[2]}"


@contextmanager
def _open_npz(file: IO[bytes], dtype: type, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """Open an .npz for the bytes of one array, in order: numpy's own writer needs the full array in memory."""
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        yield member
