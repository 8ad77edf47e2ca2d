"""In-silico mutagenesis: a loop of single forward passes, batched passes, and the incremental engine.

    python benchmarks/ism.py [--length 2000] [--rounds 3]

Published network with random weights, one sequence, contenders in turn in one process. The loop is timed on
some of its mutants, evenly spread, and scaled up to all. The floor is the arithmetic that no exact method of
this kind avoids: of each mutant the changed cells of each later convolution's input times all taps, at the
rate of a measured matrix product. Errors are against float64 passes, at some positions, in units of the
largest |score|.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from promoter.ism import full, incremental
from promoter.memory import keep_freed_memory
from promoter.model import PromoterCNN
from promoter.sequence import one_hot

LOOPED = 200  # mutants that the loop is timed on
CHECKED = 40  # positions compared with float64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    model, tokens_NL = network(), torch.randint(0, 4, (1, options.length), dtype=torch.uint8)
    contenders: dict[str, Callable[[], float]] = {
        "loop of single passes": lambda: looped(model, tokens_NL),
        "batched passes": lambda: timed(lambda: full.score_substitutions(model, tokens_NL)),
        "incremental": lambda: timed(lambda: incremental.score_substitutions(model, tokens_NL)),
    }
    contenders["incremental"]()  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    rates = []
    for _ in range(options.rounds):
        rates.append(matrix_product_rate())
        for name, contender in contenders.items():
            seconds[name].append(contender())
    gflops = float(np.median(rates))
    floor = floor_gflop(model, options.length) / gflops
    print(
        f"{options.length} bases, float32, {torch.get_num_threads()} threads, matrix product {gflops:.0f} GFLOP/s"
    )
    middle = {name: float(np.median(times)) for name, times in seconds.items()}
    for name, value in middle.items():
        print(f"{name:<24}{value:10.3f} s/gene {middle['loop of single passes'] / value:8.1f} × the loop")
    print(f"{'floor':<24}{floor:10.3f} s/gene; incremental takes {middle['incremental'] / floor:.1f} × as long")
    for name, way in (("batched passes", full), ("incremental", incremental)):
        worst = error(model, tokens_NL, way.score_substitutions)
        print(f"largest error of {name}: {worst:.1e} of the largest |score|")


def network() -> PromoterCNN:
    """Return the published network with batch-norm statistics of random sequences, as training leaves them."""
    model = PromoterCNN()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(one_hot(torch.randint(0, 4, (64, 2000), dtype=torch.uint8)))
    return model.eval()


def timed(call: Callable[[], Tensor]) -> float:
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


@torch.inference_mode()
def error(model: PromoterCNN, tokens_NL: Tensor, score: Callable[[PromoterCNN, Tensor], Tensor]) -> float:
    double = copy.deepcopy(model).double()
    scores_AL = score(model, tokens_NL)[0, 0]
    reference = double(one_hot(tokens_NL).double())
    worst = 0.0
    for position in np.linspace(0, tokens_NL.shape[1] - 1, CHECKED).astype(int):
        mutants = tokens_NL.repeat(4, 1)
        mutants[:, position] = torch.arange(4)
        expected_A = (double(one_hot(mutants).double()) - reference)[:, 0]
        worst = max(worst, float((scores_AL[:, position] - expected_A).abs().max()))
    return worst / float(scores_AL.abs().max())


def floor_gflop(model: PromoterCNN, length: int) -> float:
    """Count the operations of the products of changed cells with all taps, for all mutants."""
    config, total, cells = model.config, 0.0, float(model.config.kernel_sizes[0])
    for block, (outputs, kernel) in enumerate(zip(config.channels, config.kernel_sizes, strict=True)):
        if block:
            total += 2 * cells * kernel * config.channels[block - 1] * outputs
            cells += kernel - 1
        if block < len(config.pool_sizes):
            # cells that a stretch of this length touches, over all its places against the grid of the pool
            cells = (cells - 1) / config.pool_sizes[block] + 1
    return total * 3 * length / 1e9


def matrix_product_rate() -> float:
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    times = [timed(lambda: torch.matmul(a, b)) for _ in range(6)]
    return 2 * 2048**3 / float(np.median(times[2:])) / 1e9


if __name__ == "__main__":
    main()
