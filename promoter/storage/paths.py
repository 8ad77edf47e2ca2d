"""Resolve local paths and addresses such as `s3://…`, and make and remove the folders around a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from upath import UPath

from promoter.errors import InputError
from promoter.storage.pipes import copy_of_pipe

AnyPath: TypeAlias = "str | os.PathLike[str] | UPath"

_LISTINGS_CACHE_OPTION = "use_listings_cache"
_MAX_NAME = 255  # bytes, of all common file systems
_MAX_PATH = 3_800  # bytes; Linux takes 4,095, and names of files in a folder must find room
_SHOWN = 80  # letters of a path that is refused for its length
_BUCKET_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}


def resolve(path: AnyPath) -> UPath:
    """Return `path` as an absolute path, so that a process in another working directory can use it.

    Links are not followed. Of a pipe that `require_file` has read, the path of its copy is returned.

    Args:
        path: local path, where `~` stands for the home folder, or address such as `s3://bucket/key`.

    Raises:
        InputError: the kind of address is unknown, the package that opens it is not installed, or no local path
            can be so long.
    """
    try:
        resolved = UPath(path)
        if not is_local(resolved):
            # a cached listing would hide what other processes have written since
            if _LISTINGS_CACHE_OPTION not in resolved.storage_options:
                resolved = UPath(resolved, use_listings_cache=False)
            _ = resolved.fs  # imports the store's package
            return resolved
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be opened ({error}); name a local path, "
            "or s3:// or gs:// with promoter[s3] or promoter[gcs] installed"
        ) from error
    local = os.path.abspath(resolved.expanduser().path)  # noqa: PTH100 # resolve() would follow links
    _require_path(local)
    return UPath(copy_of_pipe(local))


def _require_path(path: str) -> None:
    longest = max((len(os.fsencode(name)) for name in path.split("/")), default=0)
    length = len(os.fsencode(path))
    if longest > _MAX_NAME or length > _MAX_PATH:
        what, size, most = ("name", longest, _MAX_NAME) if longest > _MAX_NAME else ("path", length, _MAX_PATH)
        shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
        raise InputError(f"{shown}: has a {what} of {size:,} bytes; a file's {what} has at most {most:,}")
    if "\0" in path:
        raise InputError(f"{path}: holds the letter NUL, which no path can; check how it was made")


def is_local(path: UPath) -> bool:
    """Return whether `path` is on a file system that Python's `open` reads."""
    return path.protocol in ("", "file", "local")


def make_folder(folder: UPath) -> None:
    """Make a folder and its parents, except in a bucket.

    A bucket has no folders, and making one would create a missing bucket, whose name may only be misspelt.

    Args:
        folder: resolved path.
    """
    if folder.protocol not in _BUCKET_PROTOCOLS:
        folder.mkdir(parents=True, exist_ok=True)


def missing_folders(folder: UPath) -> list[Path]:
    """Return which of a local folder and its parents do not exist, the deepest first.

    Args:
        folder: resolved path; a remote one gives an empty list, since stores have no folders.
    """
    if not is_local(folder):
        return []
    path = Path(str(folder))
    try:
        return [candidate for candidate in (path, *path.parents) if not candidate.exists()]
    except OSError:  # no permission to look, so nothing can be made in it either
        return []


def remove_empty_folders(folders: Sequence[Path]) -> None:
    """Remove local folders, the deepest first, up to the first that is missing or not empty.

    Args:
        folders: list that `missing_folders` returned before they were made.
    """
    with suppress(OSError):  # missing, or another process has put something in it
        for folder in folders:
            if folder.is_dir():
                folder.rmdir()
