"""Training speed: the plain PyTorch loop, `promoter.training.fit`, and `jobs.train` on 1 and 2 workers.

    python benchmarks/train.py [--genes 1024] [--epochs 4] [--rounds 3]

The plain loop is the published network as one writes it first: a DataLoader of float one-hot tensors,
Conv1d → BatchNorm1d → ReLU → MaxPool1d, eager. Contenders take turns, each in a process of its own, so
that a slow moment of the machine hits all. Times are of epochs after the first, in which memory is
touched and libraries warm up; for `fit` and `jobs.train` they hold validation, checkpoint and report.
Ray's own processes want some of the machine: `jobs.train` is compared with `fit` where both compute on all cores,
and where both compute with one thread.
Floating-point operations are counted from the shapes and set beside a measured matrix product.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from gpu import plain_network
from ism import in_process, matrix_product_rate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from promoter.dataset.promoters import Promoters, write_promoters
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode, one_hot
from promoter.training import Examples, TrainingConfig, fit
from promoter.training.allocator import keep_freed_memory

LENGTH, BATCH, VALIDATION = 2000, 64, 64
ONE_THREAD = "1 thread"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=1024, help="training genes")
    parser.add_argument("--epochs", type=int, default=4, help="per contender and round; the first is not counted")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    contenders: dict[str, Callable[[int, int], list[float]]] = {
        "plain loop": plain_loop,
        "fit": library_fit,
        "fit, keep_freed_memory": functools.partial(library_fit, keep_memory=True),
        "jobs.train, 1 worker": functools.partial(job, workers=1),
        "jobs.train, 2 workers": functools.partial(job, workers=2),
        ONE_THREAD: functools.partial(library_fit, keep_memory=True, threads=1),
        f"jobs.train, {ONE_THREAD}": functools.partial(job, workers=1, more=["--cpus_per_worker=1"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gflops: list[float] = []
    for number in range(options.rounds):
        gflops.append(in_process(matrix_product_rate))
        for name, contender in contenders.items():
            # in a fresh process: a contender's allocator settings and caches are its own
            epochs = in_process(contender, options.genes, options.epochs)
            seconds[name] += epochs
            rate = options.genes / np.median(epochs)
            print(f"round {number + 1}: {name:<24} {rate:8.1f} genes/s", flush=True)
    report(seconds, float(np.median(gflops)), options.genes)


def report(seconds: dict[str, list[float]], matrix_gflops: float, genes: int) -> None:
    flops = training_flops(CNNConfig(), LENGTH)
    plain = np.median(seconds["plain loop"])
    print(f"\nPublished network, {LENGTH} bases, batch {BATCH}, float32, {torch.get_num_threads()} threads.")
    print(f"A gene takes {flops / 1e9:.3f} GFLOP; a matrix product reaches {matrix_gflops:.0f} GFLOP/s.")
    print(f"{'':<26}{'genes/s':>9}{'× plain':>9}{'GFLOP/s':>9}{'of matrix product':>19}")
    for name, epochs in seconds.items():
        middle = float(np.median(epochs))
        rate = genes / middle
        achieved = rate * flops / 1e9
        print(f"{name:<26}{rate:>9.1f}{plain / middle:>9.2f}{achieved:>9.1f}{achieved / matrix_gflops:>19.0%}")
    pairs = {
        "all cores computing": ("fit, keep_freed_memory", "jobs.train, 1 worker"),
        "a core left to Ray": (ONE_THREAD, f"jobs.train, {ONE_THREAD}"),
    }
    for what, names in pairs.items():
        library, ray = (np.median(seconds[name]) for name in names)
        against = ray / library - 1
        print(f"Ray Train, 1 worker, against fit with the same allocator, {what}: {against:+.1%} an epoch")


def training_flops(config: CNNConfig, length: int) -> float:
    """Count a gene's operations: forward, gradients of weights, and but for the first block of inputs."""
    total, inputs = 0.0, 4
    for block, (outputs, kernel) in enumerate(zip(config.channels, config.kernel_sizes, strict=True)):
        products = length * inputs * outputs * kernel
        total += 2 * products * (3 if block else 2)
        inputs = outputs
        if block < len(config.pool_sizes):
            length //= config.pool_sizes[block]
    return total


def examples(genes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (genes, LENGTH)).astype(np.uint8)
    return tokens, rng.normal(size=(genes, 1)).astype(np.float32)


def plain_loop(genes: int, epochs: int) -> list[float]:
    tokens, targets = examples(genes)
    loader = DataLoader(TensorDataset(one_hot(tokens), torch.from_numpy(targets)), BATCH, shuffle=True)
    model = plain_network().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    seconds = []
    for _ in range(epochs):
        began, total = time.perf_counter(), 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def library_fit(genes: int, epochs: int, *, keep_memory: bool = False, threads: int | None = None) -> list[float]:
    if keep_memory:
        keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    tokens, targets = examples(genes + VALIDATION)
    config = TrainingConfig(epochs=epochs)
    train, val = Examples(tokens[:genes], targets[:genes]), Examples(tokens[genes:], targets[genes:])
    state = fit(PromoterCNN(), train, val, config=config)
    return [record["seconds"] for record in state.history][1:]


def job(genes: int, epochs: int, workers: int, more: Sequence[str] = ()) -> list[float]:
    tokens, targets = examples(genes + 2 * VALIDATION)
    table = pd.DataFrame(
        {"gene_id": [f"g{i}" for i in range(len(tokens))], "strand": "+", "sequence": decode(tokens)}
    )
    table["chrom"] = ["train"] * genes + ["val"] * VALIDATION + ["test"] * VALIDATION
    table[["tss", "start", "end"]] = 0
    with tempfile.TemporaryDirectory() as folder:
        metadata = {"window": {"upstream": LENGTH, "downstream": 0}}
        write_promoters(folder, Promoters(table, targets, ["y"], metadata))
        command = [sys.executable, "-m", "jobs.train", "--data", folder, "--out", f"{folder}/run"]
        flags = ["--split.val=val", "--split.test=test", f"--training.epochs={epochs}", f"--workers={workers}"]
        subprocess.run([*command, *flags, *more], check=True, stdout=subprocess.DEVNULL)
        return pd.read_csv(Path(folder) / "run" / "history.csv")["seconds"].tolist()[1:]


if __name__ == "__main__":
    main()
