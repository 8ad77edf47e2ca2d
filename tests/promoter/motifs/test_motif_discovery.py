"""Motifs out of contributions: a track with words at known positions of a simulated genome."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from pyfaidx import Fasta
from scipy import stats
from support.disks import limited

from promoter.dataset.genome import window
from promoter.errors import InputError, StorageError
from promoter.ism.store import Scores, write_part
from promoter.motifs.discovery import (
    Contributions,
    Discovery,
    _instances,
    discover_motifs,
    information,
    place_on_genome,
    read_contributions,
    trim,
    write_h5,
)
from promoter.sequence import encode, one_hot, reverse_complement
from promoter.simulation.genome import GRAMMAR, Simulation, simulate
from promoter.simulation.recovery import compare_with_implanted
from promoter.storage.parts import part_path

UPSTREAM = 200  # in 150 bases, implanted motifs lie so close that seqlets hold several
KNOWN = {one.name: one for one in GRAMMAR}


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(tmp_path_factory.mktemp("genome"), 2, 300, upstream=UPSTREAM)


@pytest.fixture(scope="module")
def contributions(simulation: Simulation) -> Contributions:
    """What a model that knows the grammar would give: the effect at the bases of each instance, and noise."""
    genome = Fasta(str(simulation.genome), as_raw=True, sequence_always_upper=True)
    rows = []
    for line in simulation.genes.read_text().splitlines():
        chrom, start, end, gene, _, strand = line.split("\t")
        tss = int(start) if strand == "+" else int(end) - 1
        left, right = window(tss, strand, UPSTREAM, 0)
        length = len(genome[chrom])
        bases = "N" * max(-left, 0) + genome[chrom][max(left, 0) : right] + "N" * max(right - length, 0)
        rows.append((gene, chrom, left, right, strand, bases if strand == "+" else str(reverse_complement(bases))))
    columns = ["gene_id", "chrom", "start", "end", "strand", "sequence"]
    genes = pd.DataFrame(rows, columns=pd.Index(columns))
    ones_NAL = one_hot(encode(genes["sequence"].tolist())).numpy()
    rng = np.random.default_rng(0)
    actual_NL = rng.normal(0, 0.02, ones_NAL[:, 0].shape).astype(np.float32)
    row_of = {gene: row for row, gene in enumerate(genes["gene_id"])}
    implanted = simulation.motifs[["gene_id", "motif", "offset", "width"]]
    for gene, name, start, width in implanted.itertuples(index=False, name=None):
        actual_NL[row_of[gene], start : start + width] += KNOWN[name].effect
    known_N1L = ones_NAL.any(axis=1, keepdims=True)
    # of the base that is there, and a third of it less for each of the others, so that they sum to 0
    hypothetical_NAL = np.where(known_N1L, actual_NL[:, None] * (ones_NAL - (1 - ones_NAL) / 3), 0)
    return Contributions(genes, "expression", hypothetical_NAL.astype(np.float32), ones_NAL)


@pytest.fixture(scope="module")
def found(contributions: Contributions) -> Discovery:
    return discover_motifs(contributions)


def test_implanted_motifs_are_found(
    found: Discovery, contributions: Contributions, simulation: Simulation
) -> None:
    compared = compare_with_implanted(found, simulation.motifs, set(contributions.genes["gene_id"]))
    names = compared.table.set_index("motif")["found"]
    assert all(names[["TATA box", "GC box", "CCAAT box", "repressor"]] != "")  # the initiator's effect is least
    assert compared.instance_precision > 0.9  # by overlap with a motif that is alike
    assert compared.instance_recall > 0.5
    signs = {one.name: one.sign for one in found.motifs}
    assert signs[names["GC box"].split()[0]] == 1
    assert -1 in {signs[name] for name in names["repressor"].split()}
    consensus = {one.consensus for one in found.motifs}
    assert KNOWN["GC box"].consensus in consensus | {str(reverse_complement(one)) for one in consensus}


def test_motifs_are_as_wide_as_the_implanted_words(found: Discovery, simulation: Simulation) -> None:
    """Instances that overlap an implanted one begin and end where it does, on both strands of the gene."""
    columns = ["gene_id", "offset", "width"]
    pairs = found.instances.merge(simulation.motifs[[*columns, "motif"]], on="gene_id", suffixes=("", "_true"))
    end, true_end = pairs["offset"] + pairs["width"], pairs["offset_true"] + pairs["width_true"]
    overlap = (pairs["offset"] < true_end) & (pairs["offset_true"] < end)
    pairs = pairs.assign(off=np.maximum((pairs["offset"] - pairs["offset_true"]).abs(), (end - true_end).abs()))
    whole = pairs[overlap & (pairs["width"] > 7)]  # a motif of seven is a part of the repressor
    assert len(whole) > 400
    assert whole.groupby(["motif", "orientation"])["off"].median().max() <= 2
    assert (whole["off"] <= 2).mean() > 0.95
    assert set(whole.loc[whole["off"] == 0, "orientation"]) == {"+", "-"}
    assert found.uninformative == 0


def test_information_is_the_relative_entropy_less_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    background = np.array([0.35, 0.15, 0.15, 0.35])
    frequencies = rng.dirichlet([0.3] * 4, size=12).T
    expected = stats.entropy(frequencies, background[:, None], base=2)
    np.testing.assert_allclose(information(frequencies, 0.9 * background, 10**9), expected, atol=1e-6)
    by_chance = rng.multinomial(25, background, size=4000).T / 25
    entropies = stats.entropy(by_chance, background[:, None], base=2)
    excess = information(np.eye(4), np.full(4, 0.25), 25) - 2
    assert excess == pytest.approx(np.full(4, -entropies.mean()), rel=0.1)


def test_trim_returns_the_interval_of_most_information() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        bits, strength = rng.exponential(0.3, 30), rng.uniform(0, 5, 30)
        weighted = bits * strength / strength.max()
        sums = {(a, b): (weighted[a:b] - 0.25).sum() for a in range(30) for b in range(a + 1, 31)}
        best = max(sums, key=lambda pair: sums[pair])
        start, end = trim(bits, strength) or (0, 0)
        if sums[best] <= 0:
            assert (start, end) == (0, 0)
        elif best[1] - best[0] >= 6:
            assert (start, end) == best
        else:
            assert end - start == 6
            assert start <= best[0] < best[1] <= end


@pytest.mark.parametrize(
    ("bits", "strength", "expected"),
    [
        ([0.1] * 12 + [2] * 8 + [0.1] * 12, [1] * 32, (12, 20)),  # flanks of chance bases
        ([2] * 3 + [0] * 11 + [2] * 3, [1] * 17, (0, 17)),  # two halves and their gap
        ([2] * 8 + [0] * 20 + [0.6] + [0], [1] * 30, (0, 8)),  # a stray base
        ([2] * 30, [0] * 10 + [1] * 10 + [0] * 10, (10, 20)),  # conserved, but of no matter to the model
        ([0] * 10 + [2, 2] + [0] * 10, [1] * 22, 6),
        ([2, 2] + [0] * 10, [1] * 12, (0, 6)),  # widened at an end
        ([0] * 10 + [2, 2], [1] * 12, (6, 12)),
        ([2] * 4, [1] * 4, (0, 4)),  # shorter than the least width
        ([0.2] * 30, [1] * 30, None),
        ([2] * 30, [0] * 30, None),
    ],
)
def test_trim_keeps_informative_positions_that_matter(
    bits: list[float], strength: list[float], expected: tuple[int, int] | int | None
) -> None:
    trimmed = trim(np.array(bits, float), np.array(strength, float))
    if isinstance(expected, int):
        assert trimmed is not None
        assert trimmed[1] - trimmed[0] == expected
        assert trimmed[0] <= 10
        assert trimmed[1] >= 12
    else:
        assert trimmed == expected


def test_a_pattern_without_informative_positions_is_counted_and_no_motif(
    contributions: Contributions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pattern(word_NA: np.ndarray) -> SimpleNamespace:
        seqlets = [SimpleNamespace(start=20, end=40, is_revcomp=False, example_idx=row) for row in range(30)]
        contribs = word_NA - word_NA.mean(axis=1, keepdims=True) + 0.01
        return SimpleNamespace(
            sequence=word_NA, contrib_scores=contribs, seqlets=seqlets, subcluster_to_subpattern=None
        )

    nothing = np.full((20, 4), 0.25)
    word = nothing.copy()
    word[5:12] = np.eye(4)[[0, 1, 2, 3, 0, 1, 2]]
    patterns = [pattern(nothing), pattern(word)]
    monkeypatch.setattr(
        "promoter.motifs.discovery.modiscolite.tfmodisco.TFMoDISco", lambda *_, **__: (patterns, None)
    )
    found = discover_motifs(contributions)
    assert found.uninformative == 1
    assert [(motif.name, motif.group, motif.consensus) for motif in found.motifs] == [
        ("pattern_0", "pos_patterns.pattern_1", "ACGTACG")
    ]
    assert set(found.instances["motif"]) == {"pattern_0"}
    assert set(found.instances["offset"]) == {5}
    assert set(found.instances["width"]) == {7}


def test_instances_are_where_the_genome_has_the_word(
    found: Discovery, contributions: Contributions, simulation: Simulation
) -> None:
    """The bases at the BED's coordinates, read anew 5'→3' on its strand, have the frequencies of the motif."""
    genome = Fasta(str(simulation.genome), as_raw=True, sequence_always_upper=True)
    placed = place_on_genome(found.instances, contributions.genes)
    gene_strand = contributions.genes.set_index("gene_id")["strand"]
    compared, seen = 0, set()
    for one in found.motifs:
        some = placed[placed["name"].str.startswith(f"{one.name}|")]
        width = one.frequencies_AL.shape[1]
        if len(some) < one.seqlets or (some["end"] - some["start"] < width).any():
            continue  # some pass the end of a sequence
        bases = [genome[row.chrom][row.start : row.end] for row in some.itertuples()]
        turned = [
            word if strand == "+" else str(reverse_complement(word))
            for word, strand in zip(bases, some["strand"], strict=True)
        ]
        np.testing.assert_allclose(one_hot(encode(turned)).numpy().mean(axis=0), one.frequencies_AL, atol=1e-6)
        compared += 1
        seen |= {
            (gene_strand[name.split("|")[1]], strand)
            for name, strand in zip(some["name"], some["strand"], strict=True)
        }
    assert compared >= 3
    assert seen == {("+", "+"), ("+", "-"), ("-", "+"), ("-", "-")}
    assert placed["score"].max() == 1000


