from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.files import oracle

from promoter.dataset.annotation import read_genes
from promoter.dataset.expression import read_expression
from promoter.dataset.genome import Genome
from promoter.dataset.prepare import prepare
from promoter.ism import Scores
from promoter.simulation import genome as genome_module
from promoter.simulation.genome import GRAMMAR, INTERACTION, Simulation, simulate
from promoter.simulation.recovery import motif_recovery

UPSTREAM, NOISE = 300, 0.5
MOTIFS = {motif.name: motif for motif in GRAMMAR}
COMPLEMENT = str.maketrans("ACGT", "TGCA")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(tmp_path_factory.mktemp("simulated"), upstream=UPSTREAM, noise=NOISE)


@pytest.fixture(scope="module")
def promoters(files: Simulation) -> pd.DataFrame:
    """The genes with their promoters, read from FASTA and BED without the library."""
    records = [record.split("\n", 1) for record in files.genome.read_text().split(">")[1:]]
    chromosomes = {name: text.replace("\n", "") for name, text in records}
    names = ["chrom", "start", "end", "gene_id", "score", "strand"]
    genes = pd.read_csv(str(files.genes), sep="\t", names=names)
    genes["length"] = genes["chrom"].map({name: len(sequence) for name, sequence in chromosomes.items()})
    genes["tss"] = genes["start"].where(genes["strand"] == "+", genes["end"] - 1)
    genes["sequence"] = [
        oracle(chromosomes[chrom], tss, strand, UPSTREAM, 0)
        for chrom, tss, strand in zip(genes["chrom"], genes["tss"], genes["strand"], strict=True)
    ]
    return genes.set_index("gene_id", drop=False)


def dosage(files: Simulation, genes: pd.Index) -> pd.DataFrame:
    """Genes × motifs: 1 for an instance at its best place, less farther away, 0 without; and the interaction."""
    table = pd.DataFrame(0.0, index=genes, columns=pd.Index([*MOTIFS, "both"]))
    for gene, name, offset in files.motifs[["gene_id", "motif", "offset"]].itertuples(index=False):
        motif = MOTIFS[name]
        off_centre = 0 if motif.spread is None else (UPSTREAM - offset - motif.centre) / (2 * motif.spread)
        table.loc[gene, name] = np.exp(-(off_centre**2) / 2)
    table["both"] = (table[INTERACTION[0]] > 0) & (table[INTERACTION[1]] > 0)
    return table.astype(float)


def test_equal_seeds_simulate_equal_files_and_others_do_not(tmp_path: Path) -> None:
    made = [
        simulate(tmp_path / name, 2, 9, upstream=100, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.suffix != ".fai"}
        for name in "abc"
    ]
    assert contents[0].keys() == {"expression.tsv", "genes.bed", "genome.fa", "motifs.tsv"}
    assert contents[0] == contents[1]
    assert all(contents[0][name] != contents[2][name] for name in contents[0])
    pd.testing.assert_frame_equal(made[0].motifs, pd.read_csv(tmp_path / "a" / "motifs.tsv", sep="\t"))


def test_simulated_files_fit_each_other_and_prepare_keeps_every_gene(
    files: Simulation, promoters: pd.DataFrame
) -> None:
    assert promoters["chrom"].value_counts(sort=False).to_dict() == {f"chr{n}": 300 for n in range(1, 9)}
    assert promoters["gene_id"].is_unique
    expression = read_expression(files.expression)
    data, _ = prepare(Genome(files.genome), read_genes(files.genes), expression, upstream=UPSTREAM, max_n=1)
    assert data.genes["gene_id"].tolist() == promoters["gene_id"].tolist()
    assert data.genes["sequence"].tolist() == promoters["sequence"].tolist()
    written = pd.read_csv(str(files.expression), sep="\t", index_col="gene_id")["expression"]
    np.testing.assert_array_equal(data.targets[:, 0], written[promoters.index].astype(np.float32))


def test_simulated_promoters_lie_on_both_strands_and_past_both_ends_of_each_chromosome(
    promoters: pd.DataFrame,
) -> None:
    assert 0.4 < (promoters["strand"] == "+").mean() < 0.6  # 0.5 ± 0.01
    padded = promoters["sequence"].str.contains("N")
    for _, on_chrom in promoters.groupby("chrom"):
        first, last = on_chrom.iloc[0], on_chrom.iloc[-1]
        assert (first["strand"], last["strand"]) == ("+", "-")
        assert first["tss"] < UPSTREAM
        assert last["tss"] + UPSTREAM >= last["length"]
        assert on_chrom.index[padded[on_chrom.index]].tolist() == [first["gene_id"], last["gene_id"]]


