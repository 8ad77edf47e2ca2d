"""Which windows an allele alters and how they are rebuilt, against naive constructions."""

from __future__ import annotations

import numpy as np
import pytest
from support.files import Write
from support.variant_cases import (
    GENES,
    PAD,
    VCF_HEADER,
    haplotype_window,
    promoters_of,
    vcf_line,
)

from promoter.dataset.genome import Genome
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.sequence import BASES, decode, encode
from promoter.variants.vcf import VcfRecord, read_records
from promoter.variants.windows import (
    TrimmedVariant,
    TssWindow,
    apply_variant,
    distance_to_tss,
    find_alleles,
    overlaps,
    trim_alleles,
)


def around_of(chromosome: str, variant: TrimmedVariant, window: TssWindow) -> tuple[np.ndarray, int]:
    beyond = variant.end - variant.start
    start, end = window.interval
    padded = "N" * PAD + chromosome + "N" * PAD
    return encode(padded[start - beyond + PAD : end + beyond + PAD]), start - beyond


def test_rebuilt_windows_equal_the_edited_haplotype():
    rng = np.random.default_rng(0)
    seen = {"altered": 0, "untouched": 0, "across a border": 0, "at the TSS": 0}
    for _ in range(6000):
        chromosome = "".join(rng.choice(list(BASES), 40))
        up, down = int(rng.integers(1, 20)), int(rng.integers(0, 12))
        window = TssWindow(int(rng.integers(0, 40)), str(rng.choice(["+", "-"])), up, down)
        start = int(rng.integers(1, 40))
        end = min(start + int(rng.choice([0, 1, 2, 5, 15])), 40)
        variant = TrimmedVariant(start, end, "".join(rng.choice(list(BASES), int(rng.choice([0, 1, 2, 5, 30])))))
        anchor = chromosome[start - 1]
        if trim_alleles(start - 1, anchor + chromosome[start:end], anchor + variant.new) != variant:
            continue  # can be written more briefly, or further to the left
        if (start == end and not variant.new) or start <= window.tss < end:
            continue
        expected = haplotype_window(chromosome, variant, window)
        if not overlaps(variant, window):
            unchanged = haplotype_window(chromosome, TrimmedVariant(0, 0, ""), window)
            assert expected == unchanged, (chromosome, variant, window)
            seen["untouched"] += 1
            continue
        found = apply_variant(*around_of(chromosome, variant, window), variant, window)
        assert decode(found[None])[0] == expected, (chromosome, variant, window)
        seen["altered"] += 1
        low, high = window.interval
        seen["across a border"] += variant.start < low < variant.end or variant.start < high < variant.end
        seen["at the TSS"] += window.tss_boundary in (variant.start, variant.end)
    assert min(seen.values()) > 50, seen


@pytest.mark.parametrize(
    ("strand", "variant", "expected"),
    [
        # upstream is CCCCC and downstream GGGGG on +; the border lies between them
        ("+", TrimmedVariant(13, 17, "TTTT"), "CCCTTTTGGG"),  # each base keeps its position
        ("+", TrimmedVariant(13, 17, ""), "AACCCGGGAA"),  # the sides close up, both are filled from afar
        ("+", TrimmedVariant(13, 17, "T"), "ACCCTGGGAA"),  # the lone base stays left of the border
        ("+", TrimmedVariant(15, 16, ""), "CCCCCGGGGA"),  # the TSS itself is the first base downstream
        ("+", TrimmedVariant(15, 15, "TT"), "CCCTTGGGGG"),  # before the TSS: upstream
        ("-", TrimmedVariant(13, 17, "TTTT"), "CCCAAAAGGG"),
        ("-", TrimmedVariant(15, 15, "TT"), "CCCAAGGGGG"),  # before the TSS of this strand, too
        ("-", TrimmedVariant(14, 15, ""), "CCCCCGGGGT"),
    ],
)
def test_variants_at_and_across_the_tss_alter_the_right_windows(
    strand: str, variant: TrimmedVariant, expected: str
):
    chromosome = "A" * 10 + "CCCCC" + "GGGGG" + "A" * 10
    window = TssWindow(15 if strand == "+" else 14, strand, 5, 5)
    found = apply_variant(*around_of(chromosome, variant, window), variant, window)
    assert decode(found[None]) == [expected]


