"""`promoter JOB ...`: the list of jobs, their command lines, and what they import before they know their input."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest
from support.commands import ROOT

from jobs.__main__ import job_summaries, main
from jobs.cli.body import lazy_body
from jobs.cli.config_file import job_settings
from promoter.splits.config import SplitConfig

JOBS = ["demo", "export", "ism", "motifs", "predict", "prepare", "report", "train", "tune", "variants"]
HEAVY = {"pandas", "pyarrow", "ray", "torch"}
LIGHT_JOBS = [path.stem for path in sorted((ROOT / "jobs" / "bodies").glob("[!_]*.py"))]
# like the console script, whose own folder is on the import path, and not the working directory
PROMOTER = (
    f"import sys; sys.path[0] = {str(Path(sys.executable).parent)!r}; "
    "sys.argv[0] = 'promoter'; from jobs.__main__ import main; main()"
)


def _main(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _promoter(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, "-c", PROMOTER, *words], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_every_job_is_listed_with_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert _main(*words) == 0
    printed = capsys.readouterr().out.splitlines()
    listed = [line.split(maxsplit=1) for line in printed if line.startswith("  ")]
    assert [name for name, _ in listed] == JOBS
    for name, sentence in listed:
        docstring = inspect.getdoc(getattr(import_module(f"jobs.{name}"), name)) or ""
        assert " ".join(docstring.split()).startswith(sentence.removesuffix("."))
        assert sentence.endswith(".")


def test_only_files_with_a_function_of_their_name_are_jobs() -> None:
    assert list(job_summaries()) == JOBS


def test_the_version_printed_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("--version") == 0
    assert capsys.readouterr().out == "promoter 0.1.0\n"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("trian", "there is no job 'trian'; did you mean 'train'?"),
        ("--versoin", "there is no job '--versoin'; 'promoter' lists the jobs"),
        ("xyz", "there is no job 'xyz'; 'promoter' lists the jobs"),
        ("cli", "there is no job 'cli'; 'promoter' lists the jobs"),
    ],
)
def test_an_unknown_job_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str], name: str, line: str) -> None:
    assert _main(name) == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_the_usage_names_the_command_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("export", "--help") == 0
    assert capsys.readouterr().out.startswith("usage: promoter export [--config CONFIG]")


def test_python_m_jobs_is_the_same_command(tmp_path: Path) -> None:
    def module(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobs", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    for words in ([], ["--version"], ["trian"], ["export", "--help"], ["export", "--scores", str(tmp_path)]):
        ours, theirs = _promoter(*words), module(*words)
        assert ours.returncode == theirs.returncode
        assert ours.stderr == theirs.stderr
        unwrapped = [" ".join(one.stdout.split()).replace("python -m jobs", "promoter") for one in (ours, theirs)]
        assert unwrapped[0] == unwrapped[1]


def test_the_console_script_is_the_function_tested_here() -> None:
    assert 'promoter = "jobs.__main__:main"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["--version"], 0),
        (["trian"], 2),
        *(case for job in LIGHT_JOBS for case in (([job, "--help"], 0), ([job], 2), ([job, "--outt", "x"], 2))),
    ],
)
def test_help_and_refused_flags_import_no_heavy_library(words: list[str], code: int) -> None:
    # a finder that comes first sees every import, also one that fails or is undone
    watch = (
        "import sys\n"
        "class Watch:\n"
        "    seen = set()\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        self.seen.add(name.partition('.')[0])\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"sys.argv = ['promoter', *{words!r}]\n"
        "from jobs.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print('imported:', *sorted(Watch.seen & {HEAVY!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", watch], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize("name", LIGHT_JOBS)
def test_a_body_takes_the_arguments_of_its_job(name: str) -> None:
    job = getattr(import_module(f"jobs.{name}"), name)
    body = getattr(import_module(f"jobs.bodies.{name}"), name)
    first, *others = inspect.signature(body).parameters.values()
    assert first.name == "settings"
    assert [(one.name, one.annotation) for one in others] == [
        (one.name, one.annotation) for one in inspect.signature(job).parameters.values()
    ]


def test_a_body_gets_the_settings_and_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    got = []
    monkeypatch.setattr("jobs.bodies.export.export", lambda *words, **named: got.append((words, named)))

    @lazy_body
    def export(out: Path, split: SplitConfig, genes: tuple[str, ...] = ()) -> None: ...

    export(Path("x"), split=SplitConfig())
    assert got[0][0] == ({"out": "x", "split": asdict(SplitConfig()), "genes": []},)
    assert got[0][1] == {"out": Path("x"), "split": SplitConfig(), "genes": ()}


def test_settings_are_those_of_the_signature_in_its_order() -> None:
    def job(out: Path, genes: tuple[str, ...] = ()) -> None: ...

    arguments = {"later": 5, "genes": ("a", "b"), "out": Path("x")}
    assert list(job_settings(job, arguments).items()) == [("out", "x"), ("genes", ["a", "b"])]


def test_light_jobs_import_only_the_command_line() -> None:
    for name in LIGHT_JOBS:
        tree = ast.parse((ROOT / "jobs" / f"{name}.py").read_text())
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert modules == {"__future__", "jobs.cli.body", "jobs.cli.run"}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("kind", ["file", "package"])
def test_a_jobs_module_in_the_working_folder_does_no_harm(
    run: Path, data: Path, tmp_path: Path, kind: str
) -> None:
    hostile = "raise SystemExit('the wrong jobs was imported')\n"
    if kind == "file":
        (tmp_path / "jobs.py").write_text(hostile)
    else:
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "__init__.py").write_text(hostile)
    (tmp_path / "promoter.py").write_text(hostile)
    words = ["--model", str(run / "model"), "--data", str(data), "--out", "predicted.parquet"]
    done = _promoter("predict", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "predicted.parquet").exists()
