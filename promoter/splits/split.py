"""Divide genes into training, validation and test sets, or into folds: by chromosome, or by units of any kind."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from promoter.dataset.chromosomes import match_chromosomes
from promoter.errors import InputError, counted, listed
from promoter.splits.config import SplitConfig

_COMPLEMENT = bytes.maketrans(b"ACGTU", b"TGCAA")
_MAX_EXHAUSTIVE = 10  # up to this many chromosomes all 3^n assignments are tried


def split_by_chromosome(chroms: pd.Series, config: SplitConfig) -> dict[str, str]:
    """Assign each chromosome to `train`, `val` or `test`.

    Sets without chromosomes in the config get those that come closest to its fractions of the genes. The choice is
    deterministic.

    Args:
        chroms: chromosome of each gene.
        config: the chromosomes of each set, or fractions.

    Returns:
        Chromosome -> split, in order of first appearance.

    Raises:
        InputError: a chromosome is unknown or in two sets, or a set is empty.
    """
    counts = {str(name): int(n) for name, n in chroms.value_counts(sort=False).items()}
    order = [str(name) for name in chroms.drop_duplicates()]
    given = {name: _given_chromosomes(name, getattr(config, name), order) for name in ("val", "test")}
    both = sorted(set(given["val"] or ()) & set(given["test"] or ()))
    if both:
        problem = f"`SplitConfig.val` and `SplitConfig.test` both hold {both}"
        raise InputError(problem, fix="a chromosome belongs to one of them")
    targets = {"val": config.val_fraction * len(chroms), "test": config.test_fraction * len(chroms)}
    fixed = {chrom: name for name, chosen in given.items() for chrom in chosen or ()}
    free = [chrom for chrom in order if chrom not in fixed]
    wanted = {name: targets[name] for name, chosen in given.items() if chosen is None}
    if len(free) < len(wanted) + 1:
        raise InputError(
            f"{counted(len(order), 'chromosome')} ({listed(order, 5)}) cannot be split into train, val and test: "
            "leave at least one for each, or use `SplitConfig.by='block'`, which divides them into regions"
        )
    fixed |= _choose(free, counts, wanted)
    return {chrom: fixed.get(chrom, "train") for chrom in order}


def split_by_group(
    group_of_gene: np.ndarray,
    config: SplitConfig,
    *,
    sets: Sequence[str] = ("val", "test"),
    genes: int | None = None,
    noun: str = "homology group",
) -> np.ndarray:
    """Assign each group of genes, in random order, to `train`, `val` or `test`.

    A group is put into the held-out set that lacks most genes if it fits there, else into the training set. So
    each set comes within one group of its fraction, and a group larger than that is in the training set.

    Args:
        group_of_gene: group of each gene: int, shape (genes,).
        config: the fractions and the random seed.
        sets: sets to hold out (default both).
        genes: number of genes that the fractions are of; None (default) means these.
        noun: name of a group, for messages.

    Returns:
        The split of each gene: strings, shape (genes,).

    Raises:
        InputError: a set gets no genes.
    """
    groups, index = np.unique(group_of_gene, return_inverse=True)
    sizes = np.bincount(index)
    total = len(index) if genes is None else genes
    room = {name: getattr(config, f"{name}_fraction") * total for name in sets}
    split_of_group = np.full(len(groups), "train", dtype=object)
    for group in np.random.default_rng(config.seed).permutation(len(groups)):
        name = max(room, key=lambda split: room[split])
        if sizes[group] <= room[name] + 0.5:
            split_of_group[group] = name
            room[name] -= int(sizes[group])
    split = split_of_group[index]
    empty = [name for name in ("train", *sets) if not (split == name).any()]
    if empty:
        other = {"homology group": "block", "block": "family"}.get(noun, "random")
        raise InputError(
            f"{counted(len(groups), noun)} of {len(index):,} genes leave none for {' and '.join(empty)} "
            f"(the largest has {sizes.max(initial=0):,}); raise `SplitConfig.val_fraction` and "
            f"`SplitConfig.test_fraction`, or hold out by another unit, such as `SplitConfig.by={other!r}`"
        )
    return split


def deal(sizes: Sequence[int] | np.ndarray, folds: int, seed: int | None = None) -> np.ndarray:
    """Distribute units over folds with about equal numbers of genes.

    Units are taken from the largest to the smallest, each into the fold with the fewest genes so far. The largest
    fold then exceeds the best possible by at most a third (Graham 1969).

    Args:
        sizes: number of genes of each unit.
        folds: number of folds.
        seed: random seed that orders units of one size; None (default) keeps their order.

    Returns:
        The fold of each unit, from 0: int, shape (units,).
    """
    sizes = np.asarray(sizes)
    order = np.arange(len(sizes)) if seed is None else np.random.default_rng(seed).permutation(len(sizes))
    fold_of_unit = np.zeros(len(sizes), dtype=np.int64)
    room = [(0, fold) for fold in range(folds)]  # a heap: genes so far, fold
    for unit in order[np.argsort(-sizes[order], kind="stable")]:
        genes, fold = room[0]
        fold_of_unit[unit] = fold
        heapq.heapreplace(room, (genes + int(sizes[unit]), fold))
    return fold_of_unit


def places(genes: pd.DataFrame) -> pd.Series:
    """Return what tells a gene of another data set from one of the same id: its chromosome, else its sequence.

    Args:
        genes: columns `chrom` and, where that is missing, `sequence`.

    Returns:
        The chromosome of each gene, or a checksum of its sequence, the same for the reverse complement.
    """
    where = genes["chrom"].astype(object)
    free = where.isna()
    if free.any() and "sequence" in genes:
        where = where.mask(free, genes["sequence"][free].map(_checksum))
    return where.where(where.notna(), None)


def _checksum(sequence: str) -> str:
    forward = sequence.upper().encode()
    both = forward, forward.translate(_COMPLEMENT)[::-1]
    return hashlib.blake2b(min(both), digest_size=8).hexdigest()


def assign(chroms: pd.Series, split_of_chrom: Mapping[str, str]) -> pd.Series:
    """Look up the split of each gene by its chromosome.

    Args:
        chroms: chromosome of each gene, in any spelling.
        split_of_chrom: chromosome -> split.

    Returns:
        The split of each gene; NaN for a chromosome without a split.
    """
    matched = match_chromosomes(chroms.dropna().unique(), split_of_chrom)
    return chroms.map({chrom: split_of_chrom[listed] for chrom, listed in matched.items()})


def chromosome_folds(chroms: pd.Series, folds: int) -> list[list[str]]:
    """Distribute chromosomes over folds with about equal numbers of genes, as `deal` does; deterministic.

    Args:
        chroms: chromosome of each gene.
        folds: number of folds.

    Returns:
        The chromosomes of each fold, in order of first appearance.

    Raises:
        InputError: there are fewer chromosomes than folds.
    """
    of_gene, names = pd.factorize(chroms)
    require_units(len(names), folds, "chromosome")
    fold_of_chrom = deal(np.bincount(of_gene), folds)
    return [[str(name) for name in names[fold_of_chrom == fold]] for fold in range(folds)]


def require_units(units: int, folds: int, noun: str) -> None:
    """Check that there is a unit, a chromosome say, for each fold.

    Raises:
        InputError: there are fewer.
    """
    if units < folds:
        other = {"chromosome": "block", "block": "family"}.get(noun, "random")
        raise InputError(
            f"there {'is' if units == 1 else 'are'} only {counted(units, noun)} to divide",
            setting="folds",
            value=folds,
            fix=(f"give at most {counted(units, 'fold')}, or " if units > 1 else "")
            + f"hold out by a smaller unit, such as `SplitConfig.by={other!r}`",
        )


def _given_chromosomes(name: str, chosen: Sequence[str] | None, available: Iterable[str]) -> list[str] | None:
    if chosen is None:
        return None
    if not chosen:
        raise InputError(f"`SplitConfig.{name}` is empty; name at least one chromosome, or leave it out")
    available = list(available)
    matched = match_chromosomes(chosen, available)
    unknown = [chrom for chrom in chosen if chrom not in matched]
    if unknown:
        raise InputError(
            "no gene lies on it",
            setting=f"SplitConfig.{name}",
            value=unknown,
            fix=f"the data has {', '.join(available[:30])}{' …' if len(available) > 30 else ''}",
        )
    return list(dict.fromkeys(matched[chrom] for chrom in chosen))


def _choose(free: Sequence[str], counts: Mapping[str, int], wanted: Mapping[str, float]) -> dict[str, str]:
    """Choose chromosomes for each wanted set; no set is empty, and training keeps at least one."""
    if not wanted:
        return {}
    if len(free) <= _MAX_EXHAUSTIVE:
        return _choose_exhaustively(free, counts, wanted)
    chosen: dict[str, str] = {}
    for number, (name, target) in enumerate(wanted.items()):
        rest = [chrom for chrom in free if chrom not in chosen]
        spare = len(wanted) - number  # sets still to fill, and training
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


def _closest_subset(sizes: Sequence[int], target: float, max_members: int) -> list[int]:
    """Find the non-empty subset whose sum is closest to `target`, by dynamic programming; return its indices.

    Of subsets with equal sums the one with the fewest members is kept, at most `max_members`.
    """
    limit = int(2 * target) + 1
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    above = max_members + 1
    members = np.full(limit + 1, above)  # smallest number of members for each sum
    members[0] = 0
    # whether this member was the last to improve its sum's subset
    taken = np.zeros((len(sizes), limit + 1), dtype=bool)
    for row, index in enumerate(order):
        size = sizes[index]
        if size <= limit:
            grown = members[: limit + 1 - size] + 1
            taken[row, size:] = (grown < members[size:]) & (grown <= max_members)
            members[size:] = np.where(taken[row, size:], grown, members[size:])
    sums = [total for total in range(1, limit + 1) if members[total] < above]
    sums += [size for size in sizes if size > limit]  # a single member may pass it, so that no set stays empty
    best = min(sums, key=lambda total: (abs(total - target), total))
    if best > limit:
        return [next(index for index in order if sizes[index] == best)]
    chosen, rest = [], best
    for row in reversed(range(len(order))):
        if taken[row, rest]:
            chosen.append(order[row])
            rest -= sizes[order[row]]
    return sorted(chosen)
