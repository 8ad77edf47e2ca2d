"""Jobs submitted with `ray job submit` to a head of `ray start` that wants a token; a head that is killed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from support.commands import SMALL_NETWORK
from support.deploy_files import kuberay, page_options
from support.processes import TIMEOUT, has_checkpoint, held, wait_until
from support.ray_head import Head

from promoter.checkpoint import ModelInfo, save_model
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode
from promoter.simulation.genome import simulate

UPSTREAM = 100
_HEAD_MEMORY = 11_000_000_000
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    one = Head(variables={"RAY_NODE_TYPE_NAME": "head"})  # as `ray up` starts it, and as large
    try:
        one.start(memory=_HEAD_MEMORY)
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
    """Each takes what those before have left; those that wait for nothing of each other run side by side."""
    genome, data, run = files / "genome", files / "data", files / "run"
    window = ["--upstream", UPSTREAM, "--max_n", 1]
    inputs = ["--genome", genome / "genome.fa", "--genes", genome / "genes.bed"]
    prepare = ["prepare", *inputs, "--expression", genome / "expression.tsv", *window, "--out", data]
    options = [*page_options("AWS"), "--submission-id", "prepare-1"]
    done(head.submit(*prepare, options=options))
    assert json.loads((data / "summary.json").read_text())["genes_kept"] == 160
    again = head.submit(*prepare, options=options)
    assert again.returncode == 1
    assert "submission_id prepare-1 already exists" in again.stdout + again.stderr
    assert "metadata={'user': 'me'}" in head.job("list").stdout

    small = [*SMALL_NETWORK, "--training.epochs", 2, "--training.batch_size", 16, "--cpus_per_worker", 1]
    printed = done(
        head.submit(
            *("train", "--data", data, "--out", run, "--split.val", "chr3", "--split.test", "chr4"),
            *(*small, "--workers", 2, "--baselines", "false"),
        )
    )
    assert " (1 node): 2 CPUs, 0 GPUs" in printed
    assert len(pd.read_csv(run / "history.csv")) == 2
    assert (run / "metrics.json").exists()

    space = "{training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}}"
    of_model = ["--model", run / "model"]
    gene = next(
        row
        for row in pq.read_table(data / "promoters.parquet").to_pylist()
        if row["strand"] == "+" and row["start"] > 0
    )
    ref, vcf = gene["sequence"][50], files / "one.vcf"
    values = [gene["chrom"], gene["start"] + 51, ".", ref, "C" if ref == "A" else "A", ".", ".", "."]
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
    vcf.write_text("##fileformat=VCFv4.2\n" + "\t".join(columns) + "\n" + "\t".join(map(str, values)) + "\n")
    submit_together(
        head,
        ("ism", *of_model, "--data", data, "--out", files / "ism", "--split", "test"),
        ("predict", *of_model, "--data", data, "--out", files / "predictions.parquet"),
        (
            *("tune", "--data", data, "--out", files / "search", "--space", space, "--split.test", "chr4"),
            *(*small, "--trials", 1, "--folds", 2, "--asha", "false", "--training.early_stopping", "null"),
            *("--workers", 0),
        ),
        (
            *("variants", "--variants", vcf, "--genome", genome / "genome.fa", *of_model, "--data", data),
            *("--out", files / "effects"),
        ),
    )
    assert load_scores(files / "ism").scores.shape == (40, 1, 4, UPSTREAM)
    assert pq.read_metadata(files / "predictions.parquet").num_rows == 160
    assert pd.read_csv(files / "search" / "trials.csv")["status"].tolist() == ["finished"]
    assert (files / "search" / "model" / "model.yaml").exists()
    assert pq.read_metadata(files / "effects" / "variants.parquet").num_rows >= 1
    submit_together(
        head,
        ("export", "--scores", files / "ism", "--genome", genome / "genome.fa", "--out", files / "tracks"),
        ("motifs", "--scores", files / "ism", "--out", files / "motifs", "--taxon", "vertebrates"),
        ("report", *of_model, "--scores", files / "ism", "--out", files / "report.html"),
    )
    assert any((files / "tracks").iterdir())
    assert any((files / "motifs").iterdir())
    assert "</html>" in (files / "report.html").read_text()


def submit_together(head: Head, *jobs: tuple[Any, ...]) -> None:
    """Submit jobs, two at a time, and wait until all have succeeded."""
    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(head.submit, *words) for words in jobs]:
            done(ended.result())


def test_a_submitted_job_that_fails_ends_non_zero_and_shows_its_own_last_line(head: Head, files: Path) -> None:
    """Nor does the entrypoint of the RayJob, which repeats what ends with 1, run it again."""
    repeat = shlex.split(kuberay("RayJob")["spec"]["entrypoint"])
    flags = ["--model", files / "nowhere", "--data", files, "--out", files / "p.parquet"]
    words = [*repeat[: repeat.index("jobs.train")], "jobs.predict", *flags]
    ended = head.job("submit", "--working-dir", ".", "--", *words)
    assert ended.returncode == 1
    printed = ended.stdout + ended.stderr
    # once in the log of its only run, once in Ray's message about the end
    assert printed.count(f"error: {files / 'nowhere'}") == printed.count("error:") == 2
    assert "exit code 2" in printed
    assert "Traceback" not in printed
    assert not (files / "p.parquet").exists()


def test_the_head_answers_nothing_without_the_token(head: Head) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=10)  # noqa: S310 # of loopback


def test_a_second_driver_waits_for_the_memory_of_the_head_though_another_node_has_it(tmp_path: Path) -> None:
    """On a head as KubeRay's: without CPUs. The second driver fails where it runs beside the first."""
    one = Head(variables={"RAY_NODE_TYPE_NAME": "headgroup"})
    try:
        one.start(**{"num-cpus": 0, "memory": _HEAD_MEMORY})
        one.join(**{"num-cpus": 2, "memory": 2 * _HEAD_MEMORY, "labels": "ray.io/node-group=cpu"})
        submit = ["submit", "--no-wait", *page_options("Kubernetes"), "--submission-id"]
        first = f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; touch {tmp_path}/ended"
        assert one.job(*submit, "first", "--", "sh", "-c", first).returncode == 0
        wait_until(lambda: "RUNNING" in one.status("first"))
        assert one.job(*submit, "second", "--", "test", "-e", tmp_path / "ended").returncode == 0
        wait_until(lambda: "waiting for resources" in one.status("second") or "FAILED" in one.status("second"))
        (tmp_path / "go").touch()
        for name in ("first", "second"):
            one.job("logs", "--follow", name)
            assert "succeeded" in one.status(name)
    finally:
        one.end()


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


