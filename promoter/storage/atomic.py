"""Write files atomically: an output is complete or absent, and a failed write leaves the earlier file.

A local file is written under another name beside the target and then renamed. An object store has no rename, but a
put is atomic: a large object goes in parts that become visible together, and are dropped if one of them fails.
"""

from __future__ import annotations

import io
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from upath import UPath

from promoter.storage.paths import AnyPath, is_local, make_folder, missing_folders, remove_empty_folders, resolve
from promoter.storage.remote import wrap_store_errors

_MAX_TAIL = 50  # letters of a name that its temporary one ends with: with these, it is no longer than 255 bytes


@contextmanager
def open_atomic(path: AnyPath) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; the file appears, complete, only if the block ends without an exception.

    Args:
        path: local or remote; a file already there is replaced, and its folder is made if needed. A remote file is
            held in memory until the block ends.

    Yields:
        The binary file to write to.

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
    with atomic_path(resolved) as partial, partial.open("wb") as file:
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
    partial = Path(str(resolved.parent)) / f".{uuid.uuid4().hex}.partial.{resolved.name[-_MAX_TAIL:]}"
    try:
        yield partial
        partial.replace(str(resolved))
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def removed_on_error(folder: AnyPath, unless: str | None = None) -> Iterator[UPath]:
    """Remove `folder` with all its content if the block fails, unless the folder existed before.

    Args:
        folder: local or remote; it is not made here.
        unless: name of a file in the folder; if another process has created it, the folder is kept. None, the
            default, removes the folder whatever it holds.

    Yields:
        The resolved path of the folder.
    """
    resolved = resolve(folder)
    existed, missing = resolved.exists(), missing_folders(resolved)
    try:
        yield resolved
    except BaseException:
        if not existed and not (unless and (resolved / unless).exists()):
            remove_folder(resolved)
            remove_empty_folders(missing)
        raise


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
