"""What a split never divides, dealt out to sets, to folds, and to the folds of a search."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from promoter.dataset.promoters import Promoters
from promoter.errors import InputError, InputNote
from promoter.sequence import decode
from promoter.splits.assign import assign_splits
from promoter.splits.config import SplitConfig
from promoter.splits.folds import remarks_on_folds, search_folds
from promoter.splits.units import find_groups

LENGTH = 120
UNITS = ("chromosome", "family", "block", "group", "random")


def genome(sizes: list[int], *, apart: int = 500, seed: int = 0) -> Promoters:
    """Chromosomes with so many genes each, on either strand, about `apart` bases from each other."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    tss = np.concatenate([np.sort(rng.integers(LENGTH, apart * size + LENGTH, size)) for size in sizes])
    forward = rng.random(n) < 0.5
    start = np.where(forward, tss - LENGTH, tss + 1)
    genes = pd.DataFrame(
        {
            "gene_id": [f"g{i}" for i in range(n)],
            "chrom": np.repeat([f"chr{i}" for i in range(len(sizes))], sizes),
            "tss": tss,
            "strand": np.where(forward, "+", "-"),
            "start": start,
            "end": start + LENGTH,
            "sequence": decode(rng.integers(0, 4, (n, LENGTH), dtype=np.uint8)),
        }
    )
    window = {"upstream": LENGTH, "downstream": 0}
    return Promoters(genes, np.zeros((n, 1), np.float32), ["y"], {"window": window})


def library(n: int, **columns: Any) -> Promoters:
    tokens = np.random.default_rng(1).integers(0, 4, (n, LENGTH), dtype=np.uint8)
    genes = pd.DataFrame({"gene_id": [f"s{i}" for i in range(n)], "sequence": decode(tokens)})
    genes = genes.assign(chrom=None, tss=None, strand=None, start=None, end=None, **columns)
    return Promoters(genes, np.zeros((n, 1), np.float32), ["y"], {"window": None})


def with_groups(promoters: Promoters, groups: list[Any]) -> Promoters:
    return replace(promoters, genes=promoters.genes.assign(group=groups))


