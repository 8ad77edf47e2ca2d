"""Leases: of two live runs that would write the same output, one is refused; a dead run's output is taken over.

A run that writes an output keeps a file `.lease-ID.json` in its folder and rewrites it every 15 seconds. Each run
has a lease of its own name, so that none ever replaces another's: a disk that several hosts share and a bucket
without exclusive creation need no more. Clocks are not compared:

- a lease of this machine is alive as long as its process is, by process id and start time;
- a lease of another host is alive if it changes while it is watched, and dead after 60 seconds without a change;
- of two runs that find each other before either holds the output, the older goes on.
"""

from __future__ import annotations

import glob
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from upath import UPath

from promoter.errors import InputError, note
from promoter.storage.formats import write_json
from promoter.storage.paths import make_folder, missing_folders, remove_empty_folders
from promoter.storage.schema import read_json_as

BEAT_SECONDS = 15.0
DEAD_SECONDS = 60.0  # without a beat, after which a lease of another host counts as dead
_LOOK_SECONDS = 1.0  # between two looks at a lease of another host
_SETTLE_SECONDS = 2.0  # in which a run that has seen no other says that it holds the output
_SAME_START = 2.0  # seconds by which two readings of a process's start may differ
_active: set[str] = set()  # ids of the leases of this process; one that could not be removed is not among them


@dataclass(frozen=True)
class Lease:
    """What a run says about itself while it writes.

    Attributes:
        host: name of the host.
        boot: id of the host's boot, and of the process namespace, in which process ids are counted.
        process: process id.
        started: start of the process, in seconds since 1970.
        since: start of the run, in seconds since 1970.
        beat: number of times that the lease was rewritten.
        held: whether the run holds the output, and is not still looking for others.
        id: name of the lease.
    """

    host: str
    boot: str
    process: int
    started: float
    since: float = field(default_factory=time.time)
    beat: int = 0
    held: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def new(cls) -> Lease:
        """Return a lease of this process."""
        return cls(socket.gethostname(), _boot(), os.getpid(), psutil.Process().create_time())

    @property
    def is_local(self) -> bool:
        """Tell whether the lease is of this machine, since its boot, so that its process can be looked up."""
        return (self.host, self.boot) == (socket.gethostname(), _boot())

    @property
    def process_is_alive(self) -> bool:
        """Tell whether the process of a local lease still runs."""
        if self.process == os.getpid():
            return self.id in _active
        try:
            process = psutil.Process(self.process)
            same = abs(process.create_time() - self.started) < _SAME_START
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def __str__(self) -> str:
        """Return the run as messages name it."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.process} on {self.host}, since {since}"


@cache
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"  # containers of one machine share its boot
    except OSError:  # not Linux
        return f"{psutil.boot_time():.0f}"


@contextmanager
def hold_lease(folder: UPath, name: str = "") -> Iterator[None]:
    """Hold the lease of an output while the block runs.

    Args:
        folder: folder of the output, resolved; made if needed, and removed again if it is left empty.
        name: name of the output in it, where that is one file; empty (default) for the folder.

    Raises:
        InputError: another live run holds it.
    """
    missing = missing_folders(folder)
    make_folder(folder)
    mine = _Holder(folder, f".{name}.lease-" if name else ".lease-")
    try:
        mine.acquire()
        yield
    finally:
        mine.release()
        remove_empty_folders(missing)


class _Holder:
    """Acquires, renews and releases a lease.

    Args:
        folder: folder of the leases.
        prefix: beginning of their names.
    """

    def __init__(self, folder: UPath, prefix: str) -> None:
        self.folder, self.prefix, self.lease = folder, prefix, Lease.new()
        self.path = folder / f"{prefix}{self.lease.id}.json"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._announced = False
        self._seen: dict[str, tuple[int, float]] = {}  # id of a foreign lease -> its beat, and since when

    def acquire(self) -> None:
        """Write the lease, and wait until no other is alive."""
        _active.add(self.lease.id)
        self._write()
        self._beats.start()
        while wait := self._look():
            time.sleep(wait)
        self._write(held=True)

    def release(self) -> None:
        """Stop beating, and remove the lease."""
        _active.discard(self.lease.id)
        self._ended.set()
        if self._beats.is_alive():
            self._beats.join()
        with suppress(Exception):  # the store refuses, or the folder is gone; without beats it counts as dead
            self.path.unlink()

    def _look(self) -> float:
        """Return how many seconds to wait before the next look at the others; 0 if none is alive.

        Raises:
            InputError: another run holds the output, or looks for others too and is older.
        """
        wait = 0.0
        for path in self.folder.glob(f"{glob.escape(self.prefix)}*.json"):
            if path.name == self.path.name:
                continue
            try:
                other = read_json_as(path, Lease, "remove it")
            except (InputError, OSError) as error:  # removed meanwhile, or cut off by a full disk
                if not isinstance(error.__cause__, PermissionError):
                    continue
                fix = "wait for its end, delete the file if it was killed, or choose another output"
                raise InputError(f"{path}: is of another user's run, and may not be read", fix=fix) from error
            alive = other.process_is_alive if other.is_local else self._beats_of(other)
            if alive is None:
                if not self._announced:
                    self._announced = True
                    note(f"{self.folder}: waiting for a sign of life of another run ({other}), up to a minute")
                wait = _LOOK_SECONDS
            elif not alive:
                with suppress(FileNotFoundError, PermissionError):  # another user's does no harm
                    path.unlink()
            elif other.held or (other.since, other.id) < (self.lease.since, self.lease.id):
                fix = "wait for its end, or choose another output"
                raise InputError(f"{self.folder}: another run is writing here ({other})", fix=fix)
            else:
                wait = _SETTLE_SECONDS
        return wait

    def _beats_of(self, other: Lease) -> bool | None:
        """Tell whether a lease of another host is alive; None while that is not known."""
        now = time.monotonic()
        beat, since = self._seen.setdefault(other.id, (other.beat, now))
        if beat != other.beat:
            return True
        return False if now - since > DEAD_SECONDS else None

    def _write(self, **changes: Any) -> None:
        with self._lock:
            self.lease = replace(self.lease, beat=self.lease.beat + 1, **changes)
            write_json(self.path, asdict(self.lease))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # a full disk or a store that fails: the next beat may succeed
                if not self.path.exists() or self._another_holds():
                    print(
                        f"error: {self.folder}: another run has taken this output over, as this one had shown no "
                        "sign of life for a minute",
                        file=sys.stderr,
                    )
                    # as Ctrl-C, so that the job unwinds; a process that a script starts by `&` ignores that
                    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                    os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)
                    return
                self._write()

    def _another_holds(self) -> bool:
        """Tell whether another run says that it holds the output; it then took this one for dead.

        Its removal of this lease may have come between the look for it and its next beat, which made it anew.
        """
        others = [path for path in self.folder.glob(f"{glob.escape(self.prefix)}*.json") if path != self.path]
        with suppress(InputError):  # removed meanwhile
            return self.lease.held and any(read_json_as(path, Lease, "remove it").held for path in others)
        return False
