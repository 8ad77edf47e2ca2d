"""What the library's errors say, and that they survive the way to another process."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from promoter.errors import InputError, NoValidSettingsError

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "promoter").rglob("*.py"))
COMMAND_LINE = re.compile(r"(?<![\w-])--[a-z]|\bjobs\.[a-z]")
ALLOWED = ("chromosome not in --chroms", " --local-dir ")  # a key of summary.json; a flag of the program hf


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("g.fa: is empty"), "g.fa: is empty"),
        (InputError("is unknown", setting="target"), "`target`: is unknown"),
        (
            InputError("is too long", setting="positions", value=[5, 3], fix="lower `workers`"),
            "`positions=[5, 3]`: is too long; lower `workers`",
        ),
        (InputError("is missing", setting="target", value=None), "`target=None`: is missing"),
        (
            InputError("x", setting="PretrainedConfig.weights", value=Path("a")),
            "`PretrainedConfig.weights='a'`: x",
        ),
        (NoValidSettingsError("no draw is valid", fix="widen it"), "no draw is valid; widen it"),
    ],
)
def test_a_message_is_made_of_setting_value_problem_and_fix(error: InputError, message: str) -> None:
    assert str(error) == message


def across(error: InputError) -> InputError:
    """Return an error as another process would get it."""
    return pickle.loads(pickle.dumps(error))  # noqa: S301 # written here


@pytest.mark.parametrize("error", [InputError, NoValidSettingsError])
@pytest.mark.parametrize("fields", [{}, {"setting": "a", "value": [1, None], "fix": "b"}, {"setting": "a"}])
def test_errors_are_the_same_after_pickling_and_copying(error: type[InputError], fields: dict) -> None:
    first = error("is wrong", **fields)
    for second in (across(first), copy.copy(first), across(copy.copy(first))):
        assert type(second) is error
        assert str(second) == str(first)
        assert vars(second) == vars(first)
        assert second.problem == "is wrong"


def texts(source: str) -> Iterator[str]:
    """Yield the text constants of a module, docstrings and parts of f-strings included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def of_the_command_line(source: str) -> list[str]:
    """List the texts that name a flag or a job's module."""
    return [
        text for text in texts(source) if COMMAND_LINE.search(text) and not any(known in text for known in ALLOWED)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_names_no_flag_and_no_module_of_jobs(path: Path) -> None:
    assert of_the_command_line(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    ['"""Read what jobs.ism wrote."""', 'f"{x} --genes {y}"', '"--split.val is empty"', 'f(a="see --help")'],
)
def test_the_check_finds_a_flag_or_a_job(text: str) -> None:
    assert len(of_the_command_line(text)) == 1


@pytest.mark.parametrize("text", ['"a -- b"', '"--- a/x"', '"the jobs. They"', '"well--known"'])
def test_the_check_passes_dashes_and_words(text: str) -> None:
    assert of_the_command_line(text) == []