def units_of(promoters: Promoters, config: SplitConfig) -> list[Any]:
    """The unit of each gene, found anew."""
    genes = promoters.genes
    if config.by == "chromosome":
        return genes["chrom"].tolist()
    if config.by == "block":
        return [(chrom, tss // config.block_size) for chrom, tss in zip(genes["chrom"], genes["tss"], strict=True)]
    if config.by == "group":
        return genes["group"].tolist()
    if config.by == "random":
        return genes["gene_id"].tolist()
    unit = list(range(len(genes)))  # of a family: windows that overlap, directly or through others
    place = list(zip(genes["chrom"], genes["start"], genes["end"], strict=True))
    for i, (chrom, start, end) in enumerate(place):
        for j in range(i):
            if place[j][0] == chrom and start < place[j][2] and place[j][1] < end:
                unit = [unit[j] if one == unit[i] else one for one in unit]
    return unit


@pytest.mark.parametrize("by", UNITS)
@pytest.mark.parametrize("task", ["split", "folds", "search"])
def test_no_unit_is_divided_and_each_gene_is_held_out_once(by: str, task: str) -> None:
    promoters = genome([70, 60, 40, 50, 55, 45], apart=300)
    promoters = with_groups(promoters, [f"x{i % 37}" for i in range(len(promoters))])
    block = {"block_size": 2_000} if by == "block" else {}
    config = SplitConfig(by=by, val_fraction=0.2, test_fraction=0.2, seed=3, **block)  # type: ignore[arg-type]
    unit = pd.Series(units_of(promoters, config))
    if task == "folds":
        splits = [assign_splits(promoters, replace(config, fold=[fold, 4])) for fold in range(1, 5)]
        held_out, equal = "test", len(promoters) / 4
    elif task == "search":
        found = search_folds(promoters, config, 4)
        splits, held_out = found.folds, "val"
        equal = (len(promoters) - len(found.final.rows("test"))) / 4
        for fold in splits:  # none looks at the test genes
            assert set(fold.rows("test")) == set(found.final.rows("test"))
        assert not found.searched[found.final.rows("test")].any()
    else:
        splits, held_out, equal = [assign_splits(promoters, config)], "test", len(promoters) / 5
    times = Counter(row for split in splits for row in split.rows(held_out))
    for split in splits:
        sets = pd.Series(split.split)
        assert (sets.groupby(unit).nunique() <= 1).all()  # genes left out near a border are in no set
        largest = unit.value_counts().max()
        assert abs(len(split.rows(held_out)) - equal) <= largest
        assert sets.isna().any() == (by == "block")
        assert set(sets.dropna()) == {"train", "val", "test"}
    if task == "folds":
        assert times == Counter(range(len(promoters)))
        assert all(set(a.rows("val")) == set(b.rows("test")) for a, b in pairwise(splits))
    if task == "search":
        assert times == Counter(np.flatnonzero(splits[0].split != "test").tolist())


@given(st.integers(0, 1000), st.integers(200, 3000), st.integers(120, 900))
@settings(max_examples=40, deadline=None)
def test_no_training_window_shares_a_base_with_a_window_of_another_set(seed: int, block: int, apart: int) -> None:
    promoters = genome([150], apart=apart, seed=seed)
    config = SplitConfig(by="block", block_size=block, val_fraction=0.15, test_fraction=0.15)
    try:
        found = assign_splits(promoters, config)
    except InputError as error:
        event(str(error).split(":")[0])  # too few blocks, or none far from a border
        return
    place = list(zip(promoters.genes["start"], promoters.genes["end"], strict=True))
    for row in found.rows("train"):
        start, end = place[row]
        for name in ("val", "test"):
            assert all(place[other][1] <= start or end <= place[other][0] for other in found.rows(name))
    assert not found.leaking.any()
    # what is left out lies within a window's length of a block that is held out
    held_out = {promoters.genes["tss"].iloc[row] // block for name in ("val", "test") for row in found.rows(name)}
    for row in np.flatnonzero(pd.isna(found.split)):
        start, end = place[row]
        assert any(start - LENGTH < (b + 1) * block and b * block < end + LENGTH for b in held_out)


def test_a_single_chromosome_is_refused_with_the_way_out_and_blocks_are_that() -> None:
    promoters = genome([120])
    with pytest.raises(InputError, match=r"1 chromosome \(chr0\) cannot be split .*`SplitConfig.by='block'`"):
        assign_splits(promoters, SplitConfig())
    with pytest.raises(InputError, match=r"there is only 1 chromosome .*`SplitConfig.by='block'`"):
        assign_splits(promoters, SplitConfig(fold=[1, 3]))
    found = assign_splits(promoters, SplitConfig(by="block", block_size=3_000))
    assert {name: len(found.rows(name)) > 5 for name in ("train", "val", "test")} == dict.fromkeys(
        ("train", "val", "test"), True
    )
    with pytest.raises(InputError, match=r"`SplitConfig.block_size=100`: is less than the 120 bases of a window"):
        assign_splits(promoters, SplitConfig(by="block", block_size=100))
    with pytest.raises(InputError, match=r"leave none for .* `SplitConfig.by='family'`"):
        assign_splits(promoters, SplitConfig(by="block"))  # 100,000 bases hold them all


@pytest.mark.parametrize(
    ("sizes", "config", "expected"),
    [
        ([46, 36, 18], {}, ["val holds 36% of the genes, 10% were asked for", "test holds 18%"]),
        ([100] * 10, {}, []),
        ([83, 11, 6], {}, ["test holds 6% of the genes, 10%"]),
        ([46, 36, 18], {"val": ["chr0"]}, ["test holds 18%"]),
        ([46, 36, 18], {"val": ["chr0"], "test": ["chr1"]}, []),
        ([46, 36, 18], {"val_fraction": 0.36, "test_fraction": 0.18}, []),
    ],
)
def test_a_share_that_is_off_by_a_third_is_announced(
    sizes: list[int], config: dict[str, Any], expected: list[str]
) -> None:
    remarks = [
        line for line in assign_splits(genome(sizes, apart=2000), SplitConfig(**config)).remarks if "holds" in line
    ]
    assert len(remarks) == len(expected)
    for start in expected:
        assert any(line.startswith(start) and "chromosomes are never divided" in line for line in remarks)


def test_a_large_family_makes_the_shares_be_announced() -> None:
    promoters = library(100)
    promoters.genes.loc[:69, "sequence"] = promoters.genes["sequence"].iloc[0]
    found = assign_splits(promoters, SplitConfig(by="family", val_fraction=0.3, test_fraction=0.3))
    assert [line for line in found.remarks if "homology groups are never divided" in line]
    with pytest.raises(InputError, match="the largest has 70"):
        assign_splits(library_of_one(70), SplitConfig(by="family"))


def library_of_one(n: int) -> Promoters:
    promoters = library(n)
    return replace(promoters, genes=promoters.genes.assign(sequence=promoters.genes["sequence"].iloc[0]))


def test_folds_of_very_unequal_units_are_announced() -> None:
    promoters = with_groups(genome([300]), ["a"] * 200 + ["b"] * 60 + ["c"] * 40)
    splits = [assign_splits(promoters, SplitConfig(by="group", fold=[fold, 3])) for fold in (1, 2, 3)]
    remarks = remarks_on_folds(splits, "test", "group")
    assert remarks[0] == "fold 1 holds 200, an equal share is 100: groups are never divided"
    assert len(remarks) == 3


@pytest.mark.parametrize(
    ("columns", "by"),
    [
        ({"split": "abc", "group": "xyz"}, "column"),
        ({"group": "xyz"}, "group"),
        ({}, "family"),
        ({"split": None, "group": "xyz"}, "group"),  # a column that marks nothing
    ],
)
def test_the_default_of_a_library_is_its_column_then_its_groups_then_families_and_is_said(
    columns: dict[str, Any], by: str
) -> None:
    names = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    made = {
        name: value and (names if name == "split" else [f"g{i // 2}" for i in range(60)])
        for name, value in columns.items()
    }
    with pytest.warns(InputNote, match=f"split by {by}, as `SplitConfig.by='{by}'` does"):
        found = assign_splits(library(60, **made), SplitConfig())
    if by == "column":
        assert found.split.tolist() == names
    elif by == "group":
        assert (pd.Series(found.split).groupby(made["group"]).nunique() == 1).all()


def test_a_column_without_validation_has_it_drawn_from_training_by_whole_groups() -> None:
    names = ["train"] * 80 + ["test"] * 20 + [None] * 5
    groups = [f"g{i // 4}" for i in range(105)]
    found = assign_splits(library(105, split=names, group=groups), SplitConfig(by="column"))
    assert (found.split[80:100] == "test").all()
    assert pd.isna(found.split[100:]).all()
    assert "val is drawn from the column's train, by whole groups" in found.remarks
    assert "5 sequences without a value in the column split: in no set" in found.remarks
    assert 6 <= len(found.rows("val")) <= 12
    assert (pd.Series(found.split[:80]).groupby(groups[:80]).nunique() == 1).all()
    assert set(found.split[:80]) == {"train", "val"}
    folds = search_folds(library(105, split=names, group=groups), SplitConfig(by="column"), 4)
    assert sorted(row for fold in folds.folds for row in fold.rows("val")) == list(range(80))
    assert folds.final.split.tolist() == found.split.tolist()


@pytest.mark.parametrize(
    ("columns", "config", "message"),
    [
        (
            {"split": ["train", "test"] * 30, "group": ["a", "b"] * 15 + ["b", "a"] * 15},
            "column",
            "divides 2 groups",
        ),
        ({"split": ["train"] * 60}, "column", "marks no sequence as test"),
        ({"split": ["test"] * 60}, "column", "marks no sequence as train"),
        ({"split": ["1", "2"] * 30}, "column", "has 1, 2; its sets are called train, val, test"),
        (
            {},
            "column",
            r"no column split; give `SplitConfig.by='family'`, or prepare a table with it \(`split_column`\)",
        ),
        ({"split": ["train", "test"] * 30}, "group", "no column group; give `SplitConfig.by='column'` or"),
        ({}, "chromosome", "the sequences lie on no chromosome; give `SplitConfig.by='family'`"),
        ({}, "block", "the sequences lie on no chromosome"),
    ],
)
def test_a_unit_that_the_library_does_not_have_is_refused_with_those_that_it_has(
    columns: dict[str, Any], config: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        assign_splits(library(60, **columns), SplitConfig(by=config))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_size": 5000}, "`SplitConfig.block_size=5000`: is the number of bases"),
        ({"block_size": 0, "by": "block"}, "must be at least 1"),
        ({"fold": [1, 2]}, "N at least 3"),
        ({"fold": [4, 3]}, "must be two numbers"),
        ({"fold": [0, 3]}, "must be at least 1"),
        ({"fold": [1]}, "must be two numbers"),
        ({"fold": [1, 3], "by": "column"}, "has one test set"),
        ({"fold": [1, 3], "homology": "move"}, "would never test"),
        ({"fold": [1, 3], "test": ["chr1"]}, "each fold has its own"),
        ({"random": True, "by": "block"}, "exclude each other"),
        ({"by": "group", "val": ["chr1"]}, "does not hold out chromosomes"),
    ],
)
def test_settings_of_a_split_that_exclude_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SplitConfig(**settings)


def test_random_is_another_spelling_also_beside_the_unit_that_was_the_default() -> None:
    promoters = genome([60, 60])
    spelled = [SplitConfig(random=True), SplitConfig(by="random"), SplitConfig(by="chromosome", random=True)]
    splits = [assign_splits(promoters, config).split.tolist() for config in spelled]
    assert splits[0] == splits[1] == splits[2]


def test_a_search_without_a_number_of_folds_takes_as_many_as_there_are_units_up_to_three() -> None:
    for chromosomes, folds in ((3, 2), (4, 3), (9, 3)):
        found = search_folds(genome([30] * chromosomes), SplitConfig(), None)
        assert len(found.folds) == folds
    with pytest.raises(InputError, match=r"only 2 chromosomes .* give at most 2 folds"):
        search_folds(genome([30] * 3), SplitConfig(), 3)
    one = search_folds(genome([30] * 5), SplitConfig(val=["chr1"]), 1)
    assert one.folds[0].split.tolist() == one.final.split.tolist()


def test_homologs_are_dropped_in_each_fold_of_a_search_and_moved_never_into_it() -> None:
    promoters = genome([40] * 6, apart=3000)
    promoters.genes.loc[:5, "sequence"] = promoters.genes["sequence"].iloc[100:106].to_numpy()
    found = search_folds(promoters, SplitConfig(homology="drop", test=["chr5"]), 3)
    for fold in found.folds:
        for row, copy in zip(range(6), range(100, 106), strict=True):
            pair = {fold.split[row], fold.split[copy]}
            assert pair in ({"train"}, {"val"}, {"val", None}, {"test", None})


def test_ungrouped_sequences_are_groups_of_their_own_and_that_is_said() -> None:
    groups = ["a"] * 10 + ["b"] * 10 + [None] * 40
    with pytest.warns(InputNote, match="40 sequences without a group"):
        found = assign_splits(
            library(60, group=groups), SplitConfig(by="group", val_fraction=0.2, test_fraction=0.2)
        )
    assert len(set(found.unit[20:])) == 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assign_splits(library(60, group=[f"g{i}" for i in range(60)]), SplitConfig(by="group"))


def related_genome() -> Promoters:
    """Six chromosomes; of 60 genes 0 and 1 are copies, 10 and 11 share most of a window, 20 and 21 a fifth."""
    promoters = genome([10] * 6, apart=5000)
    genes = promoters.genes.copy()
    genes["tss"] = genes["start"] = np.tile(np.arange(10) * 5000, 6) + LENGTH
    for gene, shared in ((10, 0.8), (20, 0.2)):
        genes.loc[gene + 1, ["start", "tss"]] = genes["start"][gene] + LENGTH - int(shared * LENGTH)
    genes["strand"], genes["end"] = "+", genes["start"] + LENGTH
    genes.loc[1, "sequence"] = genes["sequence"][0]
    return replace(promoters, genes=genes)


def together(groups: np.ndarray) -> set[tuple[int, ...]]:
    """The groups of more than one gene."""
    members = pd.Series(np.arange(len(groups))).groupby(groups).agg(tuple)
    return {rows for rows in members if len(rows) > 1}


def test_a_split_by_chromosome_resamples_homologs_and_windows_that_overlap_by_half_in_the_same_set() -> None:
    promoters = related_genome()
    config = SplitConfig(by="chromosome", val=["chr4"], test=["chr5"])
    assert together(assign_splits(promoters, config).group) == {(0, 1), (10, 11)}
    genes = promoters.genes.copy()
    genes.loc[1, ["chrom", "start", "end", "tss"]] = ["chr5", 900_000, 900_000 + LENGTH, 900_000 + LENGTH]
    parted = replace(promoters, genes=genes)
    assert together(assign_splits(parted, config).group) == {(10, 11)}  # 0 trains, 1 tests
    everyone = ["test"] * 60
    assert together(find_groups(parted, config, everyone)) == {(0, 1), (10, 11)}


@pytest.mark.parametrize("by", ["block", "family", "group", "random"])
def test_other_splits_resample_what_they_do_not_divide(by: Any) -> None:
    promoters = with_groups(related_genome(), [f"x{i // 3}" for i in range(60)])
    blocks: dict[str, Any] = {"block_size": 12_000} if by == "block" else {}
    split = assign_splits(promoters, SplitConfig(by=by, **blocks))
    np.testing.assert_array_equal(split.group, split.unit)
    sizes = {"block": 60, "family": 3, "group": 60, "random": 0}
    assert sum(map(len, together(split.group))) >= sizes[by]


def test_data_without_the_unit_of_the_model_is_resampled_by_families() -> None:
    promoters = library(30)
    promoters.genes.loc[7, "sequence"] = promoters.genes["sequence"][3]
    for by in ("chromosome", "block", "group", "family", "column"):
        assert together(find_groups(promoters, SplitConfig(by=by), ["new"] * 30)) == {(3, 7)}
