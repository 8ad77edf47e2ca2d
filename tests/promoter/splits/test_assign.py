from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.sequence import decode
from promoter.splits.assign import assign_splits, draw_training
from promoter.splits.config import SplitConfig
from promoter.splits.units import Units

LENGTH = 200
GENES = 20  # a chromosome
HELD_OUT: dict[str, Any] = {"val": ["chr3"], "test": ["chr4"]}


def promoters(copies: dict[int, int], apart: int = 1000) -> Promoters:
    """Genes on four chromosomes, `apart` bases from each other; `copies`: row -> row whose sequence it has."""
    rng = np.random.default_rng(0)
    n = 4 * GENES
    tokens = rng.integers(0, 4, (n, LENGTH), dtype=np.uint8)
    for row, source in copies.items():
        tokens[row] = tokens[source]
    start = np.tile(np.arange(GENES) * apart, 4)
    genes = pd.DataFrame(
        {
            "gene_id": [f"g{i:02d}" for i in range(n)],
            "chrom": np.repeat(["chr1", "chr2", "chr3", "chr4"], GENES),
            "tss": start + LENGTH,
            "strand": "+",
            "start": start,
            "end": start + LENGTH,
            "sequence": decode(tokens),
        }
    )
    return Promoters(genes, np.zeros((n, 1), np.float32), ["y"], {"window": {"upstream": LENGTH, "downstream": 0}})


# chr1: rows 0-19, chr2: 20-39, chr3 (val): 40-59, chr4 (test): 60-79
COPIES = {
    60: 0,
    61: 0,
    41: 1,
    62: 42,
    63: 64,
    21: 2,
}  # test-train twice, val-train, test-val, test-test, train-train


def test_homologs_across_a_split_by_chromosome_are_reported_and_nothing_is_changed() -> None:
    data = promoters(COPIES)
    assigned = assign_splits(data, SplitConfig(**HELD_OUT))
    assert (assigned.split == np.repeat(["train", "train", "val", "test"], GENES)).all()
    assert assigned.split_of_gene == {}
    pairs = {(row.gene_id, row.split, row.other_gene_id, row.other_split) for row in assigned.leaks.itertuples()}
    assert pairs == {
        ("g60", "test", "g00", "train"),
        ("g61", "test", "g00", "train"),
        ("g41", "val", "g01", "train"),
        ("g62", "test", "g42", "val"),
    }
    # validation genes only choose the epoch, so homologs of them do not count
    assert np.flatnonzero(assigned.leaking).tolist() == [41, 60, 61]
    assert assigned.remarks == [
        "1 of 20 val and 2 of 20 test genes share promoter sequence with genes in the training set (leakage.csv)"
    ]


def test_dropping_homologs_leaves_them_out_of_training_and_tests_on_all_genes() -> None:
    assigned = assign_splits(promoters(COPIES), SplitConfig(**HELD_OUT, homology="drop"))
    assert assigned.split_of_gene == {"g00": ("chr1", None), "g01": ("chr1", None), "g42": ("chr3", None)}
    assert len(assigned.rows("test")) == GENES
    assert len(assigned.rows("train")) == 2 * GENES - 2
    assert assigned.leaks.empty
    assert not assigned.leaking.any()
    assert "3 genes" in assigned.remarks[0]


def test_moving_homologs_puts_divided_groups_into_the_training_set() -> None:
    assigned = assign_splits(promoters(COPIES), SplitConfig(**HELD_OUT, homology="move"))
    moved = {"g60": "chr4", "g61": "chr4", "g41": "chr3", "g62": "chr4", "g42": "chr3"}
    assert assigned.split_of_gene == {gene: (chrom, "train") for gene, chrom in moved.items()}
    assert assigned.leaks.empty


def test_homology_groups_are_never_divided_and_every_gene_is_named() -> None:
    data = promoters(COPIES)
    assigned = assign_splits(data, SplitConfig(by="family", val_fraction=0.2, test_fraction=0.2))
    for row, source in COPIES.items():
        assert assigned.split[row] == assigned.split[source]
    assert assigned.leaks.empty
    assert assigned.chroms == {"train": [], "val": [], "test": []}
    named = {gene: split for gene, (_, split) in assigned.split_of_gene.items()}
    assert [named[gene] for gene in data.genes["gene_id"]] == assigned.split.tolist()
    assert abs(len(assigned.rows("test")) - 16) <= 3


