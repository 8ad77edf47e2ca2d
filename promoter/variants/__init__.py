"""Variants: read a VCF or a table, find the windows that its alleles alter, and predict their effects."""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.variants.effects import effects_to_table, predict_alleles
    from promoter.variants.library import (
        LIBRARY_REASONS,
        SequenceVariant,
        find_sequence_alleles,
        group_by_sequence,
        is_vcf,
        read_sequence_variants,
    )
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
