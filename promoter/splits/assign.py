"""Which genes a model is not shown, and what homology tells it of them all the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.splits import homology as leakage
from promoter.splits.split import SPLITS, SplitConfig, assign, split_by_chromosome, split_by_group


@dataclass(frozen=True)
class HeldOut:
    """The split of each gene of a data set.

    Attributes:
        split: `train`, `val`, `test`, or None for a gene left out; object, shape (genes,).
        chroms: split -> its chromosomes; empty where the split is not by chromosome.
        split_of_gene: genes that are not in the split of their chromosome -> chromosome and split.
        leaks: pairs of genes of different splits that share sequence, as listed by
            `promoter.splits.homology.find_leaks`.
        leaking: bool, shape (genes,): held-out genes that share sequence with one that is learned from.
        remarks: what a user should be told.
    """

    split: np.ndarray
    chroms: dict[str, list[str]]
    split_of_gene: dict[str, tuple[str, str | None]]
    leaks: pd.DataFrame
    leaking: np.ndarray
    remarks: list[str] = field(default_factory=list)

    def rows(self, name: str) -> np.ndarray:
        """Return the row numbers of a split's genes."""
        return np.flatnonzero(self.split == name)


def hold_out(promoters: Promoters, config: SplitConfig, related: pd.DataFrame | None = None) -> HeldOut:
    """Split the genes of a data set, and look for homology across the split.

    Args:
        promoters: the data set.
        config: what to hold out, and what becomes of homologous promoters: with `drop`, of each related pair the
            gene that is more learned from (training before validation before test) is left out; with `move`,
            families that the split would part are learned from whole.
        related: what `promoter.splits.homology.related_pairs` returns for these genes, where it is known already.

    Raises:
        InputError: as for `promoter.splits.split_by_chromosome`, or a split is left without genes.
    """
    genes = promoters.genes
    if related is None:
        related = leakage.related_pairs(promoters)
    if config.by_chromosome:
        held_out = of_chromosomes(genes, split_by_chromosome(genes["chrom"], config))
        split, chroms = held_out.split, held_out.chroms
        by_chrom = split
    else:
        alone = np.arange(len(genes))
        groups = leakage.families(related, len(genes)) if config.by == "family" else alone
        split, chroms = split_by_group(groups, config), {name: [] for name in SPLITS}
        by_chrom = np.full(len(genes), "")  # a chromosome tells of no gene
    remarks = []
    if config.random:
        remarks.append(
            "--split.random: relatives and neighbours of held-out genes are learned from, which can inflate r"
        )
    kept_apart = _act(split, related, config.homology)
    if (moved := int((kept_apart != split).sum())) > 0:
        what = "are not learned from" if config.homology == "drop" else "are learned from, and not held out"
        remarks.append(f"--split.homology {config.homology}: {moved:,} genes with related promoters {what}")
    empty = [name for name in SPLITS if not (kept_apart == name).any()]
    if empty:
        raise InputError(
            f"--split.homology {config.homology}: related promoters leave no genes for {' and '.join(empty)}; "
            "choose other chromosomes, or --split.homology report"
        )
    leaks = leakage.find_leaks(related, genes["gene_id"], pd.Series(kept_apart))
    leaking = leakage.leaking_genes(leaks, genes["gene_id"])
    if leaking.any():
        of_split = {name: kept_apart == name for name in ("val", "test")}
        counts = [f"{(leaking & rows).sum():,} of {rows.sum():,} {name}" for name, rows in of_split.items()]
        remarks.append(
            f"{' and '.join(counts)} genes share promoter sequence with genes that are learned from (leakage.csv)"
        )
    ours = zip(genes["gene_id"], genes["chrom"], kept_apart, by_chrom, strict=True)
    differing = {gene: (chrom, name) for gene, chrom, name, usual in ours if name != usual}
    return HeldOut(kept_apart, chroms, differing, leaks, leaking, remarks)


def of_chromosomes(genes: pd.DataFrame, split_of_chrom: dict[str, str]) -> HeldOut:
    """Split genes by their chromosomes, without a look at homology."""
    split = assign(genes["chrom"], split_of_chrom).to_numpy(object)
    chroms = {name: [c for c, assigned in split_of_chrom.items() if assigned == name] for name in SPLITS}
    return HeldOut(split, chroms, {}, pd.DataFrame(), np.zeros(len(genes), bool))


def _act(split: np.ndarray, related: pd.DataFrame, homology: str) -> np.ndarray:
    """Return the split in which no related genes are apart, or the same one with `report`."""
    if homology == "report":
        return split
    split = split.copy()
    if homology == "move":
        family = leakage.families(related, len(split))
        parted = pd.Series(split).groupby(family).transform("nunique") > 1
        split[parted.to_numpy()] = "train"
        return split
    first, second = related["i"].to_numpy(), related["j"].to_numpy()
    rank = np.array([SPLITS.index(name) for name in split])
    split[first[rank[first] < rank[second]]] = None
    split[second[rank[second] < rank[first]]] = None
    return split
