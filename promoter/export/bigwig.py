"""Write a bigWig in a child process: if a write fails, pybigtools panics, or prints it and raises nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

_MORE = 1 << 20  # bytes: more than is left where pybigtools's buffer of some kB found no room

if TYPE_CHECKING:
    from upath import UPath

    from promoter.export.tracks import TrackBlock


def write_bigwig(path: Path, track: Iterable[TrackBlock], sizes: dict[str, int], shown: UPath) -> int:
    """Write a track; return the number of bases that it covers.

    Args:
        path: bigWig to write.
        track: regions by chromosome name and coordinate.
        sizes: chromosome name -> length in bases.
        shown: path that messages name instead of `path`, which is temporary.

    Raises:
        StorageError: the disk did not take it.
        RuntimeError: pybigtools refused the track.
    """
    from promoter.storage import disk_errors  # noqa: PLC0415 # the child does without

    covered = 0
    # a list without a shell, and a path that is never read as an option
    child = subprocess.Popen(
        [sys.executable, "-P", "-X", "utf8", __file__, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "RUST_BACKTRACE": "0"},
    )
    with child:
        assert child.stdin is not None  # noqa: S101 # for the type checker
        with suppress(BrokenPipeError):  # where the child has ended early, it has printed why
            child.stdin.write(json.dumps(sizes).encode() + b"\n")
            for block in track:
                covered += int((block.ends - block.starts).sum())
                child.stdin.write(json.dumps([block.chrom, len(block.starts)]).encode() + b"\n")
                for column, kind in zip(block[1:], ("i8", "i8", "f4"), strict=True):
                    child.stdin.write(column.astype(kind).tobytes())
        printed = child.communicate()[0].decode().splitlines()
    if covered and printed != [str(covered)]:
        with disk_errors(shown), path.open("ab") as rest:  # pybigtools does not tell whether it is the disk
            rest.write(bytes(_MORE))
        raise RuntimeError(f"{shown}: could not be written ({' '.join(printed)})")
    return covered


def _write(path: str) -> None:
    """Write what the parent sends: sizes, then of each block the chromosome, length, starts, ends and values."""
    import pybigtools  # noqa: PLC0415 # the parent does without

    source = sys.stdin.buffer

    def read(kind: str, count: int) -> array[float]:
        values = array(kind)
        values.frombytes(source.read(count * values.itemsize))
        return values

    def intervals() -> Iterator[tuple[str, int, int, float]]:
        for line in source:
            chrom, count = json.loads(line)
            yield from zip(repeat(chrom, count), *(read(kind, count) for kind in "qqf"), strict=True)

    pybigtools.open(path, "w").write(json.loads(source.readline()), intervals())
    with suppress(Exception), pybigtools.open(path) as file:  # it has its own, and names them in no stable place
        print(file.info()["summary"]["basesCovered"])


if __name__ == "__main__":
    _write(sys.argv[1])
