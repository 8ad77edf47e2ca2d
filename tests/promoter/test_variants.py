"""Variants: which windows they alter, how these are rebuilt, what is predicted, against naive constructions."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from Bio.bgzf import BgzfBlocks, BgzfWriter
from support.files import Write

import promoter.variants
from promoter.dataset.annotation import read_genes
from promoter.dataset.genome import Genome
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.ism import saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import BASES, decode, encode, reverse_complement
from promoter.training import predict
from promoter.variants import (
    Change,
    Place,
    Record,
    alters,
    distance_to_tss,
    find_alleles,
    places_of,
    predict_alleles,
    read_records,
    rebuild,
    task_of,
    trim,
)

HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
PAD = 60


def haplotype_window(chromosome: str, change: Change, place: Place) -> str:
    """Apply a change to a padded string in which the TSS stands in lower case, find it again and cut around it."""
    assert not change.start <= place.tss < change.end
    marked = chromosome[: place.tss] + chromosome[place.tss].lower() + chromosome[place.tss + 1 :]
    edited = "N" * PAD + marked[: change.start] + change.new + marked[change.end :] + "N" * PAD
    tss = next(index for index, letter in enumerate(edited) if letter.islower())
    if place.strand == "+":
        return edited[tss - place.upstream : tss + place.downstream].upper()
    cut = edited[tss + 1 - place.downstream : tss + 1 + place.upstream].upper()
    return str(reverse_complement(cut))


def around_of(chromosome: str, change: Change, place: Place) -> tuple[np.ndarray, int]:
    beyond = change.end - change.start
    start, end = place.window
    padded = "N" * PAD + chromosome + "N" * PAD
    return encode(padded[start - beyond + PAD : end + beyond + PAD]), start - beyond


def test_rebuilt_windows_are_those_of_the_haplotype():
    rng = np.random.default_rng(0)
    seen = {"altered": 0, "untouched": 0, "across a border": 0, "at the TSS": 0}
    for _ in range(6000):
        chromosome = "".join(rng.choice(list(BASES), 40))
        up, down = int(rng.integers(1, 20)), int(rng.integers(0, 12))
        place = Place(int(rng.integers(0, 40)), str(rng.choice(["+", "-"])), up, down)
        start = int(rng.integers(1, 40))
        end = min(start + int(rng.choice([0, 1, 2, 5, 15])), 40)
        change = Change(start, end, "".join(rng.choice(list(BASES), int(rng.choice([0, 1, 2, 5, 30])))))
        anchor = chromosome[start - 1]
        if trim(start - 1, anchor + chromosome[start:end], anchor + change.new) != change:
            continue  # can be written more briefly, or further to the left
        if (start == end and not change.new) or start <= place.tss < end:
            continue
        expected = haplotype_window(chromosome, change, place)
        if not alters(change, place):
            unchanged = haplotype_window(chromosome, Change(0, 0, ""), place)
            assert expected == unchanged, (chromosome, change, place)
            seen["untouched"] += 1
            continue
        found = rebuild(*around_of(chromosome, change, place), change, place)
        assert decode(found[None])[0] == expected, (chromosome, change, place)
        seen["altered"] += 1
        low, high = place.window
        seen["across a border"] += change.start < low < change.end or change.start < high < change.end
        seen["at the TSS"] += place.border in (change.start, change.end)
    assert min(seen.values()) > 50, seen


@pytest.mark.parametrize(
    ("strand", "change", "expected"),
    [
        # upstream is CCCCC and downstream GGGGG on +; the border lies between them
        ("+", Change(13, 17, "TTTT"), "CCCTTTTGGG"),  # each base at its place
        ("+", Change(13, 17, ""), "AACCCGGGAA"),  # the sides close up, both are filled from afar
        ("+", Change(13, 17, "T"), "ACCCTGGGAA"),  # the lone base stays left of the border
        ("+", Change(15, 16, ""), "CCCCCGGGGA"),  # the TSS itself is the first base downstream
        ("+", Change(15, 15, "TT"), "CCCTTGGGGG"),  # before the TSS: upstream
        ("-", Change(13, 17, "TTTT"), "CCCAAAAGGG"),
        ("-", Change(15, 15, "TT"), "CCCAAGGGGG"),  # before the TSS of this strand, too
        ("-", Change(14, 15, ""), "CCCCCGGGGT"),
    ],
)
def test_changes_at_and_across_the_tss(strand: str, change: Change, expected: str):
    chromosome = "A" * 10 + "CCCCC" + "GGGGG" + "A" * 10
    place = Place(15 if strand == "+" else 14, strand, 5, 5)
    found = rebuild(*around_of(chromosome, change, place), change, place)
    assert decode(found[None]) == [expected]


@pytest.mark.parametrize(
    ("change", "on_plus", "on_minus"),
    [
        (Change(10, 11, "A"), 0, 0),
        (Change(7, 8, "A"), -3, 3),
        (Change(14, 15, "A"), 4, -4),
        (Change(5, 9, ""), -2, 2),
        (Change(8, 13, ""), 0, 0),
        (Change(10, 10, "A"), -1, 1),  # right before the TSS on +, right after it on -
        (Change(11, 11, "A"), 1, -1),
    ],
)
def test_distance_counts_along_the_gene(change: Change, on_plus: int, on_minus: int):
    assert distance_to_tss(change, Place(10, "+", 8, 8)) == on_plus
    assert distance_to_tss(change, Place(10, "-", 8, 8)) == on_minus


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [
        ("A", "C", Change(10, 11, "C")),
        ("AC", "AT", Change(11, 12, "T")),
        ("CAAA", "CA", Change(11, 13, "")),
        ("CA", "CAA", Change(11, 11, "A")),
        ("ACGT", "TCGA", Change(10, 14, "TCGA")),
    ],
)
def test_alleles_are_stripped_to_the_leftmost_change(ref: str, alt: str, expected: Change):
    assert trim(10, ref, alt) == expected


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    bases = {name: "".join(rng.choice(list(BASES), 300)) for name in ("chr1", "chr2")}
    path.write_text(
        "".join(f">{name}\n{sequence[:150]}\n{sequence[150:].lower()}\n" for name, sequence in bases.items())
    )
    return Genome(path)


def promoters_of(genome: Genome, genes: list[tuple[str, str, int, str]], up: int, down: int) -> Promoters:
    table = pd.DataFrame(genes, columns=pd.Index(["gene_id", "chrom", "tss", "strand"]))
    places = [Place(tss, strand, up, down) for _, _, tss, strand in genes]
    table["start"], table["end"] = zip(*(place.window for place in places), strict=True)
    table["sequence"] = [genome.promoter(chrom, tss, strand, up, down) for _, chrom, tss, strand in genes]
    window = {"upstream": up, "downstream": down}
    return Promoters(table, np.zeros((len(table), 0), np.float32), [], {"window": window})


GENES = [
    ("a", "chr1", 100, "+"),
    ("b", "chr1", 70, "-"),  # overlaps a
    ("left", "chr1", 20, "+"),  # passes the chromosome's start
    ("right", "chr2", 280, "-"),  # passes the chromosome's end
]


@pytest.fixture(scope="module")
def promoters(genome: Genome) -> Promoters:
    return promoters_of(genome, GENES, 50, 10)


def line(chrom: str, pos: int, ref: str, alt: str) -> str:
    return f"{chrom}\t{pos}\t.\t{ref}\t{alt}\t.\t.\tEND={pos}\n"


def other(base: str) -> str:
    return "C" if base.upper() == "A" else "A"


def test_each_allele_is_found_or_listed(genome: Genome, promoters: Promoters, write: Write):
    at = {pos: genome.fetch("chr1", pos - 1, pos) for pos in (10, 81, 120, 200)}
    lines = [
        line("chr2", 290, genome.fetch("chr2", 289, 292), genome.fetch("chr2", 289, 290)),
        line("1", 81, at[81].lower(), f"{other(at[81]).lower()},<DEL>,*"),  # in a and b; the spelling is the VCF's
        line("chr1", 81, at[81], other(at[81])),  # the same again
        line("chr1", 10, at[10], "."),
        line("chr1", 10, at[10], at[10]),
        line("chr1", 10, at[10], f"{at[10]}[chr2:5["),
        line("chr1", 10, other(at[10]), at[10]),  # REF and ALT exchanged
        line("chr1", 10, "N", "A"),
        line("chr1", 10, at[10], "R"),
        line("chr1", 300, genome.fetch("chr1", 299, 300) + "A", "G"),  # REF passes the chromosome's end
        line("chr9", 10, "A", "C"),
        line("chr1", 200, at[200], other(at[200])),  # in no window
        line("chr1", 10, at[10], f"{at[10]}TTT"),
    ]
    skipped: list[tuple[int, str, str]] = []
    path = write("some.vcf", HEADER + "".join(lines))
    found = find_alleles(
        read_records(path),
        genome,
        promoters,
        range(4),
        lambda record, alt, why: skipped.append((record.pos, alt, why)),
    )
    rows = [(GENES[gene][0], pos) for gene, pos in zip(found.alleles["gene"], found.alleles["pos"], strict=True)]
    assert rows == [("a", 81), ("b", 81), ("left", 10), ("right", 290)]
    assert found.counts == {
        "variants": 13,
        "alleles": 14,
        "in_windows": 3,
        "rows": 4,
        "spanning_tss": 0,
        "outside": 1,
        "chromosome": 1,
        "no_alt": 1,
        "symbolic": 3,
        "non_acgt": 2,
        "ref_mismatch": 2,
        "same": 1,
        "duplicate": 1,
    }
    assert [why for _, _, why in skipped] == [
        *(
            "symbolic",
            "symbolic",
            "duplicate",
            "no_alt",
            "same",
            "symbolic",
            "ref_mismatch",
            "non_acgt",
            "non_acgt",
        ),
        *("ref_mismatch", "chromosome"),
    ]
    assert skipped[1] == (81, "*", "symbolic")


def test_windows_found_are_those_of_a_search_through_all(genome: Genome):
    rng = np.random.default_rng(5)
    genes = [
        (f"g{n}", str(rng.choice(["chr1", "chr2"])), int(rng.integers(0, 300)), str(rng.choice(["+", "-"])))
        for n in range(40)
    ]
    promoters = promoters_of(genome, genes, 30, 10)
    records = []
    for _ in range(400):
        chrom, pos, width = str(rng.choice(["chr1", "chr2"])), int(rng.integers(1, 300)), int(rng.integers(1, 30))
        ref = genome.fetch(chrom, pos - 1, min(pos - 1 + width, 300))
        records.append(Record(chrom, pos, ref, ["".join(rng.choice(list(BASES), int(rng.integers(1, 8))))]))
    found = find_alleles(iter(records), genome, promoters, range(40))
    expected = set()
    for record in records:
        change = trim(record.pos - 1, record.ref, record.alts[0])
        for row, (_, chrom, tss, strand) in enumerate(genes):
            if (
                chrom == record.chrom
                and record.ref != record.alts[0]
                and alters(change, Place(tss, strand, 30, 10))
            ):
                expected.add((row, record.pos, record.ref, record.alts[0]))
    columns = ["gene", "pos", "ref", "alt"]
    assert set(found.alleles[columns].itertuples(index=False, name=None)) == expected
    assert len(found.alleles) == len(expected) > 500


def test_another_genome_than_the_datas_is_refused(genome: Genome, write: Write):
    path = write("other.fa", f">chr1\n{'ACGT' * 75}\n>chr2\n{'ACGT' * 75}\n")
    promoters = promoters_of(genome, GENES, 50, 10)
    with pytest.raises(InputError, match="has another promoter of a than the data"):
        find_alleles(iter([]), Genome(path), promoters, range(4))


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip", "bcf"])
def test_kinds_of_files_read_alike(write: Write, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]):
    from cyvcf2 import VCF, Writer  # noqa: PLC0415 # with the library's own import, a lazy one

    text = (
        HEADER.replace("#CHROM", "##contig=<ID=1>\n#CHROM") + "1\t9\t.\tA\tC,G\t.\t.\t.\n1\t3\t.\tAC\tA\t.\t.\t.\n"
    )
    path = write("in.vcf", text)
    if kind == "gzip":
        path = write("in.vcf.gz", gzip.compress(text.encode()))
    elif kind != "plain":
        template = VCF(str(path))
        path = tmp_path / f"out.{kind}"
        writer = Writer(str(path), template, mode="wz" if kind == "bgzip" else "wb")
        for record in template:
            writer.write_record(record)
        writer.close()
    assert list(read_records(path)) == [Record("1", 9, "A", ["C", "G"]), Record("1", 3, "AC", ["A"])]
    assert capfd.readouterr().err == ""


def test_a_vcf_without_records_has_none(write: Write):
    assert list(read_records(write("none.vcf", HEADER))) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("chr1\t5\t9\tgene\n", "is neither VCF nor BCF"),
        ("##fileformat=VCFv4.2\n", "no line '#CHROM'"),
        (HEADER + line("1", 5, "A", "C") + "1\tx\t.\tA\tC\t.\t.\t.\n", "line 4 is no variant"),
        (HEADER + "1\t5\t.\tA\tC\n", "line 3 is no variant"),
        (HEADER + "1 5 . A C . . .\n", "line 3 is no variant"),
        (gzip.compress((HEADER + line("1", 5, "A", "C") * 999).encode(), mtime=0)[:-20], "damaged"),
        (b"\x1f\x8b\x08\x00\x00", "damaged"),
    ],
)
def test_no_vcf_is_refused_on_one_line(
    write: Write, content: str | bytes, message: str, capfd: pytest.CaptureFixture[str]
):
    path = write("x.vcf", content)
    with pytest.raises(InputError, match=message) as raised:
        list(read_records(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_a_vcf_cut_between_two_blocks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.vcf.gz"
    with BgzfWriter(str(path)) as file:
        file.write(HEADER + line("1", 5, "A", "C") * 9999)
    assert len(list(read_records(path))) == 9999
    blocks = list(BgzfBlocks(path.open("rb")))
    path.write_bytes(path.read_bytes()[: blocks[1][0]])
    with pytest.raises(InputError, match=r"cut\.vcf\.gz: the bgzip data ends early \(no end marker\)"):
        list(read_records(path))


@pytest.fixture(scope="module")
def model() -> PromoterCNN:
    torch.manual_seed(1)
    return PromoterCNN(CNNConfig((8, 8), (7, 3), (2,), 8, n_targets=2), length=60).eval()


@pytest.fixture(params=[0, 1e9], ids=["incremental", "forward passes"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(promoter.variants, "_SLOWER", request.param)
    return request.param


@pytest.mark.parametrize("both_strands", [False, True])
def test_effects_are_ism_scores_and_predictions_of_haplotypes(
    genome: Genome, promoters: Promoters, model: PromoterCNN, route: float, both_strands: bool
):
    rng = np.random.default_rng(2)
    tasks, expected_reference, expected = [], [], []
    scores = saturation_mutagenesis(model, promoters.tokens)
    turned = np.ascontiguousarray(reverse_complement(promoters.tokens))
    scores_of_other = saturation_mutagenesis(model, turned)[..., ::-1, ::-1]
    for row, place in enumerate(places_of(promoters)):
        chrom = GENES[row][1]
        chromosome = genome.fetch(chrom, 0, 300)
        inside = [pos for pos in range(300) if place.window[0] <= pos < place.window[1] and pos != place.tss]
        changes = []
        for pos in rng.choice(inside, 20, replace=False):
            base = str(rng.choice([one for one in BASES if one != chromosome[pos]]))
            changes.append(Change(int(pos), int(pos) + 1, base))
        changes += [Change(inside[20], inside[20] + 3, ""), Change(inside[9], inside[9], "ACGTAC")]
        changes = [change for change in changes if not change.start <= place.tss < change.end]
        tasks.append(task_of(genome, chrom, promoters.tokens[row], place, changes))
        for change in changes:
            window = encode([haplotype_window(chromosome, change, place)])
            pair = np.concatenate([promoters.tokens[[row]], window])
            values = [predict(model, pair)]
            if both_strands:
                values.append(predict(model, np.ascontiguousarray(reverse_complement(pair))))
            reference, changed = np.mean(values, axis=0)
            expected_reference.append(reference)
            expected.append(changed - reference)
            if change.is_snv:
                offset = int(np.flatnonzero(pair[0] != pair[1])[0])
                of_ism = scores[row, :, pair[1, offset], offset]
                if both_strands:
                    of_ism = (of_ism + scores_of_other[row, :, pair[1, offset], offset]) / 2
                np.testing.assert_allclose(expected[-1], of_ism, atol=1e-6)  # the oracle's own rounding
                expected[-1] = of_ism
    reference, difference = predict_alleles(model, tasks, both_strands)
    # float32 rounding of predictions of order 1
    np.testing.assert_allclose(reference, expected_reference, atol=1e-6)
    np.testing.assert_allclose(difference, expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


def test_yeast_variants_fit_the_genome_and_equal_haplotypes(yeast: Path):
    genome = Genome(yeast / "genome.fa.gz")
    annotated = read_genes(yeast / "genes.bed")
    some = annotated[annotated["chrom"] == "chrI"].iloc[10:16]
    genes = list(some[["gene_id", "chrom", "tss", "strand"]].itertuples(index=False, name=None))
    promoters = promoters_of(genome, genes, 500, 20)
    found = find_alleles(read_records(yeast / "variants.vcf.gz"), genome, promoters, range(len(genes)))
    assert found.counts["variants"] == 260_526
    assert found.counts["ref_mismatch"] == 0
    chromosome = genome.fetch("chrI", 0, genome.lengths["chrI"])
    places = places_of(promoters)
    model = PromoterCNN(CNNConfig((16, 8), (7, 3), (2,), 8), length=520).eval()
    scores, compared = saturation_mutagenesis(model, promoters.tokens), 0
    for row, _, _, _, start, end, new in found.alleles.itertuples(index=False, name=None):
        change, place = Change(start, end, new), places[row]
        if start <= place.tss < end:
            continue
        task = task_of(genome, "chrI", promoters.tokens[row], place, [change])
        window = encode(haplotype_window(chromosome, change, place))
        np.testing.assert_array_equal(rebuild(task.around, task.first, change, place), window)
        (offset,) = np.flatnonzero(window != task.tokens)  # there are none but SNVs in this file
        _, difference = predict_alleles(model, [task])
        # float32 rounding of predictions of order 0.1
        np.testing.assert_allclose(difference[0, 0], scores[row, 0, window[offset], offset], atol=1e-6)
        compared += 1
    assert compared > 30
