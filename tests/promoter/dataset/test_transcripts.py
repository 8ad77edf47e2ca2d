from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Write
from support.notes import with_notes

from promoter.dataset.expression import read_expression
from promoter.dataset.transcripts import read_tx2gene
from promoter.errors import InputError

HEADER = "Name\tLength\tEffectiveLength\tTPM\tNumReads\n"


def salmon(tpm: Mapping[str, float]) -> str:
    return HEADER + "".join(f"{name}\t900\t700\t{value}\t{2 * value}\n" for name, value in tpm.items())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("t1\tg1\nt2\tg1\n", {"t1": "g1", "t2": "g1"}),
        ("TXNAME,GENEID\nt1,g1\nt2,g1\n", {"t1": "g1", "t2": "g1"}),
        ("transcript_id\tgene_id\tgene_name\nt1\tg1\tAB\nt2\tg1\tAB\n", {"t1": "g1", "t2": "g1"}),
        ("Gene stable ID,Transcript stable ID\ng1,t1\ng1,t2\n", {"t1": "g1", "t2": "g1"}),
        ("transcript:t1 gene:g1\n", {"transcript:t1": "gene:g1"}),
        ("YAL001C\tYAL001C\nYAL002W\tYAL002W\n", {"YAL001C": "YAL001C", "YAL002W": "YAL002W"}),
    ],
)
def test_genes_of_transcripts_are_read_as_people_write_them(
    write: Write, content: str, expected: dict[str, str]
) -> None:
    assert read_tx2gene(write("t.txt", content)) == expected


def test_a_table_of_genes_and_transcripts_the_wrong_way_round_is_refused(write: Write) -> None:
    path = write("t.txt", "g1\tt1\ng1\tt2\n")
    with pytest.raises(InputError, match="'g1' is of two genes, t1 and t2; the first column must hold the tran"):
        read_tx2gene(path)


GENES = {"t1": "g1", "t2": "g1", "t3": "g2"}


@pytest.mark.parametrize(
    ("tpm", "genes", "expected", "said"),
    [
        ({"t1": 1, "t3": 4, "t2": 2}, GENES, {"g1": 3, "g2": 4}, "3 transcripts summed to 2 genes"),
        ({"t1.1": 1, "t2.7": 2}, GENES, {"g1": 3}, r"2 transcripts \(2 without their version\) summed to 1 gene"),
        ({"t1.1": 1, "t1.2": 2}, {"t1.1": "g1", "t1.2": "g2"}, {"g1": 1, "g2": 2}, "2 transcripts summed to 2"),
        # S. pombe: the number is no version, and without it both would be one
        ({"S.01.3": 1}, {"S.01.1": "S.01", "S.01.2": "S.01"}, {"S.01": 1}, "without their version"),
        (
            {"S.03": 1, "t1": 2},
            {"S.01": "a", "S.02": "b", "t1": "g1"},
            {"S.03": 1, "g1": 2},
            "1 row neither of a k",
        ),
        ({"t1": 1, "g2": 4, "zz": 5}, GENES, {"g1": 1, "g2": 4, "zz": 5}, "1 row neither .* ids like zz;"),
        ({"g1": 1, "g2": 4}, GENES, {"g1": 1, "g2": 4}, ""),
        ({"x1": 1, "g2": 4}, GENES, {"x1": 1, "g2": 4}, r"no row \(ids like x1, g2\) is a known transcript"),
    ],
)
def test_transcripts_are_summed_to_genes_where_they_are_known(
    write: Write, tpm: dict[str, float], genes: dict[str, str], expected: dict[str, float], said: str
) -> None:
    path = write("s1.sf", salmon(tpm))
    expression, notes = with_notes(lambda: read_expression(path, transcripts=lambda: genes))
    assert expression.values["s1"].to_dict() == expected
    about = [note for note in notes if "layout" not in note and "add up" not in note]
    assert bool(about) == bool(said)
    assert not said or re.search(said, " ".join(about))


def test_sums_are_taken_before_the_transform(write: Write) -> None:
    path = write("s1.sf", salmon({"t1": 1, "t2": 2}))
    values = with_notes(lambda: read_expression(path, transform="log2p1", transcripts=lambda: GENES))[0].values
    assert values["s1"].to_dict() == {"g1": 2}


def test_the_annotation_is_read_only_for_transcripts(write: Write) -> None:
    def never() -> Any:
        raise AssertionError("the annotation was read")

    with_notes(lambda: read_expression(write("t.tsv", "gene\tx\ng1\t1\n"), transcripts=never))
    with_notes(lambda: read_expression(write("s1.genes.sf", salmon({"g1": 1})), transcripts=never))
    with pytest.raises(AssertionError, match="was read"):
        with_notes(lambda: read_expression(write("s1.sf", salmon({"g1": 1})), transcripts=never))


def test_tx2gene_sums_the_rows_of_any_table(write: Write) -> None:
    path = write("t.tsv", "id\tx\ty\nt1\t1\t\nt3\t4\t5\nt2\t2\t\n")
    expression, _ = with_notes(lambda: read_expression(path, tx2gene=GENES))
    np.testing.assert_array_equal(expression.values, [[3, np.nan], [4, 5]])
    assert expression.values.index.tolist() == ["g1", "g2"]
    with pytest.raises(InputError, match="negative values, which cannot be summed"):
        read_expression(write("l.tsv", "id\tx\nt1\t-1\nt2\t2\n"), tx2gene=GENES)


def test_names_of_gencode_hold_the_gene(write: Write) -> None:
    tpm = {"ENST1.2|ENSG1.5|-|-|A-201|A|": 1, "ENST2.1|ENSG2.1|-|-|B-201|B|": 2, "ENST3.1|ENSG1.5|x|": 4}
    expression, _ = with_notes(lambda: read_expression(write("s1.sf", salmon(tpm))))
    assert expression.values["s1"].to_dict() == {"ENSG1.5": 5, "ENSG2.1": 2}


@given(st.dictionaries(st.integers(0, 50), st.floats(0, 1e4), min_size=1, max_size=50))
def test_sums_of_transcripts_are_those_of_a_loop(
    tmp_path_factory: pytest.TempPathFactory, tpm: dict[int, float]
) -> None:
    genes = {f"t{number}": f"g{number % 7}" for number in range(51)}
    path = tmp_path_factory.mktemp("t") / "s1.sf"
    path.write_text(salmon({f"t{number}": value for number, value in tpm.items()}))
    expected: dict[str, float] = defaultdict(float)
    for number, value in tpm.items():
        expected[f"g{number % 7}"] += value
    values = with_notes(lambda: read_expression(path, tx2gene=genes))[0].values["s1"]
    assert values.to_dict() == pytest.approx(dict(expected), rel=1e-6)
