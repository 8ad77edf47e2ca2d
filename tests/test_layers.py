"""Imports point one way: a folder of promoter/ imports only from those above it, and never from jobs/ or Ray."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the top down; those on one line do not import one another, but for their own modules.
LAYERS = [
    ["lazy", "errors", "device_errors", "palette"],
    ["sequence", "limits", "labels"],
    ["storage"],
    ["dataset"],
    ["splits"],
    ["models"],
    ["model"],
    ["bootstrap"],
    ["metrics"],
    ["training"],
    ["model_info"],
    ["checkpoint"],
    ["model_argument"],
    ["ridge"],
    ["baselines"],
    ["kept_baselines"],
    ["evaluation"],
    ["ism"],
    ["attribution"],
    ["plots"],
    ["variants", "motifs", "export"],
    ["simulation"],
    ["report"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def room(module: str) -> str:
    """Return the folder or file of promoter/ that a module lies in."""
    return module.split(".")[1]


def imported(source: str) -> Iterator[str]:
    """Name the modules that a module imports, wherever; those for type checkers alone do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "promoter":
            yield from (f"promoter.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def upward(path: str, source: str) -> list[str]:
    """List what a file of promoter/ imports against the order."""
    here = Path(path).with_suffix("").parts[1]
    found = []
    for module in imported(source):
        if module.split(".")[0] in ("jobs", "ray"):
            found.append(module)
        if module.startswith("promoter.") and room(module) != here and RANK[room(module)] >= RANK[here]:
            found.append(module)
    return found


SOURCES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "promoter").rglob("*.py")
    if path.relative_to(ROOT) != Path("promoter/__init__.py")
)


@pytest.mark.parametrize("path", SOURCES)
def test_no_file_imports_from_a_folder_below_its_own(path: str) -> None:
    assert upward(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("promoter/dataset/genome.py", "from promoter.models.cnn import CNNConfig"),
        ("promoter/dataset/genome.py", "def f():\n    from promoter import ism"),
        ("promoter/errors.py", "import promoter.storage"),
        ("promoter/variants/vcf.py", "from promoter.export import FORMATS"),
        ("promoter/report/build.py", "import ray"),
        ("promoter/report/build.py", "from jobs.cli import console"),
    ],
)
def test_the_check_of_layers_finds_an_upward_import(path: str, line: str) -> None:
    assert len(upward(path, line)) == 1


def test_every_folder_of_promoter_has_its_layer() -> None:
    assert {Path(path).with_suffix("").parts[1] for path in SOURCES} == set(RANK)


def test_the_map_of_the_architecture_page_names_every_module_and_no_other() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    page = page[page.index("## Map") : page.index("## Which file for which change")]
    modules = {path.stem for folder in ("promoter", "jobs") for path in (ROOT / folder).rglob("*.py")}
    assert modules - set(re.findall(r"\w+", page)) - {"__init__", "__main__", "model"} == set()
    named = set(re.findall(r"(\w+)\.py\b", page[: page.index("\nconfigs/")]))
    assert named - modules == set()
