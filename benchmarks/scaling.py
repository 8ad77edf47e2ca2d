"""What Ray and the driver cost a task, a part and an epoch, and what follows for 1 to 512 GPUs.

    python benchmarks/scaling.py [--tasks 30000] [--parts 10000]     # measures, then predicts
    python benchmarks/scaling.py --inputs measured.json --gpu-tflops 8   # predicts alone, from other assumptions

Measured on this machine, with the jobs' own code: `fan_out` with tasks that do nothing (its rate is the most
that a driver can start, its memory what a driver holds), the check of parts that are there (`jobs.ism` run
again), the start of a worker, and an epoch of `jobs.train` beside one of `fit`. The rate of a GPU is not
measured: it is an assumption, and a flag. docs/scaling.md says what the prediction leaves out.
"""

from __future__ import annotations

import jobs  # noqa: F401 # isort: skip # before ray, which reads the environment that it sets

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import ray
import torch

from jobs.prepare import prepare
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.connect import connect
from jobs.ray_runtime.fan_out import fan_out
from jobs.train import train
from promoter.dataset.promoters import read_promoters
from promoter.ism import Scores
from promoter.ism.operations import operations
from promoter.ism.store import write_part
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.simulation.genome import simulate
from promoter.splits.config import SplitConfig
from promoter.storage.parts import PartFiles, part_path
from promoter.storage.paths import resolve
from promoter.training import Examples, TrainingConfig, fit

