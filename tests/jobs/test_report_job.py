"""`jobs.report` from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.commands import ROOT, exit_code, outcome
from support.reports import RunFiles, write_run

from jobs.report import report


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    return write_run(tmp_path_factory.mktemp("made"), genes=80, scored=6)


def test_the_report_job_writes_the_page_its_config_and_the_figures(
    files: RunFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "report.html"
    words = [
        "--model",
        files.model,
        "--out",
        page,
        "--scores",
        files.scores,
        "--genes",
        files.ids[1],
        "--show",
        "1",
    ]
    code, out, err = outcome(capsys, report, *words, "--figures", tmp_path / "figures", "--assembly", "sacCer3")
    assert (code, err) == (0, "")
    assert "not in it: Motifs: find some with motifs, give their folder as --motifs" in out
    text = page.read_text()
    assert f"{files.ids[1]} <small>named" in text
    assert "genome.ucsc.edu/cgi-bin/hgTracks?db=sacCer3" in text
    config = yaml.safe_load((tmp_path / "new" / "report.config.yaml").read_text())
    assert config["genes"] == [files.ids[1]]
    assert str(files.scores / "manifest.json") in config["provenance"]["inputs"]
    assert (tmp_path / "figures" / f"gene_{files.ids[1]}.svg").exists()


@pytest.mark.ray
def test_a_report_of_a_run_of_jobs_train_has_all_sections(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = outcome(capsys, report, "--model", run / "model", "--out", tmp_path / "report.html")
    assert (code, err) == (0, "")
    text = (tmp_path / "report.html").read_text()
    for heading in ("Metrics", "Beside baselines", "Predicted and observed", "Learning curves", "Leakage"):
        assert f">{heading}</h" in text, heading
    assert exit_code(report, "--model", run, "--out", tmp_path / "again.html") == 0  # the run's folder does, too
    assert ">Metrics</h2>" in (tmp_path / "again.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{tmp}/report.pdf"], "must be a file that ends in .html"),
        (["--model", "{tmp}/none"], "none: no such model directory"),
        (["--scores", "{tmp}"], "holds no part-*.parquet"),
        (["--show=-1"], "--show -1: must be at least 0"),
    ],
)
def test_wrong_input_of_the_report_job_is_one_line_and_writes_nothing(
    files: RunFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    given = [
        "--model",
        files.model,
        "--out",
        tmp_path / "report.html",
        *(word.format(tmp=tmp_path) for word in words),
    ]
    code, _, err = outcome(capsys, report, *given)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_report_job_imports_no_ray() -> None:
    code = "import sys, jobs.report; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
