"""Packages that offer names of their modules, and import a module when one of its names is first asked for."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__` (PEP 562), which offers what the file imports for type checkers alone.

    `from promoter.training.config import TrainingConfig`, say, then imports no PyTorch, though the package also
    offers what does.

    Args:
        package: name of the package.
        file: path of its `__init__.py`, whose indented `from MODULE import NAME` lines stand under
            `if TYPE_CHECKING:`.
    """
    blocks = [node for node in ast.parse(Path(file).read_text()).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    origin = {alias.name: node.module for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name == "__all__":
            return list(origin)
        if (module := origin.get(name)) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module), name)

    return get
