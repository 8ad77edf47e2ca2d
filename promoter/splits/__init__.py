"""Assign genes to training, validation and test sets, and find homologs that cross the split."""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.splits.config import SPLITS, SplitConfig
    from promoter.splits.split import chromosome_folds, split_by_chromosome, split_by_group

__getattr__ = lazy_names(__name__, __file__)
