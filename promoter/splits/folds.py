"""Assign chromosomes to the folds of a cross-validation and to the test set that none of them looks at."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from promoter.splits.config import SplitConfig
from promoter.splits.split import chromosome_folds, split_by_chromosome


@dataclass(frozen=True)
class ChromosomeFolds:
    """The chromosomes of each fold and of the test set.

    Attributes:
        folds: chromosomes that each fold validates on.
        test: chromosomes of the test set.
        train: chromosomes that all folds train on; empty with two folds or more.
    """

    folds: list[list[str]]
    test: list[str]
    train: list[str]

    @property
    def fold_of_chrom(self) -> dict[str, int]:
        """Chromosome -> the fold that validates on it, -1 for none; without the chromosomes of the test set."""
        return {c: i for i, chroms in enumerate(self.folds) for c in chroms} | dict.fromkeys(self.train, -1)

    def split_of_chrom(self, fold: int) -> dict[str, str]:
        """Return chromosome -> `train`, `val` or `test` for one fold, counted from 0."""
        split = dict.fromkeys(self.fold_of_chrom, "train")
        return split | dict.fromkeys(self.folds[fold], "val") | dict.fromkeys(self.test, "test")


def assign_folds(chroms: pd.Series, split: SplitConfig, folds: int) -> ChromosomeFolds:
    """Hold out the test chromosomes, and deal out the others to folds of about as many genes.

    Args:
        chroms: chromosome of each gene.
        split: test chromosomes and, for one fold, validation chromosomes.
        folds: number of folds; 1: one split, as training without folds has it.

    Raises:
        InputError: the chromosomes are not in the data, or fewer than the folds.
    """
    split_of_chrom = split_by_chromosome(chroms, split)
    test = [chrom for chrom, name in split_of_chrom.items() if name == "test"]
    if folds == 1:
        val = [chrom for chrom, name in split_of_chrom.items() if name == "val"]
        return ChromosomeFolds([val], test, [c for c, name in split_of_chrom.items() if name == "train"])
    return ChromosomeFolds(chromosome_folds(chroms[~chroms.isin(test)], folds), test, [])
