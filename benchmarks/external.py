"""What it costs to explain networks of other code: float64 beside float32, mutations beside gradients.

    python -m benchmarks.external            # about five minutes on two cores

For the networks of docs/examples, and the default network: a forward pass in both number types; the mutants of
some positions by complete passes and as `saturation_mutagenesis` scores them; and each method of attribution, with
its correlation with ISM over the bases of a sequence. Weights are random, sequences too. All sides run in turn;
printed are the medians of several turns, and their ratios.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from promoter.attribution import attribute
from promoter.ism import actual_contributions, forward_passes, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.code import find_code
from promoter.models.external import build_external
from promoter.sequence import one_hot

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "examples"))
EXAMPLES = {"deepstarr:network": 249, "legnet:network": 110, "bpnet_lite:bpnet": 2114}
METHODS = ("gradient", "integrated_gradients", "deeplift")


def networks() -> dict[str, tuple[nn.Module, int]]:
    """Return the networks with the length of their sequences, weights and batch norms random."""
    torch.manual_seed(0)
    made: dict[str, tuple[nn.Module, int]] = {"default network": (PromoterCNN(CNNConfig()), 2000)}
    for name, length in EXAMPLES.items():
        made[name] = build_external(find_code(name)), length
    for model, length in made.values():
        rng = np.random.default_rng(1)
        norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)]
        with torch.no_grad():
            if norms:
                for norm in norms:
                    norm.momentum = None
                model.train()(one_hot(torch.tensor(rng.integers(0, 4, (8, length), dtype=np.uint8))))
        model.eval()
    return made


def turns(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run all sides in turn, and return the median seconds of each; the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def correlation(model: nn.Module, tokens: np.ndarray, method: str, span: tuple[int, int]) -> float:
    """Return r of the contributions of the bases that are there with those of ISM, mean over sequences."""
    known = tokens[:, span[0] : span[1]]
    ism, other = (
        actual_contributions(scores, known)[:, 0].sum(1)
        for scores in (
            saturation_mutagenesis(model, tokens, positions=span),
            attribute(model, tokens, method=method, positions=span),  # type: ignore[arg-type] # one of METHODS
        )
    )
    return float(np.mean([np.corrcoef(one, two)[0, 1] for one, two in zip(ism, other, strict=True)]))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=3, help="turns after the first")
    parser.add_argument("--positions", type=int, default=240, help="positions that are mutated")
    parser.add_argument("--sequences", type=int, default=2)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; seconds, medians of turns\n")
    for name, (model, length) in networks().items():
        tokens = np.random.default_rng(0).integers(0, 4, (chosen.sequences, length), dtype=np.uint8)
        middle, half = length // 2, min(chosen.positions, length) // 2
        print(f"{name}, {length} bases")
        compare(model, tokens, (middle - half, middle + half), chosen.repeats)


def compare(model: nn.Module, tokens: np.ndarray, span: tuple[int, int], repeats: int) -> None:
    """Print the times of one network; only the positions of `span` are mutated."""
    scored = span[1] - span[0]
    double, batch = copy.deepcopy(model).double(), torch.tensor(np.repeat(tokens[:1], 16, 0))
    x32, x64 = one_hot(batch), one_hot(batch, torch.float64)
    with torch.inference_mode():
        passes = turns({"float32": lambda: model(x32), "float64": lambda: double(x64)}, repeats)
    whole = torch.tensor(tokens)
    sides: dict[str, Callable[[], object]] = {
        "complete passes": lambda: forward_passes.score_substitutions(model, whole, positions=span),
        "as ism scores": lambda: saturation_mutagenesis(model, tokens, positions=span),
        "gradient": lambda: attribute(model, tokens, method="gradient"),
        "integrated_gradients": lambda: attribute(model, tokens, method="integrated_gradients"),
        "deeplift": lambda: attribute(model, tokens, method="deeplift"),
    }
    took = {side: seconds / len(tokens) for side, seconds in turns(sides, repeats).items()}
    slower = passes["float64"] / passes["float32"]
    print(
        f"  16 sequences a pass: float32 {passes['float32']:.4f}, float64 {passes['float64']:.4f}: {slower:.1f} x"
    )
    faster = took["complete passes"] / took["as ism scores"]
    print(
        f"  ism, a sequence, {scored} positions: complete passes {took['complete passes']:.3f}, as it scores "
        f"{took['as ism scores']:.3f}: {faster:.1f} times as fast"
    )
    for method in METHODS:
        r = correlation(model, tokens, method, span)
        faster = took["as ism scores"] / took[method]
        print(
            f"  {method}, a sequence, all positions: {took[method]:.3f}, {faster:.1f} times as fast as ism of "
            f"{scored}; r with ism of these {r:.3f}"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
