"""Keep what comes through a named pipe or a process substitution, so that it can be read more than once."""

from __future__ import annotations

import atexit
import re
import shutil
import stat
import tempfile
from pathlib import Path

from promoter.errors import StorageError

_COPIES: dict[str, tuple[object, Path]] = {}  # path of a pipe -> which pipe that was, and the copy of its content
_DESCRIPTOR = re.compile(
    r"/dev/(stdin|fd/\d+)|/proc/[^/]+/fd/\d+"
)  # such a path is another file in other processes


def is_pipe(path: str) -> bool:
    """Return whether a local path cannot be read twice: a pipe, a device, or an open file of this process."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # whoever reads the file says that it is missing
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or bool(_DESCRIPTOR.fullmatch(path))


def copy_of_pipe(path: str) -> str:
    """Return the path of the copy that was kept of a pipe, or the path itself of anything else."""
    if path not in _COPIES:
        return path
    which, copy = _COPIES[path]
    return str(copy) if _identity(path) in (which, None) else path  # another pipe may have got the same number


def keep_pipe(path: str) -> str:
    """Read a pipe to its end into a temporary file, which is removed when the process ends.

    From then on `copy_of_pipe` knows it, whatever is written into the pipe later.

    Args:
        path: absolute local path; it waits for the writer.

    Raises:
        StorageError: the temporary folder cannot hold the content.
    """
    folder = tempfile.mkdtemp(prefix="promoter-pipe-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # the name keeps its suffix, which says the format
    copy = Path(folder) / (path[1:].replace("/", "-") if _DESCRIPTOR.fullmatch(path) else Path(path).name)
    with Path(path).open("rb") as source:
        try:
            with copy.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except OSError as error:
            raise StorageError(
                f"{path}: is a pipe, whose content cannot be kept in {folder} ({error.strerror}); "
                "name another temporary folder in TMPDIR, or give a file"
            ) from error
    _COPIES[path] = (_identity(path), copy)
    return str(copy)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:  # closed by now
        return None
    return status.st_dev, status.st_ino
