from __future__ import annotations

import functools
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge

from promoter.baselines import (
    BASELINES,
    BaselineInputs,
    composition,
    fit_baselines,
    kmer_counts,
    ridge,
)
from promoter.dataset.annotation import read_genes
from promoter.dataset.expression import read_expression
from promoter.dataset.genome import Genome
from promoter.dataset.prepare import prepare
from promoter.evaluation.evaluate import evaluate
from promoter.evaluation.predictions import baselines_table, separate_baselines
from promoter.metrics import pearson
from promoter.sequence import encode, reverse_complement

SE = 0.026  # of r on the 1,369 test genes


def counted(sequence: str, k: int) -> Counter[str]:
    """Written out: each word or its reverse complement, whichever comes first in the alphabet."""
    words = (sequence[i : i + k] for i in range(len(sequence) - k + 1))
    return Counter(min(w, str(reverse_complement(w))) for w in words if "N" not in w)


@functools.cache
def canonical_kmers(k: int) -> list[str]:
    """Written out, in alphabetical order."""
    words = map("".join, itertools.product("ACGT", repeat=k))
    return sorted({min(word, str(reverse_complement(word))) for word in words})


@given(st.lists(st.text("ACGTN", min_size=12, max_size=12), min_size=1, max_size=4), st.integers(1, 6))
def test_kmers_are_counted_as_written_out(sequences: list[str], k: int) -> None:
    counts = kmer_counts(encode(sequences), k)
    names = canonical_kmers(k)
    for row, sequence in zip(counts, sequences, strict=True):
        expected = counted(sequence, k)
        assert {name: int(n) for name, n in zip(names, row, strict=True) if n} == expected


def test_there_are_2080_canonical_6_mers() -> None:
    assert len(canonical_kmers(6)) == 2080
    assert kmer_counts(encode(["ACGTAC"])).shape == (1, 2080)


def test_a_bin_counts_the_words_that_begin_in_it() -> None:
    sequence = "ACGTTGCAAC"
    counts = kmer_counts(encode([sequence]), 3, starts=(0, 4))[0].reshape(2, -1)
    np.testing.assert_array_equal(counts[0], kmer_counts(encode([sequence[:6]]), 3)[0])
    np.testing.assert_array_equal(counts[1], kmer_counts(encode([sequence[4:]]), 3)[0])


def test_kmers_of_both_strands_count_the_same() -> None:
    tokens = np.random.default_rng(0).integers(0, 5, (20, 60)).astype(np.uint8)
    np.testing.assert_array_equal(kmer_counts(tokens), kmer_counts(np.asarray(reverse_complement(tokens))))


def test_composition_of_known_sequences_is_as_counted_by_hand() -> None:
    found = composition(encode(["CGCGCGCG", "GGGGCCCC", "AATTNNNN", "NNNNNNNN"]))
    np.testing.assert_allclose(found[0], [1, 4 / (4 * 4 / 8), 0])
    np.testing.assert_allclose(found[1], [1, 0, 0])
    np.testing.assert_allclose(found[2], [0, 0, 0.5])
    np.testing.assert_allclose(found[3], [0, 0, 1])


@pytest.mark.parametrize(("genes", "features"), [(300, 20), (60, 90)])  # more genes than features, and fewer
def test_ridge_is_scikit_learns_with_the_penalty_that_is_best_on_what_is_left_out(
    genes: int, features: int
) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(2, 1, (genes, features)).astype(np.float32)
    y = x[:, :2] @ rng.normal(size=(2, 2)) + rng.normal(size=(genes, 2)) + 7
    learned = np.arange(genes) % 5 > 0
    fold = np.arange(learned.sum()) % 3
    train, known = x[learned].astype(float), y[learned]
    unit = ((train - train.mean(axis=0)) ** 2).sum() / features

    def error(exponent: float) -> float:
        total = 0.0
        for held_out in range(3):
            model = Ridge(alpha=unit * 10**exponent).fit(train[fold != held_out], known[fold != held_out])
            off = (model.predict(train[fold == held_out]) - known[fold == held_out]) ** 2
            total += (off / known.var(axis=0)).sum()
        return total

    best = min((-2, -1, 0, 1), key=error)
    best = min((best, best - 0.5, best + 0.5), key=error)
    expected = Ridge(alpha=unit * 10**best).fit(train, known).predict(x.astype(float))
    np.testing.assert_allclose(ridge(x, known, learned, fold), expected, atol=2e-3)  # float32 products


