"""Agreement of two folders of scores: r over the bases that are there, gene by gene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from promoter.errors import InputError
from promoter.ism import Scores, actual_contributions
from promoter.ism.agreement import agreement
from promoter.ism.store import write_part
from promoter.sequence import encode
from promoter.storage.parts import part_path

RNG = np.random.default_rng(0)
SEQUENCES = ["".join(RNG.choice(list("ACGT"), 60)) for _ in range(4)]
SEQUENCES[2] = "N" * 20 + SEQUENCES[2][20:]
IDS = ["a", "b", "c", "d"]
SCORES = RNG.normal(size=(4, 2, 4, 60)).astype(np.float32)


def write(folder: Path, scores: np.ndarray, rows: list[int] | None = None, **metadata: Any) -> Path:
    rows = list(range(len(scores))) if rows is None else rows
    genes = pd.DataFrame({"gene_id": IDS, "sequence": SEQUENCES}).iloc[rows].reset_index(drop=True)
    genes = genes.assign(gene_name=None, chrom=None, start=None, end=None, strand=None)
    held = Scores(genes, ["x", "y"], np.zeros((len(rows), 2), np.float32), scores[rows])
    (folder / "scores").mkdir(parents=True)
    write_part(part_path(folder / "scores", 0), held, metadata)
    return folder


def test_r_is_that_of_numpy_over_the_bases_that_are_there(tmp_path: Path) -> None:
    other = SCORES + RNG.normal(size=SCORES.shape).astype(np.float32)
    first, second = write(tmp_path / "1", SCORES), write(tmp_path / "2", other, [3, 2, 0], method="gradient")
    table = agreement(first, second, "y")
    assert table["gene_id"].tolist() == ["a", "c", "d"]  # those of both, in the first one's order
    tokens = encode(SEQUENCES)
    one, two = (actual_contributions(values, tokens)[:, 1].sum(axis=1) for values in (SCORES, other))
    for gene, r in table.itertuples(index=False):
        row = IDS.index(gene)
        known = tokens[row] < 4
        assert r == pytest.approx(np.corrcoef(one[row, known], two[row, known])[0, 1], abs=1e-5)


def test_equal_scores_agree_whatever_their_scale_and_constant_ones_have_no_r(tmp_path: Path) -> None:
    other = 3 * SCORES
    other[1] = 0
    table = agreement(write(tmp_path / "1", SCORES), write(tmp_path / "2", other), "x")
    assert np.allclose(table["pearson"], [1, np.nan, 1, 1], equal_nan=True, atol=1e-6)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", SCORES, [0, 1]), write(tmp_path / "2", SCORES, [2, 3])
    with pytest.raises(InputError, match=r"2/?: shares no gene with"):
        agreement(first, second, "x")
    with pytest.raises(InputError, match="has no scores of z; there are x, y"):
        agreement(first, second, "z")
    genes = pd.DataFrame({"gene_id": ["a"], "sequence": ["ACGT" * 15]})
    genes = genes.assign(gene_name=None, chrom=None, start=None, end=None, strand=None)
    (tmp_path / "3" / "scores").mkdir(parents=True)
    held = Scores(genes, ["x"], np.zeros((1, 1), np.float32), SCORES[:1, :1])
    write_part(part_path(tmp_path / "3" / "scores", 0), held, {})
    with pytest.raises(InputError, match=r"has other sequences than .*`positions`"):
        agreement(first, tmp_path / "3", "x")
