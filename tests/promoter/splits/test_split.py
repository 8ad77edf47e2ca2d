from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promoter.dataset.annotation import read_genes
from promoter.errors import InputError
from promoter.splits.config import SPLITS, SplitConfig
from promoter.splits.split import assign, chromosome_folds, split_by_chromosome, split_by_group


def genes_on(sizes: list[int]) -> pd.Series:
    return pd.Series([f"chr{i + 1}" for i, size in enumerate(sizes) for _ in range(size)])


def counts(chroms: pd.Series, split_of_chrom: dict[str, str]) -> dict[str, int]:
    return {name: int((chroms.map(split_of_chrom) == name).sum()) for name in SPLITS}


def off(n: dict[str, int], config: SplitConfig) -> float:
    total = sum(n.values())
    return abs(n["val"] - config.val_fraction * total) + abs(n["test"] - config.test_fraction * total)


@given(st.lists(st.integers(1, 50), min_size=3, max_size=6), st.sampled_from([0.1, 0.25]))
@settings(max_examples=60)
def test_few_chromosomes_are_split_as_well_as_can_be(sizes: list[int], fraction: float) -> None:
    config = SplitConfig(val_fraction=fraction)
    chroms = genes_on(sizes)
    split_of_chrom = split_by_chromosome(chroms, config)
    best = min(
        off(
            {name: sum(s for s, label in zip(sizes, labels, strict=True) if label == name) for name in SPLITS},
            config,
        )
        for labels in product(SPLITS, repeat=len(sizes))
        if set(labels) == set(SPLITS)
    )
    assert off(counts(chroms, split_of_chrom), config) == pytest.approx(best)


@given(st.lists(st.integers(5, 300), min_size=16, max_size=30))
@settings(max_examples=40)
def test_many_chromosomes_come_close_to_the_fractions(sizes: list[int]) -> None:
    chroms = genes_on(sizes)
    split_of_chrom = split_by_chromosome(chroms, SplitConfig())
    n = counts(chroms, split_of_chrom)
    assert min(n.values()) > 0
    nearest = np.abs(np.array(sizes) - len(chroms) / 10).min()  # one chromosome alone does no better
    assert abs(n["val"] - len(chroms) / 10) <= nearest
    assert abs(n["test"] - len(chroms) / 10) <= max(sizes)


def test_yeast_is_split_close_to_ten_percent(yeast: Path) -> None:
    chroms = read_genes(yeast / "genes.bed")["chrom"]
    split_of_chrom = split_by_chromosome(chroms, SplitConfig())
    n = counts(chroms, split_of_chrom)
    assert sum(n.values()) == 6600
    assert (n["val"], n["test"]) == (pytest.approx(660, abs=10), pytest.approx(660, abs=10))
    assert list(split_of_chrom) == list(chroms.drop_duplicates())


@pytest.mark.parametrize("n", [4, 20])
def test_equal_genes_give_equal_splits_whatever_their_targets(n: int) -> None:
    chroms = genes_on(np.random.default_rng(n).integers(1, 9, n).tolist())
    assert split_by_chromosome(chroms, SplitConfig()) == split_by_chromosome(chroms.copy(), SplitConfig())


@pytest.mark.parametrize("n", [3, 11, 20])
def test_no_split_is_empty_even_if_each_chromosome_is_too_large(n: int) -> None:
    chroms = genes_on([100] * n)
    for fraction in (0.001, 0.45):
        split = split_by_chromosome(chroms, SplitConfig(val_fraction=fraction, test_fraction=fraction))
        assert set(split.values()) == set(SPLITS)


def test_thousands_of_scaffolds_are_split() -> None:
    chroms = genes_on([3] * 3000 + [500] * 20)
    n = counts(chroms, split_by_chromosome(chroms, SplitConfig()))
    assert off(n, SplitConfig()) < 6


def test_given_chromosomes_are_held_out_in_any_spelling() -> None:
    chroms = pd.Series(["chr1", "chr2", "chr3", "chrM", "chr1"])
    split = split_by_chromosome(chroms, SplitConfig(val=["2"], test=["MT", "chrM"]))
    assert split == {"chr1": "train", "chr2": "val", "chr3": "train", "chrM": "test"}


