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
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from promoter.storage.paths import AnyPath, is_local, make_folder, resolve
from promoter.storage.remote import wrap_store_errors

# names of files that a killed run leaves: outputs that are not complete, and probes of `probe_file`
PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial\.|\.write-test-[0-9a-f]{32}$")


@contextmanager
def open_atomic(path: AnyPath) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; the file appears, complete, only if the block ends without an exception.

    Args:
        path: local or remote; a file already there is replaced, and its folder is made if needed. A remote file is
            held in memory until the block ends.

    Yields:
        The binary file to write to, which can also be read back.

    Raises:
        StorageError: a store refused the file.
    """
    resolved = resolve(path)
    make_folder(resolved.parent)
    if not is_local(resolved):  # a put to an object store is atomic as it is: build the object, then put it
        buffer = io.BytesIO()
        yield buffer
        with wrap_store_errors(resolved, "written"):
            resolved.fs.pipe_file(resolved.path, buffer.getvalue())
        return
    with atomic_path(resolved) as partial, partial.open("w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: AnyPath) -> Iterator[Path]:
    """Name a temporary local file, which is moved to `path` only if the block ends without an exception.

    Use it for libraries that open a file themselves. The temporary name ends as `path` does, since some libraries
    choose the format by the suffix.

    Args:
        path: local or remote; a file already there is replaced, and its folder is made if needed.

    Yields:
        The local path to write to.

    Raises:
        StorageError: a store refused the file.
    """
    resolved = resolve(path)
    make_folder(resolved.parent)
    if not is_local(resolved):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / resolved.name
            with wrap_store_errors(resolved, "written"):
                resolved.fs.put_file(str(Path(folder) / resolved.name), resolved.path)
        return
    partial = Path(str(resolved.parent)) / f".{uuid.uuid4().hex}.partial.{resolved.name}"
    try:
        yield partial
        partial.replace(str(resolved))
    finally:
        partial.unlink(missing_ok=True)


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
