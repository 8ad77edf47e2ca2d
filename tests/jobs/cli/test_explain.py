"""What a refused command line says: the flag or file, the value, and what it must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from support.commands import exit_code
from support.files import Write


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
