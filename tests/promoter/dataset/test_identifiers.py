from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.notes import told

from promoter.dataset.identifiers import match_ids
from promoter.errors import InputError, InputNote, InputWarning


def match(
    annotated: list[str],
    measured: list[str],
    names: list[str | None] | None = None,
    *,
    ignore_version: bool = False,
) -> tuple[list[str], list[InputNote]]:
    column = pd.Series(annotated, index=range(5, 5 + len(annotated)), name="gene_id")
    column_of_names = None if names is None else pd.Series(names, index=column.index, dtype="object")
    with told() as notes:
        matched = match_ids(column, pd.Index(measured), names=column_of_names, ignore_version=ignore_version)
    assert matched.index.equals(column.index)
    return matched.tolist(), notes


def test_equal_ids_match_without_a_word() -> None:
    assert match(["b", "a", "c", "a"], ["a", "b", "z"]) == (["b", "a", "c", "a"], [])


@pytest.mark.parametrize(
    ("annotated", "measured", "expected", "heard"),
    [
        (["gene-x", "gene-y"], ["y", "x"], ["x", "y"], "without their prefix"),
        (["x", "y"], ["gene:x", "gene-y"], ["gene:x", "gene-y"], "without their prefix"),
        (["Gene:x", "y"], ["gene-x", "y"], ["gene-x", "y"], "without their prefix"),
        (["AT1G01010", "AT1G01020"], ["At1g01010", "at1g01020"], ["At1g01010", "at1g01020"], "in another case"),
    ],
)
def test_ids_match_without_prefix_or_in_another_case(
    annotated: list[str], measured: list[str], expected: list[str], heard: str
) -> None:
    matched, notes = match(annotated, measured)
    assert matched == expected
    (note,) = notes
    assert heard in str(note)
    assert isinstance(note, InputWarning) == (heard == "in another case")


def test_the_case_counts_where_some_ids_match() -> None:
    """Otherwise a mouse's Sox2 would be a SOX2 beside it."""
    assert match(["SOX2", "TP53"], ["Sox2", "TP53"]) == (["SOX2", "TP53"], [])


def test_ids_that_case_or_prefix_would_make_equal_are_kept_apart() -> None:
    with told(), pytest.raises(InputError, match="no gene of the annotation"):
        match_ids(pd.Series(["ABC", "Abc"]), pd.Index(["aBC", "abC"]))
    assert match(["x", "y"], ["gene:x", "gene-x", "y"]) == (["x", "y"], [])


ENSEMBL = ["ENSG00000000001.5", "ENSG00000000002.14", "ENSG00000000003.1"]
BARE = [gene_id.partition(".")[0] for gene_id in ENSEMBL]
OTHERS = [f"{gene_id}.99" for gene_id in BARE]


@pytest.mark.parametrize(
    ("annotated", "measured"),
    [
        (ENSEMBL, BARE),
        (BARE, ENSEMBL),
        (ENSEMBL, OTHERS),
        (["gene:" + gene_id for gene_id in BARE], ENSEMBL),
        (ENSEMBL, [BARE[0], ENSEMBL[1], OTHERS[2]]),
    ],
)
def test_versions_are_dropped_in_either_table_if_asked(annotated: list[str], measured: list[str]) -> None:
    matched, notes = match(annotated, measured, ignore_version=True)
    assert matched == measured
    assert any("without their version, such as " in str(note) for note in notes)


@pytest.mark.parametrize("suffix", ["", "c"])
def test_numbers_that_tell_genes_apart_are_no_versions(suffix: str) -> None:
    """Salmon's ids of fission yeast are SPAC1002.01.1, PomBase's SPAC1002.01."""
    genes = [f"SPAC{locus}.0{number}{suffix}" for locus in (1002, 1003) for number in (1, 2, 3)]
    transcripts = [f"{gene_id}.1" for gene_id in genes]
    assert match(genes, transcripts, ignore_version=True)[0] == transcripts
    assert match(transcripts, genes, ignore_version=True)[0] == genes
    assert match(genes, genes, ignore_version=True) == (genes, [])
    assert match(genes, genes[1:], ignore_version=True)[0] == genes
    with told(), pytest.raises(InputError, match=r"6 match without their versions: set `ignore_version=True`$"):
        match_ids(pd.Series(genes), pd.Index(transcripts))