def require_scores(folder: Path, long: Long) -> None:
    scores = load_scores(folder)
    assert scores.genes["gene_id"].tolist() == [f"g{i:02d}" for i in range(long.genes)]
    # on more threads and in other batches than a task: rounding
    np.testing.assert_allclose(scores.scores, long.expected, rtol=0, atol=1e-5 * np.abs(long.expected).max())


def require_complete(folder: Path, long: Long) -> None:
    require_scores(folder, long)
    assert not [path for path in folder.rglob("*") if path.is_file() and not is_output(path)]


def is_output(path: Path) -> bool:
    return (
        path.name in ("manifest.json", "config.yaml")
        or re.fullmatch(r"part-\d{5}\.parquet", path.name) is not None
    )


def parts(out: Path) -> dict[Path, int]:
    """Return the complete parts, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in (out / "scores").glob("part-*.parquet")}


def test_a_stopped_ism_job_leaves_complete_files_and_resumes(head: Head, long: Long, tmp_path: Path) -> None:
    out = tmp_path / "ism"
    name = head.start_job("ism", *long.flags, "--out", out)
    wait_until(lambda: len(parts(out)) >= 2)
    with held(lambda: head.workers("score_genes")):
        assert head.job("stop", name).returncode == 0
    assert "STOPPED" in head.status(name).upper()
    kept = parts(out)
    assert 2 <= len(kept) < long.genes // 2
    assert not json.loads((out / "manifest.json").read_text())["complete"]
    assert all(pq.read_table(path).num_rows == 2 for path in kept)
    printed = done(head.submit("ism", *long.flags, "--out", out))
    assert "resuming" in printed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    require_complete(out, long)


def test_a_stopped_training_resumes_after_its_last_epoch(head: Head, files: Path, tmp_path: Path) -> None:
    flags = [
        *("--data", files / "data", "--split.val", "chr3", "--split.test", "chr4", *SMALL_NETWORK, "--workers", 1),
        *("--training.epochs", 40, "--training.early_stopping", "null", "--baselines", "false"),
        *("--out", tmp_path / "run"),
    ]
    name = head.start_job("train", *flags)
    wait_until(lambda: has_checkpoint(tmp_path / "run"))
    with held(lambda: head.workers("RayTrainWorker")):
        assert head.job("stop", name).returncode == 0
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "model").exists()
    printed = done(head.submit("train", *flags))
    assert "resuming after epoch" in printed
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 40


def test_an_ism_job_whose_head_is_lost_resumes_on_another(head: Head, long: Long, tmp_path: Path) -> None:
    out = tmp_path / "ism"
    head.start_job("ism", *long.flags, "--out", out)
    wait_until(lambda: len(parts(out)) >= 2)
    with held(lambda: head.workers("score_genes")):
        head.kill()
    psutil.wait_procs(head.processes, timeout=TIMEOUT)
    kept = parts(out)
    assert 2 <= len(kept) < long.genes // 2
    head.start()
    printed = done(head.submit("ism", *long.flags, "--out", out))
    assert "resuming" in printed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    require_scores(out, long)  # a writer that is killed leaves its temporary file