def test_contribution_of_an_instance_is_the_sum_over_its_bases(
    found: Discovery, contributions: Contributions
) -> None:
    row_of = {gene: row for row, gene in enumerate(contributions.genes["gene_id"])}
    some = found.instances.sample(50, random_state=0)
    columns = (some[name] for name in ("gene_id", "offset", "width", "contribution"))
    for gene, offset, width, contribution in zip(*columns, strict=True):
        row, sequence = row_of[gene], contributions.genes["sequence"][row_of[gene]]
        each = [
            contributions.hypothetical_NAL[row, "ACGT".index(sequence[at]), at]
            for at in range(offset, offset + width)
            if sequence[at] != "N"
        ]
        assert contribution == pytest.approx(sum(each), rel=1e-4)


def test_a_seqlet_whose_core_lies_before_the_sequence_is_no_instance(contributions: Contributions) -> None:
    row = int(np.flatnonzero(contributions.one_hot_NAL.sum(axis=(1, 2)) == contributions.one_hot_NAL.shape[2])[0])
    spans = [(-20, 21, False), (-20, 21, True), (0, 41, False)]
    seqlets = [SimpleNamespace(start=a, end=b, is_revcomp=turned, example_idx=row) for a, b, turned in spans]
    of_core = list(
        _instances("pattern_0", SimpleNamespace(seqlets=seqlets), first=3, last=15, contributions=contributions)
    )
    gene = contributions.genes["gene_id"].iloc[row]
    assert [one[:5] for one in of_core] == [
        ("pattern_0", gene, 6, 12, "-"),
        ("pattern_0", gene, 3, 12, "+"),
    ]


