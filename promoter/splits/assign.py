"""Assign genes to train, validation and test sets, and find homologs that cross the split."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.splits import homology
from promoter.splits.config import SPLITS, SplitConfig
from promoter.splits.split import assign, split_by_chromosome, split_by_group


@dataclass(frozen=True)
class SplitAssignment:
    """Hold the split of each gene of a data set, and what homology says about it.

    Attributes:
        split: `train`, `val`, `test`, or None for a gene left out; object, shape (genes,).
        chroms: split -> its chromosomes; empty lists unless the split is by chromosome.
        split_of_gene: gene id -> (chromosome, split), for genes that are not in the split of their chromosome.
        leaks: pairs of genes of different splits that share sequence, as `promoter.splits.homology.find_leaks`
            lists them.
        leaking: bool, shape (genes,): whether a gene is held out and shares sequence with a training gene.
        remarks: messages for the user.
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


def assign_splits(
    promoters: Promoters, config: SplitConfig, related: pd.DataFrame | None = None
) -> SplitAssignment:
    """Split the genes of a data set, and find homologs that cross the split.

    With `homology` `drop`, the gene of each related pair that is closer to training (train before val before test)
    is left out; with `move`, a homology group that the split would divide is put into the training set.

    Args:
        promoters: the data set.
        config: the genes to hold out, and what to do about their homologs.
        related: pairs of related genes, as returned by `promoter.splits.homology.find_related_promoters`; None
            (default) computes them.

    Raises:
        InputError: as for `promoter.splits.split_by_chromosome`, or a split is left without genes.
    """
    genes = promoters.genes
    if related is None:
        related = homology.find_related_promoters(promoters)
    if config.by_chromosome:
        by_chromosome = assign_by_chromosome(genes, split_by_chromosome(genes["chrom"], config))
        split, chroms = by_chromosome.split, by_chromosome.chroms
        implied_by_chrom = split
    else:
        single = np.arange(len(genes))
        groups = homology.homology_groups(related, len(genes)) if config.by == "family" else single
        split, chroms = split_by_group(groups, config), {name: [] for name in SPLITS}
        implied_by_chrom = np.full(len(genes), "")  # a chromosome implies no gene's split
    remarks = []
    if config.random:
        remarks.append(
            "`SplitConfig.random`: homologs and neighbours of held-out genes are in training, which can inflate r"
        )
    final = apply_homology_policy(split, related, config.homology)
    if (changed := int((final != split).sum())) > 0:
        what = "are left out" if config.homology == "drop" else "are in the training set, and not held out"
        setting = f"`SplitConfig.homology={config.homology!r}`"
        remarks.append(f"{setting}: {changed:,} genes with related promoters {what}")
    empty = [name for name in SPLITS if not (final == name).any()]
    if empty:
        raise InputError(
            f"related promoters leave no genes for {' and '.join(empty)}",
            setting="SplitConfig.homology",
            value=config.homology,
            fix="choose other chromosomes, or `SplitConfig.homology='report'`",
        )
    leaks = homology.find_leaks(related, genes["gene_id"], pd.Series(final))
    leaking = homology.leaking_genes(leaks, genes["gene_id"])
    if leaking.any():
        of_split = {name: final == name for name in ("val", "test")}
        counts = [f"{(leaking & rows).sum():,} of {rows.sum():,} {name}" for name, rows in of_split.items()]
        remarks.append(
            f"{' and '.join(counts)} genes share promoter sequence with genes in the training set (leakage.csv)"
        )
    assigned = zip(genes["gene_id"], genes["chrom"], final, implied_by_chrom, strict=True)
    differing = {gene: (chrom, name) for gene, chrom, name, implied in assigned if name != implied}
    return SplitAssignment(final, chroms, differing, leaks, leaking, remarks)


def assign_by_chromosome(genes: pd.DataFrame, split_of_chrom: dict[str, str]) -> SplitAssignment:
    """Split genes by their chromosomes, without looking for homologs.

    Args:
        genes: table with the column `chrom`.
        split_of_chrom: chromosome -> split.
    """
    split = assign(genes["chrom"], split_of_chrom).to_numpy(object)
    chroms = {name: [c for c, assigned in split_of_chrom.items() if assigned == name] for name in SPLITS}
    return SplitAssignment(split, chroms, {}, pd.DataFrame(), np.zeros(len(genes), bool))


def apply_homology_policy(split: np.ndarray, related: pd.DataFrame, policy: str) -> np.ndarray:
    """Change a split so that no related genes are in different sets.

    Args:
        split: split of each gene: object, shape (genes,).
        related: pairs of related genes, as `promoter.splits.homology.find_related_promoters` returns them.
        policy: `report` changes nothing; `drop` leaves out the gene of a pair that is closer to training; `move`
            puts each divided homology group into the training set.

    Returns:
        The split of each gene, None for a gene left out.
    """
    if policy == "report":
        return split
    split = split.copy()
    if policy == "move":
        group = homology.homology_groups(related, len(split))
        divided = pd.Series(split).groupby(group).transform("nunique") > 1
        split[divided.to_numpy()] = "train"
        return split
    first, second = related["i"].to_numpy(), related["j"].to_numpy()
    rank = np.array([SPLITS.index(name) for name in split])
    split[first[rank[first] < rank[second]]] = None
    split[second[rank[second] < rank[first]]] = None
    return split
