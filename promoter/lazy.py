"""Packages that offer the names of their modules, and import a module when one of its names is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a package's `__getattr__` (PEP 562).

    `from promoter.training.config import TrainingConfig`, say, then imports no PyTorch, though the package also
    offers what does.

    Args:
        package: name of the package.
        modules: name of a module in the package -> names that the package offers of it.
    """
    origin = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in origin:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{origin[name]}"), name)

    return get
