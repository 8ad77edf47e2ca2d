from __future__ import annotations

import csv
import gzip
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Write
from support.notes import with_notes

from promoter.dataset.expression import Expression, read_expression
from promoter.errors import InputError, InputNote, InputWarning

TABLE = pd.DataFrame({"gene": ["g1", "g2", "g3"], "a": [0.0, 1.5, 3.0], "b": [10, 0, 30]})
TSV, CSV = TABLE.to_csv(sep="\t", index=False), TABLE.to_csv(index=False)


def as_lists(expression: Expression) -> dict[str, Any]:
    values = expression.values
    assert set(values.dtypes) == {np.dtype("float32")}
    return {"": values.index.tolist(), **{str(name): column.tolist() for name, column in values.items()}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", TSV),
        ("a.txt", TSV.replace("\n", "\r\n")),
        ("a.csv", CSV),
        ("a.csv", "\ufeff" + CSV),
        ("a.tsv", TSV.replace("\n", "\t\n")),
        ("a.tsv", TSV.replace("\n", "\t\t\n") + "\t\t\n\n"),
        ("a.tsv", "# made by a tool\n# on a day\n" + TSV),
        ("a.tsv", "# made by a tool\n#" + TSV),
        ("a.txt", TABLE.to_csv(sep=" ", index=False)),
        ("a.txt", TABLE.to_csv(sep=" ", index=False, quoting=2).removeprefix('"gene" ')),  # write.table's default
        ("a.txt", TABLE.to_string(index=False)),
        ("a.txt", CSV),
        ("a.txt", TABLE.to_csv(sep=";", index=False)),
        ("A.CSV", CSV.replace("gene", '"gene"').replace("g1", '"g1"')),
        ("a.tsv.gz", gzip.compress(TSV.encode(), mtime=0)),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("named_wrongly.tsv", gzip.compress(TSV.encode(), mtime=0)),
        ("from_R.tsv", TSV.removeprefix("gene\t")),  # write.table names no column for the row names
        ("extra.tsv", "".join(f"{line}\t{text}\n" for line, text in zip(TSV.splitlines(), "cxyz", strict=True))),
    ],
)
def test_every_text_format_of_expression_gives_the_same_values(
    write: Write, name: str, content: str | bytes
) -> None:
    expected = {"": ["g1", "g2", "g3"], "a": [0, 1.5, 3], "b": [10, 0, 30]}
    assert as_lists(read_expression(write(name, content))) == expected


@pytest.mark.parametrize("index", ["gene", None])
def test_expression_in_parquet_has_the_genes_in_a_column_or_in_the_index(
    tmp_path: Path, index: str | None
) -> None:
    path = tmp_path / "a.parquet"
    TABLE.to_parquet(path)
    from_column = read_expression(path).values
    TABLE.set_index("gene").rename_axis(index).to_parquet(path)
    pd.testing.assert_frame_equal(read_expression(path).values, from_column)
    assert from_column["b"].tolist() == [10, 0, 30]


def test_the_gene_column_is_the_first_or_the_one_named(write: Write) -> None:
    path = write("a.tsv", "symbol\tid\ta\nP1\t007\t1\nM1\tnan\t2\n")
    assert as_lists(read_expression(path, ["a"])) == {"": ["P1", "M1"], "a": [1, 2]}
    by_id = read_expression(path, gene_column="id")  # ids stay as written, whatever they look like
    assert as_lists(by_id) == {"": ["007", "nan"], "a": [1, 2]}
    assert by_id.ignored_columns == ["symbol"]


