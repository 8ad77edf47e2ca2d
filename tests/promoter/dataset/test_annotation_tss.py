"""Measured TSSs (CAGE, PRO-cap) and ids renamed by a table, as `read_genes` applies them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.files import Write
from support.notes import told

from promoter.dataset.annotation import read_genes
from promoter.errors import InputError, InputNote, InputWarning

# a and c in tandem on '+', b on '-', d on a chromosome without peaks
GENES = (
    'chr1\tx\tgene\t5001\t5600\t.\t+\t.\tgene_id "a"; gene_name "sym";\n'
    'chr1\tx\tgene\t9001\t9900\t.\t-\t.\tgene_id "b";\n'
    'chr1\tx\tgene\t5801\t7000\t.\t+\t.\tgene_id "c";\n'
    'chr2\tx\tgene\t101\t200\t.\t+\t.\tgene_id "d";\n'
)
ANNOTATED = {"a": 5000, "b": 9899, "c": 5800, "d": 100}


@pytest.fixture
def measured(write: Write) -> Any:
    """Read the four genes with the TSSs of some peaks."""

    def run(peaks: str, **options: Any) -> tuple[dict[str, int], list[InputNote]]:
        with told() as notes:
            genes = read_genes(write("g.gtf", GENES), tss=write("p.bed", peaks), **options)
        return dict(zip(genes["gene_id"], genes["tss"], strict=True)), notes

    return run


def peak(start: int, end: int, name: str, strand: str = "+", score: object = 0, chrom: str = "chr1") -> str:
    return f"{chrom}\t{start}\t{end}\t{name}\t{score}\t{strand}\n"


@pytest.mark.parametrize(
    ("peaks", "changed"),
    [
        # by id or symbol, wherever the peak lies; a name decides over a position
        ([peak(4950, 4960, "a")], {"a": 4950}),
        ([peak(4950, 4960, "sym"), peak(9905, 9920, "b", "-")], {"a": 4950, "b": 9919}),
        ([peak(4950, 4960, "c")], {"c": 4950}),
        ([peak(4950, 4960, "a", score=1), peak(4960, 4970, "a", score=9)], {"a": 4960}),
        ([peak(4950, 4960, "a", score=1), peak(4960, 4970, "a", score=".")], {"a": 4950}),
        ([peak(4900, 4910, "a"), peak(4990, 4992, "a")], {"a": 4990}),
        ([peak(4900, 4910, "a"), peak(5795, 5796, "unknown")], {"a": 4900}),
        ([peak(4900, 4910, "a"), peak(9900, 9901, "b", "+"), peak(100, 101, "d", chrom="chr1")], {"a": 4900}),
        # by position, on the gene's strand, from 1 kb upstream to its end
        ([peak(4000, 4001, "p1")], {"a": 4000}),
        ([peak(5300, 5301, "p1")], {"a": 5300}),
        ([peak(5599, 5600, "p1")], {"c": 5599}),
        ([peak(9000, 9001, "p1", "-"), peak(8999, 9000, "p2", "-", 9)], {"b": 9000}),
        ([peak(4990, 4991, "."), peak(9999, 10_899 + 1, "p2", "-")], {"a": 4990, "b": 10_899}),
        ([peak(4990, 4991, "p1", score=1), peak(4995, 4996, "p2", score=5)], {"a": 4995}),
        # that of a lies within 1 kb of c, but is nearer to the TSS of a
        ([peak(4998, 4999, "p1", score=9), peak(5790, 5791, "p2")], {"a": 4998, "c": 5790}),
        ([peak(4998, 4999, "p1", score=9)], {"a": 4998}),
        ([peak(5790, 5791, "p1")], {"c": 5790}),
        # another spelling of the chromosome
        ([peak(4990, 4991, "p1", chrom="1")], {"a": 4990}),
        ([peak(4990, 4991, "a", chrom="1")], {"a": 4990}),
    ],
)
def test_genes_take_the_TSS_of_their_peak(measured: Any, peaks: list[str], changed: dict[str, int]) -> None:
    for ordered in (peaks, peaks[::-1]):
        tss, notes = measured("".join(ordered))
        assert tss == ANNOTATED | changed
        (text,) = [str(note) for note in notes if "TSSs of" in str(note)]
        n = f"{len(changed)} gene{'s' * (len(changed) > 1)}"
        assert f"TSSs of {n} are peaks found by" in text
        assert f"{4 - len(changed)} keep the annotation's" in text


def test_numbers_of_peaks_are_not_taken_for_numbers_of_genes(write: Write) -> None:
    """Entrez ids are numbers, and so are the names that peak callers give."""
    genes = "".join(peak(10_000 * i, 10_000 * i + 500, str(i)) for i in range(5, 15))
    peaks = "".join(peak(10_000 * i - 10, 10_000 * i - 9, str(i - 1)) for i in range(5, 15))
    with told():
        tss = read_genes(write("g.bed", genes), tss=write("p.bed", peaks))["tss"]
    assert tss.tolist() == [10_000 * i - 10 for i in range(5, 15)]


def test_the_base_that_CAGE_files_mark_is_the_TSS(measured: Any) -> None:
    line = "chr1\t4900\t4950\tp{0}\t{1}\t+\t{2}\t{3}\t0\n"
    tss, notes = measured(line.format(1, 5, 4933, 4934) + line.format(2, 1, 4900, 4901))
    assert tss["a"] == 4933
    assert any("columns 7 and 8" in str(note) for note in notes)
    for other in (line.format(2, 1, 4900, 4950), line.format(2, 1, 4960, 4961)):  # of the whole peak; outside
        tss, notes = measured(line.format(1, 5, 4933, 4934) + other)
        assert tss["a"] == 4900
        assert not any("columns 7 and 8" in str(note) for note in notes)


def test_peaks_take_the_place_of_a_doubt_about_start_codons(write: Write) -> None:
    path = write("g.gtf", GENES.replace("\tgene\t", "\tCDS\t"))
    with told() as notes:
        read_genes(path)
        assert any("start codon" in str(note) for note in notes)
    with told() as notes:
        read_genes(path, tss=write("p.bed", peak(4990, 4991, "a")))
    assert not any("start codon" in str(note) for note in notes)


def test_TSSs_of_another_assembly_are_doubted(measured: Any) -> None:
    _, notes = measured(peak(2000, 2001, "a") + peak(2800, 2801, "c"))
    assert [type(note) for note in notes] == [InputNote, InputWarning]
    assert "median move 3,000 bases" in str(notes[0])


@pytest.mark.parametrize(
    ("peaks", "message"),
    [
        (peak(4990, 4991, "a", "."), r"line 1 has no strand '\+' or '-' in column 6; .*`skip_invalid=True`"),
        (f"#c\n{peak(4991, 4990, 'a')}", "line 2 is malformed"),
        (GENES, "is GTF; measured TSSs are read from BED"),
        (
            peak(1, 2, "p", chrom="chr3"),
            r"no peak on the chromosomes of 4 of 4 genes: it has chr3, the annotation chr1",
        ),
        (peak(1, 2, "p", chrom="chr2"), "no peak on the chromosomes of 3 of 4 genes: it has chr2, the annotation"),
        (peak(1, 2, "p"), "no peak belongs to a gene"),
        ("#\n", "has no lines"),
    ],
)
def test_peaks_that_cannot_be_used_are_refused(measured: Any, peaks: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        measured(peaks)
    assert "p.bed" in str(error.value)


def test_invalid_peaks_are_left_out_when_asked(measured: Any) -> None:
    tss, notes = measured(peak(4991, 4990, "c") + peak(4990, 4991, "a"), skip_invalid=True)
    assert tss == ANNOTATED | {"a": 4990}
    assert "left out 1 invalid line: line 1" in str(notes[0])


@settings(max_examples=40, deadline=None)
@given(
    genes=st.lists(
        st.tuples(st.integers(0, 9000), st.integers(1, 900), st.sampled_from("+-")), min_size=1, max_size=8
    ),
    peaks=st.lists(
        st.tuples(st.integers(0, 9999), st.integers(0, 3), st.sampled_from("+-")), min_size=1, max_size=8
    ),
)
def test_peaks_by_position_are_those_of_a_naive_loop(
    tmp_path_factory: pytest.TempPathFactory,
    genes: list[tuple[int, int, str]],
    peaks: list[tuple[int, int, str]],
) -> None:
    folder = tmp_path_factory.mktemp("t")
    (folder / "g.bed").write_text(
        "".join(peak(s, s + n, f"g{i}", strand) for i, (s, n, strand) in enumerate(genes))
    )
    (folder / "p.bed").write_text("".join(peak(p, p + 1, ".", strand, score) for p, score, strand in peaks))
    annotated = {i: s if strand == "+" else s + n - 1 for i, (s, n, strand) in enumerate(genes)}
    claims: dict[int, list[tuple[int, int, int]]] = {}
    for position, score, strand in peaks:
        near = [
            (abs(position - annotated[i]), i)
            for i, (s, n, gene_strand) in enumerate(genes)
            if gene_strand == strand
            and (s - 1000 <= position < s + n if strand == "+" else s <= position < s + n + 1000)
        ]
        if near:
            distance, i = min(near)
            claims.setdefault(i, []).append((-score, distance, position))
    with told():
        if not claims:
            with pytest.raises(InputError, match="no peak belongs"):
                read_genes(folder / "g.bed", tss=folder / "p.bed")
            return
        tss = read_genes(folder / "g.bed", tss=folder / "p.bed")["tss"]
    for i, found in enumerate(tss):
        best = sorted(claims.get(i, [(0, 0, annotated[i])]))
        assert found in {position for score, distance, position in best if (score, distance) == best[0][:2]}


@pytest.mark.parametrize(
    "table",
    [
        "a\tGENE_A\nb\tGENE_B\nc\tGENE_C\n",
        "from\tto\na\tGENE_A\nb\tGENE_B\n\nc\tGENE_C\nd\t\n",
        "a,GENE_A\r\nb,GENE_B\r\nc,GENE_C\r\n",
        '"id","name"\n"a","GENE_A"\n"b","GENE_B"\n"c","GENE_C"\n',
        "#from\tto\textra\ngene:a\tGENE_A\ngene:b\tGENE_B\ngene:c\tGENE_C\nz\ty\n",
    ],
)
def test_gene_ids_are_renamed_by_a_table(write: Write, table: str) -> None:
    with told() as notes:
        genes = read_genes(write("g.gtf", GENES), gene_map=write("m", table))
    assert genes["gene_id"].tolist() == ["GENE_A", "GENE_B", "GENE_C", "d"]
    assert genes["gene_name"].tolist() == ["sym", None, None, None]
    assert any("1 of 4 gene ids are not in it and are kept: d" in str(note) for note in notes)


def test_peaks_may_be_named_by_old_and_by_new_ids(write: Write) -> None:
    for name in ("a", "GENE_A", "sym"):
        with told():
            genes = read_genes(
                write("g.gtf", GENES), gene_map=write("m", "a\tGENE_A\n"), tss=write("p.bed", peak(9, 10, name))
            )
        assert genes["tss"].tolist()[0] == 9


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a\tx\nb\ty\na\tz\n", r"line 3 maps 'a' to 'z', line 1 to 'x'; delete one"),
        ("a\tx\t1\n", "line 1 has 3 columns, a gene map has two"),
        ("a x\n", "line 1 has 1 columns, a gene map has two"),
        ("GENE_A\ta\n", r"none of the annotation's gene ids \(a, b, c, …\) in its first column; swap its columns"),
        ("GENE_A\tx\n", "none of the annotation's gene ids .*; give the annotation's ids in the first"),
        ("\n", "none of the annotation's gene ids"),
    ],
)
def test_a_gene_map_that_cannot_be_used_is_refused(write: Write, table: str, message: str) -> None:
    with told(), pytest.raises(InputError, match=message) as error:
        read_genes(write("g.gtf", GENES), gene_map=write("m.tsv", table))
    assert "m.tsv" in str(error.value)


def test_a_gene_map_that_joins_genes_is_doubted(write: Write) -> None:
    with told() as notes:
        genes = read_genes(write("g.gtf", GENES), gene_map=write("m", "a\tx\nb\tx\nc\td\n"))
    assert genes["gene_id"].tolist() == ["x", "x", "d", "d"]
    (warning,) = [note for note in notes if isinstance(note, InputWarning)]
    assert "2 ids are those of several genes of the annotation: x, d" in str(warning)


def test_measured_TSSs_of_yeast_lie_where_their_file_says(yeast: Path) -> None:
    with told():
        genes = read_genes(yeast / "genes.bed", tss=yeast / "tss.bed").set_index("gene_id")["tss"]
    peaks = pd.read_csv(yeast / "tss.bed", sep="\t", header=None).set_index(3)
    expected = peaks[1].where(peaks[5] == "+", peaks[2] - 1)
    both = genes.index.intersection(expected.index)
    assert len(both) > 5000
    assert (genes[both] == expected[both]).all()


def test_chromosomes_of_peaks_are_matched_by_a_table_of_names(measured: Any) -> None:
    peaks = "".join(peak(at, at + 1, "p", chrom="CM1") for at in (5100, 5850))
    with pytest.raises(InputError, match="`chrom_names`"):
        measured(peaks)
    found, _ = measured(peaks, chrom_names=[{"CM1", "chr1"}])
    assert found == ANNOTATED | {"a": 5100, "c": 5850}