@pytest.mark.parametrize("given_set", ["val", "test"])
def test_the_split_that_is_not_given_is_chosen_from_the_rest(given_set: str) -> None:
    chroms = genes_on([10, 50, 50, 10])
    config = SplitConfig(val=["chr1"]) if given_set == "val" else SplitConfig(test=["chr1"])
    split = split_by_chromosome(chroms, config)
    other = "test" if given_set == "val" else "val"
    assert split == {"chr1": given_set, "chr2": "train", "chr3": "train", "chr4": other}


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (["chr1"], ["1"], r"both hold \['chr1'\]"),
        (
            ["chr9", "chr1"],
            None,
            r"`SplitConfig\.val=\['chr9'\]`: no gene lies on it; the data has chr1, chr2, chr3",
        ),
        (None, ["chrX"], r"`SplitConfig\.test=\['chrX'\]`"),
        ([], None, "`SplitConfig.val` is empty"),
        (["chr1"], ["chr2", "chr3"], "leave at least one for each, or use `SplitConfig.by='block'`"),
        (["chr1", "chr2"], None, "leave at least one for each, or use `SplitConfig.by='block'`"),
    ],
)
def test_impossible_held_out_chromosomes_are_refused(
    val: list[str] | None, test: list[str] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        split_by_chromosome(genes_on([5, 5, 5]), SplitConfig(val=val, test=test))


def test_two_chromosomes_are_too_few_to_split() -> None:
    with pytest.raises(InputError, match=r"2 chromosomes \(chr1, chr2\) cannot be split"):
        split_by_chromosome(genes_on([5, 5]), SplitConfig())


@pytest.mark.parametrize(("val", "test"), [(0, 0.1), (1, 0.1), (0.1, -0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_impossible_fractions_of_a_split_are_refused(val: float, test: float) -> None:
    with pytest.raises(InputError, match=r"`SplitConfig\.(val|test)_fraction="):
        SplitConfig(val_fraction=val, test_fraction=test)


def test_genes_are_assigned_across_spellings_and_unknown_chromosomes_get_none() -> None:
    found = assign(pd.Series(["1", "chr2", "chrX", None]), {"chr1": "train", "2": "val"})
    assert found.tolist()[:2] == ["train", "val"]
    assert found.isna().tolist() == [False, False, True, True]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(1, 4))
def test_folds_hold_each_chromosome_once_and_about_as_many_genes_each(sizes: list[int], folds: int) -> None:
    chroms = pd.Series([f"chr{i}" for i, size in enumerate(sizes) for _ in range(size)])
    if folds > len(sizes):
        with pytest.raises(InputError, match=f"`folds={folds}`.*only {len(sizes)} chromosomes?.*by='block'"):
            chromosome_folds(chroms, folds)
        return
    found = chromosome_folds(chroms, folds)
    assert sorted(name for fold in found for name in fold) == sorted(f"chr{i}" for i in range(len(sizes)))
    assert all(found)
    genes = [int(chroms.isin(fold).sum()) for fold in found]
    deals = np.array(list(product(range(folds), repeat=len(sizes))))  # the fairest of all, by trying them
    best = np.max([(deals == fold) @ sizes for fold in range(folds)], axis=0).min()
    assert max(genes) <= 4 / 3 * best
    assert found == chromosome_folds(chroms, folds)


@given(
    st.lists(st.integers(0, 40), min_size=60, max_size=400),
    st.floats(0.1, 0.3),
    st.integers(0, 5),
)
def test_homology_groups_are_held_out_complete_and_splits_are_near_their_fractions(
    groups: list[int], fraction: float, seed: int
) -> None:
    group_of_gene = np.array(groups)
    config = SplitConfig(val_fraction=fraction, test_fraction=fraction, by="family", seed=seed)
    largest = np.bincount(group_of_gene).max()
    if largest > fraction * len(groups) / 2:
        return  # groups that do not fit stay in the training set
    split = split_by_group(group_of_gene, config)
    assert (pd.Series(split).groupby(group_of_gene).nunique() == 1).all()
    for name in ("val", "test"):
        assert abs((split == name).sum() - fraction * len(groups)) <= largest
    assert (split == split_by_group(group_of_gene, config)).all()


def test_any_genes_are_held_out_when_each_is_its_own_group() -> None:
    n = 1000
    splits = [split_by_group(np.arange(n), SplitConfig(random=True, seed=seed)) for seed in range(20)]
    assert all((split == name).sum() == 100 for split in splits for name in ("val", "test"))
    held_out = np.mean([split != "train" for split in splits], axis=0)
    assert abs(np.corrcoef(held_out, np.arange(n))[0, 1]) < 0.15  # wherever they stand in the table
    assert len({tuple(split) for split in splits}) == 20


def test_homology_groups_too_large_to_hold_out_are_refused() -> None:
    with pytest.raises(InputError, match="2 homology groups of 10 genes leave none for val and test"):
        split_by_group(np.array([0] * 5 + [1] * 5), SplitConfig(by="family"))


@pytest.mark.parametrize("other", [{"random": True}, {"by": "family"}])
def test_chromosomes_are_not_named_where_they_are_not_held_out(other: dict) -> None:
    with pytest.raises(
        InputError, match=r"`SplitConfig.test`: `SplitConfig\.\w+(='family')?` .*`SplitConfig.test_fraction`"
    ):
        SplitConfig(test=["chr1"], **other)
    with pytest.raises(InputError, match="exclude each other"):
        SplitConfig(random=True, by="family")
