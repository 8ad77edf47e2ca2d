"""Jobs submitted with `ray job submit` to a head of `ray start` that wants a token; a head that is killed."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from support.ray_head import Head

from promoter.checkpoint import ModelInfo, save_model
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode
from promoter.simulation.genome import simulate

UPSTREAM = 100
pytestmark = [pytest.mark.ray, pytest.mark.slow]
_SMALL = [
    "--model.channels",
    "8,8",
    "--model.kernel_sizes",
    "7,3",
    "--model.pool_sizes",
    "4",
    "--model.hidden",
    "8",
]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    one = Head()
    try:
        one.start()
        yield one
    finally:
        one.end()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome, and what is made of it by jobs, in the order of the tests."""
    folder = tmp_path_factory.mktemp("submitted")
    simulate(folder / "genome", chromosomes=4, genes_per_chromosome=40, upstream=UPSTREAM)
    return folder


def done(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "succeeded" in ended.stdout + ended.stderr
    return ended.stdout


def test_every_job_is_submitted_and_leaves_its_outputs(head: Head, files: Path) -> None:
    """One after the other, as a person goes: each takes what the one before has left."""
    genome, data, run = files / "genome", files / "data", files / "run"
    window = ["--upstream", UPSTREAM]
    inputs = ["--genome", genome / "genome.fa", "--genes", genome / "genes.bed"]
    done(head.submit("prepare", *inputs, "--expression", genome / "expression.tsv", *window, "--out", data))
    assert json.loads((data / "summary.json").read_text())["genes_kept"] == 160

    small = [*_SMALL, "--training.epochs", 2, "--training.batch_size", 16, "--cpus_per_worker", 1]
    printed = done(
        head.submit(
            *("train", "--data", data, "--out", run, "--split.val", "chr3", "--split.test", "chr4"),
            *(*small, "--workers", 2, "--baselines", "false"),
        )
    )
    assert "Ray on 1 nodes: 2 CPUs, 0 GPUs" in printed
    assert len(pd.read_csv(run / "history.csv")) == 2
    assert (run / "metrics.json").exists()

    space = "{training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}}"
    done(
        head.submit(
            *("tune", "--data", data, "--out", files / "search", "--space", space, "--split.test", "chr4"),
            *(*small, "--trials", 1, "--folds", 2, "--asha", "false", "--training.early_stopping", "null"),
        )
    )
    assert pd.read_csv(files / "search" / "trials.csv")["status"].tolist() == ["finished"]
    assert (files / "search" / "model" / "model.yaml").exists()

    of_model = ["--model", run / "model"]
    done(head.submit("predict", *of_model, "--data", data, "--out", files / "predictions.parquet"))
    assert pq.read_metadata(files / "predictions.parquet").num_rows == 160
    done(head.submit("ism", *of_model, "--data", data, "--out", files / "ism", "--split", "test"))
    assert load_scores(files / "ism").scores.shape == (40, 1, 4, UPSTREAM)

    done(
        head.submit(
            "export", "--scores", files / "ism", "--genome", genome / "genome.fa", "--out", files / "tracks"
        )
    )
    assert any((files / "tracks").iterdir())
    gene = next(
        row
        for row in pq.read_table(data / "promoters.parquet").to_pylist()
        if row["strand"] == "+" and row["start"] > 0
    )
    ref, vcf = gene["sequence"][50], files / "one.vcf"
    values = [gene["chrom"], gene["start"] + 51, ".", ref, "C" if ref == "A" else "A", ".", ".", "."]
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
    vcf.write_text("##fileformat=VCFv4.2\n" + "\t".join(columns) + "\n" + "\t".join(map(str, values)) + "\n")
    variants = ["--variants", vcf, "--genome", genome / "genome.fa", *of_model, "--data", data]
    done(head.submit("variants", *variants, "--out", files / "effects"))
    assert pq.read_metadata(files / "effects" / "variants.parquet").num_rows >= 1
    done(head.submit("motifs", "--scores", files / "ism", "--out", files / "motifs", "--taxon", "vertebrates"))
    assert any((files / "motifs").iterdir())
    done(head.submit("report", *of_model, "--scores", files / "ism", "--out", files / "report.html"))
    assert "</html>" in (files / "report.html").read_text()


def test_a_failing_job_ends_non_zero_and_shows_its_own_last_line(head: Head, files: Path) -> None:
    ended = head.submit("predict", "--model", files / "nowhere", "--data", files, "--out", files / "p.parquet")
    assert ended.returncode == 1
    printed = ended.stdout + ended.stderr
    assert f"error: {files / 'nowhere'}" in printed
    assert "exit code 2" in printed
    assert "Traceback" not in printed
    assert not (files / "p.parquet").exists()


def test_without_the_token_nothing_is_answered(head: Head) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=10)  # noqa: S310 # of loopback


