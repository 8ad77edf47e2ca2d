"""Fit baselines on the same genes and the same split as the network, to compare it with.

Each baseline is fitted on the training genes alone, with their weights, and chooses its penalty by leaving out
units of the split (chromosomes, say) in turn. Targets that are observed in the same training genes are fitted
together, on these genes; each other pattern of missing values costs as much again. To add one, write a function of
`BaselineInputs` and a line in `BASELINES`; tables and reports then show it. A baseline that is linear in features
of the sequence is kept with the model, for other data, if its features are in `FEATURES` too.

A network that crops its windows has less to overfit than a baseline of the complete window. So the baselines are
fitted twice: on the window, and on the bases that the network sees, as `kmers_last_500`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from promoter.errors import InputError
from promoter.metrics import observed_groups
from promoter.ridge import ridge, weighted_mean
from promoter.sequence import BASES, N_TOKEN, reverse_complement
from promoter.splits.split import deal

K = 6  # bases of a k-mer: 2,080 canonical ones, about as many as a small genome has genes
_FOLDS = 3
_GENES_PER_COUNT = 500  # bounds the memory of counting
# what GC content, CpG and the share of N vary by; not their spread in the data, so that a rare N has little weight
COMPOSITION_UNITS = (0.05, 0.3, 0.05)


def composition(tokens: np.ndarray) -> np.ndarray:
    """Compute GC content, CpG observed over expected (Gardiner-Garden & Frommer 1987), and the share of N.

    Args:
        tokens: uint8, shape (genes, length).

    Returns:
        float64, shape (genes, 3).
    """
    unknown = (tokens >= N_TOKEN).mean(axis=1)
    known = np.maximum((tokens < N_TOKEN).sum(axis=1), 1)
    c, g = (tokens == 1).sum(axis=1), (tokens == 2).sum(axis=1)
    cpg = ((tokens[:, :-1] == 1) & (tokens[:, 1:] == 2)).sum(axis=1)
    expected = np.maximum(c * g / known, 1)  # at least one, so that sequences without C or G stay finite
    return np.stack([(c + g) / known, cpg / expected, unknown], axis=1)


def kmer_counts(tokens: np.ndarray, k: int = K, starts: tuple[int, ...] = (0,)) -> np.ndarray:
    """Count canonical k-mers: a k-mer and its reverse complement count as one, k-mers with N do not count.

    Args:
        tokens: uint8, shape (genes, length).
        k: number of bases of a k-mer, up to 8 (default 6).
        starts: first index of each bin in which to count separately, ascending from 0; a k-mer belongs to the bin
            of its first base (default: one bin).

    Returns:
        float32, shape (genes, bins * canonical k-mers), bin by bin; a k-mer goes by itself or its reverse
        complement, whichever comes first in the alphabet, and these names are in alphabetical order.
    """
    canonical = _canonical(k)
    size = int(canonical.max()) + 1
    n_kmers = tokens.shape[1] - k + 1
    if n_kmers < 1:
        return np.zeros((len(tokens), len(starts) * size), np.float32)
    bin_of_kmer = np.searchsorted(starts, np.arange(n_kmers), side="right") - 1
    columns = len(starts) * size
    counts = np.empty((len(tokens), columns), np.float32)
    for first in range(0, len(tokens), _GENES_PER_COUNT):
        batch = tokens[first : first + _GENES_PER_COUNT]
        codes = np.zeros((len(batch), n_kmers), np.int64)
        valid = np.ones((len(batch), n_kmers), bool)
        for offset in range(k):
            base = batch[:, offset : offset + n_kmers]
            codes = codes * len(BASES) + base
            valid &= base < N_TOKEN
        column = canonical[np.where(valid, codes, 0)] + bin_of_kmer * size
        column += np.arange(len(batch))[:, None] * columns
        counted = np.bincount(column[valid], minlength=len(batch) * columns)
        counts[first : first + len(batch)] = counted.reshape(len(batch), columns)
    return counts


@functools.lru_cache(maxsize=4)
def _canonical(k: int) -> np.ndarray:
    """Return the index of the canonical form of each k-mer, in the order of k-mers as numbers in base 4."""
    codes = np.arange(len(BASES) ** k)
    powers = len(BASES) ** np.arange(k)[::-1]
    digits = (codes[:, None] // powers % len(BASES)).astype(np.uint8)
    other = np.asarray(reverse_complement(digits)).astype(np.int64) @ powers
    return np.unique(np.minimum(codes, other), return_inverse=True)[1]


@dataclass(frozen=True)
class BaselineInputs:
    """Hold what a baseline may be fitted on: targets that have values in the same training genes.

    Attributes:
        tokens: uint8, shape (genes, length).
        in_training: bool, shape (genes,): the training genes that have a value and a weight above 0.
        targets: values of the training genes: float64, shape (training genes, targets), without NaN.
        fold_of_gene: fold of each training gene, for the choice of a penalty: int, shape (training genes,).
        embedded: embeddings by a pretrained network: float32, shape (genes, strands, dim); None if there are none.
        weights: weights of the training genes, above 0 and with a mean of 1: float64, shape (training genes,);
            None weighs all alike.
    """

    tokens: np.ndarray
    in_training: np.ndarray
    targets: np.ndarray
    fold_of_gene: np.ndarray
    embedded: np.ndarray | None = None
    weights: np.ndarray | None = None


class FittedBaseline(NamedTuple):
    """What a baseline makes of its inputs.

    Attributes:
        predicted: predictions for all genes, shape (genes, targets).
        coefficients: intercept, and coefficient of each of its `FEATURES`: float64, shape (1 + features, targets);
            None for a baseline that is not linear in features of the sequence alone, and so cannot be kept.
    """

    predicted: np.ndarray
    coefficients: np.ndarray | None = None


def fit_baselines(
    tokens: np.ndarray,
    targets: np.ndarray,
    units: np.ndarray,
    in_training: np.ndarray,
    *,
    embedded: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    crop: int | None = None,
) -> dict[str, np.ndarray]:
    """Fit every baseline in `BASELINES` on the training genes, and predict all genes.

    Args:
        tokens: uint8, shape (genes, length).
        targets: float32, shape (genes, targets), NaN where missing: each target is fitted on the training genes
            that have a value.
        units: what the split never parts: number or name of the unit of each gene (its chromosome, its family),
            shape (genes,). Penalties are chosen by leaving out units.
        in_training: bool, shape (genes,): the training genes.
        embedded: embeddings by a pretrained network: float32, shape (genes, strands, dim), of which the first
            strand is used; None (default) leaves out the baseline `embeddings`.
        weights: weights of the genes' squared errors, shape (genes,); None (default) weighs all alike.
        crop: number of bases that the network sees, counted from the end of the window; None (default): all.

    Returns:
        Name -> predictions: float32, shape (genes, targets), in the order of `BASELINES`; then, if `crop` is less
        than the window, those fitted on these bases alone, as `NAME_last_CROP`. A baseline that does not apply to
        these data is left out; a target without a value in any training gene is NaN.
    """
    return fit_coefficients(tokens, targets, units, in_training, embedded=embedded, weights=weights, crop=crop)[0]


def fit_coefficients(
    tokens: np.ndarray,
    targets: np.ndarray,
    units: np.ndarray,
    in_training: np.ndarray,
    *,
    embedded: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    crop: int | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Fit as `fit_baselines` does, and return what applies the baselines to other sequences.

    The arguments are those of `fit_baselines`.

    Returns:
        The predictions as `fit_baselines` returns them; and name -> coefficients of each baseline that is linear
        in its `FEATURES`: float64, shape (1 + features, targets), the intercept first, for `apply_baselines`.
    """
    if weights is not None:
        in_training = in_training & (weights > 0)
    training_rows = np.flatnonzero(in_training)
    predicted: dict[str, np.ndarray] = {}
    coefficients: dict[str, np.ndarray] = {}
    for rows, columns in observed_groups(targets[in_training]):
        fitted = np.zeros(len(tokens), bool)
        fitted[training_rows[rows]] = True
        observed = targets[fitted][:, columns].astype(np.float64)
        of_fitted = None if weights is None else weights[fitted] / weights[fitted].mean(dtype=np.float64)
        inputs = BaselineInputs(tokens, fitted, observed, _fold_of_gene(units[fitted]), embedded, of_fitted)
        for name, view in _names(tokens.shape[1], crop):
            fit = BASELINES[_parse(name)[0]]
            if (result := fit(replace(inputs, tokens=tokens[:, view]))) is not None:
                unknown = np.full((len(tokens), targets.shape[1]), np.nan, np.float32)
                predicted.setdefault(name, unknown)[:, columns] = result.predicted
            if result is not None and result.coefficients is not None:
                unknown = np.full((len(result.coefficients), targets.shape[1]), np.nan)
                coefficients.setdefault(name, unknown)[:, columns] = result.coefficients
    return predicted, coefficients


