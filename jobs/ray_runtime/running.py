"""Which Ray a job uses: that of `RAY_ADDRESS`, one that its user started on this machine, or one of its own.

This is Ray's order, and as for Ray only a Ray of `ray start` counts that keeps its files in the usual folder
(`/tmp/ray`, or where RAY_TMPDIR or TMPDIR says). But Ray would also take another user's, or what is left of a dead
one. Here all that is left alone is named.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from jobs.ray_runtime.address import ADDRESS, problem_of, temporary_folder
from promoter.errors import InputError

_RAYLET = "raylet"  # one runs on each node of a cluster, the head too
_SESSION = re.compile(r"session_.*_(\d+)")  # ends with the id of the process that has started the cluster


class RunningRay(NamedTuple):
    """A Ray that is running.

    Attributes:
        address: `HOST:PORT` of its head.
        found: true if it was found on this machine, not named in `RAY_ADDRESS`.
        wants_token: true if it is known to refuse calls without a token.
    """

    address: str
    found: bool = False
    wants_token: bool = False


def find_running() -> RunningRay | None:
    """Return the running Ray that a job is to use; None if it starts one for itself.

    Raises:
        InputError: several of this user are running, or `RAY_ADDRESS=auto` and none is.
    """
    address = os.environ.get(ADDRESS)
    if address == "local":
        return None
    if address not in (None, "auto"):
        return RunningRay(address)
    mine, _ = _look()
    if len(mine) > 1:
        raise InputError(
            f"Ray runs at {' and '.join(found.address for found in mine)} on this machine",
            fix=f"say which by {ADDRESS}={mine[0].address}, or start one for this job by {ADDRESS}=local",
        )
    if not mine and address == "auto":
        raise InputError(
            f"{ADDRESS}=auto: no Ray of yours runs on this machine", fix="`ray start --head` starts one"
        )
    return mine[0] if mine else None


def ignored() -> tuple[str, ...]:
    """Return a line for each Ray on this machine that a job looked at and left alone."""
    return _look()[1] if os.environ.get(ADDRESS) in (None, "auto") else ()


@functools.cache
def _look() -> tuple[tuple[RunningRay, ...], tuple[str, ...]]:
    """Return the Rays of this user that were started by `ray start` and answer, and a line for each other."""
    mine: set[RunningRay] = set()
    notes: set[str] = set()
    for raylet in psutil.process_iter(["name"]):
        if raylet.info["name"] != _RAYLET or (found := _read(raylet)) is None:
            continue
        running, note = found
        host, _, port = running.address.rpartition(":")
        problem = problem_of(host.strip("[]"), int(port)) if note is None else None  # a raylet outlives its head
        if note is None and problem is None:
            mine.add(running)
        else:
            notes.add(f"Ray at {running.address} {note or f'{problem}: it is ignored'}")
    return tuple(sorted(mine)), tuple(sorted(notes))


def _read(raylet: psutil.Process) -> tuple[RunningRay, str | None] | None:
    """Return the Ray of `ray start` that a raylet belongs to, and why it is left alone: None if it is not."""
    try:
        flags = dict(word.split("=", 1) for word in raylet.cmdline() if "=" in word)
        address = flags.get("--gcs-address")
        if address is None or _is_of_a_driver(raylet, flags.get("--session-name", "")):
            return None
        if raylet.uids().real != os.getuid():
            return RunningRay(address), f"is {raylet.username()}'s: it is left alone"
        folder = Path(flags.get("--temp_dir", ""))
        if folder.resolve() != (Path(temporary_folder()[1]) / "ray").resolve():
            return RunningRay(
                address
            ), f"keeps its files in {folder}: it is left alone; {ADDRESS}={address} takes it"
        wants_token = raylet.environ().get("RAY_AUTH_MODE") == "token"
        return RunningRay(address, found=True, wants_token=wants_token), None
    except psutil.Error:  # it has ended, or this user may not look at it
        return None


def _is_of_a_driver(raylet: psutil.Process, session: str) -> bool:
    """Tell whether a program has started this Ray for itself: the raylet's parent is the session's creator.

    That of `ray start` has ended, or it waits with `--block`.
    """
    parent, creator = raylet.parent(), _SESSION.fullmatch(session)
    if parent is None or creator is None or int(creator[1]) != parent.pid:
        return False
    return not _is_ray_start(parent.cmdline())


def _is_ray_start(words: Sequence[str]) -> bool:
    return any("ray" in program and command == "start" for program, command in itertools.pairwise(words))
