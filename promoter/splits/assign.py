"""Assign genes to train, validation and test sets, and find homologs that cross the split."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from promoter.dataset.promoters import Promoters
from promoter.errors import InputError, counted, listed
from promoter.splits import homology
from promoter.splits.config import SPLITS, SplitConfig
from promoter.splits.split import places, split_by_chromosome, split_by_group
from promoter.splits.units import NOUNS, Units, choose_unit, find_units, near_border, resampling_groups

OFF = 1 / 3  # of what was asked: a share that is off by so much is announced


@dataclass(frozen=True)
class SplitAssignment:
    """Hold the split of each gene of a data set, and what homology says about it.

    Attributes:
        split: `train`, `val`, `test`, or None for a gene left out; object, shape (genes,).
        unit: number of each gene's unit, which no split divides: int, shape (genes,).
        chroms: split -> its chromosomes; empty lists unless the split is by chromosome.
        split_of_gene: gene id -> (place, split), for genes that are not in the split of their chromosome; the
            place is what `promoter.splits.split.places` returns.
        leaks: pairs of genes of different splits that share sequence, as `promoter.splits.homology.find_leaks`
            lists them.
        leaking: bool, shape (genes,): whether a gene is held out and shares sequence with a training gene.
        remarks: messages for the user.
        group: group of each gene that a bootstrap draws whole, from `promoter.splits.units.resampling_groups`.
        made_of: what `model.yaml` records of the unit: `split_by`, and of blocks `block_size`.
    """

    split: np.ndarray
    unit: np.ndarray
    chroms: dict[str, list[str]]
    split_of_gene: dict[str, tuple[str, str | None]]
    leaks: pd.DataFrame = field(default_factory=pd.DataFrame)
    leaking: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    remarks: list[str] = field(default_factory=list)
    group: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    made_of: dict[str, Any] = field(default_factory=dict)

    def rows(self, name: str) -> np.ndarray:
        """Return the row numbers of a split's genes."""
        return np.flatnonzero(self.split == name)


def assign_splits(
    promoters: Promoters, config: SplitConfig, related: homology.Related | None = None, crop: int | None = None
) -> SplitAssignment:
    """Split the genes of a data set, and find homologs that cross the split.

    With `homology` `drop`, the gene of each related pair that is closer to training (train before val before test)
    is left out; with `move`, a homology group that the split would divide is put into the training set.

    Args:
        promoters: the data set.
        config: the genes to hold out, and what to do about their homologs.
        related: function that finds the related genes, as `promoter.splits.homology.find_once` returns it; None
            (default): one made here.
        crop: number of bases at the end of the windows that the network sees: homologs are looked for in these;
            None (default): in all. Homology groups as units are of the complete windows all the same, so that
            networks with different crops have one split.

    Raises:
        InputError: the data set has too few units, or not what they are made of; or a split is left without genes.
    """
    config = choose_unit(config, promoters)
    related = related or homology.find_once(promoters)
    pairs = functools.partial(related, crop)
    units = find_units(promoters, config, functools.partial(related, None))
    if config.fold is not None:
        fold, folds = config.fold
        fold_of_gene = units.deal(folds, config.seed)
        assigned = np.full(len(promoters), "train", dtype=object)
        assigned[fold_of_gene == fold % folds] = "val"
        assigned[fold_of_gene == fold - 1] = "test"
        asked: list[str] = []
    elif config.by == "column":
        assigned, asked = _by_column(promoters, units, config)
    elif config.by == "chromosome":
        split_of_chrom = split_by_chromosome(promoters.genes["chrom"], config)
        assigned = np.array([split_of_chrom[name] for name in units.names], dtype=object)[units.of_gene]
        asked = [name for name in ("val", "test") if getattr(config, name) is None]
    else:
        assigned, asked = split_by_group(units.of_gene, config, noun=units.noun), ["val", "test"]
    inside = without_borders(promoters, assigned, config)
    complete = apply_homology_policy(inside, pairs, config.homology)
    _require_sets(complete, inside, config, promoters.noun)
    final = complete if config.max_train is None else draw_training(complete, units, config, promoters.noun)
    made_of = {"split_by": config.by} | ({"block_size": config.block_size} if config.by == "block" else {})
    described = describe_split(promoters, units, assigned, final)
    described = replace(described, group=resampling_groups(units, pairs, final), made_of=made_of)
    ids = promoters.genes["gene_id"]
    leaks = homology.find_leaks(pairs(), ids, pd.Series(final))
    leaking = homology.leaking_genes(leaks, ids)
    drawn = config.by == "column" and asked
    remarks = [
        *([f"val is drawn from the column's train, by whole {units.noun}s"] if drawn else []),
        *_remarks(promoters, config, assigned, inside=inside, final=complete),
        *_remarks_on_shares(complete, asked, config, promoters.noun),
    ]
    if config.max_train is not None:
        trained, all_ = (int((split == "train").sum()) for split in (final, complete))
        remarks.append(
            f"`SplitConfig.max_train={config.max_train}`: {trained:,} of {all_:,} training {promoters.noun}s"
        )
    if leaking.any():
        of_split = {name: final == name for name in ("val", "test")}
        counts = [f"{(leaking & rows).sum():,} of {rows.sum():,} {name}" for name, rows in of_split.items()]
        remarks.append(
            f"{' and '.join(counts)} {promoters.noun}s share promoter sequence with {promoters.noun}s in the "
            "training set (leakage.csv)"
        )
    return replace(described, leaks=leaks, leaking=leaking, remarks=remarks)