def test_the_modisco_file_holds_the_same_seqlets_as_the_instances(found: Discovery, tmp_path: Path) -> None:
    write_h5(tmp_path / "motifs.h5", found)
    with h5py.File(tmp_path / "motifs.h5") as file:
        for one in found.motifs:
            seqlets = one.group.replace(".", "/") + "/seqlets"
            assert np.array(file[f"{seqlets}/n_seqlets"]) == [one.seqlets]
            assert set(np.array(file[f"{seqlets}/example_idx"])) <= set(range(600))


@pytest.mark.parametrize("size", [0, 5000])
def test_a_disk_without_room_for_the_modisco_file_is_one_line(found: Discovery, tmp_path: Path, size: int) -> None:
    with limited(size), pytest.raises(StorageError, match=rf"^{tmp_path}/motifs\.h5: could not be written"):
        write_h5(tmp_path / "motifs.h5", found)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_track_has_no_motifs(contributions: Contributions) -> None:
    silent = Contributions(
        contributions.genes, "expression", 0 * contributions.hypothetical_NAL, contributions.one_hot_NAL
    )
    found = discover_motifs(silent)
    assert found.motifs == []
    assert list(place_on_genome(found.instances, silent.genes).columns)[:3] == ["chrom", "start", "end"]


def test_too_few_genes_have_no_motifs(contributions: Contributions) -> None:
    few = Contributions(
        contributions.genes[:5], "expression", contributions.hypothetical_NAL[:5], contributions.one_hot_NAL[:5]
    )
    assert discover_motifs(few).motifs == []


