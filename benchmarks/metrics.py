"""Time of `promoter.metrics.evaluate_predictions` on many targets, against each target by itself.

By itself each target draws its own bootstrap samples, as all did before they shared them. Both run in each
round.

    python benchmarks/metrics.py                 # 18,000 genes, 20 targets, 4 baselines
    python benchmarks/metrics.py --targets 1800 --alone 0
"""

from __future__ import annotations

import argparse
import resource
import time
from statistics import median

import numpy as np
import pandas as pd

from promoter.metrics import evaluate_predictions


def main() -> None:
    """Print the seconds of each round, their median, and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--baselines", type=int, default=4)
    parser.add_argument("--missing", type=float, default=0.0, help="share of the values, other genes a target")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=5, help="targets that are computed by themselves; 0: none")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    shape = args.genes, args.targets
    observed = rng.normal(size=shape)
    predicted = observed + rng.normal(size=shape)
    others = {f"baseline {k}": observed + 2 * rng.normal(size=shape) for k in range(args.baselines)}
    observed[rng.random(shape) < args.missing] = np.nan
    names = [f"t{k}" for k in range(args.targets)]
    table = pd.DataFrame(
        {"split": rng.choice(["train", "val", "test"], args.genes, p=[0.8, 0.1, 0.1])}
        | {name: observed[:, k] for k, name in enumerate(names)}
        | {f"{name}_predicted": predicted[:, k] for k, name in enumerate(names)}
    )
    together, alone = [], []
    for number in range(args.rounds):
        start = time.perf_counter()
        evaluate_predictions(table, names, baselines=others)
        together.append(time.perf_counter() - start)
        start = time.perf_counter()
        for k, name in enumerate(names[: args.alone]):
            evaluate_predictions(table, [name], baselines={key: values[:, [k]] for key, values in others.items()})
        alone.append((time.perf_counter() - start) / max(args.alone, 1) * args.targets)
        print(f"round {number + 1}: together {together[-1]:.2f} s, each by itself {alone[-1]:.2f} s")
    print(f"{args.targets:,} targets x {args.genes:,} genes, {args.baselines} baselines: {median(together):.2f} s")
    if args.alone:
        ratios = [slow / fast for slow, fast in zip(alone, together, strict=True)]
        print(f"each by itself / together: {', '.join(f'{ratio:.1f}' for ratio in ratios)}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
