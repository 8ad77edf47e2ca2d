from __future__ import annotations

import errno
import importlib
import inspect
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pandas as pd
import pytest
import yaml
from support.commands import exit_code
from support.files import Command, Write

from jobs.prepare import prepare
from promoter.errors import InputError, StorageError


@dataclass(frozen=True)
class Network:
    """A group of flags.

    Args:
        sizes: of its layers.
        rate: of its learning.
    """

    sizes: tuple[int, ...] = (8, 4)
    rate: float = 0.5


CALLS: list[dict[str, Any]] = []


def job(
    out: str = "there", upstream: int = 1, chroms: list[str] | None = None, network: Network = Network()
) -> None:
    """Record what the command line made of the arguments.

    Args:
        out: a path.
        upstream: a number.
        chroms: a list.
        network: a group.
    """
    CALLS.append({"out": out, "upstream": upstream, "chroms": chroms, "network": network})


def _called(*words: object) -> dict[str, Any]:
    CALLS.clear()
    assert exit_code(job, *words) == 0
    assert len(CALLS) == 1
    return CALLS[0]


def test_a_flag_overrides_the_file_wherever_it_stands(write: Write) -> None:
    one = write("one.yaml", "upstream: 2\nout: file\nnetwork: {sizes: [3], rate: 3}\n")
    expected = {"out": "file", "upstream": 7, "chroms": ["X"], "network": Network((3,), 0.1)}
    words = [("--config", one), ("--upstream", 7), ("--network.rate=0.1",), ("--chroms", "X")]
    for order in permutations(words):
        assert _called(*(word for part in order for word in part)) == expected
    assert _called("--upstream=7", f"--config={one}", "--network.rate", 0.1, "--chroms=X") == expected


def test_a_later_file_overrides_an_earlier_one(write: Write) -> None:
    one, two = write("1.yaml", "upstream: 2\nnetwork: {rate: 3}\n"), write("2.yaml", "upstream: 5\n")
    assert _called("--config", one, "--config", two) == _called("--upstream", 5, "--network.rate", 3)
    assert _called("--config", two, "--config", one)["upstream"] == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["A", "B"], ["A", "B"]),
        (["A,B"], ["A", "B"]),
        (["A,", "B"], ["A", "B"]),
        (["[A, B]"], ["A", "B"]),
        (['["A","B"]'], ["A", "B"]),
        (["A"], ["A"]),
        (["1", "2"], ["1", "2"]),
        (["1,2"], ["1", "2"]),
        (["[1, 2]"], ["1", "2"]),
        (["2"], ["2"]),
        (["[2]"], ["2"]),
        (["007,1e5,0x1F,1_0,on,null"], ["007", "1e5", "0x1F", "1_0", "on", "null"]),
        (["[007, 1e5, yes]"], ["007", "1e5", "yes"]),
        (["a[1]", "HLA-A*01:01", 'x"y'], ["a[1]", "HLA-A*01:01", 'x"y']),
        (["[]"], []),
        (["null"], None),
    ],
)
def test_a_list_of_text_is_taken_as_people_write_it(words: list[str], expected: list[str] | None) -> None:
    assert _called("--chroms", *words, "--upstream", 3)["chroms"] == expected
    assert _called("--upstream", 3, "--chroms", *words)["upstream"] == 3
    if len(words) == 1:
        assert _called(f"--chroms={words[0]}")["chroms"] == expected


@pytest.mark.parametrize("words", [["8", "16", "32"], ["8,16,32"], ["8, 16, 32"], ["[8, 16, 32]"]])
def test_a_list_of_numbers_is_taken_as_people_write_it(words: list[str]) -> None:
    assert _called("--network.sizes", *words)["network"] == Network((8, 16, 32))


@pytest.mark.parametrize("rate", ["3e-3", "0.003", "3.0e-3"])
def test_a_file_has_the_same_numbers_and_text_as_the_flags(write: Write, rate: str) -> None:
    config = f"chroms: [X, 1, 01, 1e1, 1.50, on]\nnetwork:\n  sizes: [4, 2]\n  rate: {rate}\nupstream: 1_0\n"
    chroms = ["X", "1", "01", "1e1", "1.50", "on"]
    flags = ["--chroms", *chroms, "--network.sizes", 4, 2, "--network.rate", rate, "--upstream", 10]
    assert _called("--config", write("c.yaml", config)) == _called(*flags)
    assert CALLS[0]["chroms"] == chroms
    assert CALLS[0]["network"] == Network((4, 2), 0.003)


@pytest.mark.parametrize(
    ("config", "chroms", "sizes"),
    [
        ("chroms: chrI\nnetwork: {sizes: 8}\n", ["chrI"], (8,)),
        ("chroms: chrI, 01\nnetwork: {sizes: '8, 4'}\n", ["chrI", "01"], (8, 4)),
        ("chroms: 01\n", ["01"], (8, 4)),
        ("chroms: on\n", ["on"], (8, 4)),
        ("chroms: null\n", None, (8, 4)),
    ],
)
def test_a_lone_value_in_a_file_is_a_list_of_one(
    write: Write, config: str, chroms: list[str] | None, sizes: tuple[int, ...]
) -> None:
    called = _called("--config", write("c.yaml", config))
    assert (called["chroms"], called["network"].sizes) == (chroms, sizes)


