"""Write `tests/data/recorded/`: what commit 8a53926 of the project wrote, for its successors to read and resume.

    PYTHONPATH=.:tests python tests/data/record.py     # with that commit's code: today's would test itself

A data set, a CNN, an ensemble with intervals, a head on a pretrained trunk, scores in two files, a training that
was killed after some epochs, and an ISM run that lacks one of its two files. `tests/support/golden.py` reads them,
and `tests/golden.json` holds what that commit made of them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

from support.golden import HELD_OUT, ROOT, SMALL, UNFINISHED_TRAINING
from support.golden import RECORDED as HERE

GENOME = "--genome genome/genome.fa --genes genome/genes.bed --expression genome/expression.tsv"
FLAGS = {
    "cnn": f"--data data --out cnn {HELD_OUT} {SMALL} --training.epochs 4",
    "folds": f"--data data --out folds {SMALL} --training.learning_rate 3e-3 --training.epochs 3 --folds 4",
    "head": "--data wide --out head --model.name enformer --model.weights trunk --model.tss_bins 1 "
    "--split.val chr3 --split.test chr4 --training.epochs 2 --baselines false",
    "half_trained": f"--data data --out half_trained {UNFINISHED_TRAINING}",
    "ism": "--model cnn/model --data data --out scores --genes_per_task 30",
}


def job(name: str, flags: str) -> None:
    subprocess.run([sys.executable, "-m", f"jobs.{name}", *flags.split()], cwd=HERE, check=True, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    make = (
        "from promoter.simulate import simulate; from support import hub; from pathlib import Path;"
        "simulate('genome', chromosomes=4, genes_per_chromosome=15, upstream=60);"
        "simulate('wide_genome', chromosomes=4, genes_per_chromosome=8, upstream=128);"
        "hub.enformer(Path('trunk'))"
    )
    subprocess.run([sys.executable, "-c", make], cwd=HERE, check=True, env=environment())
    job("prepare", f"{GENOME} --upstream 60 --out data")
    wide = GENOME.replace("genome/", "wide_genome/")
    job("prepare", f"{wide} --upstream 128 --downstream 128 --out wide")
    for name in ("cnn", "folds", "head"):
        job("train", FLAGS[name])
    job("ism", FLAGS["ism"])
    shutil.copytree(HERE / "scores", HERE / "half_scored")
    manifest = json.loads((HERE / "half_scored" / "manifest.json").read_text())
    del manifest["parts"]
    (HERE / "half_scored" / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    sorted((HERE / "half_scored" / "scores").iterdir())[-1].unlink()
    kill_training("half_trained", after="  3/40")
    for name in ("genome", "wide_genome", "trunk", "head/embeddings"):
        shutil.rmtree(HERE / name)
    for path in HERE.rglob("*"):  # of whoever records
        if path.suffix in (".yaml", ".json"):
            path.write_text(path.read_text().replace(f"{HERE}/", ""))


def kill_training(name: str, after: str) -> None:
    words = [sys.executable, "-u", "-m", "jobs.train", *FLAGS[name].split()]
    driver = subprocess.Popen(words, cwd=HERE, env=environment(), stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    for line in driver.stdout:
        if after in line:
            break
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()


if __name__ == "__main__":
    main()