def test_simulated_promoters_and_genes_do_not_overlap(promoters: pd.DataFrame) -> None:
    forward = promoters["strand"] == "+"
    left = promoters["start"] - UPSTREAM * forward
    right = promoters["end"] + UPSTREAM * ~forward
    next_left = left.groupby(promoters["chrom"]).shift(-1)
    assert ((right <= next_left) | next_left.isna()).to_numpy().all()


def test_each_implanted_instance_stands_where_the_truth_says_in_its_orientation(
    files: Simulation, promoters: pd.DataFrame
) -> None:
    sequence_of = promoters["sequence"].to_dict()
    for one in files.motifs.to_dict("records"):
        word = MOTIFS[one["motif"]].consensus
        if one["orientation"] == "-":
            word = word.translate(COMPLEMENT)[::-1]
        assert one["width"] == len(word)
        found = sequence_of[one["gene_id"]][one["offset"] : one["offset"] + one["width"]]
        assert found == word, one
    assert not files.motifs.duplicated(["gene_id", "motif"]).any()


@pytest.mark.parametrize("name", MOTIFS)
def test_implanted_motifs_are_as_frequent_and_lie_as_the_grammar_says(files: Simulation, name: str) -> None:
    motif, n = MOTIFS[name], 2400
    found = files.motifs[files.motifs["motif"] == name]
    sd = np.sqrt(n * motif.rate * (1 - motif.rate))
    assert -5 * sd < len(found) - n * motif.rate < 4 * sd  # a few find no free place
    reverse = (found["orientation"] == "-").mean()
    assert reverse == 0 if not motif.both_strands else abs(reverse - 0.5) < 4 * 0.5 / np.sqrt(len(found))
    distance = UPSTREAM - found["offset"]
    if motif.spread is None:
        assert distance.min() < 20
        assert distance.max() > UPSTREAM - 10
    else:  # a normal distribution, drawn again where the word would pass the TSS or (rarer) touch another
        drawn = np.random.default_rng(0).normal(motif.centre, motif.spread, 100_000).round()
        drawn = drawn[drawn >= len(motif.consensus)]
        assert abs(distance.mean() - drawn.mean()) < 0.2 * motif.spread
        assert 0.85 < distance.std() / drawn.std() < 1.15


def test_effects_in_the_truth_fall_off_with_the_distance(files: Simulation, promoters: pd.DataFrame) -> None:
    weight = dosage(files, promoters.index)
    for one in files.motifs.to_dict("records"):
        expected = MOTIFS[one["motif"]].effect * weight.loc[one["gene_id"], one["motif"]]
        assert one["effect"] == pytest.approx(expected)


def test_simulated_expression_follows_the_grammar(files: Simulation, promoters: pd.DataFrame) -> None:
    """Least squares on the truth finds each motif's effect and the interaction, within 4 standard errors."""
    x = dosage(files, promoters.index).assign(level=1.0)
    y = pd.read_csv(str(files.expression), sep="\t", index_col="gene_id")["expression"][promoters.index]
    coefficients, residual, rank, _ = np.linalg.lstsq(x.to_numpy(), y.to_numpy(), rcond=None)
    assert rank == x.shape[1]
    variance = residual[0] / (len(y) - rank)
    errors = np.sqrt(variance * np.linalg.inv(x.T.to_numpy() @ x.to_numpy()).diagonal())
    expected = np.array([*(motif.effect for motif in GRAMMAR), INTERACTION[2], 3.0])
    assert (errors < 0.1).all()
    assert (np.abs(coefficients - expected) < 4 * errors).all()


def test_the_noiseless_expectation_reaches_the_ceiling(files: Simulation, promoters: pd.DataFrame) -> None:
    weight = dosage(files, promoters.index)
    signal = weight @ np.array([*(motif.effect for motif in GRAMMAR), INTERACTION[2]])
    y = pd.read_csv(str(files.expression), sep="\t", index_col="gene_id")["expression"][promoters.index]
    assert files.ceiling == pytest.approx(1 / np.sqrt(1 + NOISE**2))
    assert np.corrcoef(signal, y)[0, 1] == pytest.approx(files.ceiling, abs=0.016)  # 4 SE: (1 - r²)/√2400
    assert float(np.std(y - signal)) == pytest.approx(NOISE * signal.std(), rel=0.06)  # 4 SE