def draw_training(split: np.ndarray, units: Units, config: SplitConfig, noun: str = "gene") -> np.ndarray:
    """Leave out training genes until about `max_train` are left, as if fewer had been measured.

    Units are shuffled by the seed, and the first ones are kept, so a smaller training set is part of a larger one.
    A unit is a gene, or a group or family: a library of as many fewer groups has them complete. Then the number
    kept is the closest that complete ones allow.

    Args:
        split: split of each gene, None for a gene left out: object, shape (genes,).
        units: units that the split never divides.
        config: `max_train`, which is given, `by` and the seed.
        noun: what a row is called in messages (default "gene").

    Returns:
        The split, None for the training genes left out.

    Raises:
        InputError: the training set has no more genes than that.
    """
    train = np.flatnonzero(split == "train")
    maximum = config.max_train or len(train)
    if maximum >= len(train):
        raise InputError(
            f"the training set has {counted(len(train), noun)}",
            setting="SplitConfig.max_train",
            value=maximum,
            fix="give fewer, or leave it out",
        )
    alike = units.by in {"group", "family"}
    unit = np.unique(units.of_gene[train], return_inverse=True)[1] if alike else np.arange(len(train))
    sizes = np.bincount(unit)
    order = np.random.default_rng(config.seed).permutation(len(sizes))
    kept = int(np.abs(np.cumsum(sizes[order]) - maximum).argmin()) + 1
    split = split.copy()
    split[train[np.isin(unit, order[kept:])]] = None
    return split


def _by_column(promoters: Promoters, units: Units, config: SplitConfig) -> tuple[np.ndarray, list[str]]:
    """Return the sets that the column gives, and those that it lacks and that are drawn from its training set."""
    given = promoters.genes["split"]
    assigned = np.array([None if pd.isna(name) else name for name in given], dtype=object)
    unknown = sorted({str(name) for name in assigned if name is not None} - set(SPLITS))
    if unknown:
        raise InputError(
            f"the column split has {', '.join(unknown[:3])}; its sets are called {', '.join(SPLITS)}",
            setting="SplitConfig.by",
            value="column",
        )
    missing = [name for name in ("train", "test") if not (assigned == name).any()]
    if missing:
        raise InputError(
            f"the column split marks no {promoters.noun} as {' or '.join(missing)}",
            setting="SplitConfig.by",
            value="column",
            fix="mark some, or hold out by another unit, such as `SplitConfig.by='family'`",
        )
    if "group" in promoters.genes:
        _require_whole_groups(promoters.genes["group"], assigned)
    if (assigned == "val").any():
        return assigned, []
    train = assigned == "train"
    drawn = split_by_group(
        units.of_gene[train],
        config,
        sets=["val"],
        genes=int((train | (assigned == "test")).sum()),
        noun=units.noun,
    )
    assigned[train] = drawn
    return assigned, ["val"]


def _require_whole_groups(groups: pd.Series, assigned: np.ndarray) -> None:
    sets = pd.Series(assigned).groupby(groups.to_numpy()).nunique()
    divided = sets[sets > 1]
    if len(divided):
        raise InputError(
            f"the column split divides {counted(len(divided), 'group')} ({listed([*map(str, divided.index)], 3)})",
            setting="SplitConfig.by",
            value="column",
            fix="mend the table, or give `SplitConfig.by='group'`",
        )


def without_borders(promoters: Promoters, assigned: np.ndarray, config: SplitConfig) -> np.ndarray:
    """Leave out the training genes near the border of a block with held-out genes."""
    if config.by != "block":
        return assigned
    held_out = (assigned == "val") | (assigned == "test")
    near = near_border(promoters, held_out, config.block_size)
    inside = assigned.copy()
    inside[near & (assigned == "train")] = None
    return inside


