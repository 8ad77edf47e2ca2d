"""Docstring entries, of which `--help` is made, are sentences or noun phrases that stand by themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("promoter", "jobs") for path in (ROOT / folder).rglob("*.py"))
_FRAGMENT = re.compile(r"(of|as|whose|in|at|by|see|those|that)\b", re.IGNORECASE)


def entries(source: str) -> Iterator[tuple[str, str]]:
    """Yield each argument and attribute that the docstrings describe, with its text."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for section in re.split(r"\n(?=\w+:\n)", ast.get_docstring(node) or ""):
            if section.startswith(("Args:", "Attributes:")):
                yield from re.findall(r"^    \*{0,2}(\w+): (.*)$", section, re.MULTILINE)


def fragments(source: str) -> list[str]:
    return [f"{name}: {text}" for name, text in entries(source) if _FRAGMENT.match(text)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_docstring_entry_begins_with_a_bare_preposition_or_pronoun(path: Path) -> None:
    assert fragments(path.read_text()) == []


@pytest.mark.parametrize("text", ["of the draw.", "See there.", "whose scores.", "at the start: those."])
def test_the_check_of_docstrings_finds_a_fragment(text: str) -> None:
    source = f'def f(a, b):\n    """Do it.\n\n    Args:\n        a: {text}\n        b: number of genes.\n    """\n'
    assert fragments(source) == [f"a: {text}"]
    assert len(list(entries(source))) == 2