def test_columns_without_any_number_are_passed_over_and_named(write: Write) -> None:
    path = write("a.tsv", "g\tdesc\ta\tnote\ng1\tkinase\t1\t\ng2\t\t2\tx\n")
    expression = read_expression(path)
    assert as_lists(expression) == {"": ["g1", "g2"], "a": [1, 2]}
    assert expression.ignored_columns == ["desc", "note"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", TSV, "separated by tabs, though its name says commas"),
        ("a.tsv.gz", gzip.compress(CSV.encode(), mtime=0), "separated by commas, though its name says tabs"),
        ("a.csv", TABLE.to_csv(sep=";", index=False), "separated by semicolons"),
        ("a.tsv", TSV.replace("g2", "  g2 "), "spaces dropped around 1 gene id"),
        ("a.tsv", TSV + "Total\t4.5\t40\n", "summaries do not count: Total"),
        ("a.csv", TABLE.to_csv(), "ids are taken from column 'gene', as the first numbers the rows"),
        (
            "a.csv",
            TABLE[["a", "b", "gene"]].to_csv(index=False),
            "ids are taken from column 'gene', as the first holds",
        ),
        ("a.tsv", TABLE.assign(Length=[100, 7, 9]).to_csv(sep="\t", index=False), r"Length \(a length\); name in"),
        ("a.tsv", TABLE.assign(cluster=[0, 1, 1]).to_csv(sep="\t", index=False), r"cluster \(a group\)"),
        ("a.tsv", TABLE.assign(c=None).to_csv(sep="\t", index=False), r"c \(a column without values\)"),
        ("a.tsv", TABLE.assign(p=[0, 0.5, 1]).to_csv(sep="\t", index=False), r"p \(a p-value\)"),
    ],
)
def test_what_is_taken_for_granted_of_a_table_is_said(
    write: Write, name: str, content: str | bytes, said: str
) -> None:
    expression, notes = with_notes(lambda: read_expression(write(name, content)))
    assert re.search(said, " ".join(notes))
    values = as_lists(expression)
    assert {column: values[column] for column in ("", "a", "b")} == {
        "": ["g1", "g2", "g3"],
        "a": [0, 1.5, 3],
        "b": [10, 0, 30],
    }
    assert set(values) == {"", "a", "b"}


def test_ids_that_pandas_made_decimals_are_whole_numbers_again(write: Write) -> None:
    path = write("a.csv", "entrez,a\n1001.0,1\n52.0,2.5\n")
    expression, (note,) = with_notes(lambda: read_expression(path))
    assert as_lists(expression) == {"": ["1001", "52"], "a": [1, 2.5]}
    assert "gene ids like 1001.0 are whole numbers" in note


def test_a_series_matrix_of_GEO_is_read_without_its_description(write: Write) -> None:
    head = '!Series_title\t"x"\n!Sample_title\t"s 1"\t"s 2"\n\n!series_matrix_table_begin\n'
    rows = '"ID_REF"\t"GSM1"\t"GSM2"\n"g1"\t1.5\t2\n"g2"\t3\t4\n'
    expression = read_expression(write("GSE1_series_matrix.txt", f"{head}{rows}!series_matrix_table_end\n"))
    assert as_lists(expression) == {"": ["g1", "g2"], "GSM1": [1.5, 3], "GSM2": [2, 4]}


def test_targets_are_taken_in_the_order_asked_for(write: Write) -> None:
    path = write("a.tsv", "g\ta\tb\tc\ng1\t1\t2\tx\n")
    assert list(read_expression(path, ["b", "a"]).values.columns) == ["b", "a"]
    with pytest.raises(InputError, match=r"`targets=\['z'\]`: no such column; there are \['g', 'a', 'b', 'c'\]"):
        read_expression(path, ["b", "z"])
    with pytest.raises(InputError, match=r"`targets=\[\]`: names no column"):
        read_expression(path, [])
    with pytest.raises(InputError, match=r"line 2, column 'c': 'x' is no number"):
        read_expression(path, ["c"])


