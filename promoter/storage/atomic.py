"""Write files atomically: an output is complete or absent, and a failed write leaves the earlier file.

A local file is written under another name beside the target and then renamed. An object store has no rename, but a
put is atomic: a large object goes in parts that become visible together, and are dropped if one of them fails.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from promoter.storage.disk import INSTEAD, TEMPORARY, OutputFile, disk_errors, kept_error
from promoter.storage.paths import AnyPath, is_local, make_folder, resolve
from promoter.storage.remote import wrap_store_errors

_MAX_TAIL = 200  # bytes of a name that its temporary one ends with: with these, it is no longer than 255
# names of files that a killed run leaves: outputs that are not complete, and probes of `probe_file`
PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial\.")
PROBE = re.compile(r"\.write-test-[0-9a-f]{32}")


@contextmanager
def open_atomic(
    path: AnyPath, *, late_errors: bool = False, instead: str = INSTEAD, appear: ExitStack | None = None
) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; the file appears, complete, only if the block ends without an exception.

    Args:
        path: local or remote; a file already there is replaced, and its folder is made if needed. A remote file is
            kept in the temporary folder until the block ends.
        late_errors: whether an error of the disk is raised when the block ends, and not when it is met, for a
            library that crashes if a write fails (default false); the file is then unbuffered, and can be read.
        instead: what the message advises to choose if the disk fails (default another output folder).
        appear: stack whose end the file appears at; None, the default, means at the end of the block.

    Yields:
        The binary file to write to, which can also be read back.

    Raises:
        StorageError: the disk or store did not take the file.
    """
    resolved = resolve(path)
    shown: object = resolved
    if not is_local(resolved):
        shown, instead = tempfile.gettempdir(), TEMPORARY
    with ExitStack() as stack:
        partial = (appear or stack).enter_context(atomic_path(resolved, instead))
        with disk_errors(shown, instead):
            raw = OutputFile(partial, late_errors)
        with kept_error(raw, shown, instead):
            file: IO[bytes] = raw if late_errors else io.BufferedRandom(raw)
            yield file
            file.flush()
            if shown is resolved:  # else it is sent, and removed
                with disk_errors(shown, instead):
                    os.fsync(raw.fileno())


@contextmanager
def atomic_path(path: AnyPath, instead: str = INSTEAD) -> Iterator[Path]:
    """Name a temporary local file, which is moved to `path` only if the block ends without an exception.

    Use it for a library that opens a file itself, and turn its errors of writing into `disk_error`. The temporary
    name ends as `path` does, since some libraries choose the format by the suffix.

    Args:
        path: local or remote; a file already there is replaced, and its folder is made if needed.
        instead: what the message advises to choose if the disk fails (default another output folder).

    Yields:
        The local path to write to.

    Raises:
        StorageError: the disk or store did not take the file.
    """
    resolved = resolve(path)
    if not is_local(resolved):  # a put to an object store is atomic as it is
        make_folder(resolved.parent)
        with disk_errors(tempfile.gettempdir(), TEMPORARY):
            temporary = tempfile.TemporaryDirectory()
        with temporary as folder:
            yield Path(folder) / resolved.name
            with wrap_store_errors(resolved, "written"):
                resolved.fs.put_file(str(Path(folder) / resolved.name), resolved.path)
        return
    with disk_errors(resolved, instead):
        make_folder(resolved.parent)
    partial = Path(str(resolved.parent)) / f".{uuid.uuid4().hex}.partial.{partial_tail(resolved.name)}"
    try:
        yield partial
        with disk_errors(resolved, instead):
            partial.replace(str(resolved))
    finally:
        with suppress(OSError):  # the error that led here says more
            partial.unlink(missing_ok=True)


class Outputs(ExitStack):
    """Output files that appear together, once all of them are written, at the end of the block, or not at all.

    What a library opens on such a file is entered after it, so that it is closed before.

    Attributes:
        appear: stack at whose end the files appear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.appear = self.enter_context(ExitStack())  # which ends last

    def open_atomic(self, path: AnyPath, *, late_errors: bool = False) -> IO[bytes]:
        """Open a file as the function of this name does."""
        return self.enter_context(open_atomic(path, late_errors=late_errors, appear=self.appear))

    def atomic_path(self, path: AnyPath) -> Path:
        """Name a temporary file as the function of this name does."""
        return self.appear.enter_context(atomic_path(path))


def partial_tail(name: str) -> str:
    """Return what follows `PARTIAL` in the name that a file has while it is written."""
    while len(os.fsencode(name)) > _MAX_TAIL:
        name = name[1:]
    return name


def remove_folder(folder: AnyPath) -> None:
    """Remove a folder with all its content; do nothing if it does not exist.

    Args:
        folder: local or remote.

    Raises:
        StorageError: a store refused to remove it.
    """
    resolved = resolve(folder)
    with wrap_store_errors(resolved, "removed"):
        if resolved.exists():
            resolved.fs.rm(resolved.path, recursive=True)
