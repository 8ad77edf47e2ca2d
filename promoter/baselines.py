"""Plain models on the same genes and the same split, beside which the network is to be judged.

Each is fitted on the training genes alone; what it is free to choose, it chooses by leaving out training
chromosomes in turn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from promoter.sequence import BASES, N_TOKEN, reverse_complement
from promoter.splits.split import chromosome_folds

BASELINES = ("mean", "composition", "kmers", "kmers_by_distance", "embeddings")
K = 6  # of the k-mers: 2,080 canonical ones, about as many as a small genome has genes
_FOLDS = 3
_GENES_AT_ONCE = 500  # bounds the memory of counting
_COARSE = (-2.0, -1.0, 0.0, 1.0)  # penalties tried, log10 in units of the Gram matrix's mean diagonal
_FINE = (-0.5, 0.5)  # steps from the best of those


def fit_baselines(
    tokens: np.ndarray,
    targets: np.ndarray,
    chroms: pd.Series,
    learned: np.ndarray,
    embedded: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Fit each baseline on the training genes, and predict all genes.

    `mean`: the mean of the training genes. `composition`: least squares on GC content, CpG observed over expected
    and the share of N. `kmers`: ridge regression on log(1 + count) of the canonical 6-mers. `kmers_by_distance`:
    the same, counted apart in the far half of the window, the next quarter and the last. `embeddings`: ridge
    regression on what a pretrained network makes of the sequences, each entry standardised.

    Args:
        tokens: uint8, shape (genes, length).
        targets: float32, shape (genes, targets), without NaN among the training genes.
        chroms: the chromosome of each gene.
        learned: bool, shape (genes,): the training genes.
        embedded: float32, shape (genes, strands, dim), where there are embeddings; of the first strand.

    Returns:
        Name -> float32, shape (genes, targets).
    """
    chroms = chroms.reset_index(drop=True)
    features: dict[str, Callable[[np.ndarray], np.ndarray]] = {"kmers": kmer_counts}
    length = tokens.shape[1]
    if length >= 4 * K:  # else a quarter holds no k-mer
        features["kmers_by_distance"] = functools.partial(kmer_counts, starts=(0, length // 2, length * 3 // 4))
    known = targets[learned].astype(np.float64)
    mean = known.mean(axis=0)
    predicted = {
        "mean": np.tile(mean, (len(tokens), 1)),
        "composition": _least_squares(composition(tokens), known, learned),
    }
    folds = _fold_of_gene(chroms[learned])
    for name, count in features.items():
        predicted[name] = ridge(np.log1p(count(tokens)), known, learned, folds)
    if embedded is not None:
        forward = embedded[:, 0].astype(np.float64)
        forward /= forward[learned].std(axis=0) + 1e-12
        predicted["embeddings"] = ridge(forward, known, learned, folds)
    return {name: values.astype(np.float32) for name, values in predicted.items()}


def composition(tokens: np.ndarray) -> np.ndarray:
    """Return GC content, CpG observed over expected (Gardiner-Garden & Frommer 1987), share of N: (genes, 3)."""
    unknown = (tokens >= N_TOKEN).mean(axis=1)
    known = np.maximum((tokens < N_TOKEN).sum(axis=1), 1)
    c, g = (tokens == 1).sum(axis=1), (tokens == 2).sum(axis=1)
    cpg = ((tokens[:, :-1] == 1) & (tokens[:, 1:] == 2)).sum(axis=1)
    expected = np.maximum(c * g / known, 1)  # at least one, so that sequences without C or G stay finite
    return np.stack([(c + g) / known, cpg / expected, unknown], axis=1)


def kmer_counts(tokens: np.ndarray, k: int = K, starts: tuple[int, ...] = (0,)) -> np.ndarray:
    """Count canonical k-mers: a word and its reverse complement are one; words with N count for none.

    Args:
        tokens: uint8, shape (genes, length).
        k: bases a word, up to 8.
        starts: of the bins in which to count apart, ascending from 0; a word belongs to the bin of its first base.

    Returns:
        float32, shape (genes, bins * canonical k-mers), bin by bin; the k-mers in the order of `canonical_kmers`.
    """
    canonical = _canonical(k)
    size = int(canonical.max()) + 1
    words = tokens.shape[1] - k + 1
    if words < 1:
        return np.zeros((len(tokens), len(starts) * size), np.float32)
    bin_of_word = np.searchsorted(starts, np.arange(words), side="right") - 1
    columns = len(starts) * size
    counts = np.empty((len(tokens), columns), np.float32)
    for first in range(0, len(tokens), _GENES_AT_ONCE):
        some = tokens[first : first + _GENES_AT_ONCE]
        codes = np.zeros((len(some), words), np.int64)
        whole = np.ones((len(some), words), bool)
        for offset in range(k):
            base = some[:, offset : offset + words]
            codes = codes * len(BASES) + base
            whole &= base < N_TOKEN
        place = canonical[np.where(whole, codes, 0)] + bin_of_word * size
        place += np.arange(len(some))[:, None] * columns
        found = np.bincount(place[whole], minlength=len(some) * columns)
        counts[first : first + len(some)] = found.reshape(len(some), columns)
    return counts


def canonical_kmers(k: int = K) -> list[str]:
    """Return the canonical k-mers, each the lesser of a word and its reverse complement, in alphabetical order."""
    first = pd.Series(range(len(BASES) ** k)).groupby(_canonical(k)).min()
    places = [len(BASES) ** place for place in reversed(range(k))]
    return ["".join(BASES[code // place % len(BASES)] for place in places) for code in first]


@functools.lru_cache(maxsize=4)
def _canonical(k: int) -> np.ndarray:
    """Return for each word, as a number in base 4, the index of its canonical form."""
    codes = np.arange(len(BASES) ** k)
    powers = len(BASES) ** np.arange(k)[::-1]
    digits = (codes[:, None] // powers % len(BASES)).astype(np.uint8)
    other = np.asarray(reverse_complement(digits)).astype(np.int64) @ powers
    return np.unique(np.minimum(codes, other), return_inverse=True)[1]


def ridge(features: np.ndarray, known: np.ndarray, learned: np.ndarray, fold_of_gene: np.ndarray) -> np.ndarray:
    """Predict all genes by ridge regression, its penalty chosen by leaving out the training genes' folds in turn.

    The products of the features (or of the genes, where these are fewer) are formed once for all penalties and
    folds, which scikit-learn's estimators cannot; with thousands of features they are what takes the time.

    Args:
        features: shape (genes, features); not scaled, so that rare ones weigh little.
        known: shape (training genes, targets).
        learned: bool, shape (genes,): the training genes.
        fold_of_gene: int, shape (training genes,); all of one fold: the penalty is not chosen.

    Returns:
        float64, shape (genes, targets).
    """
    x = (features - features[learned].mean(axis=0)).astype(np.float32)
    train, y = x[learned], known.astype(np.float32)
    parts = [fold_of_gene == fold for fold in np.unique(fold_of_gene)]
    fit = (_Dual if len(train) <= x.shape[1] else _Primal)(train, y, parts)
    unit = float(np.square(train, dtype=np.float64).sum()) / x.shape[1] + 1e-6
    best = 0.0
    if len(parts) > 1:
        left_out = [(fit.predictor(train[part], number), y[part]) for number, part in enumerate(parts)]
        variance = y.var(axis=0) + 1e-12

        @functools.cache
        def error(exponent: float) -> float:
            """Squared error on what is left out, in units of each target's variance."""
            found = ((predict(unit * 10**exponent), observed) for predict, observed in left_out)
            return sum(float((np.square(predicted - observed) / variance).sum()) for predicted, observed in found)

        best = min(_COARSE, key=error)
        best = min((best, *(best + step for step in _FINE)), key=error)
    return fit.predictor(x)(unit * 10**best).astype(np.float64)


class _Primal:
    """Ridge regression by the products of the features."""

    def __init__(self, train: np.ndarray, y: np.ndarray, parts: list[np.ndarray]) -> None:
        self.train, self.y, self.parts = train, y, parts
        self.grams = [train[part].T @ train[part] for part in parts]

    def predictor(self, x: np.ndarray, without: int | None = None) -> Callable[[float], np.ndarray]:
        """Return what predicts `x` from the training genes, all or without a part, given the penalty."""
        used = _all_but(self.parts, without)
        mean, y = self.train[used].mean(axis=0), self.y[used]
        gram = -int(used.sum()) * np.outer(mean, mean)
        for number, one in enumerate(self.grams):
            if number != without:
                gram += one
        moment = self.train[used].T @ (y - y.mean(axis=0))
        return lambda penalty: (x - mean) @ _solve(gram, moment, penalty) + y.mean(axis=0)


class _Dual:
    """Ridge regression by the products of the genes."""

    def __init__(self, train: np.ndarray, y: np.ndarray, parts: list[np.ndarray]) -> None:
        self.train, self.y, self.parts = train, y, parts
        self.kernel = train @ train.T

    def predictor(self, x: np.ndarray, without: int | None = None) -> Callable[[float], np.ndarray]:
        """Return what predicts `x` from the training genes, all or without a part, given the penalty."""
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
    penalised = torch.from_numpy(products).clone()  # of all penalties the same
    penalised.diagonal().add_(penalty)
    # PyTorch's takes a quarter of the time of SciPy's, and there are twenty of up to 6,240 x 6,240
    return torch.cholesky_solve(torch.from_numpy(moment), torch.linalg.cholesky(penalised)).numpy()


def _least_squares(features: np.ndarray, known: np.ndarray, learned: np.ndarray) -> np.ndarray:
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return x @ np.linalg.lstsq(x[learned], known, rcond=None)[0]


def _fold_of_gene(chroms: pd.Series) -> np.ndarray:
    """Deal training chromosomes to folds; the genes of a lone chromosome in stretches."""
    count = min(_FOLDS, chroms.nunique())
    if count < 2:
        return np.arange(len(chroms)) * _FOLDS // max(len(chroms), 1)
    fold_of_chrom = {name: fold for fold, names in enumerate(chromosome_folds(chroms, count)) for name in names}
    return chroms.map(fold_of_chrom).to_numpy()
