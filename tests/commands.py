"""Commands that run beside a test, which reads what they print, and kills them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(job: str, arguments: list[str]) -> subprocess.Popen[str]:
    """Start `python -m jobs.JOB ...` as a person does."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", f"jobs.{job}", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Return the lines that a command prints until one holds `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} never came:\n{''.join(lines)}")
