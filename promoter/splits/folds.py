"""Deal out the units of a data set to the folds of a search, which never looks at the test genes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promoter.dataset.promoters import Promoters
from promoter.splits.assign import (
    OFF,
    SplitAssignment,
    apply_homology_policy,
    assign_splits,
    describe_split,
    without_borders,
)
from promoter.splits.config import SplitConfig
from promoter.splits.homology import Related, find_once
from promoter.splits.units import NOUNS, choose_unit, find_units

_MAX_FOLDS = 3  # where the number of folds is not given


@dataclass(frozen=True)
class SearchFolds:
    """The folds of a search for the best configuration, and the split that its final network is trained on.

    Attributes:
        final: the split of the final network, as training without a search has it.
        folds: split of each gene in each fold, as `SplitAssignment` holds one: `val` for the genes that the fold
            validates on, and `test` for the test genes of `final`, which no fold looks at.
        by: what the units are, as `SplitConfig.by` names it.
    """

    final: SplitAssignment
    folds: list[SplitAssignment]
    by: str

    @property
    def searched(self) -> np.ndarray:
        """Return which genes a search may look at: those that some fold trains or validates on."""
        return np.any([(fold.split == "train") | (fold.split == "val") for fold in self.folds], axis=0)


def search_folds(
    promoters: Promoters, config: SplitConfig, folds: int | None, related: Related | None = None
) -> SearchFolds:
    """Hold out the test genes, and deal out the units of the others to the folds of a search.

    Args:
        promoters: the data set.
        config: the test genes and, for one fold, the validation genes.
        folds: number of folds; 1: one split, as training without folds has it; None: 3, or as many as there are
            units.
        related: function that finds the related genes, as for `assign_splits`; those of the complete windows are
            taken, as the crop is not known before the search.

    Raises:
        InputError: as for `assign_splits`, or there are fewer units than folds.
    """
    config = choose_unit(config, promoters)
    related = related or find_once(promoters)
    pairs = functools.partial(related, None)
    final = assign_splits(promoters, config, related)
    if folds == 1:
        return SearchFolds(final, [final], str(config.by))
    units = find_units(promoters, config, pairs)
    test = final.split == "test"
    rest = ~test
    if config.by == "column":  # what the column leaves out, no fold takes
        rest &= promoters.genes["split"].notna().to_numpy()
    dealt = units.take(rest)
    number = min(_MAX_FOLDS, max(2, len(dealt))) if folds is None else folds
    fold_of_gene = np.full(len(promoters), -1)
    fold_of_gene[rest] = dealt.deal(number, config.seed)
    splits = []
    for fold in range(number):
        assigned = np.full(len(promoters), None, dtype=object)
        assigned[rest] = "train"
        assigned[test] = "test"
        assigned[fold_of_gene == fold] = "val"
        split = apply_homology_policy(without_borders(promoters, assigned, config), pairs, config.homology)
        splits.append(describe_split(promoters, units, assigned, split))
    return SearchFolds(final, splits, str(config.by))


def remarks_on_folds(splits: Sequence[SplitAssignment], held_out: str, by: str) -> list[str]:
    """Return messages about folds that hold a third more or fewer genes than an equal share.

    Args:
        splits: split of each fold.
        held_out: set that the folds share out, `val` or `test`.
        by: what the units are, as `SplitConfig.by` names it.
    """
    kind = f"{NOUNS.get(by, 'group')}s"
    sizes = np.array([len(split.rows(held_out)) for split in splits])
    off = np.flatnonzero(np.abs(sizes / sizes.mean() - 1) >= OFF)
    return [
        f"fold {fold + 1} holds {sizes[fold]:,}, an equal share is {sizes.mean():,.0f}: {kind} are never divided"
        for fold in off
    ]
