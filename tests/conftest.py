"""Fixtures for all tests: the real data, small input files, and commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from support.files import Command, Write

ROOT = Path(__file__).parents[1]
os.environ.setdefault("RAY_ADDRESS", "local")  # not a Ray that happens to run on this machine
hypothesis.settings.register_profile("untimed", deadline=None)  # a slow machine is no failure
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Let `pytest -m gpu` read only the files with such tests: where a GPU is, others' imports may be missing."""
    if config.getoption("markexpr") == "gpu" and config.args == config.getini("testpaths"):
        config.args = [str(path) for path in sorted((ROOT / "tests").rglob("test_*on_gpu.py"))]


@pytest.fixture(scope="session")
def yeast() -> Path:
    """Find the real data of yeast, or skip the test: they are not in the repository."""
    named = os.environ.get("PROMOTER_TEST_DATA")
    folder = (Path(named) if named else ROOT.parent / "shared" / "data") / "yeast"
    if named and not folder.is_dir():
        pytest.fail(
            f"PROMOTER_TEST_DATA={named}: it has no folder yeast/; name the folder that holds it, or unset it"
        )
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; PROMOTER_TEST_DATA names the folder that holds yeast/")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file into the test's folder; text keeps its line ends."""

    def one(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return one


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `python -m jobs.NAME ...` as a person does."""

    def run(job: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", f"jobs.{job}", *map(str, arguments)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)

    return run