def test_numbers_that_tell_genes_apart_are_kept_with_a_warning() -> None:
    annotated, measured = ["SPAC1.01", "SPAC1.02", "x"], ["SPAC1.03", "SPAC1.04", "x"]
    matched, notes = match(annotated, measured, ignore_version=True)
    assert matched == annotated
    (note,) = notes
    assert isinstance(note, InputWarning)
    assert "SPAC1.01 and SPAC1.02 of the annotation would be equal" in str(note)
    assert "SPAC1.03 and SPAC1.04 of the table would be equal" in str(note)


def test_genes_of_the_Y_chromosome_keep_their_mark() -> None:
    annotated = ["ENSG00000182378.15", "ENSG00000182378.15_PAR_Y"]
    assert match(annotated, ["ENSG00000182378"], ignore_version=True)[0] == ["ENSG00000182378", annotated[1]]
    both = ["ENSG00000182378", "ENSG00000182378_PAR_Y"]
    assert match(annotated, both, ignore_version=True)[0] == both


def test_versions_that_would_help_are_recommended_and_not_dropped() -> None:
    matched, notes = match([*BARE, "a"], [*ENSEMBL, "a"])
    assert matched == [*BARE, "a"]
    (note,) = notes
    assert isinstance(note, InputWarning)
    assert "3 more genes are in the expression table if versions do not count" in str(note)
    assert "`ignore_version=True`" in str(note)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (
            ["A", "B", "C", "D"],
            r"ids like x, y, z\).*\(ids like A, B, C\); use the same ids in both: see `attribute`",
        ),
        (["x.1", "y.2"], r"; 2 match without their versions: set `ignore_version=True`$"),
        (["A.1", "A.2"], r"\(ids like A\.1, A\.2\); use the same ids"),  # without its number no match either
        (["x.1", "x.2"], r"x\.1 and x\.2 of the table would be equal: are they transcripts\?"),
    ],
)
def test_ids_that_do_not_match_are_refused_with_what_would_help(measured: list[str], message: str) -> None:
    with told(), pytest.raises(InputError, match=message) as error:
        match_ids(pd.Series(["x", "y", "z"]), pd.Index(measured))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["sox2", "tp53"], ["sox2", "tp53", "h3"]),  # the ids of the table are symbols, and of nameless genes ids
        (["sox2", None], ["sox2", "g2", "h3"]),
        (["sox2", "sox2"], ["g1", "g2", "h3"]),  # a symbol of two genes is that of neither
        (["h3", "tp53"], ["g1", "tp53", "h3"]),  # an id comes before a name
    ],
)
def test_symbols_of_the_table_match_the_names_of_genes(names: list[str | None], expected: list[str]) -> None:
    matched, notes = match(["g1", "g2", "h3"], ["tp53", "h3", "sox2"], [*names, "sox9"])
    assert matched == expected
    n = sum(old != new for old, new in zip(["g1", "g2", "h3"], expected, strict=True))
    assert any(
        f"{n} gene ids match those of the expression table by their gene name" in str(x) for x in notes
    ) == (n > 0)
    assert any("those of several genes" in str(note) for note in notes) == (names == ["sox2", "sox2"])


def test_a_gene_in_two_rows_has_one_name() -> None:
    assert match(["g1", "g1"], ["sox2"], ["sox2", "sox2"])[0] == ["sox2", "sox2"]


IDS = st.from_regex(r"(gene:)?[AB]\d(\.\d)?", fullmatch=True)


def _changed(gene_id: str, version: bool) -> str:
    bare = gene_id.removeprefix("gene:")
    return bare.partition(".")[0] if version else bare


@settings(max_examples=300, deadline=None)
@given(
    annotated=st.lists(IDS, min_size=1, max_size=6),
    measured=st.lists(IDS, min_size=1, max_size=6, unique=True),
    ignore_version=st.booleans(),
)
def test_matched_ids_are_those_of_the_table_and_no_two_genes_share_one(
    annotated: list[str], measured: list[str], ignore_version: bool
) -> None:
    equal = set(annotated) & set(measured)
    try:
        matched, _ = match(annotated, measured, ignore_version=ignore_version)
    except InputError:
        assert not equal
        return
    pairs = set(zip(annotated, matched, strict=True))
    for old, new in pairs:
        if old in measured:
            assert new == old
        if new != old:
            assert new in measured
            assert _changed(old, ignore_version) == _changed(new, ignore_version) or old == _changed(
                new, ignore_version
            )
    taken = Counter(new for old, new in pairs if new in measured)
    assert not taken or max(taken.values()) == 1
