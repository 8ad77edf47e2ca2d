"""Define what a format's writer gets and does; each format is a subclass of `FormatWriter` in a module of its own.

Shapes: N genes, A bases (ACGT), L positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from upath import UPath

from promoter.ism.contributions import hypothetical_contributions
from promoter.sequence import N_TOKEN, encode, one_hot
from promoter.storage import AnyPath, Outputs

if TYPE_CHECKING:
    import pandas as pd

    from promoter.ism.store import Scores


@dataclass(frozen=True)
class ExportSource:
    """The genes to export and where their files go.

    Attributes:
        out_dir: folder for the files.
        genes: one row per gene, in the order of the batches: `gene_id`, `gene_name`, `chrom` (spelled as in
            the genome), `start`, `end`, `strand`; these four missing where `located` is false.
        length: length of the sequences in bases.
        downstream: number of bases from the TSS on; None if the scores do not say.
        genome: path that the lengths of the chromosomes were read from; None if none was given.
        sizes: chromosome name -> length in bases; empty if no genome was given.
        located: whether the windows lie on a genome (default); the sequences of a library do not.
        method: name of the method by which the scores were computed (default ISM).
    """

    out_dir: UPath
    genes: pd.DataFrame
    length: int
    downstream: int | None
    genome: AnyPath | None
    sizes: dict[str, int]
    located: bool = True
    method: str = "ISM"


@dataclass(frozen=True)
class Batch:
    """Contributions of some genes, 5'→3' along each.

    Attributes:
        rows: rows of `ExportSource.genes` that the batch holds.
        one_hot_NAL: one-hot sequences, int8, zeros at N.
        hypothetical_NAL: hypothetical contributions, float32, target units, zeros at N.
    """

    rows: slice
    one_hot_NAL: np.ndarray
    hypothetical_NAL: np.ndarray

    @classmethod
    def from_scores(cls, scores: Scores, first_row: int) -> Batch:
        """Compute the contributions of some genes from the scores of one target."""
        tokens_NL = encode(scores.genes["sequence"].tolist())
        known_N1L = (tokens_NL != N_TOKEN)[:, None]
        hypothetical_NAL = np.where(known_N1L, hypothetical_contributions(scores.scores[:, 0]), np.float32(0))
        one_hot_NAL = one_hot(tokens_NL).numpy().astype(np.int8)
        return cls(slice(first_row, first_row + len(tokens_NL)), one_hot_NAL, hypothetical_NAL)

    def actual_contributions(self) -> np.ndarray:
        """Return the contribution of the base at each position, NaN at N, shape (genes, length)."""
        actual_NL = (self.hypothetical_NAL * self.one_hot_NAL).sum(axis=1)
        return np.where(self.one_hot_NAL.any(axis=1), actual_NL, np.float32("nan"))


class FormatWriter(ABC):
    """Write the contributions of all genes in one format, given some genes at a time.

    Every file is opened by `outputs`, so that all files of an export appear at its end, or none.

    Attributes:
        files: names of the files that the format consists of; a writer may write fewer.
        needs_coordinates: whether the genes must have coordinates.
        needs_sizes: whether the lengths of the chromosomes must be known, where the genes have coordinates.
        uses_tss: whether the files depend on the position of the TSS.
        left_out: number of genes that the files leave out, because their windows pass a chromosome's end.
    """

    files: tuple[str, ...]
    needs_coordinates: ClassVar[bool] = True
    needs_sizes: ClassVar[bool] = False
    uses_tss: ClassVar[bool] = False
    left_out: int = 0

    def __init__(self, source: ExportSource, outputs: Outputs) -> None:
        self.source, self.outputs = source, outputs

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Take the next genes."""

    def finish(self) -> None:  # noqa: B027 # formats that write as they go have nothing left to do
        """Write what takes all genes; called once, after the last batch and before any file appears."""