def _require_sets(final: np.ndarray, inside: np.ndarray, config: SplitConfig, noun: str) -> None:
    empty = [name for name in SPLITS if not (final == name).any()]
    if empty and all((inside == name).any() for name in empty):
        raise InputError(
            f"related promoters leave no {noun}s for {' and '.join(empty)}",
            setting="SplitConfig.homology",
            value=config.homology,
            fix="hold out others, or give `SplitConfig.homology='report'`",
        )
    if empty:
        raise InputError(
            f"no {noun} is left for {' and '.join(empty)}: all lie near the border of a block",
            setting="SplitConfig.block_size",
            value=config.block_size,
            fix="give longer blocks",
        )


def describe_split(promoters: Promoters, units: Units, assigned: np.ndarray, final: np.ndarray) -> SplitAssignment:
    """Return the split with its chromosomes, and the genes that are not in the split of their chromosome."""
    genes = promoters.genes
    chroms: dict[str, list[str]] = {name: [] for name in SPLITS}
    implied = np.full(len(genes), "", dtype=object)  # only a complete chromosome implies its genes' split
    if units.by == "chromosome":
        implied = assigned
        for name, split in zip(units.names, assigned[np.unique(units.of_gene, return_index=True)[1]], strict=True):
            if split is not None:
                chroms[split].append(name)
    differing = np.flatnonzero(final != implied)
    of_gene = zip(genes["gene_id"].iloc[differing], places(genes.iloc[differing]), final[differing], strict=True)
    return SplitAssignment(final, units.of_gene, chroms, {gene: (place, name) for gene, place, name in of_gene})


def _remarks(
    promoters: Promoters, config: SplitConfig, assigned: np.ndarray, *, inside: np.ndarray, final: np.ndarray
) -> list[str]:
    noun, remarks = promoters.noun, []
    if config.by == "random":
        remarks.append(
            f"`SplitConfig.by='random'`: homologs and neighbours of held-out {noun}s are in training, which can "
            "inflate r"
        )
    if config.by == "column" and (n := int(pd.isna(assigned).sum())):
        remarks.append(f"{counted(n, noun)} without a value in the column split: in no set")
    if near := int((inside != assigned).sum()):
        remarks.append(
            f"{counted(near, noun)} within {promoters.length:,} bases of a border to held-out {noun}s left out of "
            "training"
        )
    if changed := int((final != inside).sum()):
        what = "are left out" if config.homology == "drop" else "are in the training set, and not held out"
        setting = f"`SplitConfig.homology={config.homology!r}`"
        remarks.append(f"{setting}: {changed:,} {noun}s with related promoters {what}")
    return remarks


def _remarks_on_shares(final: np.ndarray, asked: Sequence[str], config: SplitConfig, noun: str) -> list[str]:
    total = int((~pd.isna(final)).sum())
    remarks = []
    for name in asked:
        share, wanted = (final == name).sum() / total, getattr(config, f"{name}_fraction")
        if abs(share - wanted) >= OFF * wanted:
            kind = f"{NOUNS.get(str(config.by), 'group')}s"
            finer = "; `SplitConfig.by='block'` comes closer" if config.by == "chromosome" else ""
            remarks.append(
                f"{name} holds {share:.0%} of the {noun}s, {wanted:.0%} were asked for: {kind} are never "
                f"divided{finer}"
            )
    return remarks


def apply_homology_policy(split: np.ndarray, related: Callable[[], pd.DataFrame], policy: str) -> np.ndarray:
    """Change a split so that no related genes are in different sets.

    Args:
        split: split of each gene, None for a gene left out: object, shape (genes,).
        related: function that returns the pairs of related genes, as
            `promoter.splits.homology.find_related_promoters` does.
        policy: `report` changes nothing; `drop` leaves out the gene of a pair that is closer to training, and of a
            large homology group all but those in the set farthest from it; `move` puts each divided homology group
            into the training set.

    Returns:
        The split of each gene, None for a gene left out.
    """
    if policy == "report":
        return split
    split, pairs = split.copy(), related()
    if policy == "move":
        group = homology.homology_groups(pairs, len(split))
        divided = pd.Series(split).groupby(group).transform("nunique") > 1
        split[divided.to_numpy() & ~pd.isna(split)] = "train"
        return split
    pairs = pairs[homology.related(pairs)]
    first, second = pairs["i"].to_numpy(), pairs["j"].to_numpy()
    rank = np.array([-1 if name is None else SPLITS.index(name) for name in split])
    split[first[rank[first] < rank[second]]] = None
    split[second[rank[second] < rank[first]]] = None
    family = homology.large_families(pairs, len(split))  # not all of its pairs are listed
    highest = pd.Series(rank).groupby(family).transform("max").to_numpy()
    split[(family >= 0) & (rank < highest)] = None
    return split