# --- stopped, and lost -------------------------------------------------------------------------------------------


@dataclass
class Long:
    """Mutagenesis that takes long enough to be stopped in the middle, and what it must give."""

    flags: list[Any]
    genes: int
    expected: np.ndarray


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Long:
    folder = tmp_path_factory.mktemp("long")
    torch.manual_seed(0)
    model = PromoterCNN(CNNConfig((128, 64), (15, 5), (4,))).eval()
    length, genes = 600, 60
    save_model(folder / "model", model, ModelInfo(["y"], {"upstream": None, "downstream": None, "length": length}))
    tokens = np.random.default_rng(0).integers(0, 4, (genes, length), dtype=np.uint8)
    (folder / "p.fa").write_text("".join(f">g{i:02d}\n{one}\n" for i, one in enumerate(decode(tokens))))
    flags = ["--model", folder / "model", "--data", folder / "p.fa", "--genes_per_task", 2]
    return Long(flags, genes, saturation_mutagenesis(model, tokens))


def require_whole(folder: Path, long: Long) -> None:
    scores = load_scores(folder)
    assert scores.genes["gene_id"].tolist() == [f"g{i:02d}" for i in range(long.genes)]
    # on more threads and in other batches than a task: rounding
    np.testing.assert_allclose(scores.scores, long.expected, rtol=0, atol=1e-5 * np.abs(long.expected).max())
    assert not [path for path in folder.rglob("*") if path.is_file() and not is_output(path)]


def is_output(path: Path) -> bool:
    return (
        path.name in ("manifest.json", "config.yaml")
        or re.fullmatch(r"part-\d{5}\.parquet", path.name) is not None
    )


def wait_for(pattern: str, folder: Path, count: int) -> None:
    deadline = time.monotonic() + 100
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stopped_job_leaves_whole_parts_and_goes_on(head: Head, long: Long, tmp_path: Path) -> None:
    out = tmp_path / "ism"
    name = head.start_job("ism", *long.flags, "--out", out)
    wait_for("scores/part-*.parquet", out, 2)
    assert head.job("stop", name).returncode == 0
    assert "STOPPED" in head.status(name).upper()
    kept = {path: path.stat().st_mtime_ns for path in (out / "scores").glob("part-*.parquet")}
    assert 2 <= len(kept) < long.genes // 2
    assert not json.loads((out / "manifest.json").read_text())["complete"]
    assert all(pq.read_table(path).num_rows == 2 for path in kept)
    printed = done(head.submit("ism", *long.flags, "--out", out))
    assert "resuming" in printed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    require_whole(out, long)


def test_a_stopped_training_goes_on_after_its_last_epoch(head: Head, files: Path, tmp_path: Path) -> None:
    flags = [
        "--data",
        files / "data",
        "--split.val",
        "chr3",
        "--split.test",
        "chr4",
        *_SMALL,
        "--baselines",
        "false",
    ]
    flags += [
        "--training.epochs",
        60,
        "--training.early_stopping",
        "null",
        "--workers",
        1,
        "--out",
        tmp_path / "run",
    ]
    name = head.start_job("train", *flags)
    wait_for("checkpoints/**/state.pt", tmp_path / "run", 1)
    assert head.job("stop", name).returncode == 0
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "model").exists()
    printed = done(head.submit("train", *flags))
    assert "resuming after epoch" in printed
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 60


def test_when_the_head_is_lost_the_rerun_on_another_goes_on(head: Head, long: Long, tmp_path: Path) -> None:
    out = tmp_path / "ism"
    head.start_job("ism", *long.flags, "--out", out)
    wait_for("scores/part-*.parquet", out, 2)
    head.kill()
    psutil.wait_procs(head.processes, timeout=10)
    kept = {path: path.stat().st_mtime_ns for path in (out / "scores").glob("part-*.parquet")}
    assert 2 <= len(kept) < long.genes // 2
    head.start()
    printed = done(head.submit("ism", *long.flags, "--out", out))
    assert "resuming" in printed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert load_scores(out).genes["gene_id"].tolist() == [f"g{i:02d}" for i in range(long.genes)]
    np.testing.assert_allclose(
        load_scores(out).scores, long.expected, rtol=0, atol=1e-5 * np.abs(long.expected).max()
    )