@pytest.mark.parametrize(
    ("transform", "a", "b"),
    [
        ("none", [0, 1.5, 3], [10, 0, 30]),
        ("log1p", np.log([1, 2.5, 4]), np.log([11, 1, 31])),
        ("log2p1", np.log2([1, 2.5, 4]), np.log2([11, 1, 31])),
        ("cpm_log2p1", np.log2(np.array([0, 1 / 3, 2 / 3]) * 1e6 + 1), np.log2([250001, 1, 750001])),
    ],
)
def test_transforms_of_expression_equal_those_of_numpy(
    write: Write, transform: Any, a: list[float], b: list[float]
) -> None:
    values = with_notes(lambda: read_expression(write("a.tsv", TSV), transform=transform))[0].values
    np.testing.assert_allclose(values.to_numpy(), np.stack([a, b], axis=1), rtol=1e-6)


def test_counts_per_million_are_of_the_whole_column_with_rows_left_out(write: Write) -> None:
    path = write("a.tsv", "g\ta\tb\ng1\t1\t1\ng1\t1\t1\ng2\t\t2\n")
    with pytest.warns(InputNote, match="rows dropped because their gene id occurs again: 1"):
        expression = read_expression(path, transform="cpm_log2p1", missing="drop")
    np.testing.assert_allclose(expression.values.to_numpy(), np.log2([[5e5 + 1, 2.5e5 + 1]]), rtol=1e-6)


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "nan", "N/A", "#N/A", " NA ", "null"])
def test_a_missing_expression_value_is_kept_or_drops_the_gene_or_is_an_error(write: Write, cell: str) -> None:
    path = write("a.tsv", f"g\ta\tb\ng1\t1\t2\ng2\t3\t{cell}\ng3\t5\t6\ng4\t\t{cell}\n")
    kept = read_expression(path)
    np.testing.assert_array_equal(kept.values.to_numpy(), [[1, 2], [3, np.nan], [5, 6]])
    assert (kept.values.index.tolist(), len(kept.without_value)) == (["g1", "g2", "g3"], 1)
    dropped = read_expression(path, missing="drop")
    assert as_lists(dropped) == {"": ["g1", "g3"], "a": [1, 5], "b": [2, 6]}
    assert len(dropped.without_value) == 2
    with pytest.raises(
        InputError, match=r"line 3 \(g2\), column 'b': the value is missing.*2 such rows.*`missing='keep'`"
    ):
        read_expression(path, missing="error")


@pytest.mark.parametrize("cell", ["inf", "-inf", "Inf", "-Infinity"])
def test_an_infinite_expression_value_is_missing_with_a_warning(write: Write, cell: str) -> None:
    path = write("a.tsv", f"g\ta\ng1\t1\ng2\t{cell}\n")
    with pytest.warns(InputWarning, match=r"1 infinite value, the first on line 3 \(g2\).*add 1 before the log"):
        expression = read_expression(path)
    assert as_lists(expression) == {"": ["g1"], "a": [1]}
    assert expression.without_value == ["g2"]
    with pytest.raises(InputError, match=r"line 3 \(g2\).*infinite"):
        read_expression(path, missing="error")


@pytest.mark.parametrize(
    ("rows", "expected", "said"),
    [
        ("g1\tNA\t\ng1\t5\t6\n", [5, 6], "InputNote"),
        ("g1\t5\t6\ng1\tNA\t\n", [5, 6], "InputNote"),
        ("g1\t5\t6\ng1\t5\t6\n", [5, 6], "InputNote"),
        ("g1\tNA\t6\ng1\t5\t7\n", [np.nan, 6], "InputWarning"),
        ("g1\t1\t2\ng1\t3\t4\n", [1, 2], "InputWarning"),
    ],
)
def test_of_equal_gene_ids_the_first_with_a_value_is_kept(
    write: Write, rows: str, expected: list[float], said: str
) -> None:
    path = write("a.tsv", f"g\ta\tb\n{rows}g2\t2\t2\n")
    expression, notes = with_notes(lambda: read_expression(path))
    np.testing.assert_array_equal(expression.values.loc["g1"], expected)
    assert expression.values.index.tolist() == ["g1", "g2"]
    assert (expression.n_duplicates, len(expression.without_value)) == (1, 0)
    assert [note.split(":")[0] for note in notes] == [said]


