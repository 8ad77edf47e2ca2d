from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from promoter.dataset.annotation import read_genes
from promoter.dataset.expression import read_expression
from promoter.dataset.genome import Genome
from promoter.dataset.prepare import prepare
from promoter.ism import Scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.motifs.elements import site_contributions, word_contributions
from promoter.sequence import decode, encode
from promoter.training import Examples, TrainingConfig, fit, predict

LENGTH = 60


def scored(sequences: list[str], present: np.ndarray, strand: str = "+", start: int = 1000) -> Scores:
    """Scores in which the base that is there contributes `present`, shape (genes, length)."""
    tokens = encode(sequences)
    scores = np.zeros((len(tokens), 1, 4, tokens.shape[1]), np.float32)
    for base in range(4):
        # each of the three other bases moves the prediction by -4/3 of what the one that is there contributes
        scores[:, 0, base] = np.where(tokens == base, 0, -4 / 3 * present)
    genes = pd.DataFrame(
        {
            "gene_id": [f"g{i}" for i in range(len(tokens))],
            "chrom": "chr1",
            "start": start,
            "end": start + tokens.shape[1],
            "strand": strand,
            "sequence": sequences,
        }
    )
    return Scores(genes, ["y"], np.zeros((len(tokens), 1), np.float32), scores)


def test_a_words_contribution_is_the_mean_of_its_bases_beyond_the_position_on_both_strands() -> None:
    rng = np.random.default_rng(0)
    sequences = decode(rng.integers(0, 4, (300, LENGTH), dtype=np.uint8))
    present = rng.normal(size=(300, LENGTH)) + np.arange(LENGTH) / 10  # grows towards the gene
    for row in range(300):  # an independent construction: add 1 to each base of each instance
        for at in range(LENGTH - 3):
            if sequences[row][at : at + 4] in ("ACCT", "AGGT"):
                present[row, at : at + 4] += 1.0
    found = word_contributions(scored(sequences, present), ["ACCT", "GATC", "AAAAAAAAA"])
    assert found["word"].tolist() == ["ACCT/AGGT", "GATC", "AAAAAAAAA/TTTTTTTTT"]
    count = sum(sequence[i : i + 4] in ("ACCT", "AGGT") for sequence in sequences for i in range(LENGTH))
    assert found["occurrences"][0] == count
    assert found["low"][0] < found["contribution"][0] < found["high"][0]
    # noise of a mean of 4 × some 130 values is 0.05; the words themselves are part of the mean that is taken off
    assert found["contribution"][0] == pytest.approx(1.0, abs=0.2)
    assert found["low"][1] < 0 < found["high"][1]
    assert found["occurrences"][2] == 0
    assert np.isnan(found["low"][2])


@pytest.mark.parametrize("strand", ["+", "-"])
def test_a_site_is_looked_up_where_it_lies_on_the_gene_whatever_its_strand(strand: str) -> None:
    present = np.full((40, LENGTH), 0.5)
    for row in range(10):
        present[row, 20 + row : 28 + row] = -3  # the sign does not matter
    sequences = decode(np.random.default_rng(1).integers(0, 4, (40, LENGTH), dtype=np.uint8))
    scores = scored(sequences, present, strand)
    first = np.array([1020 + row if strand == "+" else 1000 + LENGTH - 28 - row for row in range(10)])
    sites = pd.DataFrame({"gene_id": [f"g{row}" for row in range(10)], "start": first, "end": first + 8})
    beyond = pd.DataFrame({"gene_id": ["g0", "absent"], "start": [900, 1010], "end": [908, 1018]})
    found = site_contributions(scores, pd.concat([sites, beyond]))
    assert found == {"sites": 10, "ratio": pytest.approx(6), "auroc": 1.0, "low": 1.0, "high": 1.0}
    # half of the sites as high, half as low as they can be: of 10, some 1.96 * 0.5 / sqrt(10) to each side
    mixed = present.copy()
    mixed[:5] = 0
    half = site_contributions(scored(sequences, mixed, strand), sites)
    assert half["auroc"] == pytest.approx(0.5)
    assert half["high"] - half["low"] == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(10), abs=0.1)
    shifted = site_contributions(scores, sites.assign(start=first + 3, end=first + 11))
    assert shifted["ratio"] == pytest.approx((5 * 3 + 3 * 0.5) / 8 / 0.5)
    assert site_contributions(scores, beyond)["sites"] == 0


@pytest.mark.slow
def test_a_model_of_yeasts_salt_response_has_learned_what_is_known(yeast: Path) -> None:
    """The recipe of configs/small-genome.yaml, smaller; scores of genes that it has not learned from."""
    promoters, _ = prepare(
        Genome(yeast / "genome.fa.gz"),
        read_genes(yeast / "genes.bed"),
        read_expression(yeast / "salt_response.tsv"),
        upstream=500,
        exclude_chroms=["chrM"],
    )
    tokens, targets, chrom = promoters.tokens, promoters.targets, promoters.genes["chrom"]
    test, val = chrom.isin(["chrIV", "chrXV"]).to_numpy(), chrom.eq("chrVIII").to_numpy()
    learned = ~test & ~val
    torch.manual_seed(0)
    model = PromoterCNN(CNNConfig((48, 32, 32), (7, 3, 3), (8, 4), bins=5, both_strands=True))
    recipe = TrainingConfig(8, 32, 6e-3, schedule="one_cycle", jitter=5, reverse_complement=0)
    fit(model, Examples(tokens[learned], targets[learned]), Examples(tokens[val], targets[val]), config=recipe)
    unseen = np.flatnonzero(~learned)[:500]
    genes, some = promoters.genes.iloc[unseen].reset_index(drop=True), tokens[unseen]
    scores = Scores(genes, ["salt_log2fc"], predict(model, some), saturation_mutagenesis(model, some))
    words = ["AGGGG", "GATGAG", "AAAATTTT"]
    found = word_contributions(scores, words).set_index(pd.Index(words))
    assert found["low"]["AGGGG"] > 0.02
    assert found["high"]["GATGAG"] < -0.02
    assert found["high"]["AAAATTTT"] < -0.02


def test_sites_of_sequences_without_coordinates_count_from_the_first_base() -> None:
    rng = np.random.default_rng(1)
    sequences = decode(rng.integers(0, 4, (40, LENGTH), dtype=np.uint8))
    present = rng.normal(0, 0.1, (40, LENGTH))
    present[:5, 12:20] += 2
    scores = scored(sequences, present, start=0)
    sites = pd.DataFrame({"gene_id": [f"g{row}" for row in range(5)], "start": 12, "end": 20})
    expected = site_contributions(scores, sites)
    assert expected["sites"] == 5
    assert expected["auroc"] == 1
    unplaced = scores.genes.assign(chrom=None, start=np.nan, end=np.nan, strand=None)
    assert site_contributions(replace(scores, genes=unplaced), sites) == expected
