"""The demo with few genes and one epoch: what it refuses, and that it can be run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import exit_code

from jobs.demo import demo

pytestmark = pytest.mark.ray
FLAGS = ["--genes_per_chromosome", "10", "--epochs", "1", "--workers", "1"]


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def finished(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parent") / "demo"
    assert exit_code(demo, "--out", out, *FLAGS) == 0
    return out


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trip over any work."""

    def begun(*_: object, **__: object) -> None:
        pytest.fail("work was begun")

    monkeypatch.setattr("promoter.simulation.genome.simulate", begun)
    for step in ("prepare", "train", "predict", "ism", "report"):
        monkeypatch.setattr(f"jobs.{step}.{step}", begun)


def test_a_finished_demo_shows_its_results_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _times(finished / "run")
    for workers in (1, 2):  # the results do not depend on those that would have trained
        assert exit_code(demo, "--out", finished, *FLAGS, "--workers", workers) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert "finished already" in printed.out
        assert "held-out r = " in printed.out
        assert "implanted motif" in printed.out
        assert f"Open {finished / 'report.html'} in a browser." in printed.out.replace("\n", " ").replace(
            "  ", " "
        )
    assert 'class="viewer"' in (finished / "report.html").read_text()
    assert _times(finished / "run") == before
    written = yaml.safe_load((finished / "config.yaml").read_text())
    assert (written["epochs"], written["seed"]) == (1, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "1"], "seed 0, not 1"),
        (["--epochs", "2", "--genes_per_chromosome", "11"], "epochs 1, not 2, genes_per_chromosome 10, not 11"),
    ],
)
def test_a_demo_of_other_settings_is_left_alone(
    finished: Path, no_work: None, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    before = _times(finished)
    assert exit_code(demo, "--out", finished, *FLAGS, *flags) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: {finished}: holds another run (different: {message}); "
        "choose another output, or --overwrite true\n"
    )
    assert _times(finished) == before


@pytest.mark.parametrize("name", ["genome", "data", "run", "ism"])
def test_a_folder_that_holds_no_demo_is_refused_by_the_demo(
    tmp_path: Path, no_work: None, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).mkdir()
    before = _times(tmp_path)
    assert exit_code(demo, "--out", tmp_path, *FLAGS) == 2
    assert f"{tmp_path}: holds {name}, which no job recorded; " in capsys.readouterr().err
    assert _times(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "--epochs 0: must be at least 1"),
        (["--genes_per_chromosome", "0"], "--genes_per_chromosome 0: must be at least 10"),
        (["--seed=-1"], "--seed -1: must be at least 0"),
        (["--workers", "0"], "--workers 0: must be at least 1"),
        (["--workers", "31"], "60 training and 10 validation genes are too few for 31 workers"),
        (["--workers", "25", "--genes_per_chromosome", "750"], "--workers 25: they want 25 CPUs"),
    ],
)
def test_an_impossible_setting_of_the_demo_is_refused_before_any_work(
    ray_cluster: Any,
    tmp_path: Path,
    no_work: None,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    if ray_cluster.cpus >= 25 and "25" in flags:
        pytest.skip("this machine has room for them")
    assert exit_code(demo, "--out", tmp_path / "demo", *FLAGS, *flags) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "demo").exists()
