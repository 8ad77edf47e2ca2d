"""Time and peak memory of `promoter.splits.homology.similar_pairs` on 20,000 made-up windows of 2 kb.

    python benchmarks/leakage.py [--windows 20000] [--length 2000] [--only NAME]

Each run is a process of its own, so that its peak memory (RSS, imports and windows included) is its own.
"random": nothing shared. "families": families of 2 to 300 windows on either strand, 2.5% of the bases of each
changed, and one element of 300 bases in 5% of the windows, unchanged, as of a young transposon. "pairs": every
window has a copy with 5% of its bases changed. "old element": all windows have one element of 300 bases, 10% of
them changed. "shuffled": bases in random order, 60% of them A or T. "sensitivity": each two windows share an
element, half of them on opposite strands; the share of these that is found, by number and identity of its bases.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from fresh_process import measured

IDENTITIES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
ELEMENTS = (50, 100, 200, 500)
FAMILIES = (300, 100, 50, 30, 20, 10, *(2,) * 200)  # sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--length", type=int, default=2000)
    names = ("random", "families", "pairs", "old element", "shuffled", "sensitivity")
    parser.add_argument("--only", choices=names, default=None)
    options = parser.parse_args()
    for name in names if options.only is None else [options.only]:
        seconds, peak, (pairs, summary) = measured(audit, name, options.windows, options.length)
        print(f"{name:11} {seconds:6.1f} s {peak / 1e6:6.0f} MB peak  {pairs:9,} pairs  {summary}", flush=True)


def audit(name: str, n: int, length: int) -> tuple[float, tuple[int, str]]:
    """Audit made-up windows; return seconds, pairs, and what was found of what was implanted."""
    from promoter.splits.homology import homology_groups, similar_pairs  # noqa: PLC0415 # imports are not what is measured

    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (n, length), dtype=np.uint8)
    family, cells = np.full(n, -1), np.zeros(0, int)
    if name == "families":
        family = plant_families(tokens, rng)
        plant_element(tokens, np.flatnonzero(rng.random(n) < 0.05), 0, rng)
    elif name == "pairs":
        tokens[n // 2 :] = mutated(tokens[: n - n // 2], 0.05, rng)
        family = np.arange(n) % (n - n // 2)
    elif name == "old element":
        plant_element(tokens, np.arange(n), 0.1, rng)
    elif name == "shuffled":
        tokens = rng.choice(4, (n, length), p=[0.3, 0.2, 0.2, 0.3]).astype(np.uint8)
    elif name == "sensitivity":
        cells = plant_pairs(tokens, rng)
    began = time.perf_counter()
    pairs = similar_pairs(tokens)
    group = homology_groups(pairs.assign(kind=np.where(pairs["repeat"], "repeat", "similar")), n)
    seconds = time.perf_counter() - began
    if name == "sensitivity":
        found = np.zeros(n // 2, bool)
        found[(pairs["i"] // 2)[pairs["i"] // 2 == pairs["j"] // 2]] = True
        lines = [
            f"{bases} bases: "
            + ", ".join(f"{at:.0%} {found[cells == first + k].mean():.1%}" for k, at in enumerate(IDENTITIES))
            for first, bases in zip(range(0, 99, len(IDENTITIES)), ELEMENTS, strict=False)
        ]
        false = int((pairs["i"] // 2 != pairs["j"] // 2).sum())
        return seconds, (len(pairs), f"{false} false\n" + "\n".join(lines))
    families = np.unique(family[family >= 0])
    joined = sum(len(np.unique(group[family == number])) == 1 for number in families)
    summary = f"{joined:,} of {len(families):,} families joined" if len(families) else ""
    return seconds, (len(pairs), summary)


def plant_families(tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Overwrite some windows with changed copies of others; return the family of each window, -1 for none."""
    family = np.full(len(tokens), -1)
    rows = rng.permutation(len(tokens))
    for number, size in enumerate(FAMILIES):
        members, rows = rows[:size], rows[size:]
        family[members] = number
        copies = mutated(np.tile(tokens[members[0]], (len(members), 1)), 0.025, rng)
        turned = rng.random(len(members)) < 0.5
        copies[turned] = 3 - copies[turned, ::-1]
        tokens[members] = copies
    return family


def plant_pairs(tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give windows 2 k and 2 k + 1 an element in common; return the number of its length and identity."""
    cells = np.arange(len(tokens) // 2) % (len(ELEMENTS) * len(IDENTITIES))
    for pair, cell in enumerate(cells):
        bases, identity = ELEMENTS[cell // len(IDENTITIES)], IDENTITIES[cell % len(IDENTITIES)]
        x, y = rng.integers(0, tokens.shape[1] - bases + 1, 2)
        copy = mutated(tokens[2 * pair, x : x + bases], 1 - identity, rng)
        if rng.random() < 0.5:
            copy = 3 - copy[::-1]
        tokens[2 * pair + 1, y : y + bases] = copy
    return cells


def plant_element(tokens: np.ndarray, rows: np.ndarray, rate: float, rng: np.random.Generator) -> None:
    """Write one element of 300 bases at a place of its own into each row, each copy changed at this rate."""
    element = rng.integers(0, 4, 300, dtype=np.uint8)
    copies = mutated(np.tile(element, (len(rows), 1)), rate, rng)
    starts = rng.integers(0, tokens.shape[1] - len(element) + 1, len(rows))
    tokens[rows[:, None], starts[:, None] + np.arange(len(element))] = copies


def mutated(tokens: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Change each base to another at this rate."""
    shift = rng.integers(1, 4, tokens.shape, dtype=np.uint8) * (rng.random(tokens.shape) < rate)
    return (tokens + shift).astype(np.uint8) % 4


if __name__ == "__main__":
    main()
