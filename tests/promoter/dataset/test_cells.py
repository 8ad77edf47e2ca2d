from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Write
from support.notes import with_notes

from promoter.dataset.expression import read_expression
from promoter.errors import InputError


@pytest.mark.parametrize(
    ("name", "content", "expected", "said"),
    [
        ("t.tsv", "g\tx\ng1\t1,5\ng2\t2,25\n", [1.5, 2.25], "decimal commas"),
        ("t.tsv", "g\tx\ng1\t1.234,5\ng2\t7\n", [1234.5, 7], "decimal commas"),
        ("t.tsv", "g\tx\ng1\t0,123\ng2\t0,456\n", [0.123, 0.456], "decimal commas"),
        ("t.tsv", "g\tx\ng1\t1,5e-3\ng2\tNA\n", [0.0015, np.nan], "decimal commas"),
        ("t.csv", "g;x\ng1;1,234\ng2;2,225\n", [1.234, 2.225], "decimal commas"),
        ("t.csv", 'g,x\ng1,"1,234"\ng2,12\n', [1234, 12], "thousands commas"),
        ("t.tsv", "g\tx\ng1\t1,234,567\ng2\t12\n", [1234567, 12], "thousands commas"),
        ("t.tsv", "g\tx\ng1\t1,234.5\ng2\t12\n", [1234.5, 12], "thousands commas"),
        ("t.tsv", 'g\tx\ng1\t"1.5"\ng2\t" 2 "\n', [1.5, 2], ""),
        ("t.tsv", "g\tx\ng1\t1e-3\ng2\t+4\n", [0.001, 4], ""),
    ],
)
def test_numbers_are_read_as_their_country_writes_them(
    write: Write, name: str, content: str, expected: list[float], said: str
) -> None:
    expression, notes = with_notes(lambda: read_expression(write(name, content)))
    np.testing.assert_allclose(expression.values["x"].reindex(["g1", "g2"]), expected, rtol=1e-6)
    assert any(said in note for note in notes) or not said
    assert said or not any("commas" in note for note in notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("g\tx\ng1\t1,234\ng2\t2,225\n", "line 2, column 'x': '1,234' may have a decimal comma or one that"),
        ("g\tx\ng1\t0.5\ng2\t1,5\n", "line 3, column 'x': '1,5' is no number"),
        ("g\tx\ng1\t1\ng2\t1 234\n", "line 3, column 'x': '1 234' is no number"),
        ("g\tx\ty\ng1\t1\u202f234\t1\ng2\t2 345\t2\n", "line 2, column 'x': '1\u202f234' is no number"),
        ("g\tx\ty\ng1\t5%\t1\ng2\t6%\t2\n", "line 2, column 'x': '5%' is no number"),
        ("g\tx\ty\ng1\t1,5\t1.234\ng2\t2,5\t7\n", "column 'x' has decimal commas, column 'y' points"),
        ('g,x\ng1,"1,5"\ng2,"2,75"\ng3,4\ng4,5\ng5,6\n', "line 2, column 'x': '1,5' is no number"),
    ],
)
def test_numbers_that_may_mean_two_things_are_refused(write: Write, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_notes(lambda: read_expression(write("t.txt", content)))


@given(st.lists(st.floats(0, 9e6), min_size=1, max_size=20))
def test_a_table_with_decimal_commas_equals_the_one_with_points(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    table = pd.DataFrame({"gene": [f"g{row}" for row in range(len(values))], "x": values})
    path = tmp_path_factory.mktemp("t") / "t.csv"
    table.to_csv(path, sep=";", decimal=",", index=False)  # what R's write.csv2 writes
    read = with_notes(lambda: read_expression(path))[0].values["x"]
    np.testing.assert_array_equal(read, table["x"].astype("float32"))


def test_a_column_of_text_with_a_few_numbers_is_no_target(write: Write) -> None:
    path = write("t.tsv", "gene\tremark\tx\ng1\t7\t1\ng2\tseen\t2\ng3\tunseen\t3\n")
    assert read_expression(path).ignored_columns == ["remark"]


def test_lone_quotes_lose_no_row(write: Write) -> None:
    rows = [
        (f"g{row}", '5" end' if row % 7 == 3 else '"open' if row % 7 == 5 else "plain", row) for row in range(60)
    ]
    path = write("t.tsv", "gene\tremark\tx\n" + "".join(f"{gene}\t{text}\t{row}\n" for gene, text, row in rows))
    values = with_notes(lambda: read_expression(path))[0].values["x"]
    assert values.to_dict() == {gene: row for gene, _, row in rows}


@pytest.mark.parametrize(
    "content",
    [
        'gene,remark,x\ng1,"two\nlines, one cell",1\ng2,"a ""b""",2\n',
        '"gene"\t"remark"\t"x"\n"g1"\t"5\\" end"\t1\n"g2"\tk\t2\n',
    ],
)
def test_quoted_cells_are_read(write: Write, content: str) -> None:
    assert with_notes(lambda: read_expression(write("t.txt", content)))[0].values["x"].to_dict() == {
        "g1": 1,
        "g2": 2,
    }


@pytest.mark.parametrize("name", ["1-Mar", "2-Sep", "Mar-01", "2021-03-01", "1. Mrz", "2.31E+13"])
def test_names_that_a_spreadsheet_changed_are_doubted(write: Write, name: str) -> None:
    path = write("t.csv", f"gene,x\n{name},1\nMARCH1,2\nSEPT2,3\nYMR-01,4\n")
    _, notes = with_notes(lambda: read_expression(path))
    assert [note for note in notes if "1 gene id like " + name in note and note.startswith("InputWarning")]


def test_rows_with_cells_missing_at_their_ends_are_doubted(write: Write) -> None:
    path = write("t.tsv", "gene\tx\ty\ng1\t1\ng2\t2\t3\n")
    expression, notes = with_notes(lambda: read_expression(path))
    np.testing.assert_array_equal(expression.values.to_numpy(), [[1, np.nan], [2, 3]])
    assert any("fewer cells than the header: 1 row, the first on line 2" in note for note in notes)


def test_types_of_parquet_that_are_no_measurements_are_no_targets(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "gene": pd.Categorical(["g1", "g2"]),
            "nullable": pd.array([1, None], dtype="Int64"),
            "decimal": [Decimal("1.5"), Decimal("2.25")],
            "text": ["1.5", "2"],
            "category": pd.Categorical(["3", "4"]),
            "flag": [True, False],
            "day": [dt.date(2020, 1, 1)] * 2,
            "time": pd.to_datetime(["2020-01-01", "2020-01-02"]),
            "duration": pd.to_timedelta([1, 2], unit="s"),
            "list": [[1], [2]],
            "empty": [None, None],
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    expression = with_notes(lambda: read_expression(tmp_path / "t.parquet"))[0]
    expected = {"nullable": [1, np.nan], "decimal": [1.5, 2.25], "text": [1.5, 2], "category": [3, 4]}
    pd.testing.assert_frame_equal(
        expression.values, pd.DataFrame(expected, index=["g1", "g2"], dtype="float32"), check_names=False
    )
    assert expression.ignored_columns == ["flag", "day", "time", "duration", "list"]
    for name in ("flag", "day", "time"):
        with pytest.raises(InputError, match=f"row 1, column '{name}': .* is no number"):
            read_expression(tmp_path / "t.parquet", [name])


def test_an_index_of_parquet_is_the_genes_unless_it_counts_rows(tmp_path: Path) -> None:
    table = pd.DataFrame({"gene": ["g1", "g2", "g3"], "x": [1.0, 2, 3]})
    table.iloc[[2, 0]].to_parquet(tmp_path / "t.parquet")  # the row numbers of a filtered table
    expression, _ = with_notes(lambda: read_expression(tmp_path / "t.parquet"))
    assert expression.values["x"].to_dict() == {"g3": 3, "g1": 1}
    assert list(expression.values.columns) == ["x"]
    pd.DataFrame({"x": [1.0, 2]}, index=[7157.0, 12.0]).to_parquet(tmp_path / "e.parquet")
    assert read_expression(tmp_path / "e.parquet").values["x"].to_dict() == {"7157": 1, "12": 2}