@pytest.mark.parametrize(
    ("variant", "on_plus", "on_minus"),
    [
        (TrimmedVariant(10, 11, "A"), 0, 0),
        (TrimmedVariant(7, 8, "A"), -3, 3),
        (TrimmedVariant(14, 15, "A"), 4, -4),
        (TrimmedVariant(5, 9, ""), -2, 2),
        (TrimmedVariant(8, 13, ""), 0, 0),
        (TrimmedVariant(10, 10, "A"), -1, 1),  # right before the TSS on +, right after it on -
        (TrimmedVariant(11, 11, "A"), 1, -1),
    ],
)
def test_the_distance_of_a_variant_counts_along_the_gene(variant: TrimmedVariant, on_plus: int, on_minus: int):
    assert distance_to_tss(variant, TssWindow(10, "+", 8, 8)) == on_plus
    assert distance_to_tss(variant, TssWindow(10, "-", 8, 8)) == on_minus


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [
        ("A", "C", TrimmedVariant(10, 11, "C")),
        ("AC", "AT", TrimmedVariant(11, 12, "T")),
        ("CAAA", "CA", TrimmedVariant(11, 13, "")),
        ("CA", "CAA", TrimmedVariant(11, 11, "A")),
        ("ACGT", "TCGA", TrimmedVariant(10, 14, "TCGA")),
    ],
)
def test_alleles_are_trimmed_to_the_leftmost_variant(ref: str, alt: str, expected: TrimmedVariant):
    assert trim_alleles(10, ref, alt) == expected


def other(base: str) -> str:
    return "C" if base.upper() == "A" else "A"


def test_each_allele_is_found_or_listed(genome: Genome, promoters: Promoters, write: Write):
    at = {pos: genome.fetch("chr1", pos - 1, pos) for pos in (10, 81, 120, 200)}
    lines = [
        vcf_line("chr2", 290, genome.fetch("chr2", 289, 292), genome.fetch("chr2", 289, 290)),
        vcf_line(
            "1", 81, at[81].lower(), f"{other(at[81]).lower()},<DEL>,*"
        ),  # in a and b; the spelling is the VCF's
        vcf_line("chr1", 81, at[81], other(at[81])),  # the same again
        vcf_line("chr1", 10, at[10], "."),
        vcf_line("chr1", 10, at[10], at[10]),
        vcf_line("chr1", 10, at[10], f"{at[10]}[chr2:5["),
        vcf_line("chr1", 10, other(at[10]), at[10]),  # REF and ALT exchanged
        vcf_line("chr1", 10, "N", "A"),
        vcf_line("chr1", 10, at[10], "R"),
        vcf_line("chr1", 300, genome.fetch("chr1", 299, 300) + "A", "G"),  # REF passes the chromosome's end
        vcf_line("chr9", 10, "A", "C"),
        vcf_line("chr1", 200, at[200], other(at[200])),  # in no window
        vcf_line("chr1", 10, at[10], f"{at[10]}TTT"),
    ]
    skipped: list[tuple[int, str, str]] = []
    path = write("some.vcf", VCF_HEADER + "".join(lines))
    found = find_alleles(
        read_records(path),
        genome,
        promoters,
        rows=range(4),
        skip=lambda record, alt, why: skipped.append((record.pos, alt, why)),
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


def test_windows_of_a_variant_equal_a_search_through_all(genome: Genome):
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
        records.append(VcfRecord(chrom, pos, ref, ["".join(rng.choice(list(BASES), int(rng.integers(1, 8))))]))
    found = find_alleles(iter(records), genome, promoters, rows=range(40))
    expected = set()
    for record in records:
        variant = trim_alleles(record.pos - 1, record.ref, record.alts[0])
        for row, (_, chrom, tss, strand) in enumerate(genes):
            if (
                chrom == record.chrom
                and record.ref != record.alts[0]
                and overlaps(variant, TssWindow(tss, strand, 30, 10))
            ):
                expected.add((row, record.pos, record.ref, record.alts[0]))
    columns = ["gene", "pos", "ref", "alt"]
    assert set(found.alleles[columns].itertuples(index=False, name=None)) == expected
    assert len(found.alleles) == len(expected) > 500


def test_a_genome_that_differs_from_the_data_is_refused(genome: Genome, write: Write):
    path = write("other.fa", f">chr1\n{'ACGT' * 75}\n>chr2\n{'ACGT' * 75}\n")
    promoters = promoters_of(genome, GENES, 50, 10)
    with pytest.raises(InputError, match="has another promoter of a than the data"):
        find_alleles(iter([]), Genome(path), promoters, rows=range(4))
