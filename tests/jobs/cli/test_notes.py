"""Notes of the library: a job prints each once, and can keep them for its summary."""

from __future__ import annotations

import warnings

import pytest

from jobs.cli.notes import kept_notes, printed_notes
from promoter.errors import InputNote, InputWarning, doubt, note


def test_notes_are_printed_once_with_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with printed_notes():
        for _ in range(2):
            note("a.tsv: read as `layout='plain'`")
        doubt("a.tsv: looks like lengths; leave it out with `targets`")
    assert capsys.readouterr().out.splitlines() == [
        "note: a.tsv: read as --layout plain",
        "warning: a.tsv: looks like lengths; leave it out with --targets",
    ]


def test_kept_notes_are_printed_too(capsys: pytest.CaptureFixture[str]) -> None:
    with printed_notes(), kept_notes() as kept:
        note("one")
        doubt("two")
    assert [(type(each), str(each)) for each in kept] == [(InputNote, "one"), (InputWarning, "two")]
    assert capsys.readouterr().out == "note: one\nwarning: two\n"


def test_other_warnings_are_shown_as_ever() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with printed_notes(), kept_notes() as kept:
            warnings.warn("of a library", stacklevel=1)
    assert [str(each.message) for each in shown] == ["of a library"]
    assert kept == []