def test_a_gene_that_dropping_would_lose_is_kept_by_its_complete_row(write: Write) -> None:
    path = write("a.tsv", "g\ta\tb\ng1\t1\t\ng1\t3\t4\ng2\t5\t6\n")
    expression, _ = with_notes(lambda: read_expression(path, missing="drop"))
    assert as_lists(expression) == {"": ["g1", "g2"], "a": [3, 5], "b": [4, 6]}


@pytest.mark.parametrize("rows", ["g1 A 1 g1 B 2 g2 A 3 g2 B 4", "A g1 1 A g2 2 B g1 3 B g2 4"])
def test_a_table_with_a_row_a_gene_and_sample_is_refused(write: Write, rows: str) -> None:
    cells = iter(rows.split())
    lines = "".join("\t".join(row) + "\n" for row in zip(cells, cells, cells, strict=True))
    with pytest.raises(InputError, match=r"2 ids in 4 rows .*make a row a gene and a column a sample"):
        read_expression(write("long.tsv", f"id\tx\tvalue\n{lines}"))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("g\ta\n\ng1\t1\ng2\t2\ng3\tx\n", {}, r"line 5, column 'a': 'x' is no number"),
        ("# c\ng\ta\ng1\t1\ng2\t2\ng3\t1O\n", {}, r"line 5, column 'a': '1O' is no number"),
        (
            "g\ta\ng1\t-1\n",
            {"transform": "log1p"},
            r"line 2 \(g1\), column 'a': -1 is negative.*`transform='none'`",
        ),
        ("g\ta\ng1\t-1\n", {"transform": "log2p1"}, "is negative"),
        ("g\ta\tb\ng1\t1\t0\n", {"transform": "cpm_log2p1"}, "column 'b' sums to 0"),
        ("g\ta\ng1\t1\n", {"transform": "ln"}, "`transform='ln'`: unknown; choose one of none, log1p"),
        ("g\ta\ng1\tx\n", {}, r"no column of numbers.*other columns: a"),
        ("g:a\ng1:1\n", {}, "no column of numbers.*none.*tabs"),
        ("g\tlength\tpadj\ng1\t9\t0.1\n", {}, r"looks like expression: length \(a length\), padj \(a p-value\)"),
        ("v\tw\n1.5\t2\n", {}, r"column 'v', the first, holds numbers.*`gene_column`: \['v', 'w'\]"),
        ("g\ta\tb\ng1\t1\t2\ng2\t1", {}, "line 3, the last, ends early"),
        ('g,a\ng1,"x\n', {}, "no column of numbers"),
        ('g,d,a\ng1,"x,y,1\ng2,z,2\n', {}, "line 2: a quote is not closed"),
        ("s\t0\t15\t30\ng1\t5\t1\t2\n", {}, "line 1: 's 0 15 30' may be a gene, or hours"),
        ("#1.2\n3\t1\nName\tDescription\ts\ng1\tx\t1\n", {}, "line 2 says 3 rows, there are 1"),
        ("chr1\t5\t9\tn1\nchr1\t7\t8\tn2\nchr1\t3\t4\tn3\n", {}, "1 id in 3 rows .like chr1.*`gene_column`"),
        ("Status\ta.bam\nAssigned\t5\nUnassigned_Unmapped\t4\n", {}, "summary of featureCounts"),
        ("__no_feature\t5\n__ambiguous\t4\n", {}, "no rows but summaries"),
        (
            "g\ta\ng1\t1\n",
            {"layout": "salmon"},
            "`layout='salmon'`: the table lacks the columns length, name, num",
        ),
        ("g\ta\ng1\t1\n", {"layout": "gct"}, "lacks '#1.2'"),
        ("g\ta\ng1\t1\n", {"layout": "excel"}, "`layout='excel'`: unknown; choose one of plain, feature"),
        ("g\ta\ng1\t1\n", {"missing": "zero"}, "`missing='zero'`: unknown; choose one of keep, drop, error"),
        ("g\ng1\n", {}, "no column of numbers.*none"),
        ("g\ta\n", {}, "has a header but no rows"),
        ("g\ta\ta\ng1\t1\t2\n", {}, "two columns are named 'a'"),
        ("g\ta\ng1\t1\n", {"gene_column": "id"}, r"has no column 'id'; `gene_column` may be one of \['g', 'a'\]"),
        ("g\ta\ng1\t1\n\t2\n", {}, "line 3 has no gene id in column 'g'"),
        ("g\ta\tb\ng1\t\t1\n", {"missing": "drop", "targets": ["a"]}, "no row has a value"),
        ("g\ta\ng1\t1\t2\t3\n", {}, "line 2 has more columns than its header, 4 for 2"),
        ("g\ta\ng1\t1\ng2\t1\t4\n", {}, "line 3 has more columns than its header, 3 for 2"),
        ("gene\ta\ng1\t1\t4\n", {}, "line 2 has more columns than its header, 3 for 2"),
        ("g\ta\ng1\t1e300\n", {}, "do not fit"),
        ("<html>\n", {}, "is HTML"),
        ("", {}, "is empty"),
    ],
)
def test_a_bad_expression_table_is_refused(
    write: Write, content: str, options: dict[str, Any], message: str
) -> None:
    path = write("a.tsv", content)
    with pytest.raises(InputError, match=message) as error:
        with_notes(lambda: read_expression(path, **options))
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) or set(options) & {"transform", "missing", "layout"}


