"""What befalls long runs: dead workers and drivers, a full disk, two runs at once, genes that cannot be scored."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from support.commands import ROOT, exit_code, start
from support.processes import held, kill_driver, ray_workers, wait_until

from jobs.ism import ism
from jobs.ray_runtime.capacity import Cluster
from promoter.checkpoint import ModelInfo, save_model
from promoter.errors import InputError
from promoter.ism import load_scores
from promoter.models.cnn import CNNConfig, PromoterCNN

LENGTH, GENES, PER_TASK = 800, 60, 4
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published network, so that a task takes long enough to be killed in."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    save_model(folder, PromoterCNN().eval(), _info(LENGTH))
    return folder


def _info(length: int) -> ModelInfo:
    return ModelInfo(["y"], {"upstream": None, "downstream": None, "length": length})


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    letters = np.random.default_rng(0).choice(list("ACGT"), (GENES, LENGTH))
    path = tmp_path_factory.mktemp("sequences") / "promoters.fa"
    path.write_text("".join(f">g{row:02d}\n{''.join(one)}\n" for row, one in enumerate(letters)))
    return path


@pytest.fixture(scope="module")
def score(ray_cluster: Cluster, model: Path, sequences: Path) -> Callable[[Path], None]:
    return lambda out: ism(str(model), str(sequences), str(out), genes_per_task=PER_TASK)


@pytest.fixture(scope="module")
def undisturbed(score: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    score(out)
    assert load_scores(out).genes["gene_id"].tolist() == [f"g{row:02d}" for row in range(GENES)]
    return _parts(out)


def _parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "scores").iterdir())}


def _flags(model: Path, sequences: Path, out: Path) -> list[object]:
    return ["--model", model, "--data", sequences, "--out", out, "--genes_per_task", PER_TASK]


def _has_parts(out: Path, count: int) -> bool:
    return len(list((out / "scores").glob("part-*.parquet"))) >= count


def test_an_ism_worker_killed_in_mid_task_changes_no_score(
    score: Callable[[Path], None], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        wait_until(lambda: _has_parts(tmp_path, 1))
        with held(lambda: ray_workers("score_genes")) as workers:
            assert not _has_parts(tmp_path, len(undisturbed))
            workers[0].kill()
            killed.append(workers[0].pid)

    assassin = threading.Thread(target=kill_one)
    assassin.start()
    score(tmp_path)
    assassin.join()
    assert killed
    assert _parts(tmp_path) == undisturbed


def test_a_killed_ism_driver_is_resumed_where_it_stopped(
    score: Callable[[Path], None], undisturbed: dict[str, bytes], model: Path, sequences: Path, tmp_path: Path
) -> None:
    driver = start("ism", _flags(model, sequences, tmp_path))
    wait_until(lambda: _has_parts(tmp_path, 3), while_runs=driver)
    kill_driver(driver, "score_genes")
    assert not json.loads((tmp_path / "manifest.json").read_text())["complete"]
    with pytest.raises(InputError, match="not finished"):
        load_scores(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").glob("part-*.parquet")}
    assert 3 <= len(before) <= len(undisturbed)
    score(tmp_path)
    assert _parts(tmp_path) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished parts were written again"


def test_a_second_ism_run_is_refused_while_the_first_goes_on(
    undisturbed: dict[str, bytes],
    model: Path,
    sequences: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = _flags(model, sequences, tmp_path)
    first = start("ism", flags, ray.get_runtime_context().gcs_address)
    wait_until(lambda: _has_parts(tmp_path, 1), while_runs=first)
    assert exit_code(ism, *flags) == 2
    assert "another run is writing here (process " in capsys.readouterr().err
    printed, _ = first.communicate()
    assert first.returncode == 0, printed
    assert _parts(tmp_path) == undisturbed
    assert len(load_scores(tmp_path).genes) == GENES


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["/bin/umount", str(folder)], check=True)


def test_a_full_disk_leaves_complete_score_files_and_a_rerun_adds_the_rest(
    score: Callable[[Path], None],
    undisturbed: dict[str, bytes],
    model: Path,
    sequences: Path,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(ism, *_flags(model, sequences, small_disk)) == 1
    said = r"error: \S*/part-\d+\.parquet: could not be written \(No space left on device\); free some .*\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    written = _parts(small_disk)
    assert 0 < len(written) < len(undisturbed)
    assert written.items() <= undisturbed.items()
    subprocess.run(["/bin/mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    score(small_disk)
    assert _parts(small_disk) == undisturbed


def test_a_gene_that_cannot_be_scored_is_named_and_the_others_are_finished(
    ray_cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = PromoterCNN(CNNConfig((1,), (5,), (), 1)).eval()
    with torch.no_grad():  # counts five G in a row, and answers them with more than float32 holds
        model.blocks[0].get_submodule("conv").get_parameter("weight").zero_()[:, 2] = 1
        model.blocks[0].get_submodule("norm").get_parameter("bias").fill_(-4)
        for part, weight in ((model.head[0], 3e38), (model.head[3], 1e3)):
            part.get_parameter("weight").fill_(weight)
            part.get_parameter("bias").zero_()
    save_model(tmp_path / "model", model, _info(40))
    ids = ["a", "b", "bad", "c", "d"]
    good, bad = "AT" * 20, "A" * 20 + "GGGGG" + "A" * 15
    fasta = tmp_path / "sequences.fa"
    fasta.write_text("".join(f">{name}\n{bad if name == 'bad' else good}\n" for name in ids))
    flags = ["--model", tmp_path / "model", "--data", fasta, "--out", tmp_path / "out", "--genes_per_task", 3]
    for _ in range(2):  # a rerun tries it again
        assert exit_code(ism, *flags) == 1
        message = capsys.readouterr().err
        assert "1 sequence of 5 could not be scored: bad (" in message
        assert "not a finite number" in message
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert not manifest["complete"]
    assert list(manifest["failed"]) == ["bad"]
    assert load_scores(tmp_path / "out", genes=["d", "a", "c", "b"]).scores.shape == (4, 1, 4, 40)
    with pytest.raises(InputError, match="has no scores of bad"):
        load_scores(tmp_path / "out", genes=["bad"])


def test_a_node_short_of_memory_ends_in_named_genes(model: Path, sequences: Path, tmp_path: Path) -> None:
    """Ray kills each task at once, since the threshold lies below what is in use."""
    flags = ["--model", model, "--data", sequences, "--out", tmp_path, "--genes", "g03,g04"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.ism", *map(str, flags)],
        cwd=ROOT,
        env=os.environ | {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "20"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "2 sequences of 2 could not be scored: g03, g04" in done.stderr
    assert "OutOfMemoryError" in done.stderr
