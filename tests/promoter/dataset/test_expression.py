from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.files import Write

from promoter.dataset.expression import Expression, looks_untransformed, read_expression
from promoter.errors import InputError

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


def test_targets_are_taken_in_the_order_asked_for(write: Write) -> None:
    path = write("a.tsv", "g\ta\tb\tc\ng1\t1\t2\tx\n")
    assert list(read_expression(path, ["b", "a"]).values.columns) == ["b", "a"]
    for targets in (["b", "z"], []):
        with pytest.raises(InputError, match=r"no such column; there are \['a', 'b', 'c'\]"):
            read_expression(path, targets)
    with pytest.raises(InputError, match=r"row 2 \(g1\), column 'c': 'x' is no number"):
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
    values = read_expression(write("a.tsv", TSV), transform=transform).values
    np.testing.assert_allclose(values.to_numpy(), np.stack([a, b], axis=1), rtol=1e-6)


def test_counts_per_million_are_of_the_whole_column_with_rows_left_out(write: Write) -> None:
    path = write("a.tsv", "g\ta\tb\ng1\t1\t1\ng1\t1\t1\ng2\t\t2\n")
    expression = read_expression(path, transform="cpm_log2p1", missing="drop")
    np.testing.assert_allclose(expression.values.to_numpy(), np.log2([[5e5 + 1, 2.5e5 + 1]]), rtol=1e-6)


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "inf", "-inf"])
def test_a_missing_expression_value_is_an_error_or_drops_the_gene(write: Write, cell: str) -> None:
    path = write("a.tsv", f"g\ta\tb\ng1\t1\t2\ng2\t3\t{cell}\ng3\t5\t6\n")
    with pytest.raises(
        InputError, match=r"row 3 \(g2\), column 'b': the value is missing.*1 such rows.*`missing='drop'`"
    ):
        read_expression(path)
    expression = read_expression(path, missing="drop")
    assert as_lists(expression) == {"": ["g1", "g3"], "a": [1, 5], "b": [2, 6]}
    assert expression.n_missing == 1
    assert read_expression(path, ["a"]).n_missing == 0


def test_of_equal_gene_ids_the_first_is_kept_and_the_others_counted(write: Write) -> None:
    expression = read_expression(write("a.tsv", "g\ta\ng1\t1\ng2\t2\ng1\t3\ng1\t4\n"))
    assert as_lists(expression) == {"": ["g1", "g2"], "a": [1, 2]}
    assert expression.n_duplicates == 2


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("g\ta\ng1\t1\ng2\t1,5\n", {}, r"row 3 \(g2\), column 'a': '1,5' is no number"),
        ("g\ta\n\ng1\t1\ng2\tx\n", {}, r"\(g2\), column 'a': 'x' is no number"),
        (
            "g\ta\ng1\t-1\n",
            {"transform": "log1p"},
            r"row 2 \(g1\), column 'a': -1 is negative.*`transform='none'`",
        ),
        ("g\ta\ng1\t-1\n", {"transform": "log2p1"}, "is negative"),
        ("g\ta\tb\ng1\t1\t0\n", {"transform": "cpm_log2p1"}, "column 'b' sums to 0"),
        ("g\ta\ng1\t1\n", {"transform": "ln"}, "`transform='ln'`: unknown; choose one of none, log1p"),
        ("g\ta\ng1\tx\n", {}, r"no column of numbers.*other columns: a"),
        ("g a\ng1 1\n", {}, "no column of numbers.*tabs"),
        ("g\ng1\n", {}, "no column of numbers.*none"),
        ("g\ta\n", {}, "has a header but no rows"),
        ("g\ta\ta\ng1\t1\t2\n", {}, "two columns are named 'a'"),
        ("g\ta\ng1\t1\n", {"gene_column": "id"}, r"has no column 'id'; `gene_column` may be one of \['g', 'a'\]"),
        ("g\ta\ng1\t1\n\t2\n", {}, "row 3 has no gene id in column 'g'"),
        ("g\ta\ng1\t\n", {"missing": "drop"}, "no row has a value"),
        ("g\ta\ng1\t1\t2\t3\n", {}, "rows have more columns than its header"),
        ("g\ta\ng1\t1\ng2\t1\t4\n", {}, "is not a table.*line 3"),
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
        read_expression(path, **options)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) or "transform" in options


def test_damaged_expression_tables_are_refused(write: Write, tmp_path: Path) -> None:
    packed = gzip.compress(b"g\ta\n" + b"g1\t1\n" * 5000)
    with pytest.raises(InputError, match="gzip data ends early"):
        read_expression(write("a.tsv.gz", packed[: len(packed) // 2]))
    TABLE.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="not a complete Parquet file"):
        read_expression(write("b.parquet", (tmp_path / "a.parquet").read_bytes()[:-20]))


def test_values_that_are_no_logarithms_are_recognised() -> None:
    assert looks_untransformed(pd.DataFrame({"a": [0, 51.0]}))
    assert not looks_untransformed(pd.DataFrame({"a": [0, 12.0]}))
    assert not looks_untransformed(pd.DataFrame({"a": [-1, 51.0]}))
