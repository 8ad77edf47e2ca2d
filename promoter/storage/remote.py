"""Say in one line what went wrong with a cloud store and how to fix it, and hand stores to pyarrow.

The store's library retries transient errors (status 500 and 503, dropped connections). Errors that remain are
raised as `StorageError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from promoter.errors import InputError, StorageError
from promoter.storage.paths import AnyPath, is_local, resolve

if TYPE_CHECKING:
    import pyarrow.fs

# packages whose exceptions come from a store: those of s3fs, gcsfs and adlfs
_LIBRARIES = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure", "fsspec", "s3fs", "adlfs"}


def arrow_filesystem(path: AnyPath) -> tuple[pyarrow.fs.FileSystem | None, str]:
    """Return a pyarrow file system and the path on it, for libraries that write by pyarrow, such as Ray.

    A store's file system is the one that this package uses, with the same credentials, endpoint and retries.

    Args:
        path: local or remote.

    Returns:
        The file system, None for a local path, which pyarrow opens itself; and the path without its protocol.
    """
    resolved = resolve(path)
    if is_local(resolved):
        return None, str(resolved)
    import pyarrow.fs  # noqa: PLC0415 # the command line does without it

    handler = pyarrow.fs.FSSpecHandler(resolved.fs)  # type: ignore[abstract] # its methods are missing in the stubs
    return pyarrow.fs.PyFileSystem(handler), resolved.path


@contextmanager
def wrap_store_errors(path: AnyPath, action: str) -> Iterator[None]:
    """Turn a store's exception in the block into a `StorageError` of one line.

    Args:
        path: named in the message; errors about a local path pass unchanged.
        action: past participle for the message, such as `written` in "could not be written".

    Raises:
        StorageError: a store's library raised in the block; the message has the address, the reason and the fix.
    """
    try:
        yield
    except Exception as error:
        resolved = resolve(path)
        if is_local(resolved) or isinstance(error, InputError | StorageError) or not is_store_error(error):
            raise
        raise StorageError(
            f"{resolved}: could not be {action} ({first_line(error)}); {fix_hint(error)}"
        ) from error


def is_store_error(error: BaseException) -> bool:
    """Return whether a store's library raised `error` or one of its causes."""
    visited: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in visited:
        refused = isinstance(current, PermissionError | ConnectionError | TimeoutError)
        if refused or type(current).__module__.split(".")[0] in _LIBRARIES:
            return True
        visited.append(current)
        current = current.__cause__ or current.__context__
    return False


def fix_hint(error: BaseException) -> str:
    """Return what the user can do about a store's error, as the end of a message."""
    reason = f"{type(error).__name__} {error}".lower()
    if "expired" in reason or "credential" in reason or "token" in reason:
        return "renew the credentials and run the same command again"
    if "bad request" in reason:  # all that S3 says to a HEAD with credentials that have expired
        return "renew the credentials, which may have expired, and run the same command again"
    if isinstance(error, PermissionError):
        return "check what the credentials allow, and run the same command again"
    if isinstance(error, FileNotFoundError):
        return "check the address"
    return "run the same command again"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the exception's class name if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
