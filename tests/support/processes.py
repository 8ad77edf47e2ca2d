"""The processes that a run has started: some end while a test looks at them; others it holds where they are."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")
TIMEOUT = 600  # seconds, only so that a broken run ends the test


def read_children(read: Callable[[psutil.Process], T], pid: int | None = None) -> dict[psutil.Process, T]:
    """Return what `read` says of each descendant of a process; those that have ended are left out.

    Args:
        read: function that asks a process for something, such as `psutil.Process.name`.
        pid: id of the process whose descendants are read; by default this one.
    """
    return read_each(read, psutil.Process(pid).children(recursive=True))


def read_each(read: Callable[[psutil.Process], T], processes: Iterable[psutil.Process]) -> dict[psutil.Process, T]:
    """Return what `read` says of each process; those that have ended are left out."""
    results = {}
    for process in processes:
        try:
            results[process] = read(process)
        except (psutil.Error, ProcessLookupError, FileNotFoundError):  # a zombie is a psutil.Error too
            continue
    return results


def command_line(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def command_lines(pid: int | None = None) -> dict[psutil.Process, str]:
    """Return the command line of each living descendant of a process, this one by default."""
    return read_children(command_line, pid)


def ray_workers(name: str = "", pid: int | None = None) -> list[psutil.Process]:
    """Return the processes that Ray has started below a process for tasks and actors.

    Ray's two agents are left out: they write nothing, and take minutes to notice that a driver is gone.

    Args:
        name: text that the name of the task or actor must hold, such as `RayTrainWorker`.
        pid: id of the process whose descendants they are; by default this one.
    """
    lines = command_lines(pid)
    return [
        process
        for process, line in lines.items()
        if line.startswith("ray::") and name in line and "Agent" not in line
    ]


def wait_until(ready: Callable[[], T], *, while_runs: subprocess.Popen[str] | None = None) -> T:
    """Ask again and again until the answer is true, and return it.

    Args:
        ready: question, such as whether a file is there.
        while_runs: process that must not end before.
    """
    deadline = time.monotonic() + TIMEOUT
    while not (answer := ready()):
        if while_runs is not None and while_runs.poll() is not None:
            raise AssertionError(f"the run ended first:\n{while_runs.communicate()[0]}")
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.01)
    return answer


def has_checkpoint(out_dir: Path) -> bool:
    """Tell whether a training in this folder would be resumed: Ray Train knows one of its checkpoints."""
    try:
        snapshot = json.loads((out_dir / "checkpoints" / "checkpoint_manager_snapshot.json").read_text())
    except (FileNotFoundError, ValueError):  # not yet, or just being written
        return False
    return bool(snapshot["checkpoint_results"])


def suspend(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Stop processes where they are, and return those that had not ended: what they do lasts until `resume`."""
    return list(read_each(psutil.Process.suspend, processes))


def resume(processes: Iterable[psutil.Process]) -> None:
    read_each(psutil.Process.resume, processes)


@contextmanager
def held(
    find: Callable[[], Iterable[psutil.Process]], while_runs: subprocess.Popen[str] | None = None
) -> Iterator[list[psutil.Process]]:
    """Suspend processes as soon as there are any; the run that they belong to cannot end within the block.

    Args:
        find: function that returns the processes that are there.
        while_runs: process of the run, which must not end before.
    """
    processes = wait_until(lambda: suspend(find()), while_runs=while_runs)
    try:
        yield processes
    finally:
        resume(processes)


def kill_driver(driver: subprocess.Popen[str], name: str = "") -> list[str]:
    """Kill -9 a driver amid the work of its own Ray, wait until its workers have ended, too, and name these.

    Args:
        driver: process that has started a Ray of its own.
        name: text that the name of a task or actor must hold to count as that work.
    """
    with held(lambda: ray_workers(name, driver.pid), driver):
        workers = read_each(command_line, ray_workers(pid=driver.pid))
        driver.kill()
        driver.wait()
    _, alive = psutil.wait_procs(list(workers), timeout=TIMEOUT)
    assert not alive, "processes of the killed run live on"
    return list(workers.values())
