"""What a scores folder holds, without the scores."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

ISM = "ism"  # method of folders that name none: differences of predictions
_NAMES = {ISM: "ISM", "integrated_gradients": "integrated gradients", "deeplift": "DeepLIFT"}


@dataclass(frozen=True)
class Contents:
    """Describe what a scores folder holds, without the scores.

    Attributes:
        genes: one row per gene, in file order: `gene_id`, `gene_name`, `chrom`, `start`, `end`, `strand`.
        targets: names of the targets.
        length: length of each sequence, in bases.
        downstream: number of bases of each sequence from the TSS on; None if the folder does not say.
        first: position of the first scored base in its sequence, 0-based, where there are no coordinates: 0 unless
            `positions` were scored.
        both_strands: whether the scores are means over both strands.
        method: how the scores were computed: ism, or the method of attribute that estimated them.
    """

    genes: pd.DataFrame
    targets: list[str]
    length: int
    downstream: int | None
    first: int = 0
    both_strands: bool = False
    method: str = ISM

    @property
    def located(self) -> bool:
        """Tell whether the windows lie on a genome; the sequences of a library or a FASTA do not."""
        return not self.genes[["chrom", "start", "strand"]].isna().any(axis=None)

    @property
    def method_name(self) -> str:
        """Return the method's name as people write it."""
        return _NAMES.get(self.method, self.method)

    @property
    def noun(self) -> str:
        """Return what a row is called in messages: gene, or sequence where the windows lie on no genome."""
        return "gene" if self.located else "sequence"
