"""Wrong input ends every job at once: code 2, one line that names it and the fix, nothing written, no Ray."""

from __future__ import annotations

import gzip
import importlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from support.commands import exit_code
from support.files import Command

from promoter.checkpoint import ModelInfo, save_model
from promoter.models.cnn import CNNConfig, PromoterCNN

EXPECTED = {"prepare": "genome genes expression", "train": "data", "predict": "model data", "ism": "model data"}
Arguments = Callable[[str, list[str]], list[str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory that fits `data`; bad input is found before anyone asks how well it was trained."""
    folder = tmp_path_factory.mktemp("untrained") / "model"
    window: dict[str, int | None] = {"upstream": 100, "downstream": 0, "length": 100}
    network = PromoterCNN(CNNConfig(channels=(4,), kernel_sizes=(3,), pool_sizes=()), length=100)
    save_model(folder, network, ModelInfo(["expression"], window, split={"train": ["chr1"], "test": ["chr4"]}))
    return folder


@pytest.fixture
def inputs(data: Path, model: Path, tmp_path: Path) -> dict[str, Path]:
    """Copies of good inputs, one of which a test spoils."""
    shutil.copytree(data / "genome", tmp_path / "genome")
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "data").mkdir()
    shutil.copy(data / "promoters.parquet", tmp_path / "data")
    files = {name: tmp_path / "genome" / f"{name}.{end}" for name, end in SUFFIXES.items()}
    (tmp_path / "settings.yaml").write_text("{}\n")
    (tmp_path / "is.parquet").mkdir()
    return files | {
        "model": tmp_path / "model",
        "data": tmp_path / "data",
        "parquet": tmp_path / "data" / "promoters.parquet",
        "yaml": tmp_path / "model" / "model.yaml",
        "config": tmp_path / "settings.yaml",
        "folder": tmp_path / "is.parquet",
        "out": tmp_path / "out" / "new",
    }


SUFFIXES = {"genome": "fa", "genes": "bed", "expression": "tsv"}


def command_line(job: str, inputs: dict[str, Path], flags: list[str]) -> list[str]:
    """Return a good command line, with `flags` added, in which `{name}` stands for an input."""
    out = inputs["out"] / "out.parquet" if job == "predict" else inputs["out"]
    given = [word for name in EXPECTED[job].split() for word in (f"--{name}", str(inputs[name]))]
    return [*given, "--out", str(out), *(flag.format(**inputs) for flag in flags)]


def assert_one_line(error: str, message: str) -> None:
    assert error.startswith("error: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert re.search(message, error), error


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    """Return what each file holds, and None for each folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


GONE, HALF = b"gone", b"half"
BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(6))
BED = "chr1\t200\t300\tchr1_g0000\t0\t+\n"
CASES: list[tuple[str, str, bytes | str, list[str], str]] = [
    # job, input that is spoiled, its new content, flags, what the line says
    *(("prepare", name, GONE, [], rf"{name}.*: no such .*; check the path") for name in SUFFIXES),
    *(("prepare", name, "", [], rf"{name}.*: the .* is empty; was it written") for name in SUFFIXES),
    ("prepare", "", "", ["--genome", "{data}"], r"/data: is a folder, not a genome FASTA; name the file"),
    ("prepare", "genes", "#\n", [], r"genes\.bed: has no lines; is it"),
    ("prepare", "genes", BED[:-3], [], r"genes\.bed: line 1 \(chr1_g0000\) has no strand .*add the strand"),
    ("prepare", "genes", "chr1\t1\t9\n", [], r"genes\.bed: line 1 .*has no strand .*add the strand"),
    ("prepare", "genes", BED + BED.replace("300", "100"), [], r"genes\.bed: line 2 .*200.*100.*fix the line"),
    ("prepare", "genes", BED.replace("chr1", "chr7"), [], r"chr7_g0000.*chr1_g0000.*--attribute"),
    (
        "prepare",
        "genes",
        BED.replace("chr1\t", "chr7\t"),
        [],
        r"genes lie on .*genome\.fa lacks: chr7 .*it has chr1, chr2, chr3, chr4; use",
    ),
    ("prepare", "genome", "<!DOCTYPE html>\n<html>", [], r"genome\.fa: is HTML .*download it again"),
    (
        "prepare",
        "genome",
        gzip.compress(b">chr1\nA\n", mtime=0)[:-9],
        [],
        r"genome\.fa: .*ends early or is damaged",
    ),
    ("prepare", "genome", b">chr1\nMKVLAEQF\n", [], r"genome\.fa: line 2 \(record 'chr1'\) .*protein FASTA"),
    ("prepare", "expression", "gene\ta\nx\thigh\n", [], r"expression\.tsv: no column of numbers.*a\); is it"),
    (
        "prepare",
        "expression",
        "gene\ta\nx\t1\ny\thigh\n",
        [],
        r"expression\.tsv: line 3, column 'a': 'high'.*; fix",
    ),
    (
        "prepare",
        "expression",
        "gene\ta\nx\t1\ny\t\n",
        ["--missing", "error"],
        r"expression\.tsv: line 3 \(y\).*'a'.*--missing keep",
    ),
    (
        "prepare",
        "",
        "",
        ["--targets", "b"],
        r"expression\.tsv: --targets b: .*there are \['gene_id', 'expression'\]",
    ),
    ("prepare", "", "", ["--upstream", "0", "--downstream", "0"], r"--upstream 0 --downstream 0.*above 0"),
    ("prepare", "", "", ["--upstream=-1"], r"--upstream -1: must be at least 0"),
    ("prepare", "", "", ["--upstream", "2kb"], r"--upstream 2kb: must be a whole number; see"),
    ("prepare", "", "", ["--transform", "ln"], r"--transform ln: must be none, log1p, log2p1 or cpm_log2p1; see"),
    ("prepare", "", "", ["--dataset", "yest"], r"--dataset yest: must be yeast, yeast_levels or null; see"),
    ("ism", "", "", ["--split", "foo"], r"--split foo: must be train, val, test or null; see"),
    ("train", "", "", ["--gpus_per_worker", "a"], r"--gpus_per_worker a: must be a number or null; see"),
    ("train", "", "", ["--model.channels", "8,b"], r"--model\.channels b: must be a list of .* 1,2 or 1 2; see"),
    ("train", "config", "training: 5\n", ["--config", "{config}"], r"/settings\.yaml: training 5: must hold"),
    ("train", "", "", ["--model.n_targets", "2"], r"--model\.n_targets 2: .* 1 targets? \(expression\); leave"),
    (
        "train",
        "",
        "",
        ["--training.batch_size", "2", "--workers", "2"],
        r"--training\.batch_size 2: is too small for 2 workers",
    ),
    ("prepare", "", "", ["--chroms", "chr1", "9"], r"--chroms 9: .*genome\.fa, which has chr1, chr2"),
    ("prepare", "", "", ["--exclude_chroms", "chrZ"], r"--exclude_chroms chrZ: .*genome\.fa, which has chr1"),
    ("prepare", "", "", ["--upstraem", "5"], r"'upstraem'; did you mean 'upstream'\?"),
    ("prepare", "", "", ["--up", "5"], r"'up'; "),
    (
        "prepare",
        "config",
        "upstraem: 5\n",
        ["--config", "{config}"],
        r"/settings\.yaml: .*did you mean 'upstream'\?",
    ),
    ("prepare", "config", "upstream: 2kb\n", ["--config", "{config}"], r"/settings\.yaml: .*upstream.*2kb"),
    (
        "prepare",
        "config",
        "gene_column: 1\n",
        ["--config", "{config}"],
        r"/settings\.yaml: gene_column 1: must be text or null; put .* quotes; see",
    ),
    (
        "prepare",
        "config",
        "chroms: {chr1: 1}\n",
        ["--config", "{config}"],
        r"/settings\.yaml: chroms .*: must be a list of names, A,B or A B; see",
    ),
    ("prepare", "config", "a: [\n", ["--config={config}"], r"/settings\.yaml: is not YAML .*; fix it"),
    (
        "prepare",
        "config",
        "[" * 5000,
        ["--config", "{config}"],
        r"settings\.yaml: line 1 is nested deeper",
    ),
    ("prepare", "config", BOMB, ["--config", "{config}"], r"/settings\.yaml: line 5 repeats more than 10,000"),
    ("train", "config", BOMB, ["--model", "{config}"], r"/settings\.yaml: line 5 repeats more than 10,000"),
    ("train", "", "", ["--model", "{{a: " * 60], r"--model: line 1 is nested deeper than 50 levels; write"),
    ("train", "", "", ["--split.val=" + "[" * 99], r"--split\.val: line 1 is nested deeper than 50 levels; write"),
    ("prepare", "config", "- a\n", ["--config", "{config}"], r"/settings\.yaml: holds no 'key: value' lines"),
    ("prepare", "config", GONE, ["--config", "{config}"], r"/settings\.yaml: no such YAML file; check the path"),
    ("prepare", "", "", ["--out", "{genes}/x"], r"genes\.bed/x: cannot write here .*; choose another"),
    ("prepare", "", "", ["--out", "{genes}"], r"genes\.bed: cannot write here .*; choose another"),
    ("train", "parquet", GONE, [], r"/data: holds no promoters\.parquet; make it with"),
    ("train", "", "", ["--data", "{out}"], r"/out/new: no such data set; check the path"),
    ("train", "", "", ["--data", "{genome}"], r"genome\.fa: .*(one length|no expression)"),
    ("train", "", "", ["--split.val", "chr1,chr9"], r"--split\.val chr9: .*the data has chr1, chr2, chr3, chr4"),
    ("train", "", "", ["--split.test", "chr3", "--split.val", "3"], r"both hold \['chr3'\]; "),
    (
        "train",
        "",
        "",
        ["--split.val_fraction", "1.5"],
        r"--split\.val_fraction 1\.5: must be below 1: it is a share",
    ),
    ("train", "", "", ["--model.chanels", "8"], r"'model\.chanels'; did you mean 'model\.channels'\?"),
    ("train", "", "", ["--training.epochs", "0"], r"epochs.*0"),
    ("train", "", "", ["--model.pool_sizes", "20,20"], r"100 bases .*400; prepare a wider"),
    ("train", "config", "split: {vla: [chr1]}\n", ["--config", "{config}"], r"/settings\.yaml: .*'split\.val'\?"),
    ("train", "", "", ["--out", "{genes}/x"], r"genes\.bed/x: cannot write here .*; choose another"),
    ("train", "", "", ["--gpus_per_worker=-1"], r"--gpus_per_worker -1: must be at least 0"),
    ("ism", "", "", ["--genes", "chr1_g0001,nobody"], r"--genes nobody: .*has ids like chr1_g0000"),
    ("ism", "", "", ["--split", "val"], r"--split val; choose others"),
    ("ism", "", "", ["--genes_per_task", "0"], r"--genes_per_task 0: must be at least 1"),
    ("predict", "", "", ["--out", "{folder}"], r"--out .*is\.parquet: is a folder; name a file in it"),
    ("predict", "", "", ["--out", "x.csv"], r"--out x\.csv: .*ends in \.parquet"),
    ("predict", "", "", ["--out", "{genes}/x.parquet"], r"genes\.bed: cannot write here .*; choose another"),
    ("ism", "", "", ["--out", "{genes}/x"], r"genes\.bed/x: cannot write here .*; choose another"),
    *(
        case
        for job in ("train", "predict", "ism")
        for case in (
            (
                job,
                "parquet",
                HALF,
                [],
                r"/data/promoters\.parquet: is not a complete Parquet file .*; make it again with prepare",
            ),
            (job, "parquet", "", [], r"/data/promoters\.parquet: the data set is empty; was it written"),
            (job, "", "", ["--workers=-1"], r"--workers -1: must be at least 0"),
            (job, "", "", ["--cpus_per_worker=-1"], r"--cpus_per_worker -1: must be at least 0"),
        )
    ),
    *(
        case
        for job in ("predict", "ism")
        for case in (
            (job, "", "", ["--workers", "0"], r"--workers 0: must be at least 1"),
            (job, "yaml", "format: 99\n", [], r"/model: has model format 99, .* reads 1; use .*train again"),
            (job, "yaml", GONE, [], r"/model: holds no model\.yaml; give the 'model' folder"),
            (job, "yaml", "format: [\n", [], r"/model: model\.yaml: is not YAML .*; copy"),
            (job, "", "", ["--model", "{out}"], r"/out/new: no such model directory; give"),
            (job, "", "", ["--data", "{genome}"], r"genome\.fa: .*one length|3000 bases"),
        )
    ),
]


def _spoil(path: Path, content: bytes | str) -> None:
    whole = path.read_bytes()
    path.unlink()
    if content == HALF:
        path.write_bytes(whole[: len(whole) // 2])
    elif content != GONE:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trip over any use of Ray, whether or not other tests have started it."""

    def started(*_: object, **__: object) -> None:
        pytest.fail("Ray was started for bad input")

    monkeypatch.setattr(ray, "init", started)
    monkeypatch.setattr(ray, "put", started)
    for module in ("jobs.ray_runtime.connect", "jobs.training.run", "jobs.training.folds"):
        monkeypatch.setattr(f"{module}.connect", started)


@pytest.mark.parametrize(
    ("job", "spoiled", "content", "flags", "message"), CASES, ids=[f"{case[0]}-{case[4][:40]}" for case in CASES]
)
def test_bad_input_of_any_job_is_one_line_and_writes_nothing(
    inputs: dict[str, Path],
    no_ray: None,
    capsys: pytest.CaptureFixture[str],
    job: str,
    spoiled: str,
    content: bytes | str,
    flags: list[str],
    message: str,
) -> None:
    if spoiled:
        _spoil(inputs[spoiled], content)
    root = inputs["config"].parent
    before, ray_before = snapshot(root), ray.is_initialized()
    function = getattr(importlib.import_module(f"jobs.{job}"), job)
    assert exit_code(function, *command_line(job, inputs, flags)) == 2
    printed = capsys.readouterr()
    assert_one_line(printed.err, message)
    assert printed.out == ""
    after = {path: content for path, content in snapshot(root).items() if path.suffix != ".fai"}
    assert after == {path: content for path, content in before.items() if path.suffix != ".fai"}
    assert ray.is_initialized() == ray_before


@pytest.mark.parametrize("job", EXPECTED)
def test_a_missing_required_flag_is_named(no_ray: None, capsys: pytest.CaptureFixture[str], job: str) -> None:
    assert exit_code(getattr(importlib.import_module(f"jobs.{job}"), job)) == 2
    assert_one_line(capsys.readouterr().err, "required: .*out")


@pytest.mark.parametrize(
    ("job", "spoiled", "content", "flags", "message"),
    [
        ("prepare", "genome", GONE, [], r"genome\.fa: no such genome FASTA; check the path"),
        ("prepare", "genes", "", [], r"genes\.bed: the gene annotation is empty"),
        ("prepare", "genes", BED[:-3], [], r"genes\.bed: line 1 .*no strand .*add the strand"),
        ("prepare", "genes", BED.replace("300", "100"), [], r"genes\.bed: line 1 .*200.*100.*fix the line"),
        ("prepare", "genome", "<!DOCTYPE html>\n<html>", [], r"genome\.fa: is HTML .*download it again"),
        ("prepare", "expression", "gene\ta\nx\thigh\n", [], r"expression\.tsv: no column of numbers"),
        ("prepare", "", "", ["--upstream", "0", "--downstream", "0"], r"--upstream 0 --downstream 0.*above 0"),
        ("prepare", "", "", ["--out", "{genes}/x"], r"genes\.bed/x: cannot write here .*; choose another"),
        ("train", "", "", ["--split.val", "chr9"], r"--split\.val chr9: .*the data has chr1, chr2, chr3, chr4"),
        ("prepare", "config", "upstraem: 5\n", ["--config", "{config}"], r"/settings\.yaml: .*did you mean"),
        ("train", "parquet", HALF, [], r"promoters\.parquet: is not a complete"),
        ("predict", "yaml", "format: 99\n", [], r"model format 99"),
        ("ism", "", "", ["--genes", "nobody"], r"--genes nobody: "),
    ],
)
def test_a_job_run_as_a_command_refuses_wrong_input_on_one_line(
    inputs: dict[str, Path],
    command: Command,
    job: str,
    spoiled: str,
    content: bytes | str,
    flags: list[str],
    message: str,
) -> None:
    if spoiled:
        _spoil(inputs[spoiled], content)
    before = snapshot(inputs["config"].parent)
    done = command(job, *command_line(job, inputs, flags))
    assert done.returncode == 2
    assert_one_line(done.stderr, message)
    assert done.stdout == ""
    assert snapshot(inputs["config"].parent) == before
