from __future__ import annotations

import numpy as np
import pandas as pd

from promoter.ism import Scores
from promoter.ism.top_effects import strongest_substitutions
from promoter.sequence import decode


def test_the_strongest_changes_are_those_that_a_plain_loop_finds() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (7, 20), dtype=np.uint8)
    values = rng.normal(size=(7, 2, 4, 20)).astype(np.float32)
    values[np.arange(7)[:, None], :, tokens, np.arange(20)] = 0
    sequences = decode(tokens)
    genes = pd.DataFrame({"gene_id": [f"g{row}" for row in range(7)], "sequence": sequences})
    scores = Scores(genes, ["a", "b"], np.zeros((7, 2), np.float32), values)
    best: dict[str, tuple[float, str, str, int, str, str]] = {}
    for row in range(7):
        for target, name in enumerate("ab"):
            for base, letter in enumerate("ACGT"):
                for at in range(20):
                    effect = float(values[row, target, base, at])
                    if abs(effect) > abs(best.get(f"g{row}", (0.0,))[0]):
                        best[f"g{row}"] = (effect, name, f"g{row}", at, sequences[row][at], letter)
    expected = sorted(best.values(), key=lambda one: -abs(one[0]))
    assert [tuple(one) for one in strongest_substitutions(scores, 3)] == expected[:3]
    assert len(strongest_substitutions(scores, 50)) == 7
    assert all(one.reference != one.alternative for one in strongest_substitutions(scores, 50))
