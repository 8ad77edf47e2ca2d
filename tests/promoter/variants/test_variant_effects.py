"""Predicted effects of variants, against predictions of edited haplotypes and against ISM scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.variant_cases import GENES, haplotype_window, promoters_of

from promoter.dataset.annotation import read_genes
from promoter.dataset.genome import Genome
from promoter.dataset.promoters import Promoters
from promoter.ism import saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import BASES, encode, reverse_complement
from promoter.training import predict
from promoter.variants import effects
from promoter.variants.effects import predict_alleles
from promoter.variants.vcf import read_records
from promoter.variants.windows import (
    TrimmedVariant,
    apply_variant,
    build_gene_variants,
    find_alleles,
    tss_windows,
)


@pytest.fixture(scope="module", params=[None, 40], ids=["window", "crop"])
def model(request: pytest.FixtureRequest) -> PromoterCNN:
    torch.manual_seed(1)
    return PromoterCNN(CNNConfig((8, 8), (7, 3), (2,), 8, n_targets=2, crop=request.param), length=60).eval()


@pytest.fixture(params=[0, 1e9], ids=["incremental", "forward passes"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(effects, "_ISM_SLOWDOWN", request.param)
    return request.param


@pytest.mark.parametrize("both_strands", [False, True])
def test_variant_effects_are_ism_scores_and_differences_of_haplotypes(
    genome: Genome, promoters: Promoters, model: PromoterCNN, route: float, both_strands: bool
):
    rng = np.random.default_rng(2)
    gene_variants, expected_reference, expected = [], [], []
    scores = saturation_mutagenesis(model, promoters.tokens)
    outside = 60 - (model.config.crop or 60)  # training turns what the network sees round
    turned = np.ascontiguousarray(reverse_complement(promoters.tokens[:, outside:]))
    scores_of_other = np.zeros_like(scores)
    scores_of_other[..., outside:] = saturation_mutagenesis(model, turned)[..., ::-1, ::-1]
    for row, window in enumerate(tss_windows(promoters)):
        chrom = GENES[row][1]
        chromosome = genome.fetch(chrom, 0, 300)
        inside = [
            pos for pos in range(300) if window.interval[0] <= pos < window.interval[1] and pos != window.tss
        ]
        variants = []
        for pos in rng.choice(inside, 20, replace=False):
            base = str(rng.choice([one for one in BASES if one != chromosome[pos]]))
            variants.append(TrimmedVariant(int(pos), int(pos) + 1, base))
        variants += [
            TrimmedVariant(inside[20], inside[20] + 3, ""),
            TrimmedVariant(inside[9], inside[9], "ACGTAC"),
        ]
        variants = [variant for variant in variants if not variant.start <= window.tss < variant.end]
        gene_variants.append(
            build_gene_variants(genome, chrom, tokens=promoters.tokens[row], window=window, variants=variants)
        )
        for variant in variants:
            edited = encode([haplotype_window(chromosome, variant, window)])
            pair = np.concatenate([promoters.tokens[[row]], edited])
            values = [predict(model, pair)]
            if both_strands:
                values.append(predict(model, np.ascontiguousarray(reverse_complement(pair[:, outside:]))))
            reference, changed = np.mean(values, axis=0)
            expected_reference.append(reference)
            expected.append(changed - reference)
            if variant.is_snv:
                offset = int(np.flatnonzero(pair[0] != pair[1])[0])
                of_ism = scores[row, :, pair[1, offset], offset]
                if both_strands:
                    of_ism = (of_ism + scores_of_other[row, :, pair[1, offset], offset]) / 2
                np.testing.assert_allclose(expected[-1], of_ism, atol=1e-6)  # the oracle's own rounding
                expected[-1] = of_ism
    reference, difference = predict_alleles(model, gene_variants, both_strands=both_strands)
    # float32 rounding of predictions of order 1
    np.testing.assert_allclose(reference, expected_reference, atol=1e-6)
    np.testing.assert_allclose(difference, expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3
    of_second = predict_alleles(model, gene_variants, both_strands=both_strands, targets=[1])
    for found, of_all in zip(of_second, (reference, difference), strict=True):
        np.testing.assert_allclose(found, of_all[:, [1]], atol=1e-6)


def test_yeast_variants_fit_the_genome_and_equal_haplotypes(yeast: Path):
    genome = Genome(yeast / "genome.fa.gz")
    annotated = read_genes(yeast / "genes.bed")
    some = annotated[annotated["chrom"] == "chrI"].iloc[10:16]
    genes = list(some[["gene_id", "chrom", "tss", "strand"]].itertuples(index=False, name=None))
    promoters = promoters_of(genome, genes, 500, 20)
    found = find_alleles(read_records(yeast / "variants.vcf.gz"), genome, promoters, rows=range(len(genes)))
    assert found.counts["variants"] == 260_526
    assert found.counts["ref_mismatch"] == 0
    chromosome = genome.fetch("chrI", 0, genome.lengths["chrI"])
    windows = tss_windows(promoters)
    model = PromoterCNN(CNNConfig((16, 8), (7, 3), (2,), 8), length=520).eval()
    scores, compared = saturation_mutagenesis(model, promoters.tokens), 0
    for row, _, _, _, start, end, new in found.alleles.itertuples(index=False, name=None):
        variant, window = TrimmedVariant(start, end, new), windows[row]
        if start <= window.tss < end:
            continue
        gene = build_gene_variants(genome, "chrI", tokens=promoters.tokens[row], window=window, variants=[variant])
        edited = encode(haplotype_window(chromosome, variant, window))
        rebuilt = apply_variant(gene.context, gene.context_start, variant, window)
        np.testing.assert_array_equal(rebuilt, edited)
        (offset,) = np.flatnonzero(edited != gene.tokens)  # there are none but SNVs in this file
        _, difference = predict_alleles(model, [gene])
        # float32 rounding of predictions of order 0.1
        np.testing.assert_allclose(difference[0, 0], scores[row, 0, edited[offset], offset], atol=1e-6)
        compared += 1
    assert compared > 30
