"""Say in one line which file a full or failing disk did not take, and how to fix it.

Only what writing itself raises is put down to the output's disk: an error of an input that is read in the same
block passes as it is.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from promoter.errors import StorageError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # nothing more fits: disk, quota, limit on files
DISK_ERRORS = FULL | {errno.EIO, errno.EROFS}
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
INSTEAD = "another output folder"
TEMPORARY = "another temporary folder in TMPDIR"


class OutputFile(io.FileIO):
    """An unbuffered local file that remembers the first error of its disk.

    Args:
        file: path, or descriptor of an open file.
        late_errors: whether writing and reading seem to go on after an error, for a library that crashes if one of
            them fails; the caller then looks at `error`, and stops soon, since what comes after it is kept in
            memory. By default the error is raised at once.

    Attributes:
        error: first error of a write; None so far.
    """

    def __init__(self, file: Path | int, late_errors: bool = False) -> None:
        super().__init__(file, "w+")
        self.late_errors = late_errors
        self.error: OSError | None = None
        self._lost: list[tuple[int, bytes]] = []  # what the disk did not take: position and content, in order

    def write(self, data: Any, /) -> int:  # any buffer, for which typing has no name before Python 3.12
        """Write all of some bytes; return how many there are."""
        content, done = memoryview(data).cast("B"), 0
        while self.error is None and done < len(content):  # a disk that becomes full takes a part
            try:
                done += super().write(content[done:])
            except OSError as error:
                self.error = error
        if self.error is None:
            return done
        if not self.late_errors:
            raise self.error
        position = self.tell()
        self._lost.append((position, bytes(content[done:])))
        self.seek(position + len(content) - done)
        return len(content)

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with what was written, whether the disk took it or not; return the number of bytes."""
        content, start = memoryview(buffer).cast("B"), self.tell()
        count = super().readinto(content) or 0
        if self._lost:
            available = max(0, min(len(content), self._end() - start))
            content[count:available] = bytes(max(0, available - count))
            count = max(count, available)
            for position, lost in self._lost:
                first, last = max(position, start), min(position + len(lost), start + count)
                if first < last:
                    content[first - start : last - start] = lost[first - position : last - position]
            self.seek(start + count)
        return count

    def read(self, size: int | None = -1, /) -> Any:
        """Read so many bytes as `readinto` does; all by default."""
        return self.readall() if size is None or size < 0 else io.RawIOBase.read(self, size)

    def readall(self) -> Any:
        """Read to the end as `readinto` does."""
        return io.RawIOBase.readall(self)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position; the end is that of what was written."""
        if whence == os.SEEK_END and self._lost:
            return super().seek(self._end() + offset)
        return super().seek(offset, whence)

    def _end(self) -> int:
        return max(os.fstat(self.fileno()).st_size, *(position + len(lost) for position, lost in self._lost))

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or extend the file; return its size."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            if not self.late_errors:
                raise
            return size or 0


@contextmanager
def temporary_file() -> Iterator[IO[bytes]]:
    """Open a file without a name in the temporary folder, to be written and read within the block.

    Raises:
        StorageError: the temporary folder cannot hold the content.
    """
    folder = tempfile.gettempdir()
    with disk_errors(folder, TEMPORARY):
        descriptor, name = tempfile.mkstemp()
        os.unlink(name)  # noqa: PTH108 # mkstemp gives text
    with kept_error(OutputFile(descriptor), folder, TEMPORARY) as raw:
        yield io.BufferedRandom(raw)


@contextmanager
def kept_error(file: OutputFile, path: object, instead: str = INSTEAD) -> Iterator[OutputFile]:
    """Close `file` when the block ends; raise a `StorageError` then, whatever else it raised, if a write failed.

    Args:
        file: open output.
        path: what the message names.
        instead: what the message advises to choose (default another output folder).
    """
    with file:
        try:
            yield file
        finally:
            if file.error is not None:
                raise disk_error(path, file.error, instead) from file.error


@contextmanager
def disk_errors(path: object, instead: str = INSTEAD) -> Iterator[None]:
    """Turn any OSError of the block, which does nothing but make or write `path`, into a `StorageError`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise disk_error(path, error, instead) from error


def disk_error(path: object, error: OSError, instead: str = INSTEAD) -> StorageError:
    """Return the error of a file that could not be written.

    Args:
        path: the file or folder that the message names.
        error: reason.
        instead: what the message advises to choose (default another output folder).
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(f"{path}: could not be written ({reason}); {fix_of_disk(error.errno, instead)}")


def fix_of_disk(number: int | None, instead: str = INSTEAD) -> str:
    """Return what the user can do about an error of a disk, as the end of a message.

    Args:
        number: its errno.
        instead: what to choose (default another output folder).
    """
    fix = f"choose {instead}"
    if number == errno.EFBIG:
        fix = f"raise the limit on the size of files (ulimit -f), or {fix}"
    elif number in FULL:
        fix = f"free some space, or {fix}"
    elif number in _FORBIDDEN:
        fix = f"change the permissions, or {fix}"
    elif number == errno.EIO:
        fix = f"check the disk, or {fix}"
    return f"{fix}, and run the same command again"


def find_disk_error(error: BaseException) -> OSError | None:
    """Return the error of a full or failing disk among an exception and its causes; None without one."""
    visited: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in visited:
        if isinstance(current, OSError) and current.errno in DISK_ERRORS:
            return current
        visited.append(current)
        current = current.__cause__ or current.__context__
    # Ray and PyArrow keep the words of an error that was raised elsewhere, and not its number
    text = str(error)
    return next(
        (OSError(number, os.strerror(number)) for number in DISK_ERRORS if os.strerror(number) in text), None
    )


def full_folders(folders: Sequence[Path], least: int = 1 << 20) -> list[Path]:
    """Return which of some folders, or of their parents where they do not exist, have next to no space left.

    Args:
        folders: local folders.
        least: number of bytes that must be free (default 1 MiB).
    """
    existing = [next(path for path in (folder, *folder.parents) if path.is_dir()) for folder in folders]
    full = []
    for folder in dict.fromkeys(existing):
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < least:
            full.append(folder)
    return full
