"""Find homologous or overlapping promoters, and the pairs that a split separates.

A network that has seen a held-out gene's sequence in a training gene is tested on its memory. Homology is measured
by containment: the number of distinct canonical 31-mers that two windows share, divided by the number in the
window that has fewer (Broder 1997). A k-mer and its reverse complement count as one; k-mers with N do not count.
Unrelated windows share none by chance; a shared k-mer means a common origin, or a repeat. Of windows below 300
bases, flanks left out, the 15-mers are taken: a few changed bases can leave no 31-mer alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from promoter.dataset.promoters import Promoters, near_tss
from promoter.sequence import N_TOKEN, reverse_complement
from promoter.splits.config import SPLITS
from promoter.storage import AnyPath
from promoter.storage.schema import read_csv

K = 31  # odd, so that no k-mer is its own reverse complement; 62 bits leave room for the strand
_SHORT = 300  # bases of a window below which 15-mers are taken; of 250 bases, 31-mers find 80% of 5% changed
_SPANS = {K: (1, 2, 4, 8, 15), 15: (1, 2, 4, 7)}  # added one after the other to a span of one base, they make k
LINKS = 32  # windows before and after each, in a fixed random order, to which a shared k-mer links it
THRESHOLD = 0.05  # containment; if 5% of the bases change, 0.95^31 = 0.20 is left
MIN_SHARED = 20  # k-mers: 50 bases in a row; a tandem repeat of period p has only p of them
_MIN_SHARED_SHORT = 8  # 15-mers: 22 bases in a row, which two of 10^5 random windows never share
_CONSTANT = 0.99  # share of a library's sequences that have the same base where its flank is constant
_KMERS_PER_SORT = 1 << 24  # takes some 500 MB
_KMERS_PER_BLOCK = 1 << 16  # formed together; fits the processor's cache
Column = Sequence[Any] | np.ndarray | pd.Series
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth's multiplicative hashing)


def find_related_promoters(promoters: Promoters) -> pd.DataFrame:
    """Find the pairs of genes whose windows are homologous or overlap on the genome.

    Args:
        promoters: the data set, in any order; of a library, flanks that all sequences share do not count.

    Returns:
        One row per pair, ordered by `i` and `j`. `i` < `j`: row numbers. `fraction`: containment, or the share of
        the shorter window that lies in the overlap, whichever is larger. `strand`: "same" or "opposite", relative
        to the directions of the genes. `kind`: "identical" (the complete window, or its reverse complement), else
        "overlapping" (by at least one base), else "similar".
    """
    promoters = near_tss(promoters)
    tokens = promoters.tokens if promoters.located else without_flanks(promoters.tokens)
    similar, overlapping = similar_pairs(tokens), overlapping_pairs(promoters.genes)
    pairs = similar.merge(overlapping, how="outer", on=["i", "j"], suffixes=("", "_of_overlap"), sort=True)
    identical = pairs["identical"].eq(True)  # missing for a pair that only overlaps
    fraction = pairs[["containment", "fraction"]].max(axis=1).where(~identical, 1.0)  # containment may be a bound
    kind = np.where(identical, "identical", np.where(pairs["overlap"].notna(), "overlapping", "similar"))
    strand = pairs["strand_of_overlap"].fillna(pairs["strand"])
    return pd.DataFrame({"i": pairs["i"], "j": pairs["j"], "fraction": fraction, "strand": strand, "kind": kind})


def without_flanks(tokens: np.ndarray) -> np.ndarray:
    """Put N where a library's sequences all begin or end alike, as by the primers of their synthesis.

    Args:
        tokens: the sequences: uint8, shape (N, length).

    Returns:
        The sequences, with N in the flanks in which each position has the same base in 99% of them; unchanged if
        these make up more than half of the length, as where all sequences are variants of one.
    """
    n, length = tokens.shape
    if n < 2:
        return tokens
    most = np.max([(tokens == base).sum(axis=0) for base in range(N_TOKEN)], axis=0)
    varying = np.flatnonzero(most < _CONSTANT * n)
    if not len(varying) or varying[-1] + 1 - varying[0] < length / 2:
        return tokens
    inner = tokens.copy()
    inner[:, : varying[0]] = inner[:, varying[-1] + 1 :] = N_TOKEN
    return inner


def similar_pairs(tokens: np.ndarray, threshold: float = THRESHOLD, min_shared: int | None = None) -> pd.DataFrame:
    """Find the pairs of windows that share 31-mers; of windows below 300 bases, 15-mers.

    For a random window and a copy with 5% of its bases changed, the defaults find 96% of the pairs at 80 bases,
    all at 200, 89% at 300, 98% at 500 and all at 2,000.

    A k-mer links each window that contains it to the next 32 (`LINKS`) that do, in an order that is random but the
    same for all k-mers and every run. So a k-mer in at most 33 windows counts for all their pairs; a k-mer in more
    (a transposon, a large gene family) costs time and memory proportional to its windows, not to their square.
    `shared` and `containment` are exact for a pair whose shared k-mers lie in at most 33 windows each. For other
    pairs they are lower bounds, which are still exact if fewer than 32 windows with these k-mers lie between the
    two in that order. So a larger homology group is joined, but not all of its pairs are listed: each member is
    listed with some 64 others, drawn at random. If a tenth of the group is in the training set, a held-out member
    is almost certainly listed with a training gene.

    Args:
        tokens: the windows: uint8, shape (N, length); windows shorter than 15 bases have no k-mers. Positions at
            which all have N, as `without_flanks` leaves them, do not count as bases.
        threshold: smallest containment (default 0.05).
        min_shared: smallest number of shared k-mers, so that poly-A and tandem repeats do not count as homology;
            None (default): 20, of windows below 300 bases 8, or all where they have fewer.

    Returns:
        One row per pair, ordered by `i` and `j`. `i` < `j`: row numbers. `shared`: number of shared k-mers.
        `containment`. `strand`: "same" or "opposite", as most shared k-mers lie. `identical`: whether the complete
        windows are equal, or one is the reverse complement of the other.
    """
    n = len(tokens)
    bases = int((tokens != N_TOKEN).any(axis=0).sum())
    k = K if bases >= _SHORT else 15
    if min_shared is None:
        min_shared = MIN_SHARED if k == K else min(_MIN_SHARED_SHORT, max(bases - k + 1, 1))
    rank = np.random.default_rng(0).permutation(n)
    row_of_rank = np.argsort(rank)
    distinct = np.zeros(n, dtype=np.int64)
    links = _Counts()
    for words, rows in _slices(tokens, k):
        unique = _occur_once(words)
        group, members, forward = _group_by_kmer(words[~unique], rank[rows[~unique]], row_of_rank)
        for windows in (rows[unique], members):
            distinct += np.bincount(windows, minlength=n)
        for first, second in _links(group):
            row, other = members[first], members[second]
            pair = np.minimum(row, other) * n + np.maximum(row, other)
            links.add(2 * pair + (forward[first] != forward[second]))
    keys, counts = links.total()
    pair, index = np.unique(keys >> 1, return_inverse=True)
    shared, opposite = (np.bincount(index, weights).astype(np.int64) for weights in (counts, counts * (keys & 1)))
    i, j = np.divmod(pair, max(n, 1))
    containment = shared / np.minimum(distinct[i], distinct[j])
    enough = (containment >= threshold) & (shared >= min_shared)
    i, j = i[enough], j[enough]
    content = _contents(tokens, np.union1d(i, j))
    return pd.DataFrame(
        {
            "i": i,
            "j": j,
            "shared": shared[enough],
            "containment": containment[enough],
            "strand": _strand(2 * opposite <= shared)[enough],
            "identical": content[i] == content[j],
        }
    )


def overlapping_pairs(genes: pd.DataFrame) -> pd.DataFrame:
    """Find the pairs of windows that share at least one base of the genome, on either strand.

    Args:
        genes: table of genes, as `Promoters.genes`. Ns at the ends of a window, as past a chromosome's end, are
            ignored, and so are genes without a chromosome.

    Returns:
        One row per pair, ordered by `i` and `j`. `i` < `j`: row numbers. `overlap`: number of bases. `fraction`:
        `overlap` divided by the length of the shorter window. `strand`: "same" or "opposite".
    """
    row = np.flatnonzero(genes["chrom"].notna())
    located = genes.iloc[row]
    sequence = located["sequence"].str.upper()
    stripped = sequence.str.lstrip("N"), sequence.str.rstrip("N")
    before, after = ((sequence.str.len() - bare.str.len()).to_numpy(np.int64) for bare in stripped)
    forward = (located["strand"] != "-").to_numpy()
    start = located["start"].to_numpy(np.int64) + np.where(forward, before, after)
    end = located["end"].to_numpy(np.int64) - np.where(forward, after, before)
    chrom = pd.factorize(located["chrom"])[0]
    order = np.lexsort((start, chrom))
    order = order[start[order] < end[order]]  # the others consist of N only
    row, forward, chrom, start, end = (column[order] for column in (row, forward, chrom, start, end))
    origin = chrom * (end.max(initial=0) - start.min(initial=0) + 1)  # one axis for all chromosomes
    # number of windows that start after this one starts and before it ends
    later = np.searchsorted(origin + start, origin + end) - np.arange(len(row)) - 1
    first = np.repeat(np.arange(len(row)), later)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    overlap = np.minimum(end[first], end[second]) - start[second]
    pairs = pd.DataFrame(
        {
            "i": np.minimum(row[first], row[second]),
            "j": np.maximum(row[first], row[second]),
            "overlap": overlap,
            "fraction": overlap / np.minimum((end - start)[first], (end - start)[second]),
            "strand": _strand(forward[first] == forward[second]),
        }
    )
    return pairs.sort_values(["i", "j"], ignore_index=True)


def homology_groups(pairs: pd.DataFrame, n: int) -> np.ndarray:
    """Number the homology groups: windows that pairs connect, directly or through others, are one group.

    Args:
        pairs: table with the columns `i` and `j`; leave out pairs that shall not connect, such as those of kind
            "overlapping".
        n: number of windows.

    Returns:
        The group of each window: int, shape (n,), from 0 in order of the groups' first members; a window without
        homologs is a group of its own.
    """
    links = sparse.coo_array((np.ones(len(pairs), bool), (pairs["i"], pairs["j"])), shape=(n, n))
    return connected_components(links, directed=False)[1]


def find_leaks(pairs: pd.DataFrame, gene_ids: Column, splits: Column) -> pd.DataFrame:
    """List the pairs that cross the split.

    Args:
        pairs: related genes, as `find_related_promoters` returns them.
        gene_ids: id of each gene.
        splits: "train", "val" or "test" of each gene; genes with any other value are ignored.

    Returns:
        One row per pair, the largest `fraction` first. `gene_id` and `split` are the held-out gene's, or the test
        gene's of a pair from validation and test; `other_gene_id` and `other_split` are the other gene's.
        `fraction`, `strand` and `kind` are the pair's.
    """
    ids = np.asarray(gene_ids, dtype=object)
    rank = pd.Series(list(splits), dtype=object).map({name: i for i, name in enumerate(SPLITS)}).to_numpy(float)
    if len(ids) != len(rank):
        raise ValueError(f"{len(ids)} gene ids and {len(rank)} splits: give one of each per gene")
    i, j = rank[pairs["i"]], rank[pairs["j"]]
    pairs = pairs[(i != j) & ~np.isnan(i) & ~np.isnan(j)]
    i, j = pairs["i"].to_numpy(), pairs["j"].to_numpy()
    gene, other = np.where(rank[i] > rank[j], (i, j), (j, i))
    names = np.array(SPLITS, dtype=object)
    columns = {
        "gene_id": ids[gene],
        "split": names[rank[gene].astype(int)],
        "other_gene_id": ids[other],
        "other_split": names[rank[other].astype(int)],
    }
    columns |= {name: pairs[name].to_numpy() for name in ("fraction", "strand", "kind")}
    worst = ["fraction", "kind", "gene_id", "other_gene_id"]  # the alphabet has the kinds in the right order
    return pd.DataFrame(columns).sort_values(worst, ascending=[False, True, True, True], ignore_index=True)


def read_leaks(path: AnyPath) -> pd.DataFrame:
    """Read a `leakage.csv`, in which `find_leaks` was written; InputError if it is missing or damaged."""
    text = ("gene_id", "split", "other_gene_id", "other_split", "strand", "kind")
    return read_csv(path, "train again into another folder", text=text, numbers=["fraction"])


def leaking_genes(leaks: pd.DataFrame, gene_ids: Column) -> np.ndarray:
    """Return which genes are held out and related to a training gene.

    Args:
        leaks: pairs that cross the split, as `find_leaks` returns them.
        gene_ids: id of each gene.

    Returns:
        bool, shape (genes,).
    """
    return np.isin(np.asarray(gene_ids, dtype=object), leaks["gene_id"][leaks["other_split"] == "train"])


def _slices(tokens: np.ndarray, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all words (see `_words`) and the rows of their windows, in slices by a hash of the k-mer."""
    n, starts = len(tokens), max(tokens.shape[1] - k + 1, 0)
    slices = -(-n * starts // _KMERS_PER_SORT)
    for number in range(slices):  # forming all words again for each slice takes less time than sorting them
        parts, counts = [], []
        height = _KMERS_PER_BLOCK // starts + 1
        for top in range(0, n, height):
            words, chosen = _words(tokens[top : top + height], k)
            if slices > 1:
                chosen &= (_hash(words) >> np.uint64(40)) * np.uint64(slices) >> np.uint64(24) == number
            parts.append(words[chosen])
            counts.append(np.count_nonzero(chosen, axis=1))
        yield np.concatenate(parts), np.repeat(np.arange(n, dtype=np.int32), np.concatenate(counts))


def _words(tokens: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the word at each position, and whether it is free of N: both (rows, length - k + 1).

    A word is twice the canonical k-mer (the smaller of its two strands as numbers in base 4), plus 1 if that is
    the forward strand. Each step joins two neighbouring spans; the last two overlap by one base, whose bits agree.
    """
    forward = tokens.astype(np.uint64)
    reverse = np.uint64(3) - forward  # wraps around for N, which is not used
    free = tokens < N_TOKEN
    for step in _SPANS[k]:
        bits = np.uint64(2 * step)
        forward = forward[:, :-step] << bits | forward[:, step:]
        reverse = reverse[:, step:] << bits | reverse[:, :-step]
        free = free[:, :-step] & free[:, step:]
    return np.minimum(forward, reverse) << np.uint64(1) | (forward < reverse), free


def _hash(words: np.ndarray) -> np.ndarray:
    """Hash the k-mers, both strands to the same value; the high bits are the most evenly spread."""
    return (words >> np.uint64(1)) * _MIX


def _occur_once(words: np.ndarray) -> np.ndarray:
    """Return which k-mers occur once; a few are missed because their hash begins like another one's.

    Most k-mers do. So only the few others need argsort, which takes several times as long as sort.
    """
    index_bits = np.uint64(len(words).bit_length())
    keys = _hash(words) >> index_bits << index_bits | np.arange(len(words), dtype=np.uint64)
    keys.sort()
    again = np.flatnonzero(keys[1:] >> index_bits == keys[:-1] >> index_bits)
    once = np.ones(len(words), dtype=bool)
    for repeated in (again, again + 1):
        once[keys[repeated] & ((np.uint64(1) << index_bits) - np.uint64(1))] = False
    return once


def _group_by_kmer(
    words: np.ndarray, ranks: np.ndarray, row_of_rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group windows by k-mer, ordered by rank, each window once a group: group numbers, rows, 1 if forward."""
    n = len(row_of_rank)
    order = np.argsort(words)
    words = words[order]
    group = np.cumsum(_differ(words >> np.uint64(1)))
    keys = (group * n + ranks[order]) * 2 + (words & np.uint64(1)).astype(np.int64)
    keys.sort()
    keys = keys[_differ(keys >> 1)]
    group, rank = np.divmod(keys >> 1, n)
    return group, row_of_rank[rank], keys & 1


def _links(group: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of members, and indices of the members 1, 2, ... LINKS later in the same group."""
    padded = np.concatenate([group, np.full(LINKS, -1)])
    index = np.arange(len(group))
    for lag in range(1, LINKS + 1):
        index = index[padded[index + lag] == group[index]]
        if not len(index):
            return
        yield index, index + lag


class _Counts:
    """Count how often each number was added, in memory proportional to the distinct numbers."""

    def __init__(self) -> None:
        self._parts = [(np.zeros(0, np.int64), np.zeros(0, np.int32))]
        self._size = self._merged = 0

    def add(self, numbers: np.ndarray) -> None:
        keys, counts = np.unique(numbers, return_counts=True)
        self._parts.append((keys, counts.astype(np.int32)))
        self._size += len(keys)
        if self._size > 3 * self._merged // 2 + _KMERS_PER_SORT // 4:
            self._merge()

    def total(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct numbers, ascending, and their counts."""
        self._merge()
        return self._parts[0]

    def _merge(self) -> None:
        keys, counts = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        self._parts.clear()
        order = np.argsort(keys)
        keys, counts = keys[order], counts[order]
        start = np.flatnonzero(_differ(keys))
        self._parts.append((keys[start], np.add.reduceat(counts, start) if len(keys) else counts))
        self._size = self._merged = len(start)


def _differ(ordered: np.ndarray) -> np.ndarray:
    """Return which values differ from the previous one; the first one does."""
    return np.append(np.ones(len(ordered[:1]), dtype=bool), ordered[1:] != ordered[:-1])


def _contents(tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Number the distinct sequences of some rows, a window and its reverse complement alike; -1 elsewhere."""
    number_of: dict[bytes, int] = {}
    numbers = np.full(len(tokens), -1)
    for row in rows:
        both = tokens[row].tobytes(), np.asarray(reverse_complement(tokens[row])).tobytes()
        numbers[row] = number_of.setdefault(min(both), len(number_of))
    return numbers


def _strand(same: np.ndarray) -> np.ndarray:
    return np.where(same, "same", "opposite").astype(object)
