from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.files import Write
from support.notes import with_notes

from promoter.dataset.expression import read_expression
from promoter.dataset.samples import parse_contrasts, read_replicates
from promoter.errors import InputError, InputNote

TABLE = "gene\ta1.bam\ta2.bam\tb1.bam\tb2.bam\ng1\t1\t3\t7\t15\ng2\t0\tNA\t1\t3\ng3\tNA\tNA\t1\t1\n"
SHEET = {"a1": "A", "a2": "A", "b1": "B", "b2": "B"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("sample\tcondition\na\tA\nb\tB\n", {"a": "A", "b": "B"}),
        ("a,A\nb,B\n", {"a": "A", "b": "B"}),
        ("s1 treatment\ns2 control\n", {"s1": "treatment", "s2": "control"}),
        ("sample1\tgroup1\nsample2\tgroup2\n", {"sample1": "group1", "sample2": "group2"}),
        ("\tgenotype\tcondition\tbatch\n1_x\tWT\tbasal\t1\n", {"1_x": "basal"}),
        ("condition;replicate;Sample Name\nA;1;a\nB;1;b\n", {"a": "A", "b": "B"}),
        ('"sample" "condition"\n"1" "a" "A"\n"2" "b" "B"\n', {"a": "A", "b": "B"}),
        ("genotype\tcondition\na\tWT\tA\nb\tWT\tB\n", {"a": "A", "b": "B"}),  # row names, as write.table has them
        ("a\tA\n\na\tA\nb\tB\n", {"a": "A", "b": "B"}),
    ],
)
def test_a_sheet_of_replicates_is_read_as_people_write_it(
    write: Write, content: str, expected: dict[str, str]
) -> None:
    assert read_replicates(write("sheet.txt", content)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tA\nb\tB\na\tB\n", "line 3: sample 'a' has the conditions 'A' and 'B'"),
        ("a\tA\tx\nb\tB\ty\n", "has 3 columns; call two of them 'sample' and 'condition'"),
        ("a\nb\n", "has 1 columns"),
        ("sample\tcondition\na\t\n", "line 2 has an empty cell"),
        ("sample\tcondition\n", "has a header but no rows"),
    ],
)
def test_a_bad_sheet_of_replicates_is_refused(write: Write, content: str, message: str) -> None:
    path = write("sheet.txt", content)
    with pytest.raises(InputError, match=f"{path}: {message}"):
        with_notes(lambda: read_replicates(path))


@pytest.mark.parametrize("sheet", [SHEET, {f"/data/{name}.bam": condition for name, condition in SHEET.items()}])
def test_replicates_are_averaged_after_the_transform_without_missing_values(
    write: Write, sheet: dict[str, str]
) -> None:
    path = write("t.tsv", TABLE)
    expression, _ = with_notes(lambda: read_expression(path, transform="log2p1", replicates=sheet))
    expected = pd.DataFrame(
        {"A": [(1 + 2) / 2, 0, np.nan], "B": [(3 + 4) / 2, (1 + 2) / 2, 1]},
        index=["g1", "g2", "g3"],
        dtype="float32",
    )
    pd.testing.assert_frame_equal(expression.values, expected, check_names=False)
    spread = expression.replicates
    assert spread["A"].samples == ["a1", "a2"]
    assert spread["A"].sd == pytest.approx(np.std([1, 2], ddof=1))  # g1 alone has two values
    assert spread["B"].sd == pytest.approx((2 * np.std([1, 2], ddof=1) + 0) / 3)


def test_a_condition_with_one_sample_has_no_spread(write: Write) -> None:
    path = write("t.tsv", TABLE)
    with pytest.warns(InputNote, match="left out, since the sheet of replicates lacks them: 2 samples, a2, b2"):
        expression = read_expression(path, replicates={"a1": "A", "b1": "B"})
    assert expression.replicates["A"].sd is None
    assert expression.values.to_dict("index")["g1"] == {"A": 1, "B": 7}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"contrasts": "b1,a1"}, {"b1_vs_a1": [6, 1]}),
        ({"contrasts": ["b1", "a1", "b2", "a1"]}, {"b1_vs_a1": [6, 1], "b2_vs_a1": [14, 3]}),
        ({"contrasts": ["b1,a1", "b2,a1"]}, {"b1_vs_a1": [6, 1], "b2_vs_a1": [14, 3]}),
        ({"contrasts": "b1,a1", "targets": ["b2"]}, {"b2": [15, 3, 1], "b1_vs_a1": [6, 1, np.nan]}),
        ({"contrasts": "b1,a1", "targets": ["a1"]}, {"a1": [1, 0], "b1_vs_a1": [6, 1]}),
        ({"contrasts": "B,A", "replicates": SHEET}, {"B_vs_A": [9, 2]}),
        ({"contrasts": "B,A", "replicates": SHEET, "targets": ["B"]}, {"B": [11, 2, 1], "B_vs_A": [9, 2, np.nan]}),
        ({"replicates": SHEET, "targets": ["B"]}, {"B": [11, 2, 1]}),
    ],
)
def test_contrasts_are_differences_after_the_transform(
    write: Write, options: dict[str, Any], expected: dict[str, list[float]]
) -> None:
    values = with_notes(lambda: read_expression(write("t.tsv", TABLE), **options))[0].values
    assert list(values.columns) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(values[name], np.array(column, dtype="float32"))


def test_a_contrast_of_logarithms_is_the_logarithm_of_the_ratio(write: Write) -> None:
    path = write("t.tsv", "gene\ta\tb\ng1\t1\t7\ng2\t3\t0\n")
    values = read_expression(path, transform="log2p1", contrasts="b,a").values["b_vs_a"]
    np.testing.assert_allclose(values, [np.log2(8 / 2), np.log2(1 / 4)], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"replicates": {"a1": "A", "zz": "A"}},
            r"`replicates`: the expression table has no sample \['zz'\] \(1 of 2",
        ),
        ({"contrasts": "a1,b9"}, "`contrast='b9'`: no such condition or sample; there are a1, a2, b1, b2"),
        ({"contrasts": "a1,a1"}, "`contrast='a1,a1'`: is no pair; name two different conditions as 'A,B'"),
        ({"contrasts": "a1"}, "is no pair"),
        ({"contrasts": []}, "is no pair"),
        ({"contrasts": ["a1,b1", "b2"]}, "is no pair"),
        ({"contrasts": "A,B", "replicates": {"a1": "A", "a2": "A"}}, "`contrast='B'`: no such condition"),
        ({"replicates": SHEET, "targets": ["C"]}, r"`targets=\['C'\]`: no such column"),
    ],
)
def test_samples_and_conditions_that_are_not_there_are_refused(
    write: Write, options: dict[str, Any], message: str
) -> None:
    path = write("t.tsv", TABLE)
    with pytest.raises(InputError, match=message):
        with_notes(lambda: read_expression(path, **options))


def test_contrasts_are_pairs_however_a_list_is_given() -> None:
    assert parse_contrasts("A, B") == [("A", "B")]
    assert parse_contrasts(["A,B", "A,C"]) == parse_contrasts(["A", "B", "A", "C"]) == [("A", "B"), ("A", "C")]
