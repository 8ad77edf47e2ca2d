"""A search with ASHA and without: wall time, best score, use of the slots, overhead a trial.

    python benchmarks/tune.py [--trials 18] [--epochs 18] [--rounds 2]

The same configurations (random search, one seed) on the simulated genome, two folds each, two trials at a time
of one CPU each; both ways in turn. The search is timed from the first trial's start to best.yaml, so that what
both share, starting Ray and the last training, does not blur the ratio. A slot is used while a trial trains in
it; the rest is Ray Tune's: starting processes, checkpoints, scheduling.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jobs.prepare import prepare
from promoter.simulation.genome import simulate

SLOTS = 2


class Search(NamedTuple):
    """Wall time, seconds in which trials trained, best score, trials stopped early."""

    seconds: float
    trained: float
    best: float
    stopped: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=18)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    searches_of: dict[bool, list[Search]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        files = simulate(f"{folder}/genome", chromosomes=6, genes_per_chromosome=400, upstream=200)
        data = f"{folder}/data"
        prepare(
            data,
            genome=str(files.genome),
            genes=str(files.genes),
            expression=str(files.expression),
            upstream=200,
            max_n=1,
        )
        for number in range(options.rounds):
            for asha in (True, False):
                result = search(
                    data, Path(folder, f"{number}-{asha}"), asha=asha, trials=options.trials, epochs=options.epochs
                )
                searches_of[asha].append(result)
                print(
                    f"round {number + 1}, {'with' if asha else 'without'} ASHA: {result.seconds:.0f} s", flush=True
                )
    print(
        f"\n{options.trials} trials of {options.epochs} epochs at most, {SLOTS} slots, "
        f"medians of {options.rounds} rounds"
    )
    print(f"{'':<14}{'s':>7}{'best r':>9}{'stopped':>9}{'slots used':>12}{'overhead, s/trial':>19}")
    for asha, searches in searches_of.items():
        seconds, trained = (float(np.median([getattr(s, n) for s in searches])) for n in ("seconds", "trained"))
        used = trained / (SLOTS * seconds)
        overhead = (SLOTS * seconds - trained) / options.trials
        best, stopped = searches[-1].best, searches[-1].stopped
        name = "with ASHA" if asha else "without ASHA"
        print(f"{name:<14}{seconds:>7.0f}{best:>9.3f}{stopped:>9}{used:>12.0%}{overhead:>19.2f}")
    ratio = np.median([s.seconds for s in searches_of[False]]) / np.median([s.seconds for s in searches_of[True]])
    print(f"ASHA is faster by {ratio:.1f} ×")


def search(data: str, out: Path, *, asha: bool, trials: int, epochs: int) -> Search:
    rates, widths = "{low: 3.0e-4, high: 3.0e-2, log: true}", "{choices: [3, 7, 11]}"
    space = f"{{training.learning_rate: {rates}, model.kernel_sizes.0: {widths}}}"
    flags = {
        "data": data,
        "out": out,
        "space": space,
        "trials": trials,
        "folds": 2,
        "algorithm": "random",
        "asha": str(asha).lower(),
        "model.channels": "[32, 16]",
        "model.kernel_sizes": "[11, 3]",
        "model.pool_sizes": "[4]",
        "training.epochs": epochs,
    }
    command = [sys.executable, "-m", "jobs.tune", *(f"--{name}={value}" for name, value in flags.items())]
    began = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 # for the type checker: asked for above
        for line in process.stdout:
            if "networks each" in line:  # Ray is up, the trials begin
                began = time.time()
    if process.returncode:
        raise SystemExit("the search failed")
    table = pd.read_csv(out / "trials.csv")
    ended = (out / "best.yaml").stat().st_mtime
    stopped = int((table["status"] == "stopped").sum())
    return Search(ended - began, float(table["seconds"].sum()), float(table["score"].max()), stopped)


if __name__ == "__main__":
    main()
