"""Variants: read a VCF, find the windows that its alleles alter, and predict their effects."""

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

__getattr__ = lazy_names(__name__, __file__)
