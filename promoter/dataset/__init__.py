"""Data sets: from a genome, its genes and their expression to promoters with targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.dataset.promoters import (
        FILE_NAME,
        FORMAT,
        GENE_SCHEMA,
        RESERVED_NAMES,
        Promoters,
        locate,
        narrow,
        near_tss,
        read_promoters,
        select,
        write_promoters,
    )

__all__ = [
    "FILE_NAME",
    "FORMAT",
    "GENE_SCHEMA",
    "RESERVED_NAMES",
    "Promoters",
    "locate",
    "narrow",
    "near_tss",
    "read_promoters",
    "select",
    "write_promoters",
]
__getattr__ = lazy_names(__name__, {"promoters": __all__})