def _names(length: int, crop: int | None) -> Iterator[tuple[str, slice]]:
    """Yield the name of each baseline, and which bases of the window it is fitted on."""
    for name in BASELINES:
        yield name, slice(None)
    if crop is not None and crop < length:
        for name in BASELINES:
            if name not in UNCORRELATED and name in FEATURES:
                yield f"{name}_last_{crop}", slice(length - crop, None)


def _parse(name: str) -> tuple[str, int | None]:
    """Return the name in `BASELINES`, and the number of last bases that it is fitted on; None: on all."""
    match = re.fullmatch(r"(.+)_last_(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)


def baseline_order(name: str) -> tuple[int, int, str]:
    """Return what sorts names as `fit_baselines` does: those of the window, then those of fewer bases."""
    kind, last = _parse(name)
    known = list(BASELINES)
    return last or 0, known.index(kind) if kind in known else len(known), name


def apply_baselines(coefficients: Mapping[str, np.ndarray], tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Predict other sequences with fitted baselines.

    Args:
        coefficients: name -> coefficients, as `fit_coefficients` returns them.
        tokens: uint8, shape (sequences, length); of the length that the baselines were fitted to.

    Returns:
        Name -> predictions: float32, shape (sequences, targets).

    Raises:
        InputError: coefficients of a baseline that is not known here, or of other features.
    """
    predicted = {}
    for name, of_name in coefficients.items():
        kind, last = _parse(name)
        if kind not in FEATURES:
            raise InputError(f"there is no baseline {name}; train again, or use the version of promoter that did")
        seen = tokens if last is None else tokens[:, max(tokens.shape[1] - last, 0) :]
        predicted[name] = np.empty((len(tokens), of_name.shape[1]), np.float32)
        for first in range(0, len(tokens), _GENES_PER_COUNT):
            rows = slice(first, first + _GENES_PER_COUNT)
            features = FEATURES[kind](seen[rows])
            if features.shape[1] != len(of_name) - 1:
                raise InputError(
                    f"{name} has {features.shape[1]} features, and {len(of_name) - 1} coefficients; train again"
                )
            predicted[name][rows] = of_name[0] + features @ of_name[1:].astype(features.dtype)
    return predicted


def fit_mean(inputs: BaselineInputs) -> FittedBaseline:
    """Predict the mean of the training genes."""
    mean = weighted_mean(inputs.targets, inputs.weights)
    return FittedBaseline(np.tile(mean, (len(inputs.tokens), 1)), mean[None])


def fit_composition(inputs: BaselineInputs) -> FittedBaseline:
    """Predict by ridge regression on GC content, CpG observed over expected, and the share of N.

    Without a penalty, a share of N that hardly varies among the training genes has a coefficient of any size, and
    a gene with many N a prediction far from all others.
    """
    fitted = _fit_ridge(composition(inputs.tokens) / COMPOSITION_UNITS, inputs)
    assert fitted.coefficients is not None  # noqa: S101 # for the type checker: a ridge has them
    return fitted._replace(coefficients=fitted.coefficients / np.array([1, *COMPOSITION_UNITS])[:, None])


def fit_kmers(inputs: BaselineInputs) -> FittedBaseline:
    """Predict by ridge regression on log(1 + count) of the canonical 6-mers."""
    return _fit_ridge(count_features(inputs.tokens), inputs)


def fit_kmers_by_distance(inputs: BaselineInputs) -> FittedBaseline | None:
    """Predict as `fit_kmers`, with separate counts in the window's first half and in each further quarter."""
    if inputs.tokens.shape[1] < 4 * K:  # a quarter holds no k-mer
        return None
    return _fit_ridge(count_features_by_distance(inputs.tokens), inputs)


def fit_embeddings(inputs: BaselineInputs) -> FittedBaseline | None:
    """Predict by ridge regression on a pretrained network's embeddings, each entry standardised."""
    if inputs.embedded is None:
        return None
    forward = inputs.embedded[:, 0].astype(np.float64)
    forward /= forward[inputs.in_training].std(axis=0) + 1e-12
    return _fit_ridge(forward, inputs)._replace(coefficients=None)  # of no features of the sequence alone


def _fit_ridge(features: np.ndarray, inputs: BaselineInputs) -> FittedBaseline:
    coefficients = ridge(features[inputs.in_training], inputs.targets, inputs.fold_of_gene, inputs.weights)
    return FittedBaseline(coefficients[0] + features @ coefficients[1:].astype(features.dtype), coefficients)


# the registry: a function returns what it fitted, or None if it does not apply
BASELINES: dict[str, Callable[[BaselineInputs], FittedBaseline | None]] = {
    "mean": fit_mean,
    "composition": fit_composition,
    "kmers": fit_kmers,
    "kmers_by_distance": fit_kmers_by_distance,
    "embeddings": fit_embeddings,
}


UNCORRELATED = ("mean",)  # of a constant there is no r; pooled over folds it would be that of the folds' means


def no_features(tokens: np.ndarray) -> np.ndarray:
    """Return no feature of each sequence: float64, shape (genes, 0)."""
    return np.zeros((len(tokens), 0))


def count_features(tokens: np.ndarray) -> np.ndarray:
    """Compute log(1 + count) of the canonical 6-mers: float32, shape (genes, 2,080)."""
    return np.log1p(kmer_counts(tokens))


def count_features_by_distance(tokens: np.ndarray) -> np.ndarray:
    """Compute `count_features` of the window's first half and of each further quarter: shape (genes, 6,240)."""
    length = tokens.shape[1]
    return np.log1p(kmer_counts(tokens, starts=(0, length // 2, length * 3 // 4)))


# what the coefficients of a baseline are of: tokens -> features, shape (genes, features)
FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": no_features,
    "composition": composition,
    "kmers": count_features,
    "kmers_by_distance": count_features_by_distance,
}


def _fold_of_gene(units: np.ndarray) -> np.ndarray:
    """Distribute units over folds of about as many genes; the genes of a single unit in consecutive blocks."""
    unit = pd.factorize(units)[0]
    sizes = np.bincount(unit) if len(unit) else np.zeros(0, int)
    folds = min(_FOLDS, len(sizes))
    if folds < 2:
        return np.arange(len(unit)) * _FOLDS // max(len(unit), 1)
    return deal(sizes, folds)[unit]
