"""Variants: read a VCF, find the windows that its alleles alter, and predict their effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.variants.effects import effects_to_table, predict_alleles
    from promoter.variants.vcf import REASONS, VcfRecord, read_records
    from promoter.variants.windows import (
        GeneVariants,
        TrimmedVariant,
        TssWindow,
        WindowVariants,
        apply_variant,
        build_gene_variants,
        distance_to_tss,
        find_alleles,
        group_by_gene,
        overlaps,
        trim_alleles,
        tss_windows,
    )

__all__ = [
    "REASONS",
    "GeneVariants",
    "TrimmedVariant",
    "TssWindow",
    "VcfRecord",
    "WindowVariants",
    "apply_variant",
    "build_gene_variants",
    "distance_to_tss",
    "effects_to_table",
    "find_alleles",
    "group_by_gene",
    "overlaps",
    "predict_alleles",
    "read_records",
    "trim_alleles",
    "tss_windows",
]
_EFFECTS = ["effects_to_table", "predict_alleles"]
_VCF = ["REASONS", "VcfRecord", "read_records"]
_WINDOWS = [name for name in __all__ if name not in (*_EFFECTS, *_VCF)]
__getattr__ = lazy_names(__name__, {"effects": _EFFECTS, "vcf": _VCF, "windows": _WINDOWS})
