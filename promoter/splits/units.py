"""Find the units of a data set that a split never divides: chromosomes, blocks, homology groups, given groups."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from promoter.dataset.promoters import Promoters
from promoter.errors import InputError, note
from promoter.splits import homology
from promoter.splits.config import By, SplitConfig
from promoter.splits.split import deal, require_units

NOUNS: dict[str, str] = {
    "chromosome": "chromosome",
    "family": "homology group",
    "block": "block",
    "group": "group",
}

_DEPENDENT = 0.5  # share of a window in an overlap from which two genes are resampled together
_COLUMNS = {"column": "split", "group": "group"}
_WHY = {
    "column": "the table has a column split",
    "group": "the table has a column group, and no column split",
    "family": "the table has neither a column split nor a column group; similar sequences stay together",
}


@dataclass(frozen=True)
class Units:
    """The units of a data set.

    Attributes:
        by: what the units are, as `SplitConfig.by` names it.
        of_gene: number of each gene's unit, from 0: int, shape (genes,).
        noun: name of one unit, for messages.
        names: name of each chromosome; empty for other units.
    """

    by: By
    of_gene: np.ndarray
    noun: str
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of units."""
        return int(self.of_gene.max(initial=-1)) + 1

    def deal(self, folds: int, seed: int) -> np.ndarray:
        """Deal out the units to folds of about as many genes.

        Args:
            folds: number of folds.
            seed: random seed, which chromosomes do not need.

        Returns:
            The fold of each gene, from 0: int, shape (genes,).

        Raises:
            InputError: there are fewer units than folds.
        """
        require_units(len(self), folds, self.noun)
        return deal(np.bincount(self.of_gene), folds, None if self.by == "chromosome" else seed)[self.of_gene]

    def take(self, genes: np.ndarray) -> Units:
        """Return the units of some genes, numbered anew in the same order, without names.

        Args:
            genes: bool, shape (genes,).
        """
        return replace(self, of_gene=np.unique(self.of_gene[genes], return_inverse=True)[1], names=[])


def choose_unit(config: SplitConfig, promoters: Promoters) -> SplitConfig:
    """Return the config with the unit that the data set is split by, where it is not given.

    Raises:
        InputError: the data set lacks what the unit is made of.
    """
    genes, noun = promoters.genes, promoters.noun
    has = {name: name in genes and bool(genes[name].notna().any()) for name in ("chrom", "split", "group")}
    if config.random:
        return replace(config, by="random", random=False)
    if config.by is None:
        by: By = "chromosome"
        if not has["chrom"] and config.val is None and config.test is None:
            by = "column" if has["split"] and config.fold is None else "group" if has["group"] else "family"
            note(f"split by {by}, as `SplitConfig.by={by!r}` does: {_WHY[by]}")
        config = replace(config, by=by)
    needed = {"chromosome": "chrom", "block": "chrom", "column": "split", "group": "group"}.get(str(config.by))
    if needed and not has[needed]:
        others = [by for by in ("column", "group", "family") if by == "family" or has[_COLUMNS[by]]]
        fix = f"give {' or '.join(f'`SplitConfig.by={by!r}`' for by in others)}"
        raise InputError(
            f"the {noun}s lie on no chromosome" if needed == "chrom" else f"the data has no column {needed}",
            setting="SplitConfig.by",
            value=config.by,
            fix=fix + ("" if needed == "chrom" else f", or prepare a table with it (`{needed}_column`)"),
        )
    return config


