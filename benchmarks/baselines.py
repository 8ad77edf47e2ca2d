"""Time and peak memory of `promoter.baselines.fit_baselines` on made-up genes.

    python benchmarks/baselines.py [--genes 20000] [--length 2000] [--targets 1]

Each number of genes is run in a process of its own. Expression follows the count of one word, so that there is
something to find; a tenth of the genes, on two of 24 chromosomes, is held out, and r is of those.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from fresh_process import measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--length", type=int, default=2000)
    parser.add_argument("--targets", type=int, default=1)
    options = parser.parse_args()
    seconds, peak, correlation = measured(fit, options.genes, options.length, options.targets)
    print(f"{options.genes:,} genes x {options.length:,} bases: {seconds:.1f} s, {peak / 1e6:,.0f} MB peak")
    print(f"r on genes held out: {correlation}")


def fit(n: int, length: int, n_targets: int) -> tuple[float, str]:
    from promoter.baselines import fit_baselines  # noqa: PLC0415 # imports are not what is measured

    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (n, length), dtype=np.uint8)
    word = np.lib.stride_tricks.sliding_window_view(tokens, 4, axis=1) == [0, 3, 3, 1]
    expression = word.all(axis=2).sum(axis=1)[:, None] + rng.normal(0, 2, (n, n_targets))
    chroms = pd.Series(rng.integers(1, 25, n)).map("chr{}".format)
    held_out = chroms.isin(["chr1", "chr2"]).to_numpy()
    began = time.perf_counter()
    predicted = fit_baselines(tokens, expression.astype(np.float32), chroms.to_numpy(), ~held_out)
    seconds = time.perf_counter() - began
    r = {
        name: np.corrcoef(values[held_out, 0], expression[held_out, 0])[0, 1]
        for name, values in predicted.items()
        if name != "mean"
    }
    return seconds, ", ".join(f"{name} {value:.3f}" for name, value in r.items())


if __name__ == "__main__":
    main()