def test_targets_of_held_out_genes_change_no_baseline() -> None:
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, 4, (90, 80)).astype(np.uint8)
    targets = rng.normal(size=(90, 2)).astype(np.float32)
    chroms = pd.Series([f"chr{i % 6}" for i in range(90)])
    learned = ~chroms.isin(["chr4", "chr5"]).to_numpy()
    first = fit_baselines(tokens, targets, chroms, learned)
    targets[~learned] = np.nan
    second = fit_baselines(tokens, targets, chroms, learned)
    assert set(first) == {"mean", "composition", "kmers", "kmers_by_distance"}
    for name, values in first.items():
        assert values.shape == (90, 2)
        np.testing.assert_array_equal(values, second[name])
    np.testing.assert_allclose(first["mean"], np.tile(targets[learned].mean(axis=0), (90, 1)), rtol=1e-5)
    line = LinearRegression().fit(composition(tokens)[learned], targets[learned])
    np.testing.assert_allclose(first["composition"], line.predict(composition(tokens)), atol=1e-4)


def test_ridge_takes_a_lone_training_chromosome_and_a_short_window() -> None:
    tokens = np.random.default_rng(3).integers(0, 4, (30, 10)).astype(np.uint8)
    targets = np.random.default_rng(4).normal(size=(30, 1)).astype(np.float32)
    chroms = pd.Series(["chr1"] * 20 + ["chr2"] * 10)
    found = fit_baselines(tokens, targets, chroms, (chroms == "chr1").to_numpy())
    assert set(found) == {"mean", "composition", "kmers"}
    assert all(np.isfinite(values).all() for values in found.values())


def test_ridge_reaches_on_yeast_what_it_reached_elsewhere(yeast: Path) -> None:
    genes, expression = read_genes(yeast / "genes.bed"), read_expression(yeast / "salt_response.tsv")
    promoters, _ = prepare(Genome(yeast / "genome.fa.gz"), genes, expression, upstream=1000)
    chroms = promoters.genes["chrom"]
    test = chroms.isin(["chrIV", "chrXV"]).to_numpy()
    found = fit_baselines(promoters.tokens, promoters.targets, chroms, ~test)
    observed = promoters.targets[test]
    r = {name: float(pearson(observed, values[test])[0]) for name, values in found.items()}
    assert r["kmers"] == pytest.approx(0.384, abs=SE)
    assert r["kmers_by_distance"] == pytest.approx(0.47, abs=SE)  # with distance the wider window costs nothing
    assert r["composition"] < 0.2


def test_ridge_on_embeddings_learns_what_is_linear_in_them() -> None:
    rng = np.random.default_rng(5)
    embedded = rng.normal(size=(240, 2, 30)).astype(np.float32) * np.logspace(-3, 3, 30, dtype=np.float32)
    weights = rng.normal(size=30) / np.logspace(
        -3, 3, 30
    )  # each entry matters as much as another, once standardised
    targets = (embedded[:, 0] @ weights)[:, None].astype(np.float32)
    tokens = rng.integers(0, 4, (240, 60)).astype(np.uint8)
    chroms = pd.Series(np.repeat(["a", "b", "c", "d"], 60))
    learned = (chroms != "d").to_numpy()
    predicted = fit_baselines(tokens, targets, chroms, learned, embedded=embedded)["embeddings"]
    assert np.corrcoef(predicted[~learned, 0], targets[~learned, 0])[0, 1] > 0.98
    assert "embeddings" not in fit_baselines(tokens, targets, chroms, learned)


def test_a_registered_baseline_is_fitted_and_comes_out_of_the_table_of_the_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit_median(inputs: BaselineInputs) -> np.ndarray:
        return np.tile(np.median(inputs.targets, axis=0), (len(inputs.tokens), 1))

    monkeypatch.setitem(BASELINES, "median", fit_median)
    rng = np.random.default_rng(6)
    tokens, targets = rng.integers(0, 4, (40, 30)).astype(np.uint8), rng.normal(size=(40, 2)).astype(np.float32)
    chroms = pd.Series(np.repeat(["a", "b", "c", "d"], 10))
    in_training = (chroms != "d").to_numpy()
    fitted = fit_baselines(tokens, targets, chroms, in_training)
    assert list(fitted) == ["mean", "composition", "kmers", "kmers_by_distance", "median"]
    table = pd.DataFrame({"gene_id": [f"g{i}" for i in range(40)], "chrom": chroms})
    table["split"] = np.where(in_training, "train", "test")
    for index, name in enumerate(("y", "z")):
        table[name], table[f"{name}_predicted"] = targets[:, index], rng.normal(size=40)
    kept = baselines_table(table, ["y", "z"], fitted)
    alone, others = separate_baselines(
        pd.concat([table, kept.drop(columns=["gene_id", "gene_name", "chrom", "split"])], axis=1), ["y", "z"]
    )
    pd.testing.assert_frame_equal(alone, table)
    assert list(others) == list(fitted)
    np.testing.assert_array_equal(others["median"], np.tile(np.median(targets[in_training], axis=0), (40, 1)))
    judged = evaluate(alone, ["y", "z"], leaking=np.zeros(40, bool), baselines=others)["test"]["z"]["baselines"]
    assert list(judged) == list(fitted)
    off = targets[~in_training, 1] - np.median(targets[in_training, 1])
    assert judged["median"]["mse"] == pytest.approx(float(np.square(off, dtype=np.float64).mean()), rel=1e-5)


