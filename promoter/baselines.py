"""Fit baselines on the same genes and the same split as the network, to compare it with.

Each baseline is fitted on the training genes alone, and chooses its penalty by leaving out training chromosomes in
turn. Targets that are observed in the same training genes are fitted together, on these genes; each other pattern
of missing values costs as much again. To add one, write a function of `BaselineInputs` and a line in `BASELINES`;
tables and reports then show it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from promoter.metrics import observed_groups
from promoter.sequence import BASES, N_TOKEN, reverse_complement
from promoter.splits.split import chromosome_folds

K = 6  # bases of a k-mer: 2,080 canonical ones, about as many as a small genome has genes
_FOLDS = 3
_GENES_PER_COUNT = 500  # bounds the memory of counting
_COARSE = (-2.0, -1.0, 0.0, 1.0)  # penalties tried, log10 in units of the Gram matrix's mean diagonal
_FINE = (-0.5, 0.5)  # steps from the best coarse penalty


@dataclass(frozen=True)
class BaselineInputs:
    """Hold what a baseline may be fitted on: targets that have values in the same training genes.

    Attributes:
        tokens: uint8, shape (genes, length).
        in_training: bool, shape (genes,): the training genes that have a value.
        targets: values of the training genes: float64, shape (training genes, targets), without NaN.
        fold_of_gene: fold of each training gene, for the choice of a penalty: int, shape (training genes,).
        embedded: embeddings by a pretrained network: float32, shape (genes, strands, dim); None if there are none.
    """

    tokens: np.ndarray
    in_training: np.ndarray
    targets: np.ndarray
    fold_of_gene: np.ndarray
    embedded: np.ndarray | None = None


def fit_baselines(
    tokens: np.ndarray,
    targets: np.ndarray,
    chroms: pd.Series,
    in_training: np.ndarray,
    *,
    embedded: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Fit every baseline in `BASELINES` on the training genes, and predict all genes.

    Args:
        tokens: uint8, shape (genes, length).
        targets: float32, shape (genes, targets), NaN where missing: each target is fitted on the training genes
            that have a value.
        chroms: chromosome of each gene.
        in_training: bool, shape (genes,): the training genes.
        embedded: embeddings by a pretrained network: float32, shape (genes, strands, dim), of which the first
            strand is used; None (default) leaves out the baseline `embeddings`.

    Returns:
        Name -> predictions: float32, shape (genes, targets), in the order of `BASELINES`. A baseline that does not
        apply to these data is left out; a target without a value in any training gene is NaN.
    """
    chroms = chroms.reset_index(drop=True)
    training_rows = np.flatnonzero(in_training)
    predicted: dict[str, np.ndarray] = {}
    for rows, columns in observed_groups(targets[in_training]):
        fitted = np.zeros(len(tokens), bool)
        fitted[training_rows[rows]] = True
        observed = targets[fitted][:, columns].astype(np.float64)
        inputs = BaselineInputs(tokens, fitted, observed, _fold_of_gene(chroms[fitted]), embedded)
        for name, fit in BASELINES.items():
            if (values := fit(inputs)) is not None:
                unknown = np.full((len(tokens), targets.shape[1]), np.nan, np.float32)
                predicted.setdefault(name, unknown)[:, columns] = values
    return predicted


def fit_mean(inputs: BaselineInputs) -> np.ndarray:
    """Predict the mean of the training genes."""
    return np.tile(inputs.targets.mean(axis=0), (len(inputs.tokens), 1))


def fit_composition(inputs: BaselineInputs) -> np.ndarray:
    """Predict by least squares on GC content, CpG observed over expected, and the share of N."""
    return _least_squares(composition(inputs.tokens), inputs.targets, inputs.in_training)


def fit_kmers(inputs: BaselineInputs, starts: tuple[int, ...] = (0,)) -> np.ndarray:
    """Predict by ridge regression on log(1 + count) of the canonical 6-mers.

    Args:
        inputs: the data to fit.
        starts: first index of each bin of the window in which 6-mers are counted separately (default: one bin).
    """
    counts = np.log1p(kmer_counts(inputs.tokens, starts=starts))
    return ridge(counts, inputs.targets, inputs.in_training, inputs.fold_of_gene)


