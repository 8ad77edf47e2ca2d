"""What commit 8a53926 wrote, read and resumed by today's jobs; `tests/golden.json` holds what it made of it.

`python tests/support/golden.py FOLDER` prints the numbers, for `tests/data/record.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "data" / "recorded"
GOLDEN = ROOT / "tests" / "golden.json"
SMALL = (
    "--model.channels 8,8 --model.kernel_sizes 7,3 --model.pool_sizes 4 --model.hidden 8 --training.batch_size 16"
)
HELD_OUT = "--split.val chr3 --split.test chr4 --training.learning_rate 3e-3"
UNFINISHED_TRAINING = f"{HELD_OUT} {SMALL} --training.epochs 40 --training.early_stopping null --baselines false"


RunJob = Callable[[str, Path, str], str]


def run_job(name: str, folder: Path, flags: str) -> str:
    """Run a job in a folder; return what it printed."""
    words = [sys.executable, "-m", f"jobs.{name}", *flags.split()]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise AssertionError(f"jobs.{name} {flags}: exit code {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def measure(folder: Path, run: RunJob = run_job) -> dict[str, Any]:
    """Read all that was recorded and resume what was unfinished, in a copy of it.

    Args:
        folder: folder for the copy.
        run: function that runs a job in a folder, as `run_job`, which does it in a process of its own.
    """
    shutil.copytree(RECORDED, folder, dirs_exist_ok=True)
    return {
        "data": measure_data(folder),
        "cnn": measure_predictions(run, folder, "cnn/model", "data", ["expression_predicted"]),
        "ensemble": measure_predictions(run, folder, "folds", "data", ["expression_predicted", "expression_low"]),
        "pretrained": measure_predictions(run, folder, "head/model", "wide", ["expression_predicted"]),
        "scores": measure_scores(folder / "scores"),
        "resumed_scores": resume_scores(run, folder),
        "resumed_training": resume_training(run, folder),
    }


def measure_data(folder: Path) -> dict[str, Any]:
    table = pd.read_parquet(folder / "data" / "promoters.parquet")
    sequences = hashlib.sha256("\n".join(table["sequence"]).encode()).hexdigest()
    return {"genes": len(table), "sequences": sequences, "targets": table["expression"].astype(float).tolist()}


def measure_predictions(
    run: RunJob, folder: Path, model: str, data: str, columns: list[str]
) -> dict[str, list[float]]:
    out = f"{model.replace('/', '-')}-predicted.parquet"
    run("predict", folder, f"--model {model} --data {data} --out {out}")
    table = pd.read_parquet(folder / out)
    return {name: table[name].astype(float).tolist() for name in columns}


def measure_scores(folder: Path) -> dict[str, Any]:
    """Read with pandas alone, as the README says that others can."""
    parts = sorted((folder / "scores").iterdir())
    scores = np.stack(pd.concat([pd.read_parquet(part) for part in parts])["expression_scores"].tolist())
    scores = scores.reshape(len(scores), 4, -1).astype(float)
    return {
        "parts": len(parts),
        "shape": list(scores.shape),
        "by_base": np.abs(scores).sum(axis=(0, 2)).tolist(),
        "by_gene": scores.sum(axis=(1, 2)).tolist(),
    }


def resume_scores(run: RunJob, folder: Path) -> dict[str, Any]:
    kept = folder / "half_scored" / "scores" / "part-00000.parquet"
    before = kept.stat().st_mtime_ns
    run("ism", folder, "--model cnn/model --data data --out half_scored --genes_per_task 30")
    if kept.stat().st_mtime_ns != before:
        raise AssertionError("the finished part was computed again")
    return measure_scores(folder / "half_scored")


def resume_training(run: RunJob, folder: Path) -> dict[str, Any]:
    printed = run("train", folder, f"--data data --out half_trained {UNFINISHED_TRAINING}")
    if re.search(r"^ +[12]/40 ", printed, re.M) or not re.search(r"^ *40/40 ", printed, re.M):
        raise AssertionError(f"the training was not resumed:\n{printed}")
    history = pd.read_csv(folder / "half_trained" / "history.csv")
    return {name: history[name].tolist() for name in ("epoch", "train_mse", "val_mse", "val_pearson")}


def differences(measured: Any, expected: Any, tolerance: float, name: str = "") -> list[str]:
    """List what differs; numbers by more than `tolerance` of the largest in their list."""
    if isinstance(expected, dict):
        return [
            line
            for key in expected.keys() | measured.keys()
            for line in differences(measured.get(key), expected.get(key), tolerance, f"{name}.{key}")
        ]
    if isinstance(expected, list) and isinstance(measured, list) and len(expected) == len(measured) and expected:
        values = np.asarray(measured, float), np.asarray(expected, float)
        scale = float(np.nanmax(np.abs(values[1])))
        if np.allclose(*values, rtol=0, atol=tolerance * scale, equal_nan=True):
            return []
        worst = int(np.nanargmax(np.abs(values[0] - values[1])))
        return [f"{name}[{worst}]: {measured[worst]}, was {expected[worst]}"]
    return [] if measured == expected else [f"{name}: {measured}, was {expected}"]


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1])), indent=1))
