from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from Bio import Align
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.files import oracle

from promoter.dataset.annotation import read_genes
from promoter.dataset.expression import read_expression
from promoter.dataset.genome import Genome, window
from promoter.dataset.prepare import prepare
from promoter.dataset.promoters import Promoters
from promoter.sequence import decode, encode, reverse_complement
from promoter.splits import compiled
from promoter.splits.alignment import BAND, extend
from promoter.splits.assign import apply_homology_policy
from promoter.splits.homology import (
    find_leaks,
    find_related_promoters,
    homology_groups,
    leaking_genes,
    overlapping_pairs,
    similar_pairs,
    without_flanks,
)
from promoter.splits.masking import MAX_PERIOD, mask_repeats
from promoter.splits.repeats import MIN_WINDOWS
from promoter.splits.split import assign


def random_tokens(rng: np.random.Generator, n: int, length: int) -> np.ndarray:
    return rng.integers(0, 4, (n, length), dtype=np.uint8)


def mutated(rng: np.random.Generator, tokens: np.ndarray, rate: float) -> np.ndarray:
    shift = rng.integers(1, 4, tokens.shape, dtype=np.uint8) * (rng.random(tokens.shape) < rate)
    return (tokens + shift).astype(np.uint8) % 4


def turned(tokens: np.ndarray) -> np.ndarray:
    return np.asarray(reverse_complement(tokens))


def family_of(rng: np.random.Generator, size: int, length: int, rate: float = 0.025) -> np.ndarray:
    """Copies of one window, each changed at this rate, every other one reverse-complemented."""
    copies = mutated(rng, np.tile(random_tokens(rng, 1, length), (size, 1)), rate)
    copies[::2] = turned(copies[::2])
    return copies


def implanted(
    rng: np.random.Generator, pairs: int, *, identity: float, bases: int = 100, length: int = 2000
) -> np.ndarray:
    """Random windows; rows k and pairs + k share an element, every other time on opposite strands."""
    tokens = random_tokens(rng, 2 * pairs, length)
    for row in range(pairs):
        x, y = rng.integers(0, length - bases + 1, 2)
        copy = mutated(rng, tokens[row, x : x + bases], 1 - identity)
        tokens[pairs + row, y : y + bases] = turned(copy[None])[0] if row % 2 else copy
    return tokens


def groups_of(pairs: pd.DataFrame, n: int) -> np.ndarray:
    return homology_groups(pairs.assign(kind=np.where(pairs["repeat"], "repeat", "similar")), n)


def prefix_oracle(first: str, second: str) -> int:
    """Written out: best score of an alignment of two prefixes, with the complete table and affine gaps (Gotoh)."""
    n, m = len(first), len(second)
    low = -(10**6)
    best = np.full((3, n + 1, m + 1), low)
    best[0, 0, 0] = 0
    for i in range(n + 1):
        for j in range(m + 1):
            if i:
                best[1, i, j] = max(best[:, i - 1, j].max() - 5, best[1, i - 1, j] - 1)
            if j:
                best[2, i, j] = max(best[:, i, j - 1].max() - 5, best[2, i, j - 1] - 1)
            if i and j:
                known = "N" not in (first[i - 1], second[j - 1])
                step = (1 if first[i - 1] == second[j - 1] else -1) if known else 0
                best[0, i, j] = best[:, i - 1, j - 1].max() + step
    return int(best.max())


EDITS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["insert", "delete", "change", "N"]), st.integers(1, 6)),
    max_size=4,
)


