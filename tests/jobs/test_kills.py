"""A job that is killed at a random moment and run again leaves what an undisturbed one leaves."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.commands import exit_code, start
from support.outputs import content
from support.processes import wait_until

from jobs.ism import ism
from jobs.verify import verify
from promoter.dataset.genome import Genome
from promoter.storage.records import RECORD, read_record

pytestmark = [pytest.mark.ray, pytest.mark.slow]
JOBS = ("prepare", "train", "folds", "tune", "predict", "ism", "variants", "motifs", "export", "report")
SEED = int(os.environ.get("KILL_SEED", "1"))
SMALL = (
    *("--model.channels", "8,8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", "4", "--model.hidden", "8"),
    *("--training.epochs", "3", "--training.batch_size", "16"),
)


@pytest.fixture(scope="module")
def vcf(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A substitution in every tenth base of a chromosome."""
    genome, path = Genome(data / "genome" / "genome.fa"), tmp_path_factory.mktemp("vcf") / "variants.vcf"
    bases = genome.fetch("chr4", 0, 3000)
    lines = (
        f"chr4\t{at + 1}\t.\t{bases[at]}\t{'C' if bases[at] == 'A' else 'A'}\t.\t.\t.\n"
        for at in range(0, 3000, 10)
    )
    path.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + "".join(lines))
    return path


@pytest.fixture(scope="module")
def scores(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scores")
    assert exit_code(ism, "--model", run / "model", "--data", data, "--split", "test", "--out", out) == 0
    return out


@pytest.fixture
def words(data: Path, run: Path, scores: Path, vcf: Path, tmp_path: Path) -> Mapping[str, list[object]]:
    """The command line of each job; `folds` are trainings by workers, `train` is one in its own process."""
    genome, out = data / "genome", ("--out", tmp_path / "out")
    of_model = ("--model", run / "model", "--data", data)
    held_out = ("--split.val", "chr3", "--split.test", "chr4")
    search = "{training.learning_rate: {choices: [1.0e-3, 3.0e-3]}}"
    return {
        "prepare": [
            *("--genome", genome / "genome.fa", "--genes", genome / "genes.bed", "--upstream", "100"),
            *("--expression", genome / "expression.tsv", "--max_n", "1", *out),
        ],
        "train": ["--data", data, *held_out, "--workers", "0", *SMALL, *out],
        "folds": ["--data", data, "--folds", "3", *SMALL, *out],
        "tune": [
            *("--data", data, "--split.test", "chr4", "--folds", "2", "--space", search, "--algorithm", "grid"),
            *("--asha", "false", "--keep_folds", "true", "--workers", "0", *SMALL, *out),
        ],
        "predict": [*of_model, "--out", tmp_path / "out" / "predictions.parquet"],
        "ism": [*of_model, "--genes_per_task", "20", *out],
        "variants": [*of_model, "--variants", vcf, "--genome", genome / "genome.fa", *out],
        "motifs": ["--scores", scores, "--taxon", "none", "--max_seqlets", "200", *out],
        "export": ["--scores", scores, "--genome", genome / "genome.fa", *out],
        "report": [
            *("--model", run / "model", "--show", "1", "--out", tmp_path / "out" / "report.html"),
            *("--figures", tmp_path / "out" / "figures"),
        ],
    }


def times_of_finished(out: Path) -> dict[Path, int]:
    """Return when the parts of scores and the networks of finished folds were written."""
    records = {path: read_record(path) for path in out.glob(f"folds/*/{RECORD}")}
    models = [path.parent / "model" / "model.yaml" for path, one in records.items() if one and one.outputs]
    return {path: path.stat().st_mtime_ns for path in [*out.glob("scores/part-*.parquet"), *models]}


@pytest.mark.parametrize("job", JOBS)
def test_a_killed_job_that_is_run_again_leaves_what_an_undisturbed_one_leaves(
    job: str, words: Mapping[str, list[object]], tmp_path: Path
) -> None:
    out, chance = tmp_path / "out", np.random.default_rng([SEED, JOBS.index(job)])
    name, arguments = "train" if job == "folds" else job, words[job]
    function = getattr(importlib.import_module(f"jobs.{name}"), name)
    assert exit_code(function, *arguments) == 0
    undisturbed = content(out)
    shutil.rmtree(out)
    sight, delay = chance.choice(sorted(undisturbed)), chance.random() ** 2  # seconds
    print(f"KILL_SEED={SEED}: killed {delay:.3f} s after {sight} was there")
    driver = start(name, arguments)
    wait_until(lambda: (out / sight).exists() or driver.poll() is not None)
    time.sleep(delay)
    driver.kill()
    driver.communicate()
    finished = times_of_finished(out)
    assert exit_code(function, *arguments) == 0
    assert content(out) == undisturbed
    assert finished.items() <= times_of_finished(out).items(), "a part or a fold that was there was made again"
    assert exit_code(verify, out) == 0