def test_simulated_expression_without_noise_is_the_signal(tmp_path: Path) -> None:
    files = simulate(tmp_path, 1, 50, upstream=UPSTREAM, noise=0)
    y = pd.read_csv(str(files.expression), sep="\t", index_col="gene_id")["expression"]
    signal = dosage(files, y.index) @ np.array([*(motif.effect for motif in GRAMMAR), INTERACTION[2]])
    assert files.ceiling == 1
    np.testing.assert_allclose(y, 3 + signal, atol=5.1e-5)  # written with four decimals


@pytest.mark.parametrize("name", MOTIFS)
def test_a_motif_taken_out_of_the_grammar_is_gone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genome_module, "GRAMMAR", tuple(motif for motif in GRAMMAR if motif.name != name))
    found = simulate(tmp_path, 1, 200, upstream=UPSTREAM)
    assert set(found.motifs["motif"]) == MOTIFS.keys() - {name}
    word = MOTIFS[name].consensus
    letters = found.genome.read_text().replace("\n", "")
    # 80,000 random positions hold a word of 8 bases 1.2 times; the grammar implants 80
    assert letters.count(word) + letters.count(word.translate(COMPLEMENT)[::-1]) < 15


# How well scores recover the motifs


def scores_of(contributions: np.ndarray, genes: pd.DataFrame) -> Scores:
    """Scores whose actual contributions are these, shape (genes, length)."""
    letters = np.array([list(sequence) for sequence in genes["sequence"]])
    present = (letters[:, None] == np.array(list("ACGT"))[:, None])[:, None]
    scores = np.where(present, 0, -4 / 3 * contributions[:, None, None]).astype(np.float32)
    return Scores(genes, ["expression"], np.zeros((len(genes), 1), np.float32), scores)


@pytest.fixture(scope="module")
def inside(files: Simulation, promoters: pd.DataFrame) -> np.ndarray:
    """Whether each base of each promoter lies in an instance."""
    row_of = {gene: row for row, gene in enumerate(promoters["gene_id"])}
    found = np.zeros((len(promoters), UPSTREAM), bool)
    for one in files.motifs.to_dict("records"):
        found[row_of[one["gene_id"]], one["offset"] : one["offset"] + one["width"]] = True
    return found


def test_perfect_contributions_recover_every_motif(
    files: Simulation, promoters: pd.DataFrame, inside: np.ndarray
) -> None:
    contributions = np.where(inside, -0.5, 0.1)  # the sign does not matter
    table = motif_recovery(files.motifs, scores_of(contributions, promoters))
    counts = files.motifs["motif"].value_counts()
    assert dict(zip(table["motif"], table["instances"], strict=True)) == {**counts, "all": len(files.motifs)}
    assert table["auroc"].tolist() == [1] * 6


def test_random_contributions_recover_nothing(files: Simulation, promoters: pd.DataFrame) -> None:
    noise = np.random.default_rng(0).normal(size=(len(promoters), UPSTREAM))
    # an instance has 8 bases or more: 960 × 8 of the rarest give a standard error of 0.003
    np.testing.assert_allclose(motif_recovery(files.motifs, scores_of(noise, promoters))["auroc"], 0.5, atol=0.02)


def test_motif_recovery_counts_scored_genes_only_in_any_order(
    files: Simulation, promoters: pd.DataFrame, inside: np.ndarray
) -> None:
    order = np.random.default_rng(1).permutation(len(promoters))[:100]
    some = promoters.iloc[order]
    table = motif_recovery(files.motifs, scores_of(inside[order].astype(float), some))
    assert table["auroc"].tolist() == [1] * 6
    assert table["instances"].iloc[-1] == files.motifs["gene_id"].isin(some["gene_id"]).sum()


def test_motif_recovery_is_the_share_of_pairs_in_the_right_order() -> None:
    genes = pd.DataFrame({"gene_id": ["a", "b"], "sequence": ["ACGTACNN", "TTTTGGGG"]})
    truth = pd.DataFrame({"gene_id": ["b", "a"], "motif": ["x", "y"], "offset": [2, 0], "width": [2, 3]})
    size = np.array([[3, 1, 2, 2, 0, 1, 9, 9], [0, 1, 2, 3, 1, 2, 0, 4]])
    within = {"x": [2, 3], "y": [3, 1, 2]}
    outside = [2, 0, 1, 0, 1, 1, 2, 0, 4]  # without the Ns
    within["all"] = within["x"] + within["y"]
    found = motif_recovery(truth, scores_of(size, genes)).set_index("motif")["auroc"]
    for name, values in within.items():
        pairs = [(one > other) + (one == other) / 2 for one in values for other in outside]
        assert found[name] == pytest.approx(sum(pairs) / len(pairs))
