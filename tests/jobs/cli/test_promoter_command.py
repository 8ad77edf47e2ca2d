"""`promoter JOB ...`: the list of jobs, their command lines, and what they import before they know their input."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from support.commands import ROOT

from jobs.__main__ import job_summaries, main
from jobs.cli.config_file import job_settings

JOBS = [
    "attribute",
    "demo",
    "export",
    "ism",
    "motifs",
    "predict",
    "prepare",
    "report",
    "train",
    "tune",
    "variants",
    "verify",
]
HEAVY = {"matplotlib", "pandas", "pyarrow", "ray", "scipy", "torch"}
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


def _heavy_imports(*words: str) -> tuple[int, str, list[str]]:
    """Run a command; return its exit code, what it said on standard error, and which of HEAVY it imported."""
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
    return done.returncode, done.stderr, done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("words", [[], ["--version"], *([job, "--help"] for job in JOBS)], ids=" ".join)
def test_help_imports_no_heavy_library(words: list[str]) -> None:
    assert _heavy_imports(*words) == (0, "", [])


REQUIRED = {
    "demo": "",
    "export": "--scores s --out o",
    "ism": "--model m --data d --out o",
    "attribute": "--model m --data d --out o --method gradient",
    "motifs": "--scores s --out o",
    "predict": "--model m --data d --out o.parquet",
    "prepare": "--out o",
    "report": "--model m --out o.html",
    "train": "--data d --out o",
    "tune": "--data d --out o",
    "variants": "--variants v --genome g --model m --data d --out o",
    "verify": "f",
}
REFUSED = [
    ("trian", "there is no job 'trian'; did you mean 'train'?"),
    *((f"{job} {flags} --outt x", "there is no setting 'outt'") for job, flags in REQUIRED.items()),
    *((f"{job} --config no.yaml", "no.yaml: no such YAML file") for job in REQUIRED),
    *((job, "required: ") for job, flags in REQUIRED.items() if flags),
    ("demo --epochs 0", "--epochs 0: must be at least 1"),
    ("demo --workers 0", "--workers 0: must be at least 1"),
    ("export --scores s --out o --formats bigWig", "--formats bigWig: choose among modisco, bigwig"),
    ("export --scores s --out o --formats bigwig", "--formats bigwig: needs the chromosomes' lengths"),
    (
        "attribute --model m --data d --out o --method gradient --steps 9",
        "--steps 9: is a setting of integrated_gradients, not of gradient",
    ),
    ("ism --model m --data d --out o --genes_per_task 0", "--genes_per_task 0: must be at least 1"),
    ("ism --model m --data d --out o --dtype int8", "--dtype int8: must be float32 or float16"),
    ("verify nowhere", "nowhere: no such folder or file; check the path"),
    ("predict --model m --data d --out o", "--out o: must be a file that ends in .parquet"),
    ("variants --variants v --genome g --model m --data d --out o --workers 0", "--workers 0: must be at least 1"),
    ("motifs --scores s --out o --seed=-1", "--seed -1: must be at least 0"),
    ("prepare --out o --upstream 2kb", "--upstream 2kb: must be a whole number"),
    ("prepare --out o --genes g.bed", "--genome is missing; give its file"),
    ("report --model m --out o.pdf", "--out o.pdf: must be a file that ends in .html"),
    ("train --data d --out o --seeds 0", "--seeds 0: must be at least 1"),
    ("train --data d --out o --gpus_per_worker=-1", "--gpus_per_worker -1: must be at least 0"),
    ("train --data d --out o --min_workers 2", "--min_workers 2: must be from 1 to --workers 1"),
    ("train --data d --out o --model.name enformer --model.channels 8", "--model.channels 8: is a setting of"),
    ("train --data d --out o --split.val_fraction 1.5", "val_fraction"),
    ("tune --data d --out o --workers 2", "--workers 2: a trial is one process"),
    ("tune --data d --out o --at_once 0", "--at_once 0: must be at least 1"),
    ("tune --data d --out o --split.homology move", "a search has folds of its own"),
]


@pytest.mark.parametrize(("command", "message"), REFUSED, ids=[command for command, _ in REFUSED])
def test_a_refusal_that_needs_no_data_imports_no_heavy_library(command: str, message: str) -> None:
    code, error, imported = _heavy_imports(*command.split())
    assert (code, imported) == (2, [])
    assert message in error


def test_what_workers_run_imports_nothing_that_takes_seconds_and_is_not_used() -> None:
    """Each worker is a new process, of which a fold, a seed and a lost worker cost one more."""
    modules = ("jobs.training.worker", "jobs.inference.scoring", "jobs.inference.predicting")
    late = {
        "scipy",
        "numba",
        "matplotlib",
        "optuna",
        "tensorboardX",
        "tangermeme",
        "transformers",
        "torch._dynamo",
    }
    code = f"import sys, {', '.join(modules)}; print(sorted({late!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_settings_are_those_of_the_signature_in_its_order() -> None:
    def job(out: Path, genes: tuple[str, ...] = ()) -> None: ...

    arguments = {"later": 5, "genes": ("a", "b"), "out": Path("x")}
    assert list(job_settings(job, arguments).items()) == [("out", "x"), ("genes", ["a", "b"])]


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
