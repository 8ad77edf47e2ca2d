"""Remove the hidden files that killed runs have left in an output folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from upath import UPath

from promoter.storage.atomic import PARTIAL, PROBE, partial_tail
from promoter.storage.paths import is_local
from promoter.storage.records import RECORD


def remove_leftovers(folder: UPath, names: Sequence[str] | None = None) -> None:
    """Remove what killed runs have cut off in a local folder; what another user has left may stay.

    Args:
        folder: output folder.
        names: names of the only files whose partial ones are removed; None (default): all in the folder, and in
            the folders within that are no runs of their own.
    """
    if not is_local(folder):
        return
    # a run that writes this folder beside the owner of a file may have a probe in it
    remove_probes = names is None or not any(folder.glob(".lease-*.json"))

    def is_ours(tail: str) -> bool:  # of an output, or of its lease
        return names is None or any(tail == partial_tail(name) or tail.startswith(f".{name}.") for name in names)

    for place, inner, files in os.walk(str(folder)):
        inner[:] = [name for name in inner if names is None and not (Path(place) / name / RECORD).exists()]
        for name in files:
            partial, probe = PARTIAL.match(name), PROBE.fullmatch(name)
            if (probe and remove_probes) or (partial and is_ours(name[partial.end() :])):
                with suppress(OSError):
                    (Path(place) / name).unlink()
