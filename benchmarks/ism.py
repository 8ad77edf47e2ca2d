"""In-silico mutagenesis: the incremental engine beside a loop, batched passes, tangermeme and captum.

    python benchmarks/ism.py [--rounds 3] [--parts engine sizes jobs]

engine: published network with random weights, one sequence of 2,000 bases, all 6,000 substitutions; contenders
in turn in one process, several times. The loop and captum are timed on some of the positions, evenly spread,
and scaled up to all; tangermeme is given two sequences, so that its fast path is worth its preparation to it.
The floor is the arithmetic that no exact method of this kind avoids (`promoter.ism.operations.operations`) at
the rate of a measured matrix product. Errors are against float64 passes, at some positions, in units of the
largest |score|. Memory is the peak of a process that does nothing else.

sizes: seconds a gene by window length and by number of filters.

jobs: `jobs.ism` on 1 and 2 workers beside as many processes of the bare engine (and the predictions, which the job
stores too), one thread each; genes a second once all workers run, that is by the times at which the parts appear.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gpu import exact_scores, network, random_tokens
from torch import Tensor, nn

from promoter.checkpoint import ModelInfo, save_model
from promoter.ism import forward_passes, incremental, saturation_mutagenesis
from promoter.ism.operations import operations
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode, one_hot
from promoter.training import predict
from promoter.training.allocator import keep_freed_memory

LENGTH = 2000
LOOPED = 200  # mutants that the loop is timed on
CHECKED = 40  # positions compared with float64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=["engine", "sizes", "jobs"])
    options = parser.parse_args()
    keep_freed_memory()
    for part, run in (("engine", engine), ("sizes", sizes), ("jobs", jobs)):
        if part in options.parts:
            run(options.rounds)
            print(flush=True)


def engine(rounds: int) -> None:
    model, tokens_NL = network(CNNConfig(), LENGTH), random_tokens(1, LENGTH)
    contenders: dict[str, Callable[[], float]] = {
        "loop of single passes": lambda: looped(model, tokens_NL),
        "batched passes": lambda: timed(lambda: forward_passes.score_substitutions(model, tokens_NL)),
        "tangermeme": lambda: tangermeme(model, fast=False),
        "tangermeme, fast": lambda: tangermeme(model, fast=True),
        "captum FeatureAblation": lambda: captum(model, tokens_NL),
        "promoter": lambda: timed(lambda: incremental.score_substitutions(model, tokens_NL)),
    }
    contenders["promoter"]()  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    rates = []
    for _ in range(rounds):
        for name, contender in contenders.items():
            if name == "promoter":
                rates.append(matrix_product_rate())
                seconds[name] += [contender() for _ in range(5)]
            else:
                seconds[name].append(contender())
    gflops = float(np.median(rates))
    floor = operations(model.config, LENGTH) / 1e9 / gflops
    threads = torch.get_num_threads()
    print(f"{LENGTH} bases, float32, {threads} threads, matrix product {gflops:.0f} GFLOP/s, {rounds} rounds")
    middle = {name: float(np.median(times)) for name, times in seconds.items()}
    ours = middle["promoter"]
    print(f"{'':<24}{'s/gene':>9}{'promoter is faster by':>24}{'error':>10}{'peak MB':>10}")
    errors = {name: error(model, tokens_NL, score) for name, score in METHODS.items()}
    peaks = {name: in_process(peak_memory, name) for name in METHODS}
    for name, value in middle.items():
        shown = f"{errors[name]:.1e}" if name in errors else ""
        peak = f"{peaks[name]:,.0f}" if name in peaks else ""
        print(f"{name:<24}{value:>9.3f}{value / ours:>22.1f} ×{shown:>10}{peak:>10}")
    print(f"{'floor':<24}{floor:>9.3f}{'':>24}  promoter takes {ours / floor:.2f} times as long")
    rough = incremental.score_substitutions(model, tokens_NL, precision="bf16")
    exact = incremental.score_substitutions(model, tokens_NL)
    took = timed(lambda: incremental.score_substitutions(model, tokens_NL, precision="bf16"))
    off = float((rough - exact).abs().max() / exact.abs().max())
    print(f"bf16 products: {took:.3f} s/gene, off by {off:.1e} of the largest |score|")
    print(f"differences after the first pooling that are exactly 0: {zeros(model, tokens_NL):.0%}")


def sizes(rounds: int) -> None:
    print("seconds a gene by window length and filters (published network and multiples), beside the floor")
    cases = [(length, 1.0) for length in (500, 1000, 2000, 4000, 8000, 16000)] + [
        (2000, f) for f in (0.25, 0.5, 2)
    ]
    rate = matrix_product_rate()
    for length, factor in cases:
        config = replace(CNNConfig(), channels=tuple(int(c * factor) for c in CNNConfig().channels))
        model, tokens_NL = network(config, length), random_tokens(1, length)
        score = functools.partial(incremental.score_substitutions, model, tokens_NL)
        times = [timed(score) for _ in range(rounds + 1)][1:]  # the first warms up
        took = float(np.median(times))
        floor = operations(config, length) / 1e9 / rate
        print(f"{length:>7} bases, {config.channels!s:<16}{took:>8.3f} s {took / floor:>6.2f} × the floor")


def jobs(rounds: int) -> None:
    print("jobs.ism, 2,000 bases, published network: genes a second at steady state")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        info = ModelInfo(["y"], {"upstream": None, "downstream": None, "length": LENGTH})
        save_model(f"{folder}/model", network(CNNConfig(), LENGTH), info)
        genes = 160
        letters = decode(random_tokens(genes, LENGTH).numpy())
        fasta = Path(folder) / "promoters.fa"
        fasta.write_text("".join(f">g{i}\n{sequence}\n" for i, sequence in enumerate(letters)))
        results: dict[str, list[float]] = {}
        for number in range(rounds):
            for workers in (1, 2):
                bare = [in_processes(bare_engine, workers)]
                job = steady_rate(Path(folder), f"{folder}/out{number}-{workers}", workers, genes)
                bare.append(in_processes(bare_engine, workers))
                results.setdefault(f"bare engine, {workers} processes", []).append(float(np.mean(bare)))
                results.setdefault(f"jobs.ism, {workers} workers", []).append(job)
                results.setdefault(f"overhead, {workers}", []).append(float(np.mean(bare)) / job - 1)
    for name, values in results.items():
        middle = float(np.median(values))
        if name.startswith("overhead"):
            shown = ", ".join(f"{value:+.1%}" for value in values)
            print(f"{name} workers: {middle:+.1%} ({shown})")
        else:
            print(f"{name:<28}{middle:8.2f} genes/s")


def bare_engine() -> float:
    """Return the genes a second of a process that computes what a task computes, without Ray and files."""
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    model, tokens = network(CNNConfig(), LENGTH), random_tokens(24, LENGTH).numpy()
    saturation_mutagenesis(model, tokens[:2])
    began = time.perf_counter()
    predict(model, tokens)
    saturation_mutagenesis(model, tokens)
    return len(tokens) / (time.perf_counter() - began)


def steady_rate(folder: Path, out: str, workers: int, genes: int) -> float:
    """Run the job; return genes a second between the first and the last parts of all workers."""
    per_task = 10  # half of what the job chooses for more genes
    flags = ["--model", folder / "model", "--data", folder / "promoters.fa", "--out", out, "--workers", workers]
    command = [sys.executable, "-m", "jobs.ism", *map(str, flags), "--genes_per_task", str(per_task)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    times = sorted(part.stat().st_mtime for part in Path(out, "scores").iterdir())
    first, last = workers, len(times) - workers  # after each worker's start, before one runs dry
    assert len(times) * per_task == genes  # noqa: S101 # nothing got lost
    return (last - first) * per_task / (times[last] - times[first])


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@torch.inference_mode()
def looped(model: PromoterCNN, tokens_NL: Tensor) -> float:
    length = tokens_NL.shape[1]
    began = time.perf_counter()
    for position in np.linspace(0, length - 1, LOOPED).astype(int):
        mutant = tokens_NL.clone()
        mutant[0, position] = (mutant[0, position] + 1) % 4
        model(one_hot(mutant))
    return (time.perf_counter() - began) * 3 * length / LOOPED


def tangermeme(model: PromoterCNN, fast: bool) -> float:
    """Time tangermeme with its own defaults; a second sequence costs its fast path no second preparation."""
    tokens_NL = random_tokens(8 if fast else 1, LENGTH)
    return timed(lambda: through_tangermeme(model, tokens_NL, fast)) / len(tokens_NL)


def through_tangermeme(model: nn.Module, tokens_NL: Tensor, fast: bool = True) -> Tensor:
    from tangermeme.saturation_mutagenesis import saturation_mutagenesis as theirs  # noqa: PLC0415 # slow to import

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before, after = theirs(model, one_hot(tokens_NL), raw_outputs=True, device="cpu", fast=fast, batch_size=32)
    for warning in caught:
        if "fast" in str(warning.message):
            print(f"tangermeme: {' '.join(str(warning.message).split())[:300]}")
    assert isinstance(before, Tensor) and isinstance(after, Tensor)  # noqa: S101, PT018 # the model returns one
    return (after - before[:, None, None]).permute(0, 3, 1, 2)


METHODS = {
    "batched passes": forward_passes.score_substitutions,
    "tangermeme, fast": through_tangermeme,
    "promoter": incremental.score_substitutions,
}


def captum(model: PromoterCNN, tokens_NL: Tensor) -> float:
    """Time captum's FeatureAblation: one base a position replaced; three times that is all substitutions."""
    from captum.attr import FeatureAblation  # noqa: PLC0415 # slow to import

    length = 250  # of 2,000 positions' masks, so that it ends this year
    x_NCL = one_hot(tokens_NL)
    mask_CL = torch.full((4, LENGTH), length)
    mask_CL[:, :length] = torch.arange(length)
    with torch.inference_mode():
        ablation = FeatureAblation(model)
        took = timed(
            lambda: ablation.attribute(x_NCL, target=0, feature_mask=mask_CL[None], perturbations_per_eval=16)
        )
    return took / (length + 1) * 3 * LENGTH


