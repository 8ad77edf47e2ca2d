from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from promoter.ism import Scores
from promoter.ism.top_effects import strongest_substitutions
from promoter.sequence import decode


@pytest.mark.parametrize("sds", [None, [0.1, 5.0], [3.0, 0.5]])
def test_the_strongest_changes_are_those_that_a_plain_loop_finds(sds: list[float] | None) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (7, 20), dtype=np.uint8)
    values = rng.normal(size=(7, 2, 4, 20)).astype(np.float32)
    values[np.arange(7)[:, None], :, tokens, np.arange(20)] = 0
    sequences = decode(tokens)
    genes = pd.DataFrame({"gene_id": [f"g{row}" for row in range(7)], "sequence": sequences})
    scores = Scores(genes, ["a", "b"], np.zeros((7, 2), np.float32), values)
    best: dict[str, tuple[float, str, str, int, str, str, float]] = {}
    for row in range(7):
        for target, name in enumerate("ab"):
            for base, letter in enumerate("ACGT"):
                for at in range(20):
                    effect = float(values[row, target, base, at])
                    in_sds = effect / (sds[target] if sds else 1)
                    if abs(in_sds) > abs(best.get(f"g{row}", (0.0,))[-1]):
                        best[f"g{row}"] = (effect, name, f"g{row}", at, sequences[row][at], letter, in_sds)
    expected = sorted(best.values(), key=lambda one: -abs(one[-1]))
    found = strongest_substitutions(scores, 3, sds)
    assert [one[:-1] for one in found] == [one[:-1] for one in expected[:3]]  # effects in target units
    np.testing.assert_allclose([one.in_sds for one in found], [one[-1] for one in expected[:3]], rtol=1e-6)
    assert len(strongest_substitutions(scores, 50, sds)) == 7
    assert all(one.reference != one.alternative for one in strongest_substitutions(scores, 50, sds))
