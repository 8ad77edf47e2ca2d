"""Leases: a live run is not disturbed, a dead one is taken over, on a disk and in a store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from upath import UPath

from promoter.errors import InputError, InputNote
from promoter.storage import leases, resolve
from promoter.storage.leases import Lease, hold_lease

HOLDER = """
import sys, time
from promoter.storage import resolve
from promoter.storage.leases import hold_lease
with hold_lease(resolve(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    return resolve(tmp_path / "out" if request.param == "disk" else f"memory:/{tmp_path}/out")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute pass in a second."""
    for name, seconds in (("BEAT", 0.25), ("DEAD", 1.0), ("_LOOK", 0.05), ("_SETTLE", 0.2)):
        monkeypatch.setattr(leases, f"{name}_SECONDS", seconds)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def elsewhere(**changes: object) -> Lease:
    """Return the lease of a run on another host."""
    return replace(Lease.new(), host="elsewhere", held=True, **changes)


def write(folder: UPath, lease: Lease) -> UPath:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".lease-{lease.id}.json"
    path.write_text(json.dumps(asdict(lease)))
    return path


def names(folder: UPath) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_nothing_is_left_of_a_lease(folder: UPath) -> None:
    with hold_lease(folder):
        assert len(names(folder)) == 1
    assert not names(folder)
    assert folder.protocol or not folder.exists()


def test_a_second_run_of_this_process_is_refused(folder: UPath) -> None:
    with hold_lease(folder), hold_lease(folder / "inner"), hold_lease(folder, "file.parquet"):
        with pytest.raises(InputError, match=rf"another run is writing here \(process {os.getpid()} on "):
            hold_lease(folder).__enter__()
        with pytest.raises(InputError, match="another run is writing here"):
            hold_lease(folder, "file.parquet").__enter__()
    with hold_lease(folder):
        pass


def test_a_live_process_is_not_disturbed_and_a_killed_one_is_taken_over_at_once(
    tmp_path: Path, process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = resolve(tmp_path / "out")
    monkeypatch.setattr(leases, "DEAD_SECONDS", 1e9)  # not by waiting
    with pytest.raises(InputError, match=rf"\(process {process.pid} on "):
        hold_lease(out).__enter__()
    process.kill()  # not waited for: a zombie has an id too
    while process.poll() is None:
        time.sleep(0.01)
    with hold_lease(out):
        assert len(names(out)) == 1


@pytest.mark.parametrize("name", ["", "p[1]*.parquet"])
def test_leases_are_found_whatever_the_name_of_the_output(tmp_path: Path, name: str) -> None:
    out = resolve(tmp_path)
    with hold_lease(out, name), pytest.raises(InputError, match="another run is writing here"):
        hold_lease(out, name).__enter__()


def test_a_lease_that_may_not_be_read_is_taken_for_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(resolve(tmp_path), elsewhere())

    def refuse(path: object, _: str) -> UPath:  # as for any user but root
        raise InputError(f"{path}: may not be read") from PermissionError()

    monkeypatch.setattr("promoter.storage.formats.require_file", refuse)
    with pytest.raises(InputError, match=rf"^{path}: is of another user's run, and may not be read; wait for"):
        hold_lease(resolve(tmp_path)).__enter__()


def test_a_dead_lease_that_may_not_be_removed_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(resolve(tmp_path), replace(Lease.new(), process=2**22 + 1))
    unlink = type(path).unlink

    def refuse(target: UPath, missing_ok: bool = False) -> None:
        if target == path:
            raise PermissionError
        unlink(target, missing_ok=missing_ok)

    monkeypatch.setattr(type(path), "unlink", refuse)
    with hold_lease(resolve(tmp_path)):
        assert path.exists()


def test_a_process_id_that_was_given_again_is_another_process(folder: UPath) -> None:
    path = write(folder, replace(Lease.new(), started=1.0, held=True))
    with hold_lease(folder):
        assert not path.exists()


def test_another_hosts_run_is_dead_after_a_minute_without_a_beat(folder: UPath) -> None:
    path = write(folder, elsewhere())
    begun = time.monotonic()
    with pytest.warns(InputNote, match="waiting for a sign of life of another run"), hold_lease(folder):
        assert not path.exists()
    assert time.monotonic() - begun >= leases.DEAD_SECONDS  # it has waited


def test_a_beat_from_another_host_is_a_sign_of_life(folder: UPath) -> None:
    lease = elsewhere()
    write(folder, lease)
    beat = threading.Timer(0.3, lambda: write(folder, replace(lease, beat=1)))
    beat.start()
    with (
        pytest.warns(InputNote, match="waiting for a sign of life"),
        pytest.raises(InputError, match=r"another run is writing here .* on elsewhere"),
    ):
        hold_lease(folder).__enter__()
    beat.join()
    assert len(names(folder)) == 1  # the other's


def test_a_lease_of_this_process_that_could_not_be_removed_is_dead(folder: UPath) -> None:
    path = write(folder, replace(Lease.new(), held=True))
    with hold_lease(folder):
        assert not path.exists()


@pytest.mark.parametrize("older", [True, False])
def test_of_two_that_find_each_other_the_older_goes_on(
    folder: UPath, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other looks too, and gives way or says that it holds the output."""
    lease = replace(Lease.new(), since=time.time() + (100 if older else -100))
    monkeypatch.setattr(leases, "_active", {lease.id})
    path = write(folder, lease)
    if older:
        withdrawn = threading.Timer(0.1, path.unlink)
        withdrawn.start()
        with hold_lease(folder):
            assert len(names(folder)) == 1
        withdrawn.join()
    else:
        with pytest.raises(InputError, match="another run is writing here"):
            hold_lease(folder).__enter__()


def test_the_older_gives_way_to_one_that_says_it_holds_the_output(
    folder: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = replace(Lease.new(), since=time.time() + 100)
    monkeypatch.setattr(leases, "_active", {lease.id})
    write(folder, lease)
    says = threading.Timer(0.05, lambda: write(folder, replace(lease, held=True)))
    says.start()
    with pytest.raises(InputError, match="another run is writing here"):
        hold_lease(folder).__enter__()
    says.join()


def test_of_many_runs_at_once_one_holds_the_output(folder: UPath) -> None:
    inside, most, refused = 0, 0, 0
    lock, start = threading.Lock(), threading.Barrier(8)

    def attempt() -> None:
        nonlocal inside, most, refused
        start.wait()
        try:
            with hold_lease(folder):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.5)
                with lock:
                    inside -= 1
        except InputError:
            with lock:
                refused += 1

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused == 7
    assert not names(folder)


@pytest.mark.parametrize("removed", [True, False])
def test_a_run_beats_and_ends_when_it_was_taken_over(
    folder: UPath, removed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    def hold() -> None:
        with hold_lease(folder):
            (path,) = folder.glob(".lease-*")
            first = json.loads(path.read_text())["beat"]
            while json.loads(path.read_text())["beat"] == first:
                time.sleep(0.05)
            write(folder, elsewhere())
            if removed:  # and perhaps made anew by a beat
                path.unlink()
            time.sleep(30)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may run in a script's background
    try:
        with pytest.raises(KeyboardInterrupt):
            hold()
    finally:
        signal.signal(signal.SIGINT, before)
    assert "another run has taken this output over" in capfd.readouterr().err


def test_a_background_run_that_ignores_ctrl_c_ends_too(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "from promoter.storage import leases, resolve\n"
        "leases.BEAT_SECONDS = 0.1\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as a shell does for `&` in a script
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"  # as every job
        "folder = resolve(sys.argv[1])\n"
        "with leases.hold_lease(folder):\n"
        "    next(folder.glob('.lease-*')).unlink()\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 143
    assert "another run has taken this output over" in done.stderr