def test_help_shows_how_to_write_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(job, "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--chroms A,B a list. (type: list: A,B or A B, default: null)" in printed
    assert "--network.sizes 1,2 of its layers. (type: list: 1,2 or 1 2, default: (8, 4))" in printed
    assert "--chroms+" not in printed


@pytest.mark.parametrize("name", ["demo", "export", "ism", "predict", "prepare", "train"])
def test_help_explains_every_argument(capsys: pytest.CaptureFixture[str], name: str) -> None:
    function = getattr(importlib.import_module(f"jobs.{name}"), name)
    assert exit_code(function, "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"python -m jobs.{name}" in printed
    assert "--config" in printed
    described = (inspect.getdoc(function) or "").split("Args:")[1]
    for argument in inspect.signature(function).parameters:
        assert f"--{argument}" in printed
        text = described.split(f"\n    {argument}: ")[1].split(".\n")[0]
        assert " ".join(text.split()) in printed


@pytest.fixture
def flags(write: Write, tmp_path: Path) -> list[str]:
    """Flags of a small `jobs.prepare` whose chromosomes look like numbers."""
    write("g.fa", ">01\nACGTACGTACGTACGTTTGACCAGT\n>1e1\nGGGGCCCCAAAATTTTACGT\n")
    write("g.bed", "01\t5\t9\tg1\t0\t+\n1e1\t5\t9\tg2\t0\t-\n01\t8\t9\tg3\t0\t-\n")
    write("e.tsv", "gene\ta\tb\ng1\t1\t3\ng2\t2\t4\ng3\t5\t5\n")
    inputs = [("--genome", "g.fa"), ("--genes", "g.bed"), ("--expression", "e.tsv")]
    more = [
        "--upstream",
        "6",
        "--downstream",
        "2",
        "--transform",
        "log1p",
        "--targets",
        "b",
        "--chroms",
        "01",
        "1e1",
    ]
    return [*(word for flag, name in inputs for word in (flag, str(tmp_path / name))), *more]


def _results(folder: Path) -> dict[str, Any]:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config.pop("out") == str(folder)
    del config["provenance"]["sha256"]  # of all, so of `out` too
    return {"config": config} | {
        name: (folder / name).read_bytes() for name in ("promoters.parquet", "summary.json")
    }


def test_a_printed_config_gives_equal_results(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(prepare, *flags, "--out", tmp_path / "one") == 0
    capsys.readouterr()
    assert exit_code(prepare, *flags, "--out", tmp_path / "two", "--print_config") == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "two").exists()
    (tmp_path / "printed.yaml").write_text(printed)
    assert exit_code(prepare, "--config", tmp_path / "printed.yaml") == 0
    assert _results(tmp_path / "two") == _results(tmp_path / "one")


def test_a_config_and_inputs_from_pipes_give_equal_results(flags: list[str], tmp_path: Path) -> None:
    assert exit_code(prepare, *flags, "--out", tmp_path / "one") == 0
    pipes = tmp_path / "pipes"
    pipes.mkdir()
    config = {"upstream": 6, "downstream": 2, "transform": "log1p", "targets": ["b"]}
    contents = {"genome": "g.fa", "genes": "g.bed", "expression": "e.tsv"}
    config |= {name: str(pipes / file) for name, file in contents.items()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    writers = []
    for file in ("config.yaml", *contents.values()):
        os.mkfifo(pipes / file)
        content = (tmp_path / file).read_bytes()
        writers.append(threading.Thread(target=(pipes / file).write_bytes, args=(content,)))
        writers[-1].start()
    assert exit_code(prepare, "--config", pipes / "config.yaml", "--out", tmp_path / "two") == 0
    for writer in writers:
        writer.join()
    one, two = (pd.read_parquet(tmp_path / name / "promoters.parquet") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)


def test_the_config_that_a_job_wrote_gives_equal_results(flags: list[str], tmp_path: Path) -> None:
    assert exit_code(prepare, *flags, "--out", tmp_path / "one") == 0
    written = tmp_path / "one" / "config.yaml"
    provenance = yaml.safe_load(written.read_text())["provenance"]
    assert len(provenance["inputs"]) == 3
    assert provenance["versions"]["pyfaidx"]
    assert exit_code(prepare, "--config", written, "--out", tmp_path / "two") == 0
    assert _results(tmp_path / "two") == _results(tmp_path / "one")
    assert pd.read_parquet(tmp_path / "two" / "promoters.parquet")["chrom"].tolist() == ["01", "1e1", "01"]


def test_success_is_code_0_and_no_word_on_standard_error(
    flags: list[str], tmp_path: Path, command: Command
) -> None:
    done = command("prepare", *flags, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path / "out" / "promoters.parquet") in done.stdout


def test_a_data_set_is_finished_when_its_record_lists_its_files(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert exit_code(prepare, *flags, "--out", out) == 0
    assert set(_outputs(out)) == {"promoters.parquet", "summary.json"}
    capsys.readouterr()

    def full(*_: object) -> NoReturn:
        raise OSError("the disk is full")

    with monkeypatch.context() as context:
        context.setattr("promoter.storage.write_json", full)
        assert exit_code(prepare, *flags, "--out", out, "--upstream", "7", "--overwrite", "true") == 1
    assert "the disk is full" in capsys.readouterr().err
    assert _outputs(out) is None  # nor those of the earlier run
    assert pd.read_parquet(out / "promoters.parquet")["sequence"].str.len().unique().tolist() == [9]
    assert exit_code(prepare, *flags, "--out", out, "--upstream", "7") == 0
    assert set(_outputs(out)) == {"promoters.parquet", "summary.json"}


def _outputs(folder: Path) -> Any:
    return yaml.safe_load((folder / "config.yaml").read_text())["provenance"].get("outputs")


def test_prepare_tells_of_each_download_on_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(_: object, __: object, on_download: Callable[[str], None]) -> NoReturn:
        on_download("genome.fa.gz")
        raise InputError("no network")

    monkeypatch.setattr("promoter.dataset.named.fetch_yeast", fetch)
    assert exit_code(prepare, "--dataset", "yeast", "--out", tmp_path / "out") == 2
    assert capsys.readouterr() == ("downloading genome.fa.gz …\n", "error: no network\n")


@pytest.mark.parametrize("there", [True, False])
def test_bad_input_leaves_no_part_of_a_named_data_set(
    yeast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool
) -> None:
    out = tmp_path / "new" / "out"
    if there:
        out.mkdir(parents=True)
    words = ["--dataset", "yeast", "--cache", yeast / "original", "--chroms", "chr99", "--out", out]
    assert exit_code(prepare, *words) == 2
    assert "--chroms chr99: " in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == ([out.parent, out] if there else [])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RuntimeError("the disk\n  is full"), 1, "RuntimeError: the disk is full (--debug shows where)"),
        (KeyError("gene 3"), 1, "KeyError: 'gene 3' (--debug shows where)"),
        (ValueError(), 1, "ValueError (--debug shows where)"),
        (MemoryError("x" * 5000), 1, f"MemoryError: {'x' * 387} … (--debug shows where)"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to resume"),
        (SystemExit(143), 143, "interrupted; run the same command again to resume"),
        (InputError("g.fa: is wrong; fix it"), 2, "g.fa: is wrong; fix it"),
    ],
)
def test_a_failure_ends_with_its_code_and_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def fail() -> NoReturn:
        """Fail."""
        raise error

    assert exit_code(fail) == code
    assert capsys.readouterr().err == f"error: {line}\n"


class PanicException(BaseException):  # as pyo3 calls the one that its libraries raise
    """A panic in a library written in Rust."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PanicException("Couldn't send: SendError"),
            "PanicException: Couldn't send: SendError (--debug shows where)",
        ),
        (OSError(errno.ENOSPC, "full", "/a/b"), "/a/b: could not be written (No space left on device); free some"),
        (
            OSError(errno.EDQUOT, "full"),
            "{out}, {tmp}: could not be written (Disk quota exceeded); free some space",
        ),
        (OSError(errno.EIO, "bad"), "{out}, {tmp}: could not be written (Input/output error); check the disk, or"),
        (
            RuntimeError("ray::f() [Errno 30] Read-only file system"),
            "{out}, {tmp}: could not be written (Read-only",
        ),
        (StorageError("/a: could not be written"), "/a: could not be written"),
    ],
)
def test_a_panic_or_a_disk_that_fails_in_a_librarys_hands_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, error: BaseException, line: str
) -> None:
    def fail(out: str) -> NoReturn:
        """Fail.

        Args:
            out: output folder.
        """
        raise error

    assert exit_code(fail, "--out", tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: " + line.format(out=tmp_path / "out", tmp=tempfile.gettempdir()))
    assert printed.count("\n") == 1


def test_a_failure_where_the_disk_is_full_names_the_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        """Fail."""
        raise RuntimeError("Timed out waiting for file")

    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=4096))
    assert exit_code(fail) == 1
    tail = f"next to no space is left in {tempfile.gettempdir()}: free some space, or choose another output folder"
    assert capsys.readouterr().err.startswith(f"error: RuntimeError: Timed out waiting for file; {tail}")


def test_sigterm_exits_143_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def wait() -> None:
        """Wait for the signal."""
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert exit_code(wait) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "error: interrupted; run the same command again to resume\n"


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("late"), 1), (InputError("early"), 2)])
def test_debug_shows_the_traceback_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail() -> NoReturn:
        """Fail."""
        raise error

    monkeypatch.setenv("PROMOTER_DEBUG", "0")  # which --debug sets; put back after the test
    assert exit_code(fail, "--debug") == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert any("in fail" in line for line in lines)
    assert lines[-1].startswith("error: ")
    assert lines[-1].endswith(str(error))
