"""Which genes are held out: whole chromosomes, since neighbours share sequence; else families, or any genes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd

from promoter.dataset.genome import match_chromosomes
from promoter.errors import InputError

SPLITS = ("train", "val", "test")
_EXHAUSTIVE = 10  # up to this many chromosomes all 3^n assignments are tried


@dataclass(frozen=True)
class SplitConfig:
    """Which genes are held out.

    Args:
        val: chromosomes of the validation set; chosen by gene count when left out.
        test: chromosomes of the test set; chosen by gene count when left out.
        val_fraction: share of all genes to validate on, where `val` is left out.
        test_fraction: share of all genes to test on, where `test` is left out.
        by: what is held out whole: a chromosome, or a family of genes with homologous or overlapping promoters.
        homology: what becomes of held-out genes whose promoter is homologous to one that is learned from: they are
            counted (report), their relatives are not learned from (drop), or they are learned from too (move).
        random: hold out any genes; only to show how much a split inflates that ignores what genes share.
        seed: of the choice where families or any genes are held out.
    """

    val: list[str] | None = None
    test: list[str] | None = None
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    by: Literal["chromosome", "family"] = "chromosome"
    homology: Literal["report", "drop", "move"] = "report"
    random: bool = False
    seed: int = 0

    @property
    def by_chromosome(self) -> bool:
        """Whether chromosomes are what is held out."""
        return self.by == "chromosome" and not self.random

    def __post_init__(self) -> None:
        """Refuse impossible fractions, and settings that exclude each other."""
        if self.random and self.by == "family":
            raise InputError("--split.random and --split.by family exclude each other; give one of them")
        for name in ("val", "test"):
            if getattr(self, name) is not None and not self.by_chromosome:
                other = "--split.random" if self.random else "--split.by family"
                raise InputError(
                    f"--split.{name}: {other} does not hold out chromosomes; give --split.{name}_fraction instead"
                )
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"--split.{name} {getattr(self, name)}: must lie between 0 and 1")
        if self.val_fraction + self.test_fraction >= 1:
            raise InputError(
                f"--split.val_fraction {self.val_fraction} and --split.test_fraction {self.test_fraction} "
                "leave nothing to train on; lower them"
            )


def split_by_chromosome(chroms: pd.Series, config: SplitConfig) -> dict[str, str]:
    """Assign each chromosome to `train`, `val` or `test`.

    Sets that the config does not give are chosen to come closest, by genes, to its fractions;
    equal genes give equal splits.

    Args:
        chroms: the chromosome of each gene.
        config: chromosomes given, or fractions.

    Returns:
        Chromosome -> split, in order of first appearance.

    Raises:
        InputError: an unknown chromosome, one in two sets, or an empty set.
    """
    counts = {str(name): int(n) for name, n in chroms.value_counts(sort=False).items()}
    order = [str(name) for name in chroms.drop_duplicates()]
    given = {name: _known(name, getattr(config, name), order) for name in ("val", "test")}
    both = sorted(set(given["val"] or ()) & set(given["test"] or ()))
    if both:
        raise InputError(f"--split.val and --split.test both hold {both}; a chromosome belongs to one of them")
    targets = {"val": config.val_fraction * len(chroms), "test": config.test_fraction * len(chroms)}
    fixed = {chrom: name for name, chosen in given.items() for chrom in chosen or ()}
    free = [chrom for chrom in order if chrom not in fixed]
    wanted = {name: targets[name] for name, chosen in given.items() if chosen is None}
    if len(free) < len(wanted) + 1:
        raise InputError(
            f"{len(order)} chromosomes ({', '.join(order[:5])}) cannot be split into train, val and test: "
            "leave at least one chromosome for each"
        )
    fixed |= _choose(free, counts, wanted)
    return {chrom: fixed.get(chrom, "train") for chrom in order}


def split_by_group(group_of_gene: np.ndarray, config: SplitConfig) -> np.ndarray:
    """Deal whole groups of genes out to `train`, `val` and `test`, in random order.

    A group goes to the held-out set that lacks most, if that has room for it, else to training; so the sets come
    within a group of their fractions, and a group larger than them is learned from.

    Args:
        group_of_gene: int, shape (genes,); a gene of its own group is dealt out alone.
        config: fractions and seed.

    Returns:
        The split of each gene, strings of shape (genes,).

    Raises:
        InputError: a set without genes.
    """
    groups, index = np.unique(group_of_gene, return_inverse=True)
    sizes = np.bincount(index)
    room = {"val": config.val_fraction * len(index), "test": config.test_fraction * len(index)}
    split_of_group = np.full(len(groups), "train", dtype=object)
    for group in np.random.default_rng(config.seed).permutation(len(groups)):
        name = max(room, key=lambda one: room[one])
        if sizes[group] <= room[name] + 0.5:
            split_of_group[group] = name
            room[name] -= int(sizes[group])
    split = split_of_group[index]
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise InputError(
            f"{len(groups)} families of {len(index)} genes leave none for {' and '.join(empty)}; "
            "raise --split.val_fraction and --split.test_fraction, or take more genes"
        )
    return split


def assign(chroms: pd.Series, split_of_chrom: Mapping[str, str]) -> pd.Series:
    """Return the split of each gene; chromosomes are matched across spellings, unknown ones get none."""
    matched = match_chromosomes(chroms.dropna().unique(), split_of_chrom)
    return chroms.map({chrom: split_of_chrom[known] for chrom, known in matched.items()})


def chromosome_folds(chroms: pd.Series, folds: int) -> list[list[str]]:
    """Deal whole chromosomes out to folds of about as many genes each; equal genes give equal folds.

    The largest chromosome that is left goes to the fold with the fewest genes, which comes within a third of the
    fairest deal (Graham 1969), and for genomes far nearer.

    Args:
        chroms: the chromosome of each gene.
        folds: how many.

    Returns:
        The chromosomes of each fold, in order of first appearance.

    Raises:
        InputError: fewer chromosomes than folds.
    """
    order = [str(name) for name in chroms.drop_duplicates()]
    if len(order) < folds:
        raise InputError(
            f"--folds {folds}: the genes that are not for testing lie on {len(order)} chromosomes "
            f"({', '.join(order[:5])}); give at most {len(order)} folds"
        )
    counts = chroms.value_counts()
    dealt: list[list[str]] = [[] for _ in range(folds)]
    genes = [0] * folds
    for chrom in sorted(order, key=lambda name: -int(counts[name])):
        fold = genes.index(min(genes))
        dealt[fold].append(chrom)
        genes[fold] += int(counts[chrom])
    return [sorted(names, key=order.index) for names in dealt]


def _known(name: str, chosen: Sequence[str] | None, available: Iterable[str]) -> list[str] | None:
    if chosen is None:
        return None
    if not chosen:
        raise InputError(f"--split.{name} is empty; name at least one chromosome, or leave it out")
    available = list(available)
    matched = match_chromosomes(chosen, available)
    unknown = [chrom for chrom in chosen if chrom not in matched]
    if unknown:
        raise InputError(
            f"--split.{name} {', '.join(unknown)}: no gene lies on it; "
            f"the data has {', '.join(available[:30])}{' …' if len(available) > 30 else ''}"
        )
    return list(dict.fromkeys(matched[chrom] for chrom in chosen))


def _choose(free: Sequence[str], counts: Mapping[str, int], wanted: Mapping[str, float]) -> dict[str, str]:
    """Choose chromosomes for each wanted set, none empty, at least one left to train on."""
    if not wanted:
        return {}
    if len(free) <= _EXHAUSTIVE:
        return _choose_exhaustively(free, counts, wanted)
    chosen: dict[str, str] = {}
    for name, target in wanted.items():
        rest = [chrom for chrom in free if chrom not in chosen]
        spare = len(wanted) - 1 - list(wanted).index(name) + 1  # sets still to fill, and training
        for chrom in _closest_subset([counts[c] for c in rest], target, len(rest) - spare):
            chosen[rest[chrom]] = name
    return chosen


def _choose_exhaustively(
    free: Sequence[str], counts: Mapping[str, int], wanted: Mapping[str, float]
) -> dict[str, str]:
    sizes = np.array([counts[chrom] for chrom in free])
    names = ["train", *wanted]
    labels = np.array(list(product(range(len(names)), repeat=len(free))), dtype=np.int8)
    filled = np.all([(labels == i).any(axis=1) for i in range(len(names))], axis=0)
    labels = labels[filled]
    off = sum(abs((labels == i) @ sizes - wanted[name]) for i, name in enumerate(names) if i)
    best = labels[np.lexsort(((labels > 0).sum(axis=1), off))[0]]
    return {chrom: names[label] for chrom, label in zip(free, best, strict=True) if label}


def _closest_subset(sizes: Sequence[int], target: float, most: int) -> list[int]:
    """Return indices of the non-empty subset whose sum is closest to `target` (subset-sum by dynamic programming).

    Of equal sums the one with fewer members is kept; `most` bounds the members.
    """
    limit = int(2 * target) + 1
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    above = most + 1
    members = np.full(limit + 1, above)  # fewest for each sum
    members[0] = 0
    taken = np.zeros((len(sizes), limit + 1), dtype=bool)  # whether that one brought its sum's subset about
    for row, index in enumerate(order):
        size = sizes[index]
        if size <= limit:
            grown = members[: limit + 1 - size] + 1
            taken[row, size:] = (grown < members[size:]) & (grown <= most)
            members[size:] = np.where(taken[row, size:], grown, members[size:])
    sums = [total for total in range(1, limit + 1) if members[total] < above]
    sums += [size for size in sizes if size > limit]  # one alone may pass the limit, so that none stays empty
    best = min(sums, key=lambda total: (abs(total - target), total))
    if best > limit:
        return [next(index for index in order if sizes[index] == best)]
    chosen, rest = [], best
    for row in reversed(range(len(order))):
        if taken[row, rest]:
            chosen.append(order[row])
            rest -= sizes[order[row]]
    return sorted(chosen)
