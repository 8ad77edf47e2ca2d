"""Jobs by their command lines: run by a test itself, or beside it, to read what they print and to kill them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from jobs.cli.run import run

ROOT = Path(__file__).parents[2]
# flags of a network that trains in a moment
SMALL_NETWORK = [
    *("--model.channels", "8,8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", "4", "--model.hidden", "8"),
]


def exit_code(job: Callable[..., None], *words: object) -> int:
    """Run a job in this process with these words as its command line."""
    with pytest.raises(SystemExit) as ended:
        run(job, [str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def outcome(capsys: pytest.CaptureFixture[str], job: Callable[..., None], *words: object) -> tuple[int, str, str]:
    """Run a job like `exit_code`; return its code, what it printed and what it said on standard error."""
    code = exit_code(job, *words)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def start(
    job: str, arguments: Iterable[object], address: str | None = None, *, cwd: Path = ROOT
) -> subprocess.Popen[str]:
    """Start `python -m jobs.JOB ...` as a person does.

    Args:
        job: name of the job.
        arguments: words of its command line.
        address: address of the Ray cluster that it connects to; None: it starts one.
        cwd: working directory; the repository by default.
    """
    return subprocess.Popen(
        [sys.executable, "-u", "-m", f"jobs.{job}", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | ({"RAY_ADDRESS": address} if address else {}),
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