GENES, LENGTH = 20_000, 2_000
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SECONDS_PER_TASK, TASKS_PER_SLOT, MAX_GENES_PER_TASK = 4, 4, 512  # as jobs.ism cuts its parts
# A forward pass of Enformer (Avsec et al. 2021, doi:10.1038/s41592-021-01252-x) on 196,608 bases, as counted by
# benchmarks/pretrained_cost.py.
ENFORMER_TFLOP = 3.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=30_000, help="most tasks in a run of fan_out")
    parser.add_argument("--parts", type=int, default=10_000, help="most parts in a folder that is checked")
    parser.add_argument("--epochs", type=int, default=30, help="of the training whose overhead is measured")
    parser.add_argument("--inputs", type=Path, help="JSON that an earlier run printed, instead of measuring")
    parser.add_argument("--gpu-tflops", type=float, default=5, help="assumed: our CNN's mutagenesis on one GPU")
    parser.add_argument("--enformer-tflops", type=float, default=40, help="assumed: Enformer's passes on one GPU")
    parser.add_argument("--node-minutes", type=float, default=0, help="assumed: until nodes are there")
    parser.add_argument(
        "--store-seconds", type=float, default=0.2, help="assumed: to look at one part in a bucket"
    )
    options = parser.parse_args()
    inputs = json.loads(options.inputs.read_text()) if options.inputs else measure(options)
    predict(inputs, options)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Measure what the prediction needs."""
    began = time.perf_counter()
    cluster = connect()
    print(f"Ray started in {time.perf_counter() - began:.1f} s; load of this machine {psutil.getloadavg()[0]:.1f}")
    cold = time_of_cold_start()
    print(f"\na worker's start, with torch and the model: {cold:.1f} s")
    rates = [tasks_per_second(cluster, count, in_flight) for count, in_flight in runs(options.tasks)]
    part = parts(options.parts)
    epoch = epochs(options.epochs)
    ray.shutdown()
    inputs = {
        "cpus": cluster.cpus,
        "cold_start_s": cold,
        "tasks_per_s": min(rates[-2:]),
        "check_part_s": part,
        "epoch_overhead_s": epoch,
    }
    print("\n" + json.dumps(inputs))
    return inputs


def time_of_cold_start() -> float:
    @ray.remote(num_cpus=1)
    def start() -> float:
        torch.manual_seed(0)
        return float(PromoterCNN(CNNConfig()).eval()(torch.zeros(1, 4, LENGTH)).sum())

    began = time.perf_counter()
    reference: Any = start.remote()
    ray.get(reference)
    return time.perf_counter() - began


def runs(count: int) -> list[tuple[int, int]]:
    """Numbers of tasks and of those in flight: 2 for each of 1, 32 and 512 workers."""
    small = max(100, count // 30)
    return [(small, 2), (small, 64), (small, 1024), (count // 3, 1024), (count, 1024)]


def tasks_per_second(cluster: Cluster, count: int, in_flight: int) -> float:
    """Run tasks that do nothing, with as much to carry as those of jobs.ism; print and return the rate."""
    limits = TaskLimits(in_flight, 1, 0)
    task = limits.apply(_nothing)
    genes, tokens = pd.DataFrame({"gene_id": ["g"] * 10}), np.zeros((10, LENGTH), np.uint8)
    process, held = psutil.Process(), 0
    before = process.memory_info().rss
    began = time.perf_counter()
    for done, _ in fan_out(lambda item, _: task.remote(genes, tokens, item), range(count), limits, cluster):
        if done % 500 == 0:
            held = max(held, process.memory_info().rss - before)
    seconds = time.perf_counter() - began
    print(
        f"{count:>7,} tasks, {in_flight:>5,} in flight: {count / seconds:>6,.0f} tasks/s, "
        f"{seconds / count * 1e3:.2f} ms a task, the driver grew by {held / 1e6:.0f} MB",
        flush=True,
    )
    return count / seconds


@ray.remote
def _nothing(genes: pd.DataFrame, tokens: np.ndarray, item: int) -> list[str]:
    return []


def parts(max_parts: int) -> float:
    """Check folders of more and more parts of a gene each; return the seconds a part."""
    frame = pd.DataFrame({"gene_id": ["g"], "chrom": ["1"], "start": [0], "end": [LENGTH], "strand": ["+"]})
    scores = Scores(
        frame.assign(sequence="A" * LENGTH),
        ["y"],
        np.zeros((1, 1), np.float32),
        np.random.default_rng(0).normal(size=(1, 1, 4, LENGTH)).astype(np.float32),
    )
    each = math.nan
    with tempfile.TemporaryDirectory() as name:
        folder, metadata = Path(name), {"model": "m"}
        write_part(part_path(folder, 0), scores, metadata)
        content = Path(str(part_path(folder, 0))).read_bytes()
        for count in (max_parts // 100, max_parts // 10, max_parts):
            for index in range(count):
                Path(str(part_path(folder, index))).write_bytes(content)
            parts = PartFiles(resolve(name), "", [["g"]] * (count + 1), [metadata] * (count + 1))
            process = psutil.Process()
            before, began = process.memory_info().rss, time.perf_counter()
            missing = parts.missing()
            seconds = time.perf_counter() - began
            assert missing == [count]  # noqa: S101 # what was timed was done
            each = seconds / count
            grown = (process.memory_info().rss - before) / 1e6
            print(
                f"{count:>7,} parts checked in {seconds:6.2f} s, {each * 1e3:.2f} ms each, {grown:.0f} MB",
                flush=True,
            )
    return each


def epochs(count: int) -> float:
    """Train a tiny network by `fit` and by `jobs.train`; return what an epoch of the latter costs more."""
    model = CNNConfig((8,), (7,), ())
    training = TrainingConfig(epochs=count, batch_size=64, early_stopping=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = simulate(folder / "genome", chromosomes=4, genes_per_chromosome=50, upstream=100)
        genome, genes, expression = map(str, (files.genome, files.genes, files.expression))
        prepare(str(folder), genome=genome, genes=genes, expression=expression, upstream=100, max_n=1)
        data = read_promoters(folder)
        chroms = data.genes["chrom"]
        learned, validated = (
            Examples(data.tokens[rows], data.targets[rows])
            for rows in (chroms.isin(["chr1", "chr2"]).to_numpy(), (chroms == "chr3").to_numpy())
        )
        state = fit(PromoterCNN(model, 100), learned, validated, config=training)
        alone = float(np.median([record["seconds"] for record in state.history[1:]]))
        train(
            str(folder),
            str(folder / "run"),
            SplitConfig(val=["chr3"], test=["chr4"]),
            model,
            training,
            baselines=False,
        )
        history = pd.read_csv(folder / "run" / "history.csv")
    under_ray = float(history["seconds"].iloc[1:].median())
    print(f"an epoch: {alone:.3f} s by fit, {under_ray:.3f} s by jobs.train, with its report and checkpoint")
    return max(0.0, under_ray - alone)


def predict(inputs: dict[str, float], options: argparse.Namespace) -> None:
    """Print how long 20,000 genes take on 1 to 512 GPUs."""
    ours = operations(CNNConfig(), LENGTH) / (options.gpu_tflops * 1e12)
    passes = 3 * LENGTH + 1
    enformer = passes * ENFORMER_TFLOP / options.enformer_tflops
    print(
        f"\n{GENES:,} genes × {LENGTH:,} bases. Assumed: our CNN at {options.gpu_tflops:g} TFLOP/s a "
        f"GPU, {ours * 1e3:.1f} ms a gene;\nEnformer at {options.enformer_tflops:g} TFLOP/s, {passes:,} passes of "
        f"{ENFORMER_TFLOP} TFLOP, {enformer:,.0f} s a gene; {options.store_seconds:g} s to look at a part."
    )
    print(f"{'':>6} {'our CNN':^44} {'Enformer-sized':^44}")
    columns = f"{'parts':>8} {'time':>10} {'of ideal':>9} {'bound by':>14}"
    print(f"{'GPUs':>6} {columns} {columns}")
    for count in GPUS:
        cells = [cell(inputs, options, seconds, count) for seconds in (ours, enformer)]
        print(f"{count:>6} " + " ".join(cells))


def cell(inputs: dict[str, float], options: argparse.Namespace, per_gene: float, gpus: int) -> str:
    """Return one prediction: parts, time, share of the time that perfect sharing would take, what bounds it."""
    size = max(1, min(int(SECONDS_PER_TASK / per_gene), GENES // (TASKS_PER_SLOT * gpus), MAX_GENES_PER_TASK))
    count = math.ceil(GENES / size)
    computing = math.ceil(count / gpus) * size * per_gene  # the last round may be of few
    submitting = count / inputs["tasks_per_s"]
    checking = count * options.store_seconds / 32  # by threads, once all are there
    starting = inputs["cold_start_s"] + 60 * options.node_minutes
    total = starting + max(computing, submitting) + checking
    bounds = {"computing": computing, "starting": starting, "submitting": submitting, "checking": checking}
    bound = max(bounds, key=lambda name: bounds[name])
    return f"{count:>8,} {duration(total):>10} {GENES * per_gene / gpus / total:>9.0%} {bound:>14}"


def duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