def error(model: PromoterCNN, tokens_NL: Tensor, score: Callable[[PromoterCNN, Tensor], Tensor]) -> float:
    positions = np.linspace(0, tokens_NL.shape[1] - 1, CHECKED).astype(int).tolist()
    scores_NTAL = score(model, tokens_NL)
    difference = scores_NTAL[..., positions] - exact_scores(model, tokens_NL, positions)
    return float(difference.abs().max() / scores_NTAL.abs().max())


@torch.inference_mode()
def zeros(model: PromoterCNN, tokens_NL: Tensor) -> float:
    """Return the share of exact zeros among the differences that the second convolution multiplies."""
    layers = incremental._fold(model, torch.float32)
    references = incremental._forward(layers, tokens_NL)
    sites = incremental._MutationSites.of(tokens_NL[:, 5::16], range(4), first=0, residue=5, period=16)
    _, change = incremental._first_change(layers[0], references[0], sites)
    return float((change == 0).float().mean())


def matrix_product_rate() -> float:
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    times = [timed(lambda: torch.matmul(a, b)) for _ in range(6)]
    return 2 * 2048**3 / float(np.median(times[2:])) / 1e9


def peak_memory(name: str) -> float:
    """Return by how many MB the process grows at most while it scores."""
    model, tokens_NL = network(CNNConfig(), LENGTH), random_tokens(1, LENGTH)
    if name.startswith("tangermeme"):
        import tangermeme.saturation_mutagenesis  # noqa: F401, PLC0415 # not to be counted
    Path("/proc/self/clear_refs").write_text("5")  # from here on: building the network took more than scoring does
    before = high_water()
    METHODS[name](model, tokens_NL)
    return high_water() - before


def high_water() -> float:
    """Return the most memory in MB that this process has held (getrusage would tell that of its parent, too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def in_process(function: Callable, *arguments: object):
    """Call a function in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def in_processes(function: Callable[[], float], count: int) -> float:
    """Call a function in several fresh processes at once, and add up what they return."""
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        return sum(result.get() for result in [pool.apply_async(function) for _ in range(count)])


if __name__ == "__main__":
    main()
