"""Data sets, models, scores and unfinished runs of an earlier commit give what they gave then."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from support.commands import outcome
from support.golden import GOLDEN, differences, measure


@pytest.mark.ray
@pytest.mark.slow
def test_what_an_earlier_commit_wrote_is_read_and_resumed(
    ray_cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, folder: Path, flags: str) -> str:
        monkeypatch.chdir(folder)
        code, printed, error = outcome(capsys, getattr(import_module(f"jobs.{name}"), name), *flags.split())
        assert (code, error) == (0, ""), f"jobs.{name} {flags}"
        return printed

    expected = json.loads(GOLDEN.read_text())
    found = measure(tmp_path, run)
    # float32 on another processor; over 40 epochs its rounding grows
    assert differences(found, {name: expected[name] for name in found}, tolerance=2e-3) == []
