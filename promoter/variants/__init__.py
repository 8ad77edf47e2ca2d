"""Variants: read a VCF, find the windows that its alleles alter, and predict their effects."""
