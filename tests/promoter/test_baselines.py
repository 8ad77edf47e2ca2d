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
    COMPOSITION_UNITS,
    BaselineInputs,
    FittedBaseline,
    apply_baselines,
    composition,
    fit_baselines,
    fit_coefficients,
    kmer_counts,
)
from promoter.dataset.annotation import read_genes
from promoter.dataset.expression import read_expression
from promoter.dataset.genome import Genome
from promoter.dataset.prepare import prepare
from promoter.errors import InputError
from promoter.evaluation.evaluate import evaluate
from promoter.evaluation.predictions import baselines_table, separate_baselines
from promoter.kept_baselines import load_baselines, save_baselines
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


def test_a_share_of_n_that_hardly_varies_in_training_moves_no_prediction_far_away() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (400, 500)).astype(np.uint8)
    targets = rng.normal(4, 1, (400, 1)).astype(np.float32)
    tokens[:5, 0] = 4  # one base in 500, in genes that happen to be low
    targets[:5] -= 2
    tokens[399, :400] = 4  # held out, and nearly all N
    in_training = np.arange(400) < 300
    x, y = composition(tokens), targets[:, 0]
    assert LinearRegression().fit(x[in_training], y[in_training]).predict(x[399:])[0] < -100
    found = fit_baselines(tokens, targets, np.arange(400) % 8, in_training)["composition"]
    assert abs(found[399, 0] - 4) < 6
    assert np.abs(found[:399] - 4).max() < 2


def test_a_crop_adds_the_baselines_of_the_bases_that_the_network_sees() -> None:
    tokens, targets = measured(150, 0)
    in_training, units = np.arange(150) < 120, np.arange(150) // 10
    window = fit_baselines(tokens, targets, units, in_training)
    seen = fit_baselines(tokens[:, -40:], targets, units, in_training)
    found, coefficients = fit_coefficients(tokens, targets, units, in_training, crop=40)
    cropped = ["composition_last_40", "kmers_last_40", "kmers_by_distance_last_40"]
    assert list(found) == [*window, *cropped]  # a mean is the same
    for name, values in found.items():
        expected = seen[name.removesuffix("_last_40")] if name in cropped else window[name]
        np.testing.assert_array_equal(values, expected)
    for name, values in apply_baselines(coefficients, tokens).items():
        np.testing.assert_allclose(values, found[name], atol=1e-4)
    for crop in (None, 60, 100):  # all of the window
        assert list(fit_baselines(tokens, targets, units, in_training, crop=crop)) == list(window)


def test_composition_of_known_sequences_is_as_counted_by_hand() -> None:
    found = composition(encode(["CGCGCGCG", "GGGGCCCC", "AATTNNNN", "NNNNNNNN"]))
    np.testing.assert_allclose(found[0], [1, 4 / (4 * 4 / 8), 0])
    np.testing.assert_allclose(found[1], [1, 0, 0])
    np.testing.assert_allclose(found[2], [0, 0, 0.5])
    np.testing.assert_allclose(found[3], [0, 0, 1])


def test_targets_of_held_out_genes_change_no_baseline() -> None:
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, 4, (90, 80)).astype(np.uint8)
    targets = rng.normal(size=(90, 2)).astype(np.float32)
    chroms = np.arange(90) % 6
    learned = chroms < 4
    first = fit_baselines(tokens, targets, chroms, learned)
    targets[~learned] = np.nan
    second = fit_baselines(tokens, targets, chroms, learned)
    assert set(first) == {"mean", "composition", "kmers", "kmers_by_distance"}
    for name, values in first.items():
        assert values.shape == (90, 2)
        np.testing.assert_array_equal(values, second[name])
    np.testing.assert_allclose(first["mean"], np.tile(targets[learned].mean(axis=0), (90, 1)), rtol=1e-5)


def test_ridge_takes_a_lone_training_chromosome_and_a_short_window() -> None:
    tokens = np.random.default_rng(3).integers(0, 4, (30, 10)).astype(np.uint8)
    targets = np.random.default_rng(4).normal(size=(30, 1)).astype(np.float32)
    chroms = np.repeat([0, 1], [20, 10])
    found = fit_baselines(tokens, targets, chroms, chroms == 0)
    assert set(found) == {"mean", "composition", "kmers"}
    assert all(np.isfinite(values).all() for values in found.values())


def test_ridge_reaches_on_yeast_what_it_reached_elsewhere(yeast: Path) -> None:
    genes, expression = read_genes(yeast / "genes.bed"), read_expression(yeast / "salt_response.tsv")
    promoters, _ = prepare(Genome(yeast / "genome.fa.gz"), genes, expression, upstream=1000)
    chroms = promoters.genes["chrom"]
    test = chroms.isin(["chrIV", "chrXV"]).to_numpy()
    found = fit_baselines(promoters.tokens, promoters.targets, chroms.to_numpy(), ~test)
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
    chroms = np.repeat([0, 1, 2, 3], 60)
    learned = chroms != 3
    predicted = fit_baselines(tokens, targets, chroms, learned, embedded=embedded)["embeddings"]
    assert np.corrcoef(predicted[~learned, 0], targets[~learned, 0])[0, 1] > 0.98
    assert "embeddings" not in fit_baselines(tokens, targets, chroms, learned)


