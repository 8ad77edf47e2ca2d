"""Which genes are held out for validation and test, and what homology tells a model of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.splits.split import (
        SPLITS,
        SplitConfig,
        chromosome_folds,
        split_by_chromosome,
        split_by_group,
    )

__all__ = ["SPLITS", "SplitConfig", "chromosome_folds", "split_by_chromosome", "split_by_group"]
__getattr__ = lazy_names(__name__, {"split": __all__})
