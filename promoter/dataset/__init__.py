"""Make and read data sets: promoters with targets, from a genome, its genes and their expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.dataset.chromosomes import chromosome_sizes, match_chromosomes
    from promoter.dataset.genome import Genome
    from promoter.dataset.promoters import (
        FILE_NAME,
        FORMAT,
        GENE_SCHEMA,
        RESERVED_NAMES,
        Promoters,
        crop_windows,
        locate,
        near_tss,
        read_promoters,
        region_around_tss,
        select,
        window_of_region,
        write_promoters,
    )

__all__ = [
    "FILE_NAME",
    "FORMAT",
    "GENE_SCHEMA",
    "RESERVED_NAMES",
    "Genome",
    "Promoters",
    "chromosome_sizes",
    "crop_windows",
    "locate",
    "match_chromosomes",
    "near_tss",
    "read_promoters",
    "region_around_tss",
    "select",
    "window_of_region",
    "write_promoters",
]
_OTHERS = {"chromosomes": ["chromosome_sizes", "match_chromosomes"], "genome": ["Genome"]}
_IN_PROMOTERS = [name for name in __all__ if not any(name in names for names in _OTHERS.values())]
__getattr__ = lazy_names(__name__, {"promoters": _IN_PROMOTERS, **_OTHERS})