def find_units(promoters: Promoters, config: SplitConfig, related: Callable[[], pd.DataFrame]) -> Units:
    """Number the units of a data set.

    Args:
        promoters: the data set.
        config: config with a unit, as `choose_unit` returns it.
        related: function that returns the pairs of related genes, as
            `promoter.splits.homology.find_related_promoters` does; called only for families.

    Raises:
        InputError: blocks shorter than a window.
    """
    by = config.by or "chromosome"
    genes, everyone = promoters.genes, np.arange(len(promoters))
    if by == "column":  # the sets are given; what they leave to draw is drawn by these
        by = "group" if "group" in genes and genes["group"].notna().any() else "family"
    noun = NOUNS.get(by, promoters.noun)
    if by == "chromosome":
        of_gene, names = pd.factorize(genes["chrom"])
        return Units(by, of_gene, noun, [str(name) for name in names])
    if by == "block":
        if config.block_size < promoters.length:
            raise InputError(
                f"is less than the {promoters.length:,} bases of a window, so no gene would lie far enough from a "
                "border to learn from",
                setting="SplitConfig.block_size",
                value=config.block_size,
            )
        first = (genes["tss"] // config.block_size * config.block_size).astype("int64")
        return Units(by, pd.factorize(genes["chrom"].astype(str) + ":" + first.astype(str))[0], noun)
    if by == "group":
        of_gene, names = pd.factorize(genes["group"])
        alone = np.flatnonzero(of_gene < 0)
        if len(alone):
            note(f"{len(alone):,} {promoters.noun}s without a group: each is a group of its own")
            of_gene = of_gene.copy()
            of_gene[alone] = len(names) + np.arange(len(alone))
        return Units(by, of_gene, noun)
    return Units(by, homology.homology_groups(related(), len(genes)) if by == "family" else everyone, noun)


def resampling_groups(units: Units, pairs: Callable[[], pd.DataFrame], split: ArrayLike) -> np.ndarray:
    """Group genes that are not independent of one another, for the bootstrap to draw whole.

    Args:
        units: what the split never divides. Families, given groups and blocks are the groups, as are the genes of
            a random split. A genome has too few chromosomes: there the groups are homologs in the same set, and
            genes whose windows share at least half of their bases.
        pairs: function that returns the pairs of related genes, called only for chromosomes.
        split: set of each gene; genes of different sets are in different groups.

    Returns:
        The group of each gene: int, shape (genes,).
    """
    if units.by != "chromosome":
        return units.of_gene
    related, sets = pairs(), pd.factorize(np.asarray(split, dtype=object))[0]
    same = sets[related["i"]] == sets[related["j"]]
    close = (related["kind"] != "overlapping") | (related["fraction"] >= _DEPENDENT)
    return homology.homology_groups(related[same & close], len(sets))


def find_groups(
    promoters: Promoters, config: SplitConfig, split: ArrayLike, crop: int | None = None
) -> np.ndarray:
    """Return the resampling groups of any data set, by the unit of the split that a model was trained with.

    Args:
        promoters: the data set.
        config: unit of the split; by families if the data lacks what it is made of.
        split: set of each gene, as for `resampling_groups`.
        crop: number of bases at the end of the windows that the model sees; None (default): all.
    """
    needed = {"chromosome": "chrom", "block": "chrom", "group": "group"}.get(config.by or "chromosome")
    if needed and not (needed in promoters.genes and promoters.genes[needed].notna().any()):
        config = replace(config, by="family")
    find = homology.find_once(promoters)
    units = find_units(promoters, config, functools.partial(find, None))
    return resampling_groups(units, functools.partial(find, crop), split)


def near_border(promoters: Promoters, held_out: np.ndarray, block_size: int) -> np.ndarray:
    """Return which genes lie within a window's length of a block with held-out genes.

    The window of a held-out gene begins in its block and reaches at most its length beyond. So no window that is
    farther from the block than that shares a base with it.

    Args:
        promoters: the data set.
        held_out: bool, shape (genes,): the held-out genes.
        block_size: number of bases of a block.

    Returns:
        bool, shape (genes,); True for held-out genes too.
    """
    genes = promoters.genes
    blocks = set(zip(genes["chrom"][held_out], genes["tss"][held_out] // block_size, strict=True))
    first = (genes["start"] - promoters.length) // block_size
    last = (genes["end"] - 1 + promoters.length) // block_size
    return np.array(
        [
            any((chrom, block) in blocks for block in range(low, high + 1))
            for chrom, low, high in zip(genes["chrom"], first, last, strict=True)
        ],
        dtype=bool,
    )