def test_a_registered_baseline_is_fitted_and_comes_out_of_the_table_of_the_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit_median(inputs: BaselineInputs) -> FittedBaseline:
        return FittedBaseline(np.tile(np.median(inputs.targets, axis=0), (len(inputs.tokens), 1)))

    monkeypatch.setitem(BASELINES, "median", fit_median)
    rng = np.random.default_rng(6)
    tokens, targets = rng.integers(0, 4, (40, 30)).astype(np.uint8), rng.normal(size=(40, 2)).astype(np.float32)
    chroms = np.repeat([0, 1, 2, 3], 10)
    in_training = chroms != 3
    fitted = fit_baselines(tokens, targets, chroms, in_training)
    assert list(fitted) == ["mean", "composition", "kmers", "kmers_by_distance", "median"]
    table = pd.DataFrame({"gene_id": [f"g{i}" for i in range(40)], "chrom": chroms.astype(str)})
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
    chroms = np.repeat(np.arange(8), 30)
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


def is_a_ridge(
    predicted: np.ndarray, x: np.ndarray, y: np.ndarray, known: np.ndarray, weights: np.ndarray | None = None
) -> bool:
    """Tell whether predictions are those of scikit-learn with one of the penalties that are tried."""
    w = np.ones(len(x)) if weights is None else weights
    mean = np.average(x[known], axis=0, weights=w[known])
    unit = (w[known, None] * np.square(x[known] - mean)).sum() / x.shape[1]
    fits = [
        Ridge(alpha=unit * 10**exponent).fit(x[known], y[known], sample_weight=w[known]).predict(x)
        for exponent in np.arange(-2.5, 2, 0.5)
    ]
    return min(np.abs(values - predicted).max() for values in fits) < 1e-3


def test_a_ridge_of_observed_genes_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 4, (120, 40)).astype(np.uint8)
    targets = rng.normal(size=(120, 2)).astype(np.float32)
    targets[rng.permutation(100)[:40], 1] = np.nan
    in_training = np.arange(120) < 100
    found = fit_baselines(tokens, targets, np.zeros(120, int), in_training)
    scaled, counts = composition(tokens) / COMPOSITION_UNITS, np.log1p(kmer_counts(tokens)).astype(float)
    for index in range(2):
        known = in_training & ~np.isnan(targets[:, index])
        assert found["mean"][0, index] == pytest.approx(targets[known, index].mean(), abs=1e-6)
        for name, x in (("composition", scaled), ("kmers", counts)):
            assert is_a_ridge(found[name][:, index], x, targets[:, index], known)


def test_targets_observed_in_the_same_genes_are_fitted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    targets = rng.normal(size=(60, 50)).astype(np.float32)
    calls = []
    monkeypatch.setitem(BASELINES, "mean", lambda inputs: calls.append(inputs.targets.shape))
    tokens, chroms, in_training = rng.integers(0, 4, (60, 30)), np.zeros(60, int), np.arange(60) < 40
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
    found = fit_baselines(tokens, targets, np.zeros(60, int), np.arange(60) < 40)
    for values in found.values():
        assert np.isfinite(values[:, 0]).all()
        assert np.isnan(values[:, 1]).all()


