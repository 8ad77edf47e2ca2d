"""What a refused command line says: the flag or file, the value, and what it must be."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass
from typing import Literal

import pytest
from support.commands import ROOT, exit_code
from support.files import Write

from jobs.__main__ import job_summaries
from jobs.cli.console import with_flags
from promoter.errors import InputError, NoValidSettingsError


@dataclass(frozen=True)
class Network:
    """A group of flags.

    Args:
        sizes: units of each layer.
        rate: learning rate.
    """

    sizes: tuple[int, ...] = (8, 4)
    rate: float = 0.5


def job(
    out: str,
    upstream: int = 1,
    chroms: list[str] | None = None,
    positions: list[int] | None = None,
    kind: Literal["a", "b"] | None = None,
    network: Network = Network(),
) -> None:
    """Do nothing.

    Args:
        out: folder.
        upstream: bases.
        chroms: chromosomes.
        positions: positions.
        kind: kind.
        network: network.
    """


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--upstream", "2kb"], "--upstream 2kb: must be a whole number; see --help"),
        (["--upstream=2kb"], "--upstream 2kb: must be a whole number; see --help"),
        (["--upstream"], "--upstream: expected one argument; see --help"),
        (["--upstream", "--", "5"], "--upstream: expected one argument; see --help"),
        (["--config"], "--config: expected one argument; see --help"),
        (["--kind", "c"], "--kind c: must be a, b or null; see --help"),
        (["--positions", "1", "x"], "--positions x: must be a list of whole numbers, 1,2 or 1 2; see --help"),
        (["--positions", "[1, x]"], "--positions x: must be a list of whole numbers, 1,2 or 1 2; see --help"),
        (["--network.sizes", "1,b"], "--network.sizes b: must be a list of whole numbers, 1,2 or 1 2; see --help"),
        (["--chroms", "[a"], "--chroms [a: must be a list of names, A,B or A B; see --help"),
        (["--netwrok.rate", "1"], "there is no setting 'netwrok.rate'; did you mean 'network.rate'?"),
        (["--xyz"], "there is no setting 'xyz'; see --help"),
        (["extra"], "unrecognized arguments: extra; see --help"),
    ],
)
def test_a_refused_flag_is_named_with_its_value(
    capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert exit_code(job, "--out", "x", *words) == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("upstream: 2kb\n", "upstream 2kb: must be a whole number; see --help"),
        ("network: {sizes: [1, b]}\n", "network.sizes b: must be a list of whole numbers, 1,2 or 1 2; see --help"),
        ("network: {szies: [1]}\n", "there is no setting 'network.szies'; did you mean 'network.sizes'?"),
        ("out: 5\n", "out 5: must be text; put text that looks like a number in quotes; see --help"),
    ],
)
def test_a_refused_line_of_a_file_is_named_with_the_file_even_where_a_flag_overrides_it(
    write: Write, capsys: pytest.CaptureFixture[str], content: str, line: str
) -> None:
    path = write("c.yaml", content)
    assert exit_code(job, "--out", "x", "--config", path, "--upstream", 3) == 2
    assert capsys.readouterr() == ("", f"error: {path}: {line}\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("g.fa: is empty"), "g.fa: is empty"),
        (InputError("must be A", setting="target", value="x y"), "--target x y: must be A"),
        (InputError("is too long", setting="positions", value=[5, 3]), "--positions 5,3: is too long"),
        (InputError("is empty", setting="chroms", value=()), "--chroms []: is empty"),
        (InputError("is missing", setting="genome", value=None), "--genome null: is missing"),
        (InputError("is missing", setting="genome"), "--genome: is missing"),
        (
            InputError("is no share", setting="SplitConfig.val_fraction", value=1.5),
            "--split.val_fraction 1.5: is no share",
        ),
        (
            InputError(
                "is odd", setting="CNNConfig.kernel_sizes", value=(3, 4), fix="lower `TrainingConfig.epochs`"
            ),
            "--model.kernel_sizes 3,4: is odd; lower --training.epochs",
        ),
        (
            InputError("f: `a` and `b_2` differ", fix="give `PretrainedConfig.adapt='lora'`, or `both=True`"),
            "f: --a and --b_2 differ; give --model.adapt lora, or --both true",
        ),
        (InputError("no `Other.name`, `A`, ` a`, `a b` and ``"), "no `Other.name`, `A`, ` a`, `a b` and ``"),
        (
            NoValidSettingsError(f"the last: {InputError('bad', setting='folds', value=2)}"),
            "the last: --folds 2: bad",
        ),
    ],
)
def test_settings_in_an_error_of_the_library_are_shown_as_flags(
    capsys: pytest.CaptureFixture[str], error: InputError, line: str
) -> None:
    def refuse() -> None:
        """Refuse."""
        raise error

    assert exit_code(refuse) == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_settings_in_the_errors_of_other_libraries_stay(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        """Refuse."""
        raise ValueError("`axis` must be 0")

    assert exit_code(refuse) == 1
    assert capsys.readouterr().err == "error: ValueError: `axis` must be 0 (--debug shows where)\n"


def settings_named(source: str) -> set[str]:
    """Return the settings that the messages of a module name, with flags for those that are complete there."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docs:
            named |= set(re.findall(r"`((?:[A-Z]\w+\.)?[a-z]\w*)(?:=[^`]*)?(?:`|=$)", node.value))
        if isinstance(node, ast.keyword) and node.arg == "setting" and isinstance(node.value, ast.Constant):
            named.add(str(node.value.value))
    return named


def test_every_setting_that_the_library_names_is_a_flag_of_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    for name in job_summaries():
        assert exit_code(getattr(importlib.import_module(f"jobs.{name}"), name), "--help") == 0
    flags = set(re.findall(r"^  (--[\w.]+)", capsys.readouterr().out, re.MULTILINE))
    sources = [path.read_text() for path in (ROOT / "promoter").rglob("*.py")]
    named = set().union(*map(settings_named, sources)) - {"broadcast_buffers"}  # a warning of PyTorch
    assert len(named) > 40
    assert {setting for setting in named if with_flags(f"`{setting}`") not in flags} == set()