def test_motif_discovery_reads_scores_by_window_and_strand(contributions: Contributions, tmp_path: Path) -> None:
    """Scores whose mean over the bases is not 0, of which the last 50 bases are kept."""
    scores_NTAL = contributions.hypothetical_NAL[:, None] + np.float32(1)
    prediction_NT = np.zeros((len(scores_NTAL), 1), np.float32)
    scores = Scores(contributions.genes, ["expression"], prediction_NT, scores_NTAL)
    (tmp_path / "scores").mkdir()
    write_part(part_path(tmp_path / "scores", 0), scores, {})
    read = read_contributions(tmp_path, window=50)
    np.testing.assert_allclose(read.hypothetical_NAL, contributions.hypothetical_NAL[..., -50:], atol=1e-6)
    whole = contributions.genes
    plus = (whole["strand"] == "+").to_numpy()
    assert (read.genes["end"][plus] == whole["end"][plus]).all()
    assert (read.genes["start"][~plus] == whole["start"][~plus]).all()
    assert (read.genes["end"] - read.genes["start"] == 50).all()
    with pytest.raises(InputError, match="`window=20`: must be from 21"):
        read_contributions(tmp_path, window=20)
    with pytest.raises(InputError, match="`target='x'`: is not"):
        read_contributions(tmp_path, target="x")


def test_instances_in_a_library_count_from_the_first_base_of_the_sequence(
    contributions: Contributions, tmp_path: Path
) -> None:
    """The last 120 of the scored bases, which are the sequence's from base 7 on, hold what BED says they hold."""
    hypothetical_NAL, sequences = contributions.hypothetical_NAL, contributions.genes["sequence"]
    length = hypothetical_NAL.shape[2]
    genes = contributions.genes[["gene_id", "sequence"]].assign(chrom=None, start=None, end=None, strand=None)
    scores = Scores(genes, ["y"], np.zeros((len(genes), 1), np.float32), hypothetical_NAL[:, None])
    write_part(part_path(tmp_path / "scores", 0), scores, {})
    parts = [{"file": "scores/part-00000.parquet"}]
    manifest = {"complete": True, "window": None, "positions": [7, 7 + length], "parts": parts}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    read = read_contributions(tmp_path, window=120)
    assert (read.noun, set(read.genes["start"]), set(read.genes["end"])) == (
        "sequence",
        {7 + length - 120},
        {7 + length},
    )
    found = discover_motifs(read)
    placed = place_on_genome(found.instances, read.genes)
    assert len(placed) > 100
    whole = {name: "?" * 7 + sequence for name, sequence in zip(genes["gene_id"], sequences, strict=True)}
    compared = 0
    for one in found.motifs:
        some = placed[placed["name"].str.startswith(f"{one.name}|")]
        width = one.frequencies_AL.shape[1]
        if len(some) < one.seqlets or (some["end"] - some["start"] < width).any():
            continue  # some pass the end of a sequence
        words = [whole[row.chrom][row.start : row.end] for row in some.itertuples()]
        turned = [
            word if strand == "+" else str(reverse_complement(word))
            for word, strand in zip(words, some["strand"], strict=True)
        ]
        np.testing.assert_allclose(one_hot(encode(turned)).numpy().mean(axis=0), one.frequencies_AL, atol=1e-6)
        compared += 1
    assert compared