def test_any_genes_held_out_leak_through_overlaps_and_the_user_is_warned() -> None:
    data = promoters({}, apart=120)  # each window overlaps its neighbours by 80 of 200 bases
    assigned = assign_splits(data, SplitConfig(random=True, val_fraction=0.2, test_fraction=0.2))
    assert "can inflate" in assigned.remarks[0]
    assert set(assigned.leaks["kind"]) == {"overlapping"}
    beside = {
        row
        for row in assigned.rows("test")
        for other in (row - 1, row + 1)
        if 0 <= other < len(data) and other // GENES == row // GENES and assigned.split[other] == "train"
    }
    assert {row for row in np.flatnonzero(assigned.leaking) if assigned.split[row] == "test"} == beside
    by_family = SplitConfig(by="family", val_fraction=0.2, test_fraction=0.2)
    with pytest.raises(
        InputError, match="4 homology groups of 80 genes leave none for"
    ):  # a chromosome is one chain
        assign_splits(data, by_family)


def test_a_split_left_empty_by_the_homology_policy_is_refused() -> None:
    everything = {60 + i: i for i in range(GENES)}
    with pytest.raises(
        InputError, match=r"`SplitConfig\.homology='move'`: related promoters leave no genes for test"
    ):
        assign_splits(promoters(everything), SplitConfig(**HELD_OUT, homology="move"))
    assert (
        len(assign_splits(promoters(everything), SplitConfig(**HELD_OUT, homology="drop")).rows("test")) == GENES
    )


def split_of(by: str, of_gene: list[int], max_train: int, seed: int = 0) -> np.ndarray:
    split = np.array(["train"] * (len(of_gene) - 4) + ["val", "val", "test", "test"], dtype=object)
    config = SplitConfig(by=by, max_train=max_train, seed=seed)  # type: ignore[arg-type] # one of By
    return draw_training(split, Units(by, np.array(of_gene), by), config)  # type: ignore[arg-type] # likewise


def test_smaller_draws_of_the_training_set_are_parts_of_larger_ones_and_held_out_genes_stay() -> None:
    draws = [split_of("chromosome", [0] * 504, size) for size in (10, 100, 499)]
    assert [(draw == "train").sum() for draw in draws] == [10, 100, 499]
    for small, large in pairwise(draws):
        assert (large[small == "train"] == "train").all()
    for draw in draws:
        assert draw[-4:].tolist() == ["val", "val", "test", "test"]
        assert set(draw[:-4]) == {"train", None}
    assert (split_of("chromosome", [0] * 504, 100, seed=1) != draws[1]).any()
    positions = np.flatnonzero(draws[1] == "train")
    assert 200 < positions.mean() < 300  # from all over the set


def test_groups_and_families_are_drawn_complete() -> None:
    of_gene = [row // 19 for row in range(190)] + [90, 91, 92, 93]
    for by in ("group", "family"):
        for size, closest in ((10, 19), (60, 57), (70, 76), (180, 171)):
            split = split_of(by, of_gene, size)
            assert (split == "train").sum() == closest
            kept = pd.Series(split[:190] == "train").groupby(of_gene[:190]).nunique()
            assert (kept == 1).all()


def test_a_model_knows_which_training_genes_were_not_drawn() -> None:
    data = promoters({})
    full = assign_splits(data, SplitConfig())
    n = len(full.rows("train"))
    drawn = assign_splits(data, SplitConfig(max_train=n - 3))
    left = np.setdiff1d(full.rows("train"), drawn.rows("train"))
    assert len(left) == 3
    assert (drawn.rows("test") == full.rows("test")).all()
    assert {gene for gene, (_, name) in drawn.split_of_gene.items() if name is None} == set(
        data.genes["gene_id"].iloc[left]
    )
    assert any(f"{n - 3} of {n} training genes" in remark for remark in drawn.remarks)
    with pytest.raises(
        InputError, match=rf"`SplitConfig\.max_train={n}`: the training set has {n} genes; give fewer"
    ):
        assign_splits(data, SplitConfig(max_train=n))