@given(st.integers(0, 10**6), EDITS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_alignments_equal_those_of_a_complete_table(
    seed: int, edits: list[tuple[int, str, int]], opposite: bool
) -> None:
    for gap in ("insert", "delete"):  # what shifts by more than the band is another alignment
        assume(sum(size for _, kind, size in edits if kind == gap) <= BAND)
    rng = np.random.default_rng(seed)
    first = decode(random_tokens(rng, 1, 70))[0]
    second = first
    for at, kind, size in edits:
        middle = {"insert": "ACGTCA"[:size], "delete": "", "change": "G", "N": "N" * size}[kind]
        skip = {"insert": 0, "delete": size, "change": 1, "N": size}[kind]
        second = second[:at] + middle + second[at + skip :]
    given_as = encode(second) if not opposite else encode(second.translate(str.maketrans("ACGT", "TGCA")))
    work = np.empty((3, 2 * BAND + 3), np.int64)
    total, used, other = extend(encode(first), given_as, int(opposite), work)
    expected = prefix_oracle(first, second)
    if expected > 15:  # an alignment that dips 20 below its best ends there
        assert total >> 40 == expected
        assert 0 <= total >> 20 & 0xFFFFF <= min(used, other)


def test_the_alignment_of_an_implanted_pair_is_that_of_biopython() -> None:
    rng = np.random.default_rng(0)
    tokens = random_tokens(rng, 40, 500)
    for row in range(20):
        copy = mutated(rng, tokens[row, 100:300], 0.1)
        copy = np.delete(copy, slice(60, 63))
        tokens[20 + row, 200:397] = turned(copy[None])[0] if row % 2 else copy
    aligner = Align.PairwiseAligner(
        mode="local", match_score=1, mismatch_score=-1, open_gap_score=-5, extend_gap_score=-1
    )
    pairs = similar_pairs(tokens)
    assert (pairs["j"] == pairs["i"] + 20).all()
    assert len(pairs) == 20
    texts = decode(tokens)
    pair: Any
    for pair in pairs.itertuples():
        second = texts[pair.j] if pair.strand == "same" else str(reverse_complement(texts[pair.j]))
        best = aligner.align(texts[pair.i], second)[0]
        counts, coordinates = best.counts(), best.coordinates
        assert coordinates is not None
        columns = counts.identities + counts.mismatches + counts.gaps
        assert pair.identity == pytest.approx(counts.identities / columns, abs=0.03)  # ties may end elsewhere
        assert abs(pair.length - min(len(texts[0]), coordinates[0, -1] - coordinates[0, 0])) <= 10
        assert (pair.strand == "opposite") == (pair.i % 2 == 1)


@pytest.mark.parametrize(("identity", "recall"), [(0.85, 0.97), (0.75, 0.8)])
def test_implanted_pairs_of_100_bases_are_found_and_no_others(identity: float, recall: float) -> None:
    tokens = implanted(np.random.default_rng(3), 300, identity=identity)
    pairs = similar_pairs(tokens)
    assert (pairs["j"] == pairs["i"] + 300).all()
    assert len(pairs) >= recall * 300
    assert (pairs["strand"] == np.where(pairs["i"] % 2, "opposite", "same")).all()
    assert pairs["identity"].mean() == pytest.approx(identity, abs=0.03)
    assert pairs["length"].mean() == pytest.approx(100, abs=10)
    assert not pairs["identical"].any()


@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.36, 0.14, 0.14, 0.36), (0.16, 0.34, 0.34, 0.16)])
def test_unrelated_windows_are_like_no_other(shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(4)
    assert similar_pairs(rng.choice(4, (2000, 500), p=shares).astype(np.uint8)).empty


@pytest.mark.parametrize("unit", ["A", "AT", "CA", "CAG", "TTAGG", "TGGGTG", "ACGTACCTGAT", "ACGTTGCATGGATCC"])
def test_tandem_repeats_are_no_homology(unit: str) -> None:
    rng = np.random.default_rng(5)
    repeat = encode(unit * 600)
    tokens = random_tokens(rng, 40, 500)
    for row in range(40):
        place, phase = rng.integers(0, 250), rng.integers(0, len(unit))
        tokens[row, place : place + 250] = repeat[phase : phase + 250]
    tokens[::2] = turned(tokens[::2])
    tokens = np.where(rng.random(tokens.shape) < 0.03, random_tokens(rng, *tokens.shape), tokens).astype(np.uint8)
    assert similar_pairs(tokens).empty


def test_sequence_of_two_letters_is_no_homology() -> None:
    rng = np.random.default_rng(6)
    tokens = random_tokens(rng, 300, 500)
    tokens[:, 200:320] = rng.choice(np.array([0, 3], np.uint8), (300, 120))
    assert similar_pairs(tokens).empty


@pytest.mark.parametrize("period", [1, 2, 3, 7, 24, MAX_PERIOD])
def test_masked_is_what_repeats_itself_and_little_else(period: int) -> None:
    rng = np.random.default_rng(period)
    tokens = random_tokens(rng, 50, 600)
    copies = 3 + 20 // period
    first, last = 100, 100 + copies * period
    tokens[:, first:last] = np.tile(random_tokens(rng, 50, period), (1, copies))
    before = tokens.copy()
    masked = mask_repeats(tokens) == 4
    np.testing.assert_array_equal(tokens, before)
    assert masked[:, first:last].all()
    assert masked[:, : first - 8].mean() < 0.01  # a few more bases fit the period by chance
    assert masked[:, last + 8 :].mean() < 0.01


def test_homology_crosses_N() -> None:
    rng = np.random.default_rng(7)
    tokens = random_tokens(rng, 2, 500)
    tokens[1, 100:300] = tokens[0, 200:400]
    tokens[1, 180:200] = 4
    pairs = similar_pairs(tokens)
    assert pairs[["i", "j"]].to_numpy().tolist() == [[0, 1]]
    assert 200 <= pairs["length"][0] <= 206
    assert pairs["identity"][0] > 0.97
    assert pairs["fraction"][0] == pytest.approx(pairs["length"][0] / 480)


@pytest.mark.parametrize("length", [50, 70, 99, 100, 110, 150])
def test_a_single_changed_base_leaves_short_windows_related(length: int) -> None:
    rng = np.random.default_rng(length)
    tokens = random_tokens(rng, 1500, length)
    changed = tokens[:500].copy()
    where = (np.arange(500), rng.integers(0, length, 500))
    changed[where] = (changed[where] + 1) % 4
    pairs = similar_pairs(np.concatenate([tokens, changed]))
    assert set(zip(pairs["i"], pairs["j"], strict=True)) == {(i, 1500 + i) for i in range(500)}  # and no other


@pytest.mark.parametrize("length", [15, 18, 22, 30])
def test_equal_sequences_are_related_however_short(length: int) -> None:
    tokens = random_tokens(np.random.default_rng(length), 300, length)
    pairs = similar_pairs(np.concatenate([tokens, turned(tokens[:5])]))
    assert list(zip(pairs["i"], pairs["j"], pairs["identical"], strict=True)) == [
        (i, 300 + i, True) for i in range(5)
    ]
    assert (pairs[["fraction", "identity"]] == 1).all(axis=None)


def test_duplicates_and_reverse_complements_are_identical() -> None:
    rng = np.random.default_rng(2)
    tokens = random_tokens(rng, 40, 500)
    tokens[5, 100:130] = tokens[7, 400:] = 4
    tokens[20], tokens[21], tokens[22] = tokens[5], turned(tokens[7]), mutated(rng, tokens[9], 0.002)
    assert (tokens[22] != tokens[9]).any()
    found = similar_pairs(tokens).set_index(["i", "j"])
    assert found.index.tolist() == [(5, 20), (7, 21), (9, 22)]
    assert found["identical"].tolist() == [True, True, False]
    assert found["strand"].tolist() == ["same", "opposite", "same"]
    assert found["length"].tolist()[:2] == [470, 400]
    assert found["fraction"].tolist() == [1, 1, 1]


def test_flanks_that_a_library_shares_are_no_homology_but_what_lies_between_is() -> None:
    rng = np.random.default_rng(8)
    tokens = random_tokens(rng, 400, 200)
    tokens[300] = mutated(rng, tokens[:1], 0.02)[0]
    tokens[:, :40], tokens[:, 150:] = tokens[0, :40], tokens[0, 150:]
    tokens[7, 20] = 4  # an N, and a sequence whose synthesis failed
    tokens[9, 5:9] = (tokens[9, 5:9] + 1) % 4
    library = Promoters(located_nowhere(tokens), np.zeros((400, 0), np.float32), [], {"window": None})
    pairs = find_related_promoters(library)
    assert list(zip(pairs["i"], pairs["j"], strict=True)) == [(0, 300)]
    # all of them variants of one: what is alike is not the flank, but everything
    variants = np.repeat(tokens[:1], 300, axis=0)
    variants[np.arange(300), rng.integers(0, 200, 300)] = 3
    assert len(set(groups_of(similar_pairs(without_flanks(variants)), 300))) == 1


@pytest.mark.parametrize(("length", "found"), [(80, 0.99), (110, 0.99), (170, 0.99), (250, 0.99)])
def test_variants_of_an_element_between_flanks_are_one_family(length: int, found: float) -> None:
    rng = np.random.default_rng(length)
    elements = random_tokens(rng, 500, length)
    variants = np.concatenate([elements, mutated(rng, elements, 0.05)])
    flanks = [np.repeat(random_tokens(rng, 1, bases), len(variants), axis=0) for bases in (17, 13)]
    tokens = np.concatenate([flanks[0], variants, flanks[1]], axis=1)
    library = Promoters(located_nowhere(tokens), np.zeros((len(tokens), 0), np.float32), [], {"window": None})
    pairs = find_related_promoters(library)
    assert (pairs["j"] - pairs["i"] == len(elements)).all()  # no element is related to another
    assert len(pairs) >= found * len(elements)


def located_nowhere(tokens: np.ndarray) -> pd.DataFrame:
    genes = pd.DataFrame({"gene_id": [f"s{i}" for i in range(len(tokens))], "sequence": decode(tokens)})
    return genes.assign(chrom=None, tss=None, strand=None, start=None, end=None)


@pytest.mark.parametrize("shape", [(0, 0), (0, 100), (5, 0), (5, 14), (1, 100)])
def test_homology_of_no_windows_is_an_empty_table(shape: tuple[int, int]) -> None:
    pairs = similar_pairs(np.zeros(shape, np.uint8))
    assert pairs.empty
    assert list(pairs) == ["i", "j", "fraction", "identity", "length", "strand", "identical", "repeat"]
    assert groups_of(pairs, shape[0]).tolist() == list(range(shape[0]))


@pytest.mark.parametrize("seed", range(2))
def test_families_of_300_are_one_homology_group_each_without_all_of_their_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    place = rng.permutation(1000)
    tokens = random_tokens(rng, 1000, 600)
    tokens[place[:300]] = family_of(rng, 300, 600)
    tokens[place[300:600]] = tokens[place[300]]  # and 300 that are equal
    pairs = similar_pairs(tokens)
    found = groups_of(pairs, 1000)
    assert len(np.unique(found)) == 2 + 400
    assert len(np.unique(found[place[:300]])) == 1
    assert len(np.unique(found[place[300:600]])) == 1
    partners = np.bincount(np.concatenate([pairs["i"], pairs["j"]]), minlength=1000)
    assert partners[place[:600]].min() >= 30
    assert partners[place[600:]].max() == 0
    inside = pairs[pairs["i"].isin(place[300:600])]
    assert inside["identical"].all()
    assert len(inside) < 300 * 60  # not 300 * 299 / 2


def with_element(rng: np.random.Generator, n: int, copies: int) -> np.ndarray:
    """Windows of 1,500 bases; the first so many have an element of 300, on either strand, 8% of it changed."""
    tokens = random_tokens(rng, n, 1500)
    element = random_tokens(rng, 1, 300)
    for row in range(copies):
        copy = mutated(rng, element, 0.08)
        start = rng.integers(0, 1200)
        tokens[row, start : start + 300] = turned(copy)[0] if row % 2 else copy[0]
    return tokens


def test_an_element_in_more_than_one_percent_of_the_windows_is_a_repeat_and_joins_none() -> None:
    rng = np.random.default_rng(9)
    tokens = with_element(rng, 1200, 60)
    tokens[600] = mutated(rng, tokens[3], 0.15)  # a paralog of a window that has the element too
    pairs = similar_pairs(tokens)
    assert set(pairs["i"]) | set(pairs["j"]) == {*range(60), 600}
    family = pairs[~pairs["repeat"]]
    assert family[["i", "j"]].to_numpy().tolist() == [[3, 600]]
    assert groups_of(pairs, 1200)[3] == groups_of(pairs, 1200)[600]
    assert len(np.unique(groups_of(pairs, 1200))) == 1199


def test_an_element_in_few_windows_is_no_repeat() -> None:
    pairs = similar_pairs(with_element(np.random.default_rng(10), 200, MIN_WINDOWS))
    assert not pairs["repeat"].any()
    assert len(np.unique(groups_of(pairs, 200))) == 200 - MIN_WINDOWS + 1


def test_a_family_that_shares_most_of_its_windows_is_no_repeat_however_large() -> None:
    rng = np.random.default_rng(11)
    tokens = np.concatenate([family_of(rng, 100, 600, 0.1), random_tokens(rng, 50, 600)])
    pairs = similar_pairs(tokens)
    assert not pairs["repeat"].any()
    assert len(np.unique(groups_of(pairs, 150))) == 51


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_neither_the_order_of_windows_nor_the_number_of_threads_changes_homology(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = np.concatenate([family_of(rng, n, 400, 0.1) for n in (40, 9, 2, 2, 1, 1)])
    tokens = np.concatenate([tokens, implanted(rng, 10, identity=0.8, length=400)])
    expected = similar_pairs(tokens)
    for count in (1, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled, "_MAX_THREADS", count)
            patch.setattr(os, "sched_getaffinity", lambda _, count=count: set(range(count)), raising=False)
            pd.testing.assert_frame_equal(similar_pairs(tokens), expected)
    order = rng.permutation(len(tokens))
    moved = similar_pairs(tokens[order])
    moved[["i", "j"]] = np.sort(order[moved[["i", "j"]].to_numpy()], axis=1)
    columns = ["i", "j", "fraction", "identity", "length", "strand"]
    moved = moved.sort_values(["i", "j"], ignore_index=True)
    pd.testing.assert_frame_equal(moved[columns], expected[columns], rtol=0.1)


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_reverse_complements_have_the_same_homologs_on_the_other_strand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = implanted(rng, 20, identity=0.9, bases=200, length=400)
    some = rng.random(40) < 0.5
    other = np.where(some[:, None], turned(tokens), tokens)
    first, second = similar_pairs(tokens), similar_pairs(other)
    pd.testing.assert_frame_equal(first[["i", "j"]], second[["i", "j"]])
    turned_one = some[first["i"]] != some[first["j"]]
    assert ((first["strand"] != second["strand"]) == turned_one).all()


def test_homologs_are_found_where_no_folder_takes_machine_code() -> None:
    """As in a container whose code and home are read-only: numba then refuses to keep what it compiles."""
    code = (
        "import numba, numpy as np\n"
        "njit = numba.njit\n"
        "def refuse(function, cache=False, **options):\n"
        "    if cache: raise RuntimeError('no locator available')\n"
        "    return njit(function, **options)\n"
        "numba.njit = refuse\n"
        "from promoter.splits.homology import similar_pairs\n"
        "tokens = np.random.default_rng(0).integers(0, 4, (2, 200), dtype=np.uint8)\n"
        "tokens[1, :150] = tokens[0, 50:]\n"
        "print(len(similar_pairs(tokens)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr


def made_up(rng: np.random.Generator, n: int, upstream: int, downstream: int) -> tuple[Promoters, dict[str, str]]:
    """Genes at random on two short chromosomes, so that windows overlap and pass the ends."""
    chromosomes = {name: decode(random_tokens(rng, 1, 700))[0] for name in ("chr1", "chr2")}
    rows = []
    for number in range(n):
        chrom, tss, strand = f"chr{rng.integers(1, 3)}", int(rng.integers(0, 700)), "+-"[rng.integers(0, 2)]
        sequence = oracle(chromosomes[chrom], tss, strand, upstream, downstream)
        rows.append((f"g{number}", chrom, tss, strand, *window(tss, strand, upstream, downstream), sequence))
    columns = ["gene_id", "chrom", "tss", "strand", "start", "end", "sequence"]
    genes = pd.DataFrame(rows, columns=pd.Index(columns))
    return Promoters(genes, np.zeros((n, 0), np.float32), [], {}), chromosomes


@pytest.mark.parametrize(("upstream", "downstream"), [(60, 0), (0, 40), (150, 50), (1, 0)])
def test_overlaps_equal_those_of_sets_of_positions(upstream: int, downstream: int) -> None:
    rng = np.random.default_rng(upstream)
    promoters, _ = made_up(rng, 60, upstream, downstream)
    genes = promoters.genes
    positions = [
        {(chrom, at) for at in range(max(start, 0), min(end, 700))}
        for chrom, start, end in zip(genes["chrom"], genes["start"], genes["end"], strict=True)
    ]
    expected = []
    for i in range(60):
        for j in range(i + 1, 60):
            common = len(positions[i] & positions[j])
            if common:
                strand = "same" if genes["strand"][i] == genes["strand"][j] else "opposite"
                fraction = common / min(len(positions[i]), len(positions[j]))
                expected.append((i, j, common, fraction, strand))
    found = overlapping_pairs(genes)
    assert len(expected) > 0
    assert list(found.itertuples(index=False, name=None)) == expected


def test_windows_that_only_touch_do_not_overlap() -> None:
    genes = pd.DataFrame(
        {
            "chrom": ["chr1", "chr1", "chr1", "chr2", None],
            "strand": ["+", "-", "+", "+", None],
            "start": pd.array([0, 10, 9, 5, None], dtype="Int64"),
            "end": pd.array([10, 20, 19, 15, None], dtype="Int64"),
            "sequence": ["ACGTACGTAC"] * 5,
        }
    )
    found = overlapping_pairs(genes)
    assert found[["i", "j", "overlap"]].to_numpy().tolist() == [[0, 2, 1], [1, 2, 9]]
    assert found["fraction"].tolist() == [0.1, 0.9]
    assert found["strand"].tolist() == ["same", "opposite"]
    assert overlapping_pairs(genes[4:]).empty
    assert overlapping_pairs(genes[:0]).empty


def test_overlapping_windows_are_alike_where_they_overlap() -> None:
    promoters, _ = made_up(np.random.default_rng(10), 50, 150, 0)
    similar, overlapping = similar_pairs(promoters.tokens), overlapping_pairs(promoters.genes)
    both = overlapping[overlapping["overlap"] >= 40].merge(
        similar, on=["i", "j"], how="left", suffixes=("", "_of")
    )
    assert len(both) > 100
    assert both["length"].notna().mean() > 0.98  # one may lie within a tandem repeat
    both = both.dropna()
    assert ((both["length"] - both["overlap"]).abs() <= 12).all()  # a few more bases are the same by chance
    assert (both["strand"] == both["strand_of"]).all()


def related_at(promoters: Promoters, crop: int | None = None) -> dict[tuple[int, int], tuple[str, str]]:
    pairs = find_related_promoters(promoters, crop)
    return {
        (i, j): (kind, strand) for i, j, kind, strand in pairs[["i", "j", "kind", "strand"]].to_numpy().tolist()
    }


def test_homologs_are_of_the_kind_that_says_most() -> None:
    rng = np.random.default_rng(11)
    promoters, chromosomes = made_up(rng, 6, 200, 0)
    places = [("chr1", 250, "+"), ("chr1", 250, "+"), ("chr1", 249, "-"), ("chr1", 69, "-"), ("chr2", 400, "+")]
    genes = promoters.genes.copy()
    for row, (chrom, tss, strand) in enumerate(places):
        sequence = oracle(chromosomes[chrom], tss, strand, 200, 0)
        genes.loc[row, ["chrom", "tss", "strand", "sequence"]] = [chrom, tss, strand, sequence]
        genes.loc[row, ["start", "end"]] = window(tss, strand, 200, 0)
    genes.loc[5, "chrom"] = "chr3"
    genes.loc[5, "sequence"] = genes["sequence"][4][150:] + chromosomes["chr2"][500:650]
    data = Promoters(genes, promoters.targets, [], {})
    # windows: 0 and 1 [50, 250) on +, 2 [250, 450) on -, 3 [70, 270) on -; 5 begins with the last 50 bases of 4
    expected = {
        (0, 1): ("identical", "same"),
        (0, 3): ("overlapping", "opposite"),
        (1, 3): ("overlapping", "opposite"),
        (2, 3): ("overlapping", "same"),
        (4, 5): ("similar", "same"),
    }
    assert related_at(data) == expected
    pairs = find_related_promoters(data).set_index(["i", "j"])
    assert pairs["fraction"].round(2).loc[[(0, 1), (0, 3), (2, 3)]].tolist() == [1, 0.9, 0.1]
    assert pairs["length"].loc[[(0, 1), (0, 3), (2, 3)]].tolist() == [200, 180, 20]
    assert 0.25 <= pairs["fraction"].loc[(4, 5)] <= 0.3
    assert (pairs["identity"] > 0.95).all()
    # of the last 100 bases the network sees [150, 250), [250, 350) and [70, 170); of 5 nothing that 4 has
    assert related_at(data, 100) == {pair: expected[pair] for pair in [(0, 1), (0, 3), (1, 3)]}
    assert related_at(data, 200) == related_at(data, 5000) == expected


def test_what_lies_outside_of_the_crop_is_no_homology() -> None:
    rng = np.random.default_rng(12)
    tokens = random_tokens(rng, 6, 1000)
    tokens[1, 100:400] = tokens[0, 100:400]
    tokens[3, 800:] = tokens[2, 800:]
    tokens[5] = tokens[4]
    data = Promoters(located_nowhere(tokens), np.zeros((6, 0), np.float32), [], {"window": None})
    assert list(related_at(data)) == [(0, 1), (2, 3), (4, 5)]
    assert related_at(data, 300) == {(2, 3): ("similar", "same"), (4, 5): ("identical", "same")}
    assert related_at(data, 150) == {(2, 3): ("identical", "same"), (4, 5): ("identical", "same")}


def test_a_fasta_without_coordinates_has_similar_pairs_only() -> None:
    tokens = random_tokens(np.random.default_rng(12), 3, 200)
    tokens[2] = turned(tokens[0])
    genes = pd.DataFrame({"gene_id": list("abc"), "sequence": decode(tokens)})
    genes[["chrom", "strand"]] = None
    genes["start"] = genes["end"] = genes["tss"] = pd.array([None] * 3, dtype="Int64")
    pairs = find_related_promoters(Promoters(genes, np.zeros((3, 0), np.float32), [], {}))
    assert pairs.to_numpy().tolist() == [[0, 2, 1.0, "opposite", "identical", 1.0, 200]]


def table(*rows: tuple[int, int, float, str, str]) -> pd.DataFrame:
    pairs = pd.DataFrame(rows, columns=pd.Index(["i", "j", "fraction", "strand", "kind"]))
    return pairs.assign(identity=0.9, length=100)


def test_leaks_are_the_homologs_that_cross_the_split_the_worst_first() -> None:
    ids = ["a", "b", "c", "d", "e", "f"]
    splits = ["train", "test", "val", "test", None, "train"]
    pairs = table(
        (0, 1, 0.2, "same", "similar"),
        (0, 5, 1.0, "same", "identical"),  # both in training
        (1, 3, 1.0, "same", "identical"),  # both in test
        (1, 4, 1.0, "same", "identical"),  # one in none
        (2, 3, 0.9, "opposite", "overlapping"),
        (2, 5, 1.0, "same", "similar"),
        (3, 5, 1.0, "opposite", "identical"),
        (3, 0, 0.3, "same", "repeat"),
        (4, 5, 0.3, "same", "repeat"),
    )
    expected = [
        ["d", "test", "f", "train", 1.0, "opposite", "identical"],
        ["c", "val", "f", "train", 1.0, "same", "similar"],
        ["d", "test", "c", "val", 0.9, "opposite", "overlapping"],
        ["b", "test", "a", "train", 0.2, "same", "similar"],
        ["d", "test", "a", "train", 0.3, "same", "repeat"],
    ]
    for given_as in (splits, pd.Series(splits, index=list("uvwxyz")), np.array(splits, dtype=object)):
        leaks = find_leaks(pairs, ids, given_as)
        assert leaks.to_numpy().tolist() == [[*row, 0.9, 100] for row in expected]
    assert list(leaks) == ["gene_id", "split", "other_gene_id", "other_split", *list(pairs)[2:]]
    assert leaking_genes(leaks, ids).tolist() == [False, True, True, True, False, False]
    assert (
        leaking_genes(leaks[leaks["kind"] == "overlapping"], ids).sum() == 0
    )  # with validation, not with training
    assert not leaking_genes(leaks[leaks["kind"] == "repeat"], ids).any()
    assert homology_groups(pairs[pairs["kind"].isin(["repeat", "similar"])], 6).tolist() == [0, 0, 1, 2, 3, 1]
    with pytest.raises(ValueError, match="6 gene ids and 5 splits"):
        find_leaks(pairs, ids, splits[:5])


def test_a_split_by_homology_groups_leaks_nothing() -> None:
    rng = np.random.default_rng(13)
    tokens = np.concatenate([family_of(rng, size, 300) for size in (40, 7, 3, 2, 2, *[1] * 30)])
    ids = [f"g{i}" for i in range(len(tokens))]
    pairs = similar_pairs(tokens).assign(kind="similar")
    apart = homology_groups(pairs, len(tokens)) % 3
    assert find_leaks(pairs, ids, [("train", "val", "test")[i] for i in apart]).empty
    dealt = [("train", "val", "test")[i % 3] for i in range(len(tokens))]
    leaks = find_leaks(pairs, ids, dealt)
    split = np.array(dealt)
    related = np.arange(len(tokens)) < 50  # of the two families of two, one pair may lie in validation and test
    leaking = leaking_genes(leaks, ids)
    assert leaking[related & (split != "train")].all()
    assert not leaking[split == "train"].any()
    assert not leaking[54:].any()


YEAST_TEST, YEAST_VAL = ("chrIV", "chrXV"), ("chrVIII", "chrXI")


@pytest.fixture(scope="module", params=[500, 1000, 2000])
def yeast_windows(request: pytest.FixtureRequest, yeast: Path) -> tuple[Promoters, pd.DataFrame, np.ndarray]:
    genes, expression = (
        read_genes(yeast / "genes.bed"),
        read_expression(yeast / "expression.tsv", transform="log2p1"),
    )
    promoters, _ = prepare(Genome(yeast / "genome.fa.gz"), genes, expression, upstream=request.param, max_n=1)
    chroms = promoters.genes["chrom"]
    split_of_chrom = dict.fromkeys(chroms, "train") | dict.fromkeys(YEAST_TEST, "test")
    split_of_chrom |= dict.fromkeys(YEAST_VAL, "val")
    return promoters, find_related_promoters(promoters), assign(chroms, split_of_chrom).to_numpy()


def test_yeast_homologs_cross_a_split_at_chromosome_ends(
    yeast: Path, yeast_windows: tuple[Promoters, pd.DataFrame, np.ndarray]
) -> None:
    """Whole chromosomes held out, and yet: families near the telomeres have members on all of them."""
    promoters, pairs, splits = yeast_windows
    genes = promoters.genes
    leaks = find_leaks(pairs, genes["gene_id"], splits)
    test = splits == "test"
    assert leaking_genes(leaks, genes["gene_id"])[test].sum() >= 60  # 67, 183, 396 at 500, 1,000, 2,000 bases
    leaks = leaks[leaks["identity"] >= 0.85]  # longer windows reach into neighbours, whose families are older
    leaking = leaking_genes(leaks, genes["gene_id"])
    assert 30 <= leaking[test].sum() <= 150  # 48, 75, 122 of 1,433
    assert not leaking[splits == "train"].any()
    assert set(leaks["kind"]) == {"identical", "similar", "repeat"}  # chromosomes do not overlap
    lengths = genes["chrom"].map(Genome(yeast / "genome.fa.gz").lengths)
    near = (genes["tss"] < 25_000).to_numpy() | (lengths - genes["tss"] < 25_000).to_numpy()
    assert near[test & leaking].mean() > 0.2  # 42%, 29%, 27%
    assert near[test & ~leaking].mean() < 0.025  # 2.0%, 2.0%, 1.7%
    worst = leaks.iloc[0]
    sequence = dict(zip(genes["gene_id"], genes["sequence"], strict=True))
    pair = sequence[worst["gene_id"]], sequence[worst["other_gene_id"]]
    assert pair[0] in (pair[1], str(reverse_complement(pair[1])))


def test_yeast_homology_groups_are_those_known(
    yeast: Path, yeast_windows: tuple[Promoters, pd.DataFrame, np.ndarray]
) -> None:
    promoters, pairs, _ = yeast_windows
    ids = promoters.genes["gene_id"]
    found = pd.Series(homology_groups(pairs[pairs["kind"] != "overlapping"], len(ids)), index=ids)
    names = pd.read_csv(yeast / "original" / "Scer-sys-to-common-name.tsv.gz", sep="\t", header=None, index_col=0)[
        1
    ]

    def largest(name: str) -> tuple[int, int]:
        """Return how many genes have this name and a number, and how many of these are in one family."""
        of_name = found[[str(names.get(gene, "")).startswith(name) for gene in found.index]]
        return len(of_name), int(of_name.value_counts().iloc[0])

    assert largest("YRF1")[0] == 8
    assert largest("YRF1")[1] >= 7  # Y' helicases
    assert largest("PAU")[0] == 24
    assert largest("PAU")[1] >= 12  # seripauperins
    assert largest("COS")[1] >= 8
    silent = ["YCL066W", "YCL067C", "YCR039C", "YCR040W"]  # HML and MAT, alpha 1 and 2: one divergent promoter
    assert found[silent].nunique() == 1
    assert found[["YAL003W", "YAL005C", "YDL022W", "YGR192C"]].value_counts().eq(1).all()  # EFB1, SSA1, GPD1, TDH3


def test_a_large_family_is_dropped_and_counted_complete_though_not_all_of_its_pairs_are_listed() -> None:
    rng = np.random.default_rng(0)
    tokens = np.concatenate(
        [mutated(rng, np.tile(random_tokens(rng, 1, 200), (300, 1)), 0.06), random_tokens(rng, 200, 200)]
    )
    pairs = similar_pairs(tokens)
    pairs["kind"] = np.where(pairs["repeat"], "repeat", "similar")
    ids = np.arange(500).astype(str)
    split = np.full(500, "train", dtype=object)
    split[[3, 7, 400]] = "test"
    dropped = apply_homology_policy(split, lambda: pairs, "drop")
    assert set(np.flatnonzero(dropped == "train")) == set(range(300, 500)) - {
        400
    }  # no variant of the family trains
    assert set(np.flatnonzero(dropped == "test")) == {3, 7, 400}
    split[:] = None
    split[:100], split[100:105], split[300:] = "test", "train", "train"
    split[450] = "val"
    leaks = find_leaks(pairs, ids, split)
    leaking = leaking_genes(leaks, ids)
    assert set(np.flatnonzero(leaking)) == set(range(100))  # most are listed with none of the five
    unlisted = leaks[leaks["kind"] == "family"]
    assert len(unlisted) > 5
    assert set(unlisted["other_gene_id"]) == {"100"}
    assert unlisted["fraction"].isna().all()


@pytest.mark.parametrize("padded", [60, 80, 150])
@pytest.mark.parametrize("bases", [30, 34])
def test_short_sequences_are_found_in_windows_padded_with_n(padded: int, bases: int) -> None:
    rng = np.random.default_rng(0)
    tokens = np.full((400, padded), 4, np.uint8)
    tokens[:200, :bases] = random_tokens(rng, 200, bases)
    tokens[200:, :bases] = tokens[:200, :bases]
    tokens[np.arange(200, 400), rng.integers(0, bases, 200)] = rng.integers(0, 4, 200)
    pairs = similar_pairs(tokens)
    assert (pairs["j"] - pairs["i"] == 200).all()
    assert len(pairs) >= 195


def test_tiles_of_one_locus_are_a_family_and_no_repeats() -> None:
    locus = random_tokens(np.random.default_rng(0), 1, 6000)[0]
    pairs = similar_pairs(np.stack([locus[start : start + 200] for start in range(0, 5801, 20)]))
    assert not pairs["repeat"].any()
    assert (pairs["j"] - pairs["i"] <= 8).all()  # 40 bases in common at least
    assert np.bincount(pairs["j"] - pairs["i"])[1:6].min() >= 280  # those with half a window in common
