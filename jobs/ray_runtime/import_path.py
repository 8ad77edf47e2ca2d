"""Make Ray's workers import this package, whatever lies in the folder that a job is started from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]  # folder that holds jobs/ and promoter/
_PACKAGES = ("jobs", "promoter")


@contextlib.contextmanager
def without_shadowing() -> Iterator[None]:
    """Within it, `ray.init` may be called from a folder with a `jobs.py` or `promoter.py` of its own.

    Ray puts the driver's working directory first on the import path of its workers, so that such a file would take
    the place of ours there: where it would, `ray.init` is called from the folder of this package instead.
    """
    if any(_is_shadowed(package) for package in _PACKAGES):
        with contextlib.chdir(_ROOT):
            yield
    else:
        yield


def _is_shadowed(package: str) -> bool:
    """Tell whether the working directory holds another module of this name; a folder without code does no harm."""
    spec = PathFinder.find_spec(package, [str(Path.cwd())])
    return spec is not None and spec.origin is not None and _ROOT not in Path(spec.origin).resolve().parents
