"""Tables of sequences and values: what is taken from them, what is said about it, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Write
from support.notes import with_notes

from promoter.dataset.library import LibrarySummary, read_library
from promoter.dataset.library_sequences import either_strand, find_shared
from promoter.dataset.promoters import Promoters, read_promoters, write_promoters
from promoter.errors import InputError

RNG = np.random.default_rng(11)
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


def random_sequences(n: int, length: int = 60) -> list[str]:
    return ["".join(RNG.choice(list("ACGT"), length)) for _ in range(n)]


SEQUENCES = random_sequences(12)
VALUES = [round(float(value), 3) for value in RNG.normal(size=12)]


def turned(sequence: str) -> str:
    return sequence[::-1].translate(_COMPLEMENT)


def table(**columns: Sequence[Any]) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"s{row}" for row in range(12)], "sequence": SEQUENCES, "x": VALUES} | columns)


def as_tsv(frame: pd.DataFrame, **options: Any) -> str:
    return frame.to_csv(sep="\t", index=False, **options)


def read(path: Path, **options: Any) -> tuple[Promoters, LibrarySummary, str]:
    """Return the data set, its summary, and all that was said, a line each."""
    (promoters, summary), notes = with_notes(lambda: read_library(path, **options))
    return promoters, summary, "\n".join(notes)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as raised:
        with_notes(lambda: read_library(path, **options))
    text = str(raised.value)
    assert "\n" not in text
    return text


def assert_plain(promoters: Promoters, rows: int = 12) -> None:
    assert promoters.genes["sequence"].tolist() == SEQUENCES[:rows]
    np.testing.assert_array_equal(promoters.targets[:, 0], np.array(VALUES[:rows], np.float32))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", as_tsv(table())),
        ("t.csv", table().to_csv(index=False)),
        ("t.csv", table().to_csv(index=False, quoting=1)),
        ("t.csv", table().to_csv(index=False, sep=";", decimal=",")),
        ("t.txt", table().to_csv(index=False, sep=" ")),
        ("t.tsv", "\ufeff" + as_tsv(table())),
        ("t.tsv", as_tsv(table()).encode("utf-16")),
        ("t.tsv", as_tsv(table(note=["Müller"] * 12)).encode("latin-1")),
        ("t.tsv", "# made by hand\n# twice\n" + as_tsv(table())),
        ("t.tsv", "#" + as_tsv(table())),
        ("t.tsv", as_tsv(table()).replace("\n", "\r\n")),
        ("t.tsv", as_tsv(table()).replace("\n", "\t\n")),
        ("t.tsv", as_tsv(table().assign(sequence=[f" {sequence.lower()} " for sequence in SEQUENCES]))),
        ("t.tsv", as_tsv(table().assign(sequence=[f"'{sequence}'" for sequence in SEQUENCES]))),
        ("t.tsv.gz", gzip.compress(as_tsv(table()).encode())),
        ("t.tsv.bz2", bz2.compress(as_tsv(table()).encode())),
        ("t.tsv.xz", lzma.compress(as_tsv(table()).encode())),
        ("t.tsv", as_tsv(table()[["x", "sequence", "id"]])),
        ("t.tsv", as_tsv(table().rename(columns={"id": "ID", "sequence": "Sequence"}))),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 12 else "",
)
def test_a_table_is_read_as_any_program_writes_it(write: Write, name: str, content: str | bytes) -> None:
    promoters, summary, _ = read(write(name, content))
    assert_plain(promoters)
    assert promoters.genes["gene_id"].tolist() == [f"s{row}" for row in range(12)]
    assert summary.genes_kept == 12
    assert summary.dropped == {}
    assert not promoters.located


def test_a_zip_and_a_parquet_hold_the_same_table(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("t.tsv", as_tsv(table()))
    (tmp_path / "t.zip").write_bytes(buffer.getvalue())
    table().to_parquet(tmp_path / "t.parquet", index=False)
    table().set_index("id").to_parquet(tmp_path / "indexed.parquet")
    for name in ("t.zip", "t.parquet", "indexed.parquet"):
        promoters, _, said = read(tmp_path / name)
        assert_plain(promoters)
        assert said == ""


def test_what_is_read_can_be_written_and_read_again(tmp_path: Path, write: Write) -> None:
    path = write("t.tsv", as_tsv(table(split=["train"] * 8 + ["val", "test", "test", ""], weight=[1.5] * 12)))
    promoters, _, _ = read(path)
    write_promoters(tmp_path / "out", promoters)
    again = read_promoters(tmp_path / "out")
    assert again.genes["sequence"].tolist() == SEQUENCES
    assert again.genes["split"].isna().tolist() == [False] * 11 + [True]
    assert again.weights is not None
    assert again.weights.tolist() == [1.5] * 12
    assert again.metadata["window"] is None
    assert again.genes[["chrom", "tss", "strand", "start", "end"]].isna().all(axis=None)


# --- tables without a header ---------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [["sequence", "x"], ["x", "sequence"], ["id", "sequence", "x"]])
def test_a_table_without_a_header_loses_no_row_and_says_what_is_taken(write: Write, columns: list[str]) -> None:
    promoters, summary, said = read(write("t.tsv", as_tsv(table()[columns], header=False)))
    assert_plain(promoters)
    assert "has no header: its first line is a sequence" in said
    at = columns.index("sequence") + 1
    assert f"the sequences are taken from column_{at}" in said
    assert summary.columns["sequence"] == f"column_{at}"
    assert promoters.target_names == [f"column_{columns.index('x') + 1}"]
    expected = [f"s{row}" for row in range(12)] if "id" in columns else [f"seq_{row}" for row in range(1, 13)]
    assert promoters.genes["gene_id"].tolist() == expected


@pytest.mark.parametrize("first", ["", "NA", "ACGX", "AC-T" * 15])
def test_a_first_row_without_a_good_sequence_makes_no_header(write: Write, first: str) -> None:
    rows = table()[["sequence", "x"]].assign(sequence=[first, *SEQUENCES[1:]])
    path = write("t.tsv", as_tsv(rows, header=False))
    if first in ("", "NA"):
        promoters, summary, _ = read(path)
        assert promoters.genes["sequence"].tolist() == SEQUENCES[1:]
        assert summary.dropped == {"no sequence": 1}
    else:
        assert "line 1, column 'column_1'" in refusal(path)


def test_a_header_of_numbers_stays_a_header(write: Write) -> None:
    rows = table()[["sequence", "x"]].assign(y=VALUES).rename(columns={"x": "0", "y": "4"})
    promoters, _, _ = read(write("t.tsv", as_tsv(rows)))
    assert promoters.target_names == ["0", "4"]
    assert_plain(promoters)


def test_several_columns_of_numbers_without_a_header_are_asked_for(write: Write) -> None:
    rows = table(start=range(100, 112), end=range(160, 172))[["sequence", "x", "start", "end"]]
    path = write("t.tsv", as_tsv(rows, header=False))
    text = refusal(path)
    assert f"column_2: {VALUES[0]:g}" in text
    assert "column_3: 100" in text
    assert "`targets`" in text
    for name in ("2", "column_2"):
        promoters, _, _ = read(path, targets=[name])
        assert_plain(promoters)
        assert promoters.target_names == ["column_2"]


def test_a_single_row_without_a_header_is_read(write: Write) -> None:
    promoters, _, _ = read(write("t.tsv", f"{SEQUENCES[0]}\t{VALUES[0]}\n"))
    assert_plain(promoters, 1)


def test_r_s_row_names_are_the_ids(write: Write) -> None:
    rows = [f'"r{row}" "{sequence}" {x}' for row, (sequence, x) in enumerate(zip(SEQUENCES, VALUES, strict=True))]
    promoters, _, said = read(write("t.txt", '"sequence" "x"\n' + "\n".join(rows) + "\n"))
    assert_plain(promoters)
    assert promoters.genes["gene_id"].tolist() == [f"r{row}" for row in range(12)]
    assert "the first column, which has no name" in said


# --- which column is what ------------------------------------------------------------------------------------


def test_the_only_column_of_bases_holds_the_sequences_whatever_its_name(write: Write) -> None:
    promoters, summary, _ = read(write("t.tsv", as_tsv(table().rename(columns={"sequence": "insert_5to3"}))))
    assert_plain(promoters)
    assert summary.columns["sequence"] == "insert_5to3"


def test_two_columns_of_bases_are_told_by_name_or_asked_for(write: Write) -> None:
    tags = random_sequences(12, 12)
    promoters, summary, _ = read(write("t.tsv", as_tsv(table(tag=tags))))
    assert_plain(promoters)
    assert summary.ignored_columns == ["tag"]
    path = write("t.tsv", as_tsv(table(tag=tags).rename(columns={"sequence": "oligo"})))
    text = refusal(path)
    assert "oligo, tag" in text or "tag, oligo" in text
    assert "`sequence_column`" in text
    promoters, _, _ = read(path, sequence_column="oligo")
    assert_plain(promoters)


def test_a_column_called_sequence_that_holds_accessions_yields_to_the_bases(write: Write) -> None:
    rows = table().rename(columns={"sequence": "bases"}).assign(sequence=[f"NM_{row}" for row in range(12)])
    promoters, summary, _ = read(write("t.tsv", as_tsv(rows)))
    assert_plain(promoters)
    assert summary.columns["sequence"] == "bases"


@pytest.mark.parametrize("setting", ["id", "sequence", "split", "group", "weight"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(write: Write, setting: str) -> None:
    text = refusal(write("t.tsv", as_tsv(table())), **{f"{setting}_column": "absent"})
    assert text.startswith(f"`{setting}_column='absent'`: ")
    assert "it has id, sequence, x" in text


def test_columns_under_other_names_are_named_by_the_user(write: Write) -> None:
    rows = table(fold=[0, 1, 2] * 4, w=range(1, 13), set=["train", "val", "test"] * 4)
    rows = rows.rename(columns={"id": "key", "sequence": "dna"})
    names = {"id_column": "key", "sequence_column": "dna", "split_column": "set", "group_column": "fold"}
    promoters, summary, _ = read(write("t.tsv", as_tsv(rows)), **names, weight_column="w")
    assert_plain(promoters)
    assert promoters.target_names == ["x"]
    assert promoters.genes["gene_id"].tolist() == rows["key"].tolist()
    assert promoters.genes["split"].tolist() == rows["set"].tolist()
    assert promoters.genes["group"].tolist() == ["0", "1", "2"] * 4
    assert promoters.weights is not None
    assert promoters.weights.tolist() == list(range(1, 13))
    assert summary.columns == {
        "id": "key",
        "sequence": "dna",
        "split": "set",
        "group": "fold",
        "weight": "w",
    }


def test_a_column_that_serves_one_purpose_serves_no_other(write: Write) -> None:
    """Folds called `split` are groups where the user says so."""
    promoters, summary, _ = read(write("t.tsv", as_tsv(table(split=[0, 1, 2] * 4))), group_column="split")
    assert "split" not in promoters.genes
    assert summary.groups == 3


@pytest.mark.parametrize(
    ("columns", "id_name"),
    [
        ({"seq_id": "u", "x": "v"}, "seq_id"),
        ({"name": "u", "x": "v"}, "name"),
        ({"name": "u", "gene_id": "u"}, "gene_id"),
        ({"oligo": "d", "name": "u"}, "name"),
        ({"": "u"}, ""),
        ({"Unnamed: 0": "u"}, "Unnamed: 0"),
        ({"name": "d"}, None),
        ({"element": "v"}, None),
        ({"sample": "u"}, None),
    ],
)
def test_ids_come_from_a_column_only_if_its_cells_differ(
    write: Write, columns: dict[str, str], id_name: str | None
) -> None:
    kinds = {"u": [f"k{row}" for row in range(12)], "d": ["k1"] * 12, "v": VALUES}
    rows = pd.DataFrame(
        {name: kinds[kind] for name, kind in columns.items()} | {"sequence": SEQUENCES, "x": VALUES}
    )
    promoters, summary, said = read(write("t.tsv", as_tsv(rows)))
    if id_name is None:
        assert promoters.genes["gene_id"].tolist() == [f"seq_{row}" for row in range(1, 13)]
        assert "seq_1 to seq_12" in said
        assert "id" not in summary.columns
    else:
        assert promoters.genes["gene_id"].tolist() == rows[id_name].tolist()
        assert "the ids are taken from" in said


@pytest.mark.parametrize("name", ["label", "oligo", "variant", "score", "y"])
def test_measurements_are_no_ids_whatever_their_column_is_called(write: Write, name: str) -> None:
    promoters, summary, _ = read(write("t.tsv", as_tsv(table().drop(columns="id").rename(columns={"x": name}))))
    assert_plain(promoters)
    assert promoters.target_names == [name]
    assert "id" not in summary.columns


def test_a_name_beside_the_id_is_kept(write: Write) -> None:
    promoters, summary, _ = read(write("t.tsv", as_tsv(table(name=["a", "s1", ""] + ["b"] * 9))))
    names = promoters.genes["gene_name"]
    assert [None if pd.isna(name) else name for name in names] == ["a", None, None, *["b"] * 9]
    assert summary.columns["gene_name"] == "name"


@pytest.mark.parametrize("repeat", [{}, {"sequence": SEQUENCES[0], "x": VALUES[0]}])
def test_ids_that_repeat_are_refused_even_in_equal_rows(write: Write, repeat: dict[str, Any]) -> None:
    rows = table()
    rows.loc[5, "id"] = "s0"
    for name, value in repeat.items():
        rows.loc[5, name] = value
    text = refusal(write("t.tsv", as_tsv(rows)))
    assert "1 (such as 's0', line 2 and line 7)" in text
    assert "`id_column`" in text


def test_an_empty_id_is_refused_with_its_line(write: Write) -> None:
    rows = table()
    rows.loc[3, "id"] = ""
    assert "line 5 has no id" in refusal(write("t.tsv", as_tsv(rows)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("predicted", "a prediction"),
        ("Predicted Expression", "a prediction"),
        ("pred_leaf", "a prediction"),
        ("num_barcodes", "a number of barcodes"),
        ("n_bc", "a number of barcodes"),
        ("DNA_sum", "an amount of DNA"),
        ("dnaCounts", "an amount of DNA"),
        ("fold", "a fold or a replicate"),
        ("replicate", "a fold or a replicate"),
        ("rep", "a fold or a replicate"),
        ("start", "a coordinate"),
        ("p_value", "a p-value"),
        ("length", "a length"),
        ("GC_content", "a GC content"),
    ],
)
def test_what_is_no_measurement_becomes_no_target_unless_named(write: Write, name: str, kind: str) -> None:
    path = write("t.tsv", as_tsv(table(**{name: [0.5 + row / 24 for row in range(12)]})))
    promoters, summary, said = read(path)
    assert promoters.target_names == ["x"]
    assert summary.left_out_columns == [name]
    assert f"{name} ({kind})" in said


@pytest.mark.parametrize("name", ["log2_RNA_DNA_ratio", "RNA/DNA", "expression", "fold_change", "leaf_1"])
def test_measurements_with_such_words_in_their_names_are_targets(write: Write, name: str) -> None:
    promoters, _, _ = read(write("t.tsv", as_tsv(table(**{name: VALUES}))))
    assert promoters.target_names == ["x", name]


def test_targets_that_are_named_are_taken_in_that_order(write: Write) -> None:
    path = write("t.tsv", as_tsv(table(pred=VALUES)))
    promoters, _, _ = read(path, targets=["pred", "x"])
    assert promoters.target_names == ["pred", "x"]
    assert "it has id, sequence, x, pred" in refusal(path, targets=["y"])
    assert "names no column" in refusal(path, targets=[])
    assert "no number" in refusal(path, targets=["sequence"])


def test_a_target_that_meets_a_column_of_the_outputs_is_refused(write: Write) -> None:
    assert "'group_expression' say" in refusal(write("t.tsv", as_tsv(table(group=VALUES))), targets=["group"])


# --- tables that cannot be used --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (">a\nACGTACGTAC\n>b\nACGTACGTAC\n", "is a FASTA, which holds no measured values"),
        (">a first, one\nACGTACGTAC\nACGT\n>b\nACGTACGTAC\n", "is a FASTA"),
        ("@r1\nACGTACGTAC\n+\nIIIIIIIIII\n", "is a FASTQ"),
        ("sequence\tx\n", "has a header but no rows"),
        ("\n\n", "holds no table"),
        ("id\tx\na\t1\nb\t2\n", "no column holds sequences (there are id, x)"),
        ("id\tsequence\na\tACGTACGTAC\nb\tTTTTACGTAC\n", "no column of numbers beside the sequences"),
        (">a\tACGTACGTAC\n>b\tTTTTACGTAC\n", "no column of numbers beside the sequences"),
        ("sequence\tpred\nACGTACGTAC\t1\nTTTTACGTAC\t2\n", "pred (a prediction)"),
        ("sequence\tx\nACGTACGTAC\tNA\nTTTTACGTAC\tNA\n", "a column without values"),
        ("sequence\tx\tx\nACGTACGTAC\t1\t2\n", "two columns are named 'x'"),
        ("<html><body>moved</body></html>\n", "is HTML or XML"),
    ],
)
def test_files_without_sequences_and_values_are_refused_by_what_they_are(
    write: Write, content: str, message: str
) -> None:
    assert message in refusal(write("t.tsv", content))


@pytest.mark.parametrize(
    ("setting", "value"), [("align", "middle"), ("missing", "skip"), ("transform", "log"), ("max_n", 2)]
)
def test_unknown_settings_are_refused(write: Write, setting: str, value: Any) -> None:
    assert refusal(write("t.tsv", as_tsv(table())), **{setting: value}).startswith(f"`{setting}={value!r}`")


# --- sequences -------------------------------------------------------------------------------------------------


@given(st.lists(st.text("ACGTUNRYSWKMBDHVacgtun", min_size=10, max_size=10), min_size=1, max_size=12))
def test_letters_become_bases(tmp_path_factory: pytest.TempPathFactory, sequences: list[str]) -> None:
    path = tmp_path_factory.mktemp("letters") / "t.tsv"
    path.write_text("sequence\tx\n" + "".join(f"{sequence}\t1.5\n" for sequence in sequences))
    promoters, _, said = read(path, max_n=1)
    letters = Counter("".join(sequences).upper())
    expected = ["".join({"U": "T"}.get(c, c) if c in "ACGTUN" else "N" for c in s.upper()) for s in sequences]
    assert promoters.genes["sequence"].tolist() == expected
    codes = sum(n for letter, n in letters.items() if letter not in "ACGTUN")
    assert (f"are read as N: {codes:,} in" in said) == bool(codes)
    assert ("U is read as T" in said) == bool(letters["U"])


@pytest.mark.parametrize(
    ("bad", "letter"),
    [
        ("ACGTEACGTA", "E"),
        ("ACGT-ACGTA", "-"),
        ("ACGT ACGTA", " "),
        ("ACGTXACGTA", "X"),
        ("ACGT*", "*"),
        ("12", "1"),
    ],
)
def test_a_letter_that_is_no_base_is_refused_with_its_row(write: Write, bad: str, letter: str) -> None:
    rows = table()
    rows.loc[7, "sequence"] = bad
    text = refusal(write("t.tsv", as_tsv(rows)))
    assert f"line 9, column 'sequence': '{bad}' has '{letter}'" in text


@pytest.mark.parametrize("empty", ["", "NA", "nan", "  "])
def test_a_row_without_a_sequence_is_left_out_and_counted(write: Write, empty: str) -> None:
    rows = table()
    rows.loc[2, "sequence"] = empty
    promoters, summary, _ = read(write("t.tsv", as_tsv(rows)))
    assert summary.dropped == {"no sequence": 1}
    assert summary.examples == {"no sequence": ["s2"]}
    assert promoters.genes["gene_id"].tolist() == [f"s{row}" for row in range(12) if row != 2]
    np.testing.assert_array_equal(promoters.targets[:, 0], np.array(VALUES[:2] + VALUES[3:], np.float32))


def test_sequences_of_n_are_left_out_by_max_n(write: Write) -> None:
    rows = table()
    rows.loc[2, "sequence"] = SEQUENCES[2][:29] + "N" * 31
    path = write("t.tsv", as_tsv(rows))
    assert read(path)[1].dropped == {"more than 50% of the sequence is N": 1}
    assert read(path, max_n=0.6)[1].dropped == {}


@pytest.mark.parametrize(
    ("align", "expected"),
    [("right", "NNN" + "A" * 57), ("left", "A" * 57 + "NNN"), ("center", "N" + "A" * 57 + "NN")],
)
def test_shorter_sequences_are_padded_where_asked(write: Write, align: Any, expected: str) -> None:
    rows = table()
    rows.loc[4, "sequence"] = "A" * 57
    rows.loc[5, "sequence"] = "C" * 20  # two thirds are N once it is padded, which max_n does not count
    path = write("t.tsv", as_tsv(rows))
    promoters, summary, _ = read(path, align=align)
    assert promoters.genes["sequence"][4] == expected
    assert {len(sequence) for sequence in promoters.genes["sequence"]} == {60}
    assert promoters.genes["sequence"][5].strip("N") == "C" * 20
    assert summary.padded == 2
    assert promoters.metadata["align"] == align
    text = refusal(path)
    assert "10 sequences of 60 bases and 2 of 20 to 57" in text
    assert "`align='right'`" in text


def test_primers_that_all_sequences_have_are_pointed_out(write: Write) -> None:
    rows = table().assign(sequence=[f"GGATCCAATT{sequence}CCGGAATTCC" for sequence in SEQUENCES])
    said = read(write("t.tsv", as_tsv(rows)))[2]
    start = re.search(r"begin with (\w+)", said)
    end = re.search(r"end with (\w+)", said)
    assert start is not None
    assert end is not None
    assert start[1].startswith("GGATCCAATT")
    assert end[1].endswith("CCGGAATTCC")
    padded = rows.assign(
        sequence=["N" * (row % 3) + s + "N" * (2 - row % 3) for row, s in enumerate(rows["sequence"])]
    )
    assert "begin with GGATCCAATT" in read(write("t.tsv", as_tsv(padded)))[2]


@pytest.mark.parametrize(
    ("start", "end"), [("GGATCCAATTC", "CCTTGGCCAAC"), ("GGATCCAATTC", ""), ("", "CCTTGGCCAAC")]
)
def test_sequences_on_the_other_strand_are_pointed_out(write: Write, start: str, end: str) -> None:
    sequences = [start + sequence + end for sequence in random_sequences(40, 50)]
    mixed = [turned(s) if row % 5 < 2 else s for row, s in enumerate(sequences)]
    rows = pd.DataFrame({"sequence": mixed, "x": np.arange(40) / 7})
    said = read(write("t.tsv", as_tsv(rows)))[2]
    assert "InputWarning" in said
    assert ": 16, the first on line 2" in said
    flank, verb = (start, "begin") if start else (end[-8:], "end")
    assert f"the reverse complement of {flank[:8]}, with which 24 others {verb}" in said
    assert "the other strand" not in read(write("t.tsv", as_tsv(rows.assign(sequence=sequences))))[2]


def test_random_sequences_raise_no_doubt_about_their_strand(write: Write) -> None:
    rows = pd.DataFrame({"sequence": random_sequences(400, 30), "x": np.arange(400) / 7})
    assert "other strand" not in read(write("t.tsv", as_tsv(rows)))[2]


def test_sequences_that_repeat_are_counted_on_either_strand(write: Write) -> None:
    rows = table()
    rows.loc[3, "sequence"], rows.loc[4, "sequence"] = SEQUENCES[0], turned(SEQUENCES[0])
    _, summary, said = read(write("t.tsv", as_tsv(rows)))
    assert summary.repeated == 1
    assert "reverse-complemented: 1, in 3 rows" in said


@given(
    st.lists(st.tuples(st.text("ACGT", min_size=3, max_size=3), st.sampled_from(["a", "b", None])), max_size=30)
)
def test_shared_sequences_are_those_a_pair_of_loops_finds(rows: list[tuple[str, str | None]]) -> None:
    sequences, labels = (pd.Series([row[at] for row in rows], dtype="object") for at in (0, 1))
    expected = {
        min(one, turned(one))
        for one, a in rows
        for other, b in rows
        if a and b and a != b and other in (one, turned(one))
    }
    assert int(find_shared(sequences.astype(str), labels).sum()) == len(expected)
    assert either_strand(sequences.astype(str)).tolist() == [min(one, turned(one)) for one, _ in rows]


# --- values ----------------------------------------------------------------------------------------------------


def test_missing_values_are_kept_dropped_or_refused_as_those_of_genes_are(write: Write) -> None:
    rows = table(y=VALUES)
    rows.loc[1, "x"] = np.nan
    rows.loc[2, ["x", "y"]] = np.nan
    path = write("t.tsv", as_tsv(rows))
    promoters, summary, _ = read(path)
    assert summary.dropped == {"value missing": 1}
    assert np.isnan(promoters.targets[1]).tolist() == [True, False]
    assert [(target.n, target.missing) for target in summary.targets] == [(10, 1), (11, 0)]
    assert read(path, missing="drop")[1].dropped == {"value missing": 2}
    text = refusal(path, missing="error")
    assert "line 3 (s1), column 'x'" in text


def test_infinite_values_count_as_missing(write: Write) -> None:
    rows = table(y=VALUES).astype({"x": "object"})
    rows.loc[0, "x"] = "-inf"
    promoters, _, said = read(write("t.tsv", as_tsv(rows)))
    assert np.isnan(promoters.targets[0, 0])
    assert "InputWarning" in said
    assert "line 2 (s0)" in said


def test_values_are_transformed_as_expression_is(write: Write) -> None:
    counts = RNG.integers(0, 500, 12)
    path = write("t.tsv", as_tsv(table().assign(x=counts)))
    for transform, expected in (
        ("log2p1", np.log2(counts + 1)),
        ("log1p", np.log(counts + 1)),
        ("cpm_log2p1", np.log2(counts / counts.sum() * 1e6 + 1)),
    ):
        promoters, _, _ = read(path, transform=transform)
        np.testing.assert_allclose(promoters.targets[:, 0], expected, rtol=1e-6)
    assert "consider `transform=" in read(path)[2]
    assert "is negative" in refusal(write("t.tsv", as_tsv(table())), transform="log2p1")


def test_text_among_the_values_is_refused_with_its_row(write: Write) -> None:
    rows = table().astype({"x": "object"})
    rows.loc[6, "x"] = "high"
    assert "line 8, column 'x': 'high' is no number" in refusal(write("t.tsv", as_tsv(rows)))


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [("x", "NA", "value missing"), ("sequence", "", "no sequence"), ("sequence", "N" * 60, "is N")],
)
def test_half_of_the_rows_lost_for_one_reason_end_it(write: Write, column: str, value: str, reason: str) -> None:
    rows = table().astype({"x": "object"})
    rows.loc[:6, column] = value
    path = write("t.tsv", as_tsv(rows))
    text = refusal(path)
    assert "7 of 12 sequences" in text
    assert reason in text
    assert "`allow_loss=True`" in text
    assert read(path, allow_loss=True)[1].genes_kept == 5
    rows[column] = value
    if reason != "value missing":
        assert "no sequence is left" in refusal(
            write("t.tsv", as_tsv(rows)), allow_loss=True, sequence_column="sequence"
        )


# --- sets, groups, weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["train", "val", "test"], ["train", "val", "test"]),
        (["Train", "VAL", "Test"], ["train", "val", "test"]),
        (["training", "validation", "testing"], ["train", "val", "test"]),
        (["train", "dev", "holdout"], ["train", "val", "test"]),
        (["train", "valid", "held-out"], ["train", "val", "test"]),
        (["train", "", "NA"], ["train", None, None]),
    ],
)
def test_sets_are_read_in_their_usual_words(write: Write, written: list[str], expected: list[str | None]) -> None:
    promoters, summary, said = read(write("t.tsv", as_tsv(table(split=written * 4))))
    assert [None if pd.isna(name) else name for name in promoters.genes["split"]] == expected * 4
    for word, name in zip(written, expected, strict=True):
        assert (f"{word} is {name}" in said) == (word != name and name is not None)
    none = {"none": 8} if None in expected else {}
    assert summary.splits == {name: 4 * expected.count(name) for name in ("train", "val", "test")} | none


@pytest.mark.parametrize(
    ("written", "fix"),
    [
        ([0, 1, 2], "`group_column='split'`"),
        ([1.0, 2.0, 3.0], "`group_column='split'`"),
        (["train", "test", "eval"], "write train, val or test"),
        (["train", "test", "train/test"], "write train, val or test"),
    ],
)
def test_other_words_for_sets_are_refused_with_what_was_found(write: Write, written: list[Any], fix: str) -> None:
    text = refusal(write("t.tsv", as_tsv(table(split=written * 4))))
    assert fix in text
    assert str(written[-1]) in text


def test_a_column_of_sets_under_another_name_is_pointed_out(write: Write) -> None:
    path = write("t.tsv", as_tsv(table(set=["train", "test", "test"] * 4)))
    promoters, _, said = read(path)
    assert "split" not in promoters.genes
    assert "name it in `split_column`" in said
    assert "split_column" not in read(write("t.tsv", as_tsv(table(set=["a", "b", "c"] * 4))))[2]
    assert (
        "name it in `split_column`" in read(write("t.tsv", as_tsv(table(phase=["train", "test", "dev"] * 4))))[2]
    )
    bare = table(phase=["train", "test", "test"] * 4)
    assert "column 'column_4' holds names of sets" in read(write("t.tsv", as_tsv(bare, header=False)))[2]


def test_sequences_may_be_their_own_ids(write: Write) -> None:
    promoters, _, _ = read(write("t.tsv", as_tsv(table())), id_column="sequence")
    assert promoters.genes["gene_id"].tolist() == SEQUENCES
    assert_plain(promoters)


def test_a_group_that_the_sets_part_is_refused(write: Write) -> None:
    groups = [f"g{row // 3}" for row in range(12)]
    sets = ["train"] * 6 + ["val", "val", "train", "test", "test", ""]
    text = refusal(write("t.tsv", as_tsv(table(split=sets, group=groups))))
    assert "part 1 of 4 groups" in text
    assert "'g2': 2 val, 1 train" in text
    sets[8] = "val"
    promoters, summary, _ = read(write("t.tsv", as_tsv(table(split=sets, group=groups))))
    assert promoters.genes["group"].tolist() == groups
    assert summary.groups == 4


def test_sequences_in_several_sets_are_a_warning_with_counts(write: Write) -> None:
    rows = table(split=["train"] * 6 + ["val"] * 3 + ["test"] * 3)
    rows.loc[9, "sequence"], rows.loc[10, "sequence"] = SEQUENCES[0], turned(SEQUENCES[1])
    rows.loc[6, "sequence"] = SEQUENCES[2]
    said = read(write("t.tsv", as_tsv(rows)))[2]
    assert "InputWarning" in said
    assert "in several sets, as they are or reverse-complemented: 3" in said
    assert "2 in train and test" in said
    assert "1 in train and val" in said
    assert "`SplitConfig.homology='drop'`" in said


def test_sequences_in_several_groups_are_a_warning(write: Write) -> None:
    rows = table(group=[f"g{row // 3}" for row in range(12)])
    rows.loc[9, "sequence"] = SEQUENCES[0]
    assert "reverse-complemented: 1 (such as in g0 and g3)" in read(write("t.tsv", as_tsv(rows)))[2]


@pytest.mark.parametrize(
    ("bad", "shown"), [("", "missing"), ("NA", "missing"), ("-1", "-1"), ("inf", "inf"), ("1e60", "inf")]
)
def test_weights_that_weigh_nothing_are_refused_with_the_row(write: Write, bad: str, shown: str) -> None:
    rows = table(weight=["1"] * 12)
    rows.loc[3, "weight"] = bad
    text = refusal(write("t.tsv", as_tsv(rows)))
    assert f"line 5, column 'weight': the weight is {shown}" in text


def test_weights_may_be_0_but_not_all(write: Write) -> None:
    promoters, _, _ = read(write("t.tsv", as_tsv(table(weight=[0.0] * 11 + [2.5]))))
    assert promoters.weights is not None
    assert promoters.weights.tolist() == [0.0] * 11 + [2.5]
    assert promoters.target_names == ["x"]
    assert "all weights of column 'weight' are 0" in refusal(write("t.tsv", as_tsv(table(weight=[0] * 12))))
    assert "is no number" in refusal(write("t.tsv", as_tsv(table(weight=["heavy"] * 12))))


def test_the_weight_of_a_row_that_is_left_out_does_not_matter(write: Write) -> None:
    rows = table(weight=["1"] * 12)
    rows.loc[3, ["sequence", "weight"]] = ""
    promoters, _, _ = read(write("t.tsv", as_tsv(rows)))
    assert promoters.weights is not None
    assert len(promoters.weights) == 11
