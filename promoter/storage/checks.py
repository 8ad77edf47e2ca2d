"""Check before the work begins that inputs can be read and outputs written."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from upath import UPath

from promoter.errors import InputError
from promoter.storage.disk import FULL, disk_error
from promoter.storage.paths import AnyPath, is_local, make_folder, missing_folders, remove_empty_folders, resolve
from promoter.storage.pipes import is_pipe, keep_pipe
from promoter.storage.remote import fix_hint, is_store_error, wrap_store_errors


def require_file(path: AnyPath, what: str) -> UPath:
    """Check that a file exists, is not empty and may be read; return its resolved path.

    A pipe is read to its end, once, and the path of the copy is returned.

    Args:
        path: local or remote.
        what: name of the file's kind for the message, such as `genome`.

    Raises:
        InputError: the file is missing, a folder, empty, or forbidden to read.
    """
    resolved = resolve(path)
    if is_local(resolved) and is_pipe(str(resolved)):
        resolved = resolve(keep_pipe(str(resolved)))
    with wrap_store_errors(resolved, "read"):
        _require_file(resolved, what)
    return resolved


def _require_file(path: UPath, what: str) -> None:
    try:
        if not path.exists():
            raise InputError(f"{path}: no such {what}; check the path")
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a {what}; name the file in it")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the {what} is empty; was it written to the end?")
        path.open("rb").close()
    except PermissionError as error:
        if not is_local(path):
            raise
        raise InputError(f"{path}: may not be read ({error.strerror}); change its permissions") from error


def require_writable(folder: AnyPath) -> UPath:
    """Check that a file can be written in `folder`; return its resolved path.

    A local folder that does not exist is made for the test and removed again; writing the output makes it anew.

    Args:
        folder: local or remote; it need not exist.

    Raises:
        InputError: the folder cannot be made or written.
        StorageError: its disk is full or fails.
    """
    resolved = resolve(folder)
    try:
        with probe_file(resolved):
            pass
    except Exception as error:
        if not isinstance(error, OSError | ValueError) and not is_store_error(error):
            raise
        if isinstance(error, OSError) and error.errno in FULL | {errno.EIO}:
            raise disk_error(resolved, error) from error
        reason = getattr(error, "strerror", None) or str(error)
        hint = "" if is_local(resolved) else f"{fix_hint(error)}, or "
        raise InputError(
            f"{resolved}: cannot write here ({reason}); {hint}choose another output folder"
        ) from error
    return resolved


@contextmanager
def probe_file(folder: AnyPath) -> Iterator[UPath]:
    """Keep an empty file in `folder` while the block runs; remove it afterwards, with the folders made for it.

    Args:
        folder: local or remote; it need not exist.

    Yields:
        The path of the empty file.
    """
    resolved = resolve(folder)
    probe = resolved / f".write-test-{uuid.uuid4().hex}"
    missing = missing_folders(resolved)
    try:
        make_folder(resolved)
        probe.write_bytes(b"")
        try:
            yield probe
        finally:
            probe.unlink(missing_ok=True)  # a run beside this one may have tidied it up
    finally:
        remove_empty_folders(missing)
