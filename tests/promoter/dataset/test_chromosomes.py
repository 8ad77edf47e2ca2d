"""Names of chromosomes across files: what matches, what must not, and what is said."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Write

from promoter.dataset.aliases import aliases_of_descriptions, aliases_of_gff, read_chrom_names
from promoter.dataset.chromosomes import (
    chromosome_sizes,
    describe_unmatched,
    find_matches,
    match_chromosomes,
    renamed,
    require_overlap,
)
from promoter.errors import InputError, InputNote, InputWarning

ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI"]
ARABIC = [str(number) for number in range(1, 17)]
YEAST = [f"chr{name}" for name in ROMAN]
WORM = ["I", "II", "III", "IV", "V", "X", "MtDNA"]
HUMAN = [*(f"chr{number}" for number in range(1, 23)), "chrX", "chrY", "chrM"]


def silent(wanted: list[str], available: list[str], names: list[set[str]] | None = None) -> dict[str, str]:
    return {name: match.name for name, match in find_matches(wanted, available, names).items()}


@pytest.mark.parametrize(
    ("wanted", "available", "expected"),
    [
        (["chr1", "chrX"], ["1", "X"], {"chr1": "1", "chrX": "X"}),
        (["1", "X"], ["chr1", "chrX"], {"1": "chr1", "X": "chrX"}),
        (["chrIV"], ["IV"], {"chrIV": "IV"}),
        (["Chr1"], ["chr1"], {"Chr1": "chr1"}),
        (["chrM"], ["MT"], {"chrM": "MT"}),
        (["MT"], ["chrM"], {"MT": "chrM"}),
        (["Mito"], ["chrM"], {"Mito": "chrM"}),
        (["chrMT"], ["Mito"], {"chrMT": "Mito"}),
        (["mitochondrial", "MtDNA"], ["MT"], {"mitochondrial": "MT", "MtDNA": "MT"}),
        (["Pt", "Mt"], ["ChrC", "ChrM"], {"Pt": "ChrC", "Mt": "ChrM"}),
        (["MT"], ["chrM", "chrMT"], {"MT": "chrMT"}),  # hg19 of UCSC has both, and they differ
        (["1"], ["chr1", "1"], {"1": "1"}),
        (["chr1"], ["1", "chr1"], {"chr1": "chr1"}),
        (["chromosome1", "Chromosome_2"], ["1", "2"], {"chromosome1": "1", "Chromosome_2": "2"}),
        (["chr1", "1"], ["1"], {"chr1": "1", "1": "1"}),
        (["chr11", "chr2"], ["1", "chr"], {}),
        (["chr"], ["chr"], {"chr": "chr"}),
        (["1"], ["chr1", "Chr1"], {}),  # either might be meant
        ([], ["1"], {}),
    ],
)
def test_chr_and_the_names_of_organelles_match_without_a_word(
    wanted: list[str], available: list[str], expected: dict[str, str]
) -> None:
    assert match_chromosomes(wanted, available) == expected
    assert renamed(expected) == {name: other for name, other in expected.items() if name != other}


@pytest.mark.parametrize(
    ("wanted", "available", "expected", "said"),
    [
        (
            ["chr01", "chr02", "chrMT"],
            ["I", "II", "III", "MT"],
            {"chr01": "I", "chr02": "II", "chrMT": "MT"},
            "number",
        ),
        (ARABIC, YEAST, dict(zip(ARABIC, YEAST, strict=True)), "number"),
        (YEAST, ARABIC, dict(zip(YEAST, ARABIC, strict=True)), "number"),
        (["5", "X"], WORM, {"5": "V", "X": "X"}, "number: 5 is V"),
        (["IX", "X"], ARABIC, {"IX": "9", "X": "10"}, "X is 10"),
        (["chr01", "Chr1A"], ["chr1", "chr1a"], {"chr01": "chr1", "Chr1A": "chr1a"}, "spelling"),
        (["A01"], ["A1", "A10"], {"A01": "A1"}, "spelling"),
        (["NC_003424"], ["NC_003424.3"], {"NC_003424": "NC_003424.3"}, "without version"),
        (["CM000663.2"], ["CM000663"], {"CM000663.2": "CM000663"}, "without version"),
    ],
)
def test_numbers_case_and_accessions_match_and_it_is_said(
    wanted: list[str], available: list[str], expected: dict[str, str], said: str
) -> None:
    with pytest.warns(InputNote, match=said):
        assert match_chromosomes(wanted, available) == expected


@pytest.mark.parametrize(
    ("wanted", "available"),
    [
        (["X"], ARABIC),  # of a mammal, where it is not ten
        (["X", "Y"], [name.removeprefix("chr") for name in HUMAN[:22]]),
        (["10"], WORM),
        (["10"], [name for name in HUMAN if name != "chr10"]),
        (["1", "I"], ["i1", "II"]),
        (["01", "I"], ["1x", "x1"]),
        (["2L"], ["2", "L"]),
        (["scaffold_1"], ["scaffold_10", "scaffold_01", "scaffold1"]),
        (["NC_000001.10"], ["NC_000002.10"]),
        (["mating_type_region", "chr_II_telomeric_gap"], ["I", "II", "III"]),
        (["D", "L", "XL", "IIII", "VV"], ["50", "4", "5", "500", "10"]),
    ],
)
def test_what_may_be_another_chromosome_does_not_match(wanted: list[str], available: list[str]) -> None:
    assert match_chromosomes(wanted, available) == {}


def test_two_names_for_one_number_match_neither() -> None:
    assert silent(["1", "I"], ["chr01"]) == {"1": "chr01"}  # which differs in spelling only
    assert silent(["III", "3"], ["3"]) == {"3": "3"}
    assert silent(["I", "NC_1"], ["1", "01"]) == {}


def test_another_version_of_an_accession_is_another_assembly() -> None:
    with pytest.warns(InputWarning, match=r"U00096\.2 and U00096\.3"):
        assert match_chromosomes(["U00096.2"], ["U00096.3"]) == {}


NAMES = st.lists(
    st.sampled_from(
        [*YEAST, *ROMAN, *ARABIC, *HUMAN, *WORM, "chr01", "01", "CHR1", "Mito", "Pt", "NC_00001.1", "NC_00001"]
    ),
    unique=True,
    max_size=20,
)


@given(NAMES, NAMES)
def test_equal_names_always_match_and_numbers_are_matched_one_to_one(
    wanted: list[str], available: list[str]
) -> None:
    found = find_matches(wanted, available)
    assert {name for name in wanted if name in available} <= {name for name in found if found[name].name == name}
    assert {match.name for match in found.values()} <= set(available)
    for name, match in found.items():
        if match.how.startswith("by"):
            assert [other.name for other in found.values()].count(match.name) == 1, name
    assert find_matches(sorted(wanted), available) == found  # in any order


def test_a_table_of_two_columns_names_chromosomes_either_way(write: Write) -> None:
    for text in (
        "NC_003424.3\tI\nNC_003423.3\tII\n",
        "I,NC_003424.3\r\nII,NC_003423.3\r\n",
        "# from to\nI  NC_003424.3\n\nII NC_003423.3\n",
        "chrI\tNC_003424.3\nchrI\tone\nII\tNC_003423.3\n",
    ):
        names = read_chrom_names(write("names.tsv", text))
        assert silent(["I", "chrII"], ["NC_003424.3", "NC_003423.3"], names) == {
            "I": "NC_003424.3",
            "chrII": "NC_003423.3",
        }
        assert silent(["NC_003424.3"], ["chrI", "chrII"], names) == {"NC_003424.3": "chrI"}


UCSC_NEW = (
    "# ucsc\tassembly\tgenbank\tncbi\trefseq\n"
    "chr1\t1\tCM000663.2\t1\tNC_000001.11\n"
    "chrM\tMT\tJ01415.2\tMT\tNC_012920.1\n"
    "chrUn_1\tHSCHRUN_1\tKI270302.1\t\t\n"
    "chrUn_2\tHSCHRUN_2\tKI270303.1\t\t\n"
)
UCSC_OLD = (
    "1\tchr1\tensembl\nCM000663.2\tchr1\tgenbank\nNC_000001.11\tchr1\trefseq\n"
    "MT\tchrM\tensembl\nNC_012920.1\tchrM\trefseq\n"
)
REPORT = (
    "# Assembly name:  GRCh38\n"
    "# Sequence-Name\tSequence-Role\tAssigned-Molecule\tAssigned-Molecule-Location/Type\tGenBank-Accn\t"
    "Relationship\tRefSeq-Accn\tAssembly-Unit\tSequence-Length\tUCSC-style-name\n"
    "1\tassembled-molecule\t1\tChromosome\tCM000663.2\t=\tNC_000001.11\tPrimary Assembly\t248956422\tchr1\n"
    "HSCHR1_CTG1\tunlocalized-scaffold\t1\tChromosome\tKI270706.1\t=\tNT_187361.1\tPrimary Assembly\t175055\tna\n"
    "MT\tassembled-molecule\tMT\tMitochondrion\tJ01415.2\t=\tNC_012920.1\tnon-nuclear\t16569\tchrM\n"
)


@pytest.mark.parametrize("text", [UCSC_NEW, UCSC_OLD, REPORT])
def test_tables_of_UCSC_and_NCBI_name_each_sequence(write: Write, text: str) -> None:
    names = read_chrom_names(write("chromAlias.txt", text))
    assert silent(["NC_000001.11", "NC_012920.1", "KI270706.1"], ["chr1", "chrM"], names) == {
        "NC_000001.11": "chr1",
        "NC_012920.1": "chrM",
    }
    assert silent(["1", "chrM"], ["NC_000001.11", "NC_012920.1"], names) == {
        "1": "NC_000001.11",
        "chrM": "NC_012920.1",
    }
    with pytest.warns(InputNote, match=r"by their other names: NC_000001\.11 is chr1"):
        match_chromosomes(["NC_000001.11"], ["chr1"], names)


def test_a_table_that_leaves_the_choice_is_refused(write: Write) -> None:
    names = read_chrom_names(write("names.tsv", "a\tI\na\tII\n"))
    with pytest.raises(InputError, match="`chrom_names`: a may be I or II"):
        match_chromosomes(["a"], ["I", "II"], names)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), ("# nothing\n", "holds no names"), ("I\tNC_1\nII\n", "line 2 has one column")],
)
def test_a_table_that_names_nothing_is_refused(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_chrom_names(write("names.tsv", text))


GFF = (
    "##gff-version 3\n"
    "NC_003424.3\tRefSeq\tregion\t1\t5579133\t.\t+\t.\tID=x;Name=I;chromosome=I;genome=chromosome\n"
    "NT_1.1\tRefSeq\tregion\t1\t999\t.\t+\t.\tID=x;Name=Unknown;chromosome=I;genome=genomic\n"
    "NC_088682.1\tRefSeq\tregion\t1\t19433\t.\t+\t.\tID=y;Name=MT;genome=mitochondrion\n"
    "NC_000913.3\tRefSeq\tregion\t1\t4641652\t.\t+\t.\tID=z;Name=ANONYMOUS;genome=chromosome\n"
    "NC_003424.3\tRefSeq\tgene\t1\t99\t.\t+\t.\tID=gene-a;Name=II;note=a region of a chromosome\n"
    "2\tGRCh38\tchromosome\t1\t242193529\t.\t.\t.\tID=chromosome:2;Alias=CM000664.2,chr2,NC_000002.12\n"
    "##FASTA\n>NC_003424.3\nACGT\n"
)


def test_a_GFF3_says_which_sequence_is_which_chromosome(write: Write) -> None:
    names = aliases_of_gff(write("genes.gff3", GFF))
    assert silent(["NC_003424.3", "NC_088682.1", "NT_1.1"], ["I", "II", "chrM"], names) == {
        "NC_003424.3": "I",
        "NC_088682.1": "chrM",
    }
    assert silent(["2"], ["NC_000002.12"], names) == {"2": "NC_000002.12"}
    assert silent(["NC_000913.3"], ["Chromosome", "I"], names) == {}


def test_headers_of_NCBI_say_which_sequence_is_which_chromosome() -> None:
    names = aliases_of_descriptions(
        {
            "NC_003424.3": "Schizosaccharomyces pombe strain 972h- chromosome I, complete sequence",
            "NC_000001.11": "Homo sapiens chromosome 7, GRCh38.p14 Primary Assembly",
            "NT_187361.1": "Homo sapiens chromosome 7 unlocalized genomic scaffold, GRCh38.p14 Primary Assembly",
            "LR999451.1": "Arabidopsis thaliana genome assembly, chromosome: 2",
            "NC_001224.1": "Saccharomyces cerevisiae S288c mitochondrion, complete genome",
            "NC_000913.3": "Escherichia coli str. K-12 substr. MG1655, complete genome",
            "I": "dna:chromosome chromosome:ASM294v2:I:1:5579133:1 REF",
            "gi|330443391|ref|NC_001133.9|": "Saccharomyces cerevisiae S288c chromosome V, complete sequence",
            "lcl|chr8": "",
        }
    )
    pipes = ["gi|330443391|ref|NC_001133.9|", "lcl|chr8"]
    assert silent(["NC_001133.9", "chr8"], pipes, names) == dict(zip(["NC_001133.9", "chr8"], pipes, strict=True))
    assert silent(["V"], pipes, names) == {"V": pipes[0]}
    assert silent(
        ["1", "chr7", "2", "MT", "mitochondrion"],
        ["NC_003424.3", "NC_000001.11", "NT_187361.1", "LR999451.1"],
        names,
    ) == {
        "chr7": "NC_000001.11",
        "2": "LR999451.1",
    }
    assert silent(["I", "MT"], ["NC_003424.3", "NC_001224.1"], names) == {"I": "NC_003424.3", "MT": "NC_001224.1"}


def test_half_of_the_genes_on_unknown_chromosomes_is_an_error_with_both_files_names() -> None:
    genes, available = {"chr01": 2500, "chr02": 2000, "chrMT": 33}, ["I", "II", "III", "MT", "a", "b"]
    files = {"genes_file": "procap.bed", "genome": "genome.fa"}
    with pytest.raises(
        InputError, match=r"^procap.bed: 4,500 of 4,533 genes .* genome\.fa lacks: chr01 \(2,500\), "
    ) as error:
        require_overlap(genes, {"chrMT": "MT"}, available, **files)
    assert "it has I, II, III, MT and 2 more; use files" in str(error.value)
    assert "`chrom_names`" in str(error.value)
    matched = {"chr01": "I", "chrMT": "MT"}
    require_overlap(genes, matched, available, **files)
    assert "2,000 of 4,533 genes" in describe_unmatched(genes, matched, available, **files)
    assert describe_unmatched(genes, dict.fromkeys(genes, "I"), available, **files) == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr2\t99999999999999999\n", "line 2: chr2 has a length of 99999999999999999"),
        ("chr2\t4294967296\n", "line 2: chr2 has a length of 4294967296"),
        ("chr2\t٣٤\n", "line 2 has no chromosome and length"),
        ("chr2\n", "line 2 has no chromosome and length"),
        ("chr2\t-5\n", "line 2 has no chromosome and length"),
        ("chr2\t0\n", "line 2: chr2 has a length of 0"),
        ("chr1\t6\n", "line 2: chr1 occurs twice"),
    ],
)
def test_impossible_lengths_are_refused_with_the_line(write: Write, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chromosome_sizes(write("x.sizes", "chr1\t5\n" + line))


def test_lengths_come_from_any_FASTA_and_any_table(write: Write, tmp_path: Path) -> None:
    expected = {"a": 4, "b": 2}
    assert chromosome_sizes(write("x.sizes", "\ufeffa\t4\r\nb\t2\r\n\r\n")) == expected
    assert chromosome_sizes(write("x.fa", "\ufeff; made by hand\n>a x\nACGU\n>b\nAC\n\n")) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chromosome_sizes(tmp_path / "x.fa.fai") == expected