def test_each_target_is_fitted_as_if_its_observed_genes_were_all_there_are() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (240, 60)).astype(np.uint8)
    chroms = pd.Series(np.repeat([f"chr{i}" for i in range(8)], 30))
    in_training = np.repeat(np.arange(8) < 6, 30)
    signal = composition(tokens)[:, 0] * 10
    targets = (signal[:, None] + rng.normal(size=(240, 4))).astype(np.float32)
    missing = np.zeros((240, 4), bool)
    missing[:, 1] = missing[:, 3] = rng.random(240) < 0.5  # of one pattern: fitted together
    missing[:30, 2] = True  # a chromosome without values
    targets[missing] = np.nan
    embedded = rng.normal(size=(240, 1, 5)).astype(np.float32)
    found = fit_baselines(tokens, targets, chroms, in_training, embedded=embedded)
    assert list(found) == list(BASELINES)
    for columns in ([0], [1, 3], [2]):
        known = ~missing[:, columns[0]]
        rows = known | ~in_training
        expected = fit_baselines(
            tokens[rows], targets[rows][:, columns], chroms[rows], in_training[rows], embedded=embedded[rows]
        )
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][rows][:, columns], values, rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.isfinite([values[:, columns] for values in found.values()]).all()  # of genes without a value too


def test_a_ridge_of_observed_genes_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 4, (120, 40)).astype(np.uint8)
    targets = rng.normal(size=(120, 2)).astype(np.float32)
    targets[rng.permutation(100)[:40], 1] = np.nan
    in_training = np.arange(120) < 100
    found = fit_baselines(tokens, targets, pd.Series(["c"] * 120), in_training)
    for index in range(2):
        known = in_training & ~np.isnan(targets[:, index])
        assert found["mean"][0, index] == pytest.approx(targets[known, index].mean(), abs=1e-6)
        x = composition(tokens)
        line = LinearRegression().fit(x[known], targets[known, index]).predict(x)
        np.testing.assert_allclose(found["composition"][:, index], line, atol=1e-4)
        counts = np.log1p(kmer_counts(tokens))
        unit = np.square(counts[known] - counts[known].mean(axis=0)).sum() / counts.shape[1]
        fits = [
            Ridge(alpha=unit * 10**exponent).fit(counts[known], targets[known, index]).predict(counts)
            for exponent in np.arange(-2.5, 2, 0.5)
        ]
        errors = [np.abs(values - found["kmers"][:, index]).max() for values in fits]
        assert min(errors) < 1e-3  # of one of the penalties that are tried


def test_targets_observed_in_the_same_genes_are_fitted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    targets = rng.normal(size=(60, 50)).astype(np.float32)
    calls = []
    monkeypatch.setitem(BASELINES, "mean", lambda inputs: calls.append(inputs.targets.shape))
    tokens, chroms, in_training = rng.integers(0, 4, (60, 30)), pd.Series(["c"] * 60), np.arange(60) < 40
    fit_baselines(tokens.astype(np.uint8), targets, chroms, in_training)
    targets[45, 7] = np.nan  # not of a training gene
    fit_baselines(tokens.astype(np.uint8), targets, chroms, in_training)
    targets[5, [3, 4]] = np.nan
    fit_baselines(tokens.astype(np.uint8), targets, chroms, in_training)
    assert calls[:2] == [(40, 50), (40, 50)]
    assert sorted(calls[2:]) == [(39, 2), (40, 48)]


def test_a_target_without_a_training_value_has_no_baseline_prediction() -> None:
    rng = np.random.default_rng(3)
    targets = rng.normal(size=(60, 2)).astype(np.float32)
    targets[:40, 1] = np.nan
    tokens = rng.integers(0, 4, (60, 30)).astype(np.uint8)
    found = fit_baselines(tokens, targets, pd.Series(["c"] * 60), np.arange(60) < 40)
    for values in found.values():
        assert np.isfinite(values[:, 0]).all()
        assert np.isnan(values[:, 1]).all()
