"""Notes of the library: a job prints each once, and can keep them for its summary."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from jobs.cli.console import with_relative_paths
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


def test_paths_below_the_working_folder_are_printed_relative_to_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path.cwd()
    with printed_notes():
        note(f"{here}/a/b.tsv: 2 of 3 are not in {here}/c.fa, '{here}/d', {here} or /mnt{here}/e")
    assert capsys.readouterr().out == f"note: a/b.tsv: 2 of 3 are not in c.fa, 'd', {here} or /mnt{here}/e\n"
    monkeypatch.chdir("/")
    assert with_relative_paths("/a/b: 1/2") == "/a/b: 1/2"


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
