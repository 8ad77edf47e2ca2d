from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.files import Write
from support.notes import with_notes

from promoter.dataset.expression import read_expression
from promoter.dataset.targets import (
    TargetSummary,
    describe_targets,
    require_target_names,
)
from promoter.errors import InputError


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["fold"], "the target 'fold' is a column of the outputs; .*to 'fold_expression' say"),
        (["fold", "fold_expression"], "to 'fold_expression1' say"),
        (["x_predicted"], "the target 'x_predicted' is what outputs call a prediction; .*'x_expression' say"),
        (["x_predicted_by_y"], "'x_by_y_expression' say"),
        (["a_low", "a"], "'a_low' is what outputs call a column that they derive from the target 'a'"),
        (["a", "b", "b_difference"], "derive from the target 'b'"),
        (["a", "b", "a"], "two targets are called 'a'"),
        (["a", " "], "has no name"),
        (["a\nb"], r"target 'a\\nb' has letters in its name that cannot be seen; rename"),
        (["a", "b\x1b[1m"], "cannot be seen"),
        (["a\u202eb"], "cannot be seen"),
        (["\ufeffa"], "cannot be seen"),
        (["a\tb"], "cannot be seen"),
    ],
)
def test_a_target_whose_name_outputs_use_is_refused_with_one_to_use(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        require_target_names(names)
    assert "\n" not in str(error.value)
    if "' say" in str(error.value):
        wrong, *_, new, _ = str(error.value).split("'")
        require_target_names([*(name for name in names if f"'{name}' " not in str(error.value)), new])
        assert wrong


@pytest.mark.parametrize(
    "names", [["a_low"], ["a", "b_low"], ["low", "high"], ["a", "a_lower"], ["WT_YES+AMM_1", "WT_YES"], ["a_ref"]]
)
def test_other_names_of_targets_are_taken(names: list[str]) -> None:
    require_target_names(names)


def test_targets_are_described_as_a_loop_would() -> None:
    values = pd.DataFrame({"a": [0, 1, np.nan, 3], "b": [-1.0, 0, 0, 2]}, dtype="float32")
    described, notes = with_notes(lambda: describe_targets(values))
    for summary in described:
        known = [float(value) for value in values[summary.name] if value == value]  # noqa: PLR0124 # not NaN
        expected = (len(known), 4 - len(known), min(known), sum(known) / len(known), max(known))
        assert (summary.n, summary.missing, summary.min, summary.mean, summary.max) == pytest.approx(expected)
        assert summary.zeros == sum(value == 0 for value in known) / len(known)
    assert notes == []


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("x", [5, 5, np.nan], "target 'x' is 5 for every gene"),
        ("x", [np.nan] * 3, "target 'x' has no value for any gene"),
        ("Length", [1, 2, 3], "target 'Length' is called like a length"),
        ("start", [1, 2, 3], "called like a coordinate"),
        ("padj", [0.1, 1, 0], "called like a p-value"),
        ("padj", [-3, 1, 7], ""),
        ("x", [0.1, 1, 0], ""),
        ("x", [5, np.nan, np.nan], ""),
    ],
)
def test_a_target_that_looks_wrong_is_doubted(name: str, values: list[float], said: str) -> None:
    described, notes = with_notes(lambda: describe_targets(pd.DataFrame({name: values})))
    assert [type(summary) for summary in described] == [TargetSummary]
    assert bool(notes) == bool(said)
    assert all(said in note and note.startswith("InputWarning") for note in notes)


@pytest.mark.parametrize(
    ("rows", "transform", "said"),
    [
        ([0, 51], "none", "look like counts, not logarithms .*`transform='cpm_log2p1'`"),
        ([0.5, 51], "none", "look like TPM or the like, not logarithms .*`transform='log2p1'`"),
        ([0.5, 12], "none", ""),
        ([-1, 51], "none", ""),
        ([0.5, 12], "log2p1", "look like logarithms .up to 12.; if they are, take `transform='none'`"),
        ([0.5, 12], "cpm_log2p1", "look like logarithms"),
        ([0, 12], "log2p1", ""),
        ([0.5, 51], "log2p1", ""),
    ],
)
def test_values_that_do_not_go_with_the_transform_are_doubted(
    write: Write, rows: list[float], transform: Any, said: str
) -> None:
    path = write("t.tsv", "gene\tx\n" + "".join(f"g{row}\t{value}\n" for row, value in enumerate(rows)))
    _, notes = with_notes(lambda: read_expression(path, transform=transform))
    assert bool(notes) == bool(said)
    for note in notes:
        assert note.startswith(f"InputWarning: {path}: ")
        assert re.search(said, note)


def test_constant_targets_share_one_warning() -> None:
    values = pd.DataFrame({"a": [1, 1], "b": [1, 2], "c": [3, 3], "d": [0, 0]})
    _, (note,) = with_notes(lambda: describe_targets(values))
    assert "target 'a' is 1 for every gene, and so for 2 others" in note


@pytest.mark.parametrize(
    ("columns", "row", "said"),
    [
        ("counts.s1 TPM_s1", "1 2", r"in several units \(count, TPM\); choose those of one with `targets`"),
        ("s1_RPKM s2_RPKM", "1 2", ""),
        ("discount TPM", "1 2", ""),
        ("TPM_as_CPM s1", "1 2", ""),
        ("s1 s2", "-9999 2", "has the value -9999; if it stands for a missing one, write NA"),
        ("s1 s2", "-9 2", ""),
    ],
)
def test_columns_of_several_units_and_codes_for_missing_values_are_doubted(
    write: Write, columns: str, row: str, said: str
) -> None:
    path = write("t.tsv", f"gene {columns}\ng1 {row}\ng2 3 4\n".replace(" ", "\t"))
    _, notes = with_notes(lambda: read_expression(path))
    assert bool(notes) == bool(said)
    assert re.search(said, " ".join(notes))


@pytest.mark.parametrize(("tpm", "doubted"), [(1000, True), (999_990, False), (400_000, True), (3e6, True)])
def test_tpm_that_do_not_add_up_are_doubted(write: Write, tpm: float, doubted: bool) -> None:
    path = write("s1.sf", f"Name\tLength\tEffectiveLength\tTPM\tNumReads\ng1\t9\t7\t{tpm}\t4\ng2\t8\t6\t10\t8\n")
    _, notes = with_notes(lambda: read_expression(path, transform="log2p1"))
    assert any(f"the TPM of 's1' add up to {tpm + 10:,.0f}, not 1,000,000" in note for note in notes) == doubted
    counts, notes = with_notes(lambda: read_expression(path, ["NumReads"], transform="cpm_log2p1"))
    assert counts.unit == "counts"
    assert not any("add up" in note for note in notes)