def fit_kmers_by_distance(inputs: BaselineInputs) -> np.ndarray | None:
    """Predict as `fit_kmers`, with separate counts in the window's first half and in each further quarter."""
    length = inputs.tokens.shape[1]
    if length < 4 * K:  # a quarter holds no k-mer
        return None
    return fit_kmers(inputs, (0, length // 2, length * 3 // 4))


def fit_embeddings(inputs: BaselineInputs) -> np.ndarray | None:
    """Predict by ridge regression on a pretrained network's embeddings, each entry standardised."""
    if inputs.embedded is None:
        return None
    forward = inputs.embedded[:, 0].astype(np.float64)
    forward /= forward[inputs.in_training].std(axis=0) + 1e-12
    return ridge(forward, inputs.targets, inputs.in_training, inputs.fold_of_gene)


# the registry: a function returns predictions for all genes, shape (genes, targets), or None if it does not apply
BASELINES: dict[str, Callable[[BaselineInputs], np.ndarray | None]] = {
    "mean": fit_mean,
    "composition": fit_composition,
    "kmers": fit_kmers,
    "kmers_by_distance": fit_kmers_by_distance,
    "embeddings": fit_embeddings,
}


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


def ridge(
    features: np.ndarray, targets: np.ndarray, in_training: np.ndarray, fold_of_gene: np.ndarray
) -> np.ndarray:
    """Predict all genes by ridge regression, choosing the penalty by cross-validation on the training genes.

    The products of the features (or of the genes, if these are fewer) are formed once for all penalties and folds,
    which scikit-learn's estimators cannot do; with thousands of features they take most of the time.

    Args:
        features: shape (genes, features); not scaled, so that rare ones get little weight.
        targets: values of the training genes: shape (training genes, targets).
        in_training: bool, shape (genes,): the training genes.
        fold_of_gene: fold of each training gene: int, shape (training genes,); with a single fold the penalty is
            the smallest possible, and not chosen.

    Returns:
        The predictions: float64, shape (genes, targets).
    """
    x = (features - features[in_training].mean(axis=0)).astype(np.float32)
    train, y = x[in_training], targets.astype(np.float32)
    parts = [fold_of_gene == fold for fold in np.unique(fold_of_gene)]
    fit = (_Dual if len(train) <= x.shape[1] else _Primal)(train, y, parts)
    unit = float(np.square(train, dtype=np.float64).sum()) / x.shape[1] + 1e-6
    best = 0.0
    if len(parts) > 1:
        left_out = [(fit.predictor(train[part], number), y[part]) for number, part in enumerate(parts)]
        variance = y.var(axis=0) + 1e-12

        @functools.cache
        def error(exponent: float) -> float:
            """Sum the squared errors on the folds left out, in units of each target's variance."""
            pairs = ((predict(unit * 10**exponent), observed) for predict, observed in left_out)
            return sum(float((np.square(predicted - observed) / variance).sum()) for predicted, observed in pairs)

        best = min(_COARSE, key=error)
        best = min((best, *(best + step for step in _FINE)), key=error)
    return fit.predictor(x)(unit * 10**best).astype(np.float64)


class _Primal:
    """Solve ridge regression by the products of the features."""

    def __init__(self, train: np.ndarray, y: np.ndarray, parts: list[np.ndarray]) -> None:
        self.train, self.y, self.parts = train, y, parts
        self.grams = [train[part].T @ train[part] for part in parts]

    def predictor(self, x: np.ndarray, without: int | None = None) -> Callable[[float], np.ndarray]:
        """Return a function that predicts `x` for a penalty, fitted on all training genes but those of a part."""
        used = _all_but(self.parts, without)
        mean, y = self.train[used].mean(axis=0), self.y[used]
        gram = -int(used.sum()) * np.outer(mean, mean)
        for number, gram_of_part in enumerate(self.grams):
            if number != without:
                gram += gram_of_part
        moment = self.train[used].T @ (y - y.mean(axis=0))
        return lambda penalty: (x - mean) @ _solve(gram, moment, penalty) + y.mean(axis=0)


class _Dual:
    """Solve ridge regression by the products of the genes."""

    def __init__(self, train: np.ndarray, y: np.ndarray, parts: list[np.ndarray]) -> None:
        self.train, self.y, self.parts = train, y, parts
        self.kernel = train @ train.T

    def predictor(self, x: np.ndarray, without: int | None = None) -> Callable[[float], np.ndarray]:
        """Return a function that predicts `x` for a penalty, fitted on all training genes but those of a part."""
        used = _all_but(self.parts, without)
        kernel, y = self.kernel[np.ix_(used, used)], self.y[used]
        row, new = kernel.mean(axis=0), x @ self.train[used].T
        centred = kernel - row - row[:, None] + row.mean()
        centred_new = new - new.mean(axis=1, keepdims=True) - row + row.mean()
        return lambda penalty: centred_new @ _solve(centred, y - y.mean(axis=0), penalty) + y.mean(axis=0)


def _all_but(parts: list[np.ndarray], without: int | None) -> np.ndarray:
    used = np.ones(len(parts[0]), bool)
    return used if without is None else used & ~parts[without]


def _solve(products: np.ndarray, moment: np.ndarray, penalty: float) -> np.ndarray:
    penalised = torch.from_numpy(products).clone()  # the same products serve all penalties
    penalised.diagonal().add_(penalty)
    # PyTorch's Cholesky takes a quarter of SciPy's time, and there are twenty of up to 6,240 x 6,240
    return torch.cholesky_solve(torch.from_numpy(moment), torch.linalg.cholesky(penalised)).numpy()


def _least_squares(features: np.ndarray, targets: np.ndarray, in_training: np.ndarray) -> np.ndarray:
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return x @ np.linalg.lstsq(x[in_training], targets, rcond=None)[0]


def _fold_of_gene(chroms: pd.Series) -> np.ndarray:
    """Distribute training chromosomes over folds; the genes of a single chromosome in consecutive blocks."""
    count = min(_FOLDS, chroms.nunique())
    if count < 2:
        return np.arange(len(chroms)) * _FOLDS // max(len(chroms), 1)
    fold_of_chrom = {name: fold for fold, names in enumerate(chromosome_folds(chroms, count)) for name in names}
    return chroms.map(fold_of_chrom).to_numpy()