def measured(n: int, seed: int, length: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Make sequences whose GC content two targets follow, the second with gaps."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, (n, length)).astype(np.uint8)
    targets = (composition(tokens)[:, :1] * 10 + rng.normal(size=(n, 2))).astype(np.float32)
    targets[rng.random(n) < 0.3, 1] = np.nan
    return tokens, targets


def test_weighted_baselines_are_scikit_learns() -> None:
    tokens, targets = measured(150, 0)
    targets = targets[:, :1]
    rng = np.random.default_rng(1)
    weights = rng.lognormal(size=150).astype(np.float32)
    weights[:5] = 0
    targets[:5] = 1e5  # of weight 0
    in_training = np.arange(150) < 120
    found = fit_baselines(tokens, targets, np.zeros(150, int), in_training, weights=weights)
    y, w = targets[in_training, 0], weights[in_training]
    assert found["mean"][0, 0] == pytest.approx(np.average(y, weights=w), rel=1e-5)
    features = {"composition": composition(tokens) / COMPOSITION_UNITS, "kmers": np.log1p(kmer_counts(tokens))}
    for name, x in features.items():
        assert is_a_ridge(
            found[name][:, 0], x.astype(float), targets[:, 0], in_training, weights / w[w > 0].mean()
        )


def test_the_unit_of_weights_and_equal_weights_change_no_baseline() -> None:
    tokens, targets = measured(150, 0)
    in_training, units = np.arange(150) < 120, np.arange(150) // 10
    plain = fit_baselines(tokens, targets, units, in_training)
    equal = fit_baselines(tokens, targets, units, in_training, weights=np.full(150, 0.3, np.float32))
    weights = np.random.default_rng(1).lognormal(size=150)
    some, others = (
        fit_baselines(tokens, targets, units, in_training, weights=weights * unit) for unit in (1, 1000)
    )
    for name, values in plain.items():
        np.testing.assert_allclose(equal[name], values, rtol=1e-4)
        np.testing.assert_allclose(some[name], others[name], rtol=1e-4)
        assert np.abs(some[name] - values).max() > 1e-3


@pytest.mark.parametrize("n", [150, 2600])  # fewer genes than features of kmers, and more
def test_kept_baselines_predict_what_the_fit_did_and_other_sequences_as_if_they_had_been_there(n: int) -> None:
    tokens, targets = measured(n, 0)
    others, _ = measured(700, 1)  # more than are counted at a time
    in_training, units = np.arange(n) < 0.8 * n, np.arange(n) % 7
    fitted, coefficients = fit_coefficients(tokens, targets, units, in_training)
    assert list(coefficients) == ["mean", "composition", "kmers", "kmers_by_distance"]
    both = np.concatenate([tokens, others])
    unknown = np.full((700, 2), np.nan, np.float32)
    together = fit_baselines(
        both,
        np.concatenate([targets, unknown]),
        np.append(units, np.zeros(700, int)),
        np.arange(len(both)) < 0.8 * n,
    )
    for name, values in apply_baselines(coefficients, both).items():
        np.testing.assert_allclose(values[:n], fitted[name], rtol=1e-4)
        np.testing.assert_allclose(values, together[name], rtol=1e-4)


def test_baselines_are_kept_in_the_models_folder_without_those_on_embeddings(tmp_path: Path) -> None:
    tokens, targets = measured(90, 0)
    targets[:, 1] = np.nan
    embedded = np.random.default_rng(0).normal(size=(90, 1, 4)).astype(np.float32)
    fitted, coefficients = fit_coefficients(
        tokens, targets, np.arange(90) % 5, np.arange(90) < 70, embedded=embedded
    )
    assert fitted.keys() - coefficients.keys() == {"embeddings"}
    save_baselines(tmp_path, coefficients, "abc", 60)
    kept = load_baselines(tmp_path, "abc", 60)
    assert list(kept) == list(coefficients)
    for name, values in kept.items():
        np.testing.assert_array_equal(values, coefficients[name])
        assert np.isnan(apply_baselines(kept, tokens)[name][:, 1]).all()
    with pytest.raises(ValueError, match="kmers_by_distance has 6240 features, and 2080 coefficients"):
        apply_baselines({"kmers_by_distance": kept["kmers"]}, tokens)
    assert load_baselines(tmp_path / "elsewhere", "abc", 60) == load_baselines(tmp_path, "abc", 61) == {}


def test_baselines_that_are_damaged_or_of_another_model_are_refused(tmp_path: Path) -> None:
    save_baselines(tmp_path, {"mean": np.zeros((1, 1))}, "abc", 60)
    with pytest.raises(InputError, match="baselines of another model"):
        load_baselines(tmp_path, "abd", 60)
    path = tmp_path / "baselines.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:-3], b"x" * 40, whole.replace(b'"format":"1"', b'"format":"2"')):
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"baselines\.safetensors: (is damaged|the file .* is empty|has format 2)"
        ):
            load_baselines(tmp_path, "abc", 60)


def folds_of(units: list | np.ndarray) -> np.ndarray:
    """Return the folds that a baseline of this name is given for genes of these units."""
    seen: list[np.ndarray] = []

    def watch(inputs: BaselineInputs) -> None:
        seen.append(inputs.fold_of_gene)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promoter.baselines.BASELINES", {"watch": watch})
        n = len(units)
        fit_baselines(
            np.zeros((n, 8), np.uint8), np.zeros((n, 1), np.float32), np.asarray(units), np.ones(n, bool)
        )
    return seen[0]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60))
def test_no_unit_is_parted_by_the_choice_of_a_penalty_and_folds_are_about_equal(units: list[int]) -> None:
    fold, sizes = folds_of(units), Counter(units)
    if len(sizes) == 1:
        assert (np.diff(fold) >= 0).all()  # consecutive blocks
        return
    assert all(len(set(fold[np.asarray(units) == unit])) == 1 for unit in sizes)
    genes = Counter(fold.tolist())
    assert set(genes) == set(range(min(3, len(sizes))))
    assert max(genes.values()) - min(genes.values()) <= max(sizes.values())


def test_thousands_of_units_are_dealt_out_evenly_and_names_of_units_do_as_well_as_numbers() -> None:
    alone = folds_of(np.arange(30_000))
    assert Counter(alone.tolist()) == {0: 10_000, 1: 10_000, 2: 10_000}
    units = np.random.default_rng(0).integers(0, 9, 200)
    np.testing.assert_array_equal(folds_of(units), folds_of([f"chr{unit}" for unit in units]))