def test_damaged_expression_tables_are_refused(write: Write, tmp_path: Path) -> None:
    packed = gzip.compress(b"g\ta\n" + b"g1\t1\n" * 5000)
    with pytest.raises(InputError, match="gzip data ends early"):
        read_expression(write("a.tsv.gz", packed[: len(packed) // 2]))
    TABLE.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="not a complete Parquet file"):
        read_expression(write("b.parquet", (tmp_path / "a.parquet").read_bytes()[:-20]))


def test_a_workbook_is_refused_and_a_zipped_table_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(TSV)
    expected = read_expression(tmp_path / "a.tsv")
    for name, member in (("a.xlsx", "[Content_Types].xml"), ("a.zip", "a.tsv")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, TSV)
    with pytest.raises(InputError, match="Excel workbook"):
        read_expression(tmp_path / "a.xlsx")
    assert as_lists(read_expression(tmp_path / "a.zip")) == as_lists(expected)


TEXT = st.text("ab \"'#;,|/.-é", max_size=6)


@given(
    st.lists(st.tuples(TEXT, st.floats(0, 1e6)), min_size=1, max_size=20),
    st.sampled_from(["tsv", "quoted tsv", "csv", "semicolons"]),
)
def test_no_row_of_any_text_column_is_lost(
    tmp_path_factory: Any, rows: list[tuple[str, float]], kind: str
) -> None:
    """What a table holds is what was put into it, however odd the text beside the numbers."""
    separator = {"csv": ",", "semicolons": ";"}.get(kind, "\t")
    quoting: Any = {"tsv": csv.QUOTE_NONE, "quoted tsv": csv.QUOTE_NONNUMERIC}.get(kind, csv.QUOTE_MINIMAL)
    table = pd.DataFrame(
        {
            "gene": [f"g{row}" for row in range(len(rows))],
            "remark": [text for text, _ in rows],
            "x": [value for _, value in rows],
        }
    )
    path = tmp_path_factory.mktemp("t") / "t.txt"
    table.to_csv(path, sep=separator, index=False, quoting=quoting)
    values = with_notes(lambda: read_expression(path))[0].values
    assert values.index.tolist() == table["gene"].tolist()
    np.testing.assert_allclose(values["x"], table["x"].astype("float32"))
