"""Which promoters are nearly the same promoter, homologous or overlapping, and which of them a split parts.

A network that has seen a held-out gene's sequence in a training gene is tested on its memory. Homology is measured
by containment: the distinct canonical 31-mers (a k-mer and its reverse complement are one; those with N do not
count) that two windows share, over those of the window that has fewer (Broder 1997). By chance two windows share
none; what they share is a common origin, or a repeat.
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
from promoter.splits.split import SPLITS

K = 31  # odd, so that no k-mer is its own reverse complement; 62 bits leave room for the strand
_SPANS = (1, 2, 4, 8, 15)  # added to a span of one base one after the other, they make K
LINKS = 32  # windows, before and behind each in a fixed random order, to which a k-mer links it
THRESHOLD = 0.05  # of containment; 0.95^31 = 0.20 is what is left when 5% of the bases change
MIN_SHARED = 20  # k-mers: 50 bases in a row; a tandem repeat of period p has only p of them
_SLICE = 1 << 24  # k-mers sorted at once: some 500 MB
_BLOCK = 1 << 16  # k-mers formed at once, to stay in the processor's cache
Column = Sequence[Any] | np.ndarray | pd.Series
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth's multiplicative hashing)


def related_pairs(promoters: Promoters, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Find the pairs of genes whose windows are homologous or overlap on the genome.

    Args:
        promoters: in any order.
        threshold: least containment of homologous windows; see `similar_pairs`.

    Returns:
        A row a pair, in order of `i` and `j`. `i` < `j`: row numbers. `fraction`: containment, or the part of the
        shorter window that lies in the overlap, whichever is more. `strand`: "same" or "opposite", relative to the
        directions of the genes. `kind`: "identical" (the whole window, or its reverse complement), else
        "overlapping" (by a base or more), else "similar".
    """
    promoters = near_tss(promoters)
    similar, overlapping = similar_pairs(promoters.tokens, threshold), overlapping_pairs(promoters.genes)
    pairs = similar.merge(overlapping, how="outer", on=["i", "j"], suffixes=("", "_of_overlap"), sort=True)
    identical = pairs["identical"].eq(True)  # where there is none, the pair does but overlap
    fraction = pairs[["containment", "fraction"]].max(axis=1).where(~identical, 1.0)  # containment may be a bound
    kind = np.where(identical, "identical", np.where(pairs["overlap"].notna(), "overlapping", "similar"))
    strand = pairs["strand_of_overlap"].fillna(pairs["strand"])
    return pd.DataFrame({"i": pairs["i"], "j": pairs["j"], "fraction": fraction, "strand": strand, "kind": kind})


def similar_pairs(tokens: np.ndarray, threshold: float = THRESHOLD, min_shared: int = MIN_SHARED) -> pd.DataFrame:
    """Find the pairs of windows that share 31-mers.

    Of two random copies, one with 5% of its bases changed, the defaults find 98% at 500 bases, 99.8% at 1,000 and
    all at 2,000.

    A k-mer links each of its windows to the next 32 (`LINKS`) that have it, in an order that is random but the
    same for all k-mers and every run. So a k-mer in at most 33 windows counts for all their pairs, and one in more
    (a transposon, a large family) costs time and memory in proportion to its windows, not to their square.
    `shared` and `containment` are exact for a pair whose shared k-mers lie in at most 33 windows each; for others
    they are lower bounds, exact still where fewer than 32 windows with these k-mers lie between the two in that
    order. So a larger family is joined, but not all of its pairs are listed: each member has some 64 others, drawn
    at random. Where a tenth of the family is in training, a member held out is all but surely listed with one.

    Args:
        tokens: uint8, shape (N, length); below 31 bases there are no k-mers.
        threshold: least containment.
        min_shared: least number of shared k-mers, so that poly-A and tandem repeats do not pass for homology.

    Returns:
        A row a pair, in order of `i` and `j`. `i` < `j`: row numbers. `shared`: k-mers. `containment`. `strand`:
        "same" or "opposite", as most shared k-mers lie. `identical`: the whole window, or its reverse complement.
    """
    n = len(tokens)
    rank = np.random.default_rng(0).permutation(n)
    row_of_rank = np.argsort(rank)
    distinct = np.zeros(n, dtype=np.int64)
    found = _Counts()
    for words, rows in _slices(tokens):
        alone = _alone(words)
        group, members, forward = _grouped(words[~alone], rank[rows[~alone]], row_of_rank)
        for some in (rows[alone], members):
            distinct += np.bincount(some, minlength=n)
        for first, second in _links(group):
            one, other = members[first], members[second]
            pair = np.minimum(one, other) * n + np.maximum(one, other)
            found.add(2 * pair + (forward[first] != forward[second]))
    keys, counts = found.total()
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
    """Find the pairs of windows that have a base of the genome in common, on either strand.

    Args:
        genes: as `Promoters.genes`. N at either end of a window, as past a chromosome's end, is no base. Genes
            without a chromosome are passed over.

    Returns:
        A row a pair, in order of `i` and `j`. `i` < `j`: row numbers. `overlap`: bases. `fraction`: the same, of
        the shorter window. `strand`: "same" or "opposite".
    """
    row = np.flatnonzero(genes["chrom"].notna())
    placed = genes.iloc[row]
    known = placed["sequence"].str.upper()
    before, after = ((known.str.len() - bare.str.len()).to_numpy(np.int64) for bare in _stripped(known))
    forward = (placed["strand"] != "-").to_numpy()
    start = placed["start"].to_numpy(np.int64) + np.where(forward, before, after)
    end = placed["end"].to_numpy(np.int64) - np.where(forward, after, before)
    chrom = pd.factorize(placed["chrom"])[0]
    order = np.lexsort((start, chrom))
    order = order[start[order] < end[order]]  # the others are N throughout
    row, forward, chrom, start, end = (column[order] for column in (row, forward, chrom, start, end))
    origin = chrom * (end.max(initial=0) - start.min(initial=0) + 1)  # one axis for all chromosomes
    # how many begin after this one, and before it ends
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


def families(pairs: pd.DataFrame, n: int) -> np.ndarray:
    """Number the families: what is related to one of a family belongs to it.

    Args:
        pairs: with `i` and `j`; leave out those that shall not join, such as kind "overlapping".
        n: windows.

    Returns:
        int, shape (n,): the family of each window, from 0 in order of their first members; a window without
        relatives is a family of its own.
    """
    links = sparse.coo_array((np.ones(len(pairs), bool), (pairs["i"], pairs["j"])), shape=(n, n))
    return connected_components(links, directed=False)[1]


def find_leaks(pairs: pd.DataFrame, gene_ids: Column, splits: Column) -> pd.DataFrame:
    """List the pairs that a split parts.

    Args:
        pairs: of `related_pairs`.
        gene_ids: one a gene.
        splits: "train", "val" or "test" of each gene; those with none are passed over.

    Returns:
        A row a pair, the worst first. `gene_id` and `split`: of the gene held out (of validation and test, the
        test gene). `other_gene_id` and `other_split`: of the other. `fraction`, `strand`, `kind`: of the pair.
    """
    ids = np.asarray(gene_ids, dtype=object)
    place = pd.Series(list(splits), dtype=object).map({name: i for i, name in enumerate(SPLITS)}).to_numpy(float)
    if len(ids) != len(place):
        raise ValueError(f"{len(ids)} gene ids and {len(place)} splits: one of each a gene needed")
    i, j = place[pairs["i"]], place[pairs["j"]]
    pairs = pairs[(i != j) & ~np.isnan(i) & ~np.isnan(j)]
    i, j = pairs["i"].to_numpy(), pairs["j"].to_numpy()
    gene, other = np.where(place[i] > place[j], (i, j), (j, i))
    names = np.array(SPLITS, dtype=object)
    columns = {
        "gene_id": ids[gene],
        "split": names[place[gene].astype(int)],
        "other_gene_id": ids[other],
        "other_split": names[place[other].astype(int)],
    }
    columns |= {name: pairs[name].to_numpy() for name in ("fraction", "strand", "kind")}
    worst = ["fraction", "kind", "gene_id", "other_gene_id"]  # kinds are worst first in the alphabet, too
    return pd.DataFrame(columns).sort_values(worst, ascending=[False, True, True, True], ignore_index=True)


def leaking_genes(leaks: pd.DataFrame, gene_ids: Column) -> np.ndarray:
    """Return which genes are held out and related to a training gene: bool, shape (genes,)."""
    return np.isin(np.asarray(gene_ids, dtype=object), leaks["gene_id"][leaks["other_split"] == "train"])


def _slices(tokens: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all words (see `_words`) and the rows of their windows, in slices by a hash of the k-mer."""
    n, starts = len(tokens), max(tokens.shape[1] - K + 1, 0)
    slices = -(-n * starts // _SLICE)
    for number in range(slices):  # forming all words anew for each slice takes less time than sorting them
        parts, counts = [], []
        height = _BLOCK // starts + 1
        for top in range(0, n, height):
            words, chosen = _words(tokens[top : top + height])
            if slices > 1:
                chosen &= (_hash(words) >> np.uint64(40)) * np.uint64(slices) >> np.uint64(24) == number
            parts.append(words[chosen])
            counts.append(np.count_nonzero(chosen, axis=1))
        yield np.concatenate(parts), np.repeat(np.arange(n, dtype=np.int32), np.concatenate(counts))


def _words(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the word at each position, and whether it is free of N: both (rows, length - 30).

    A word is twice the canonical k-mer (the lesser of its strands, as a number in base 4), plus 1 where that is
    the forward one. Each step joins two neighbouring spans; the last two overlap by a base, in whose bits they
    agree.
    """
    forward = tokens.astype(np.uint64)
    reverse = np.uint64(3) - forward  # wraps around for N, of which nothing is used
    free = tokens < N_TOKEN
    for step in _SPANS:
        bits = np.uint64(2 * step)
        forward = forward[:, :-step] << bits | forward[:, step:]
        reverse = reverse[:, step:] << bits | reverse[:, :-step]
        free = free[:, :-step] & free[:, step:]
    return np.minimum(forward, reverse) << np.uint64(1) | (forward < reverse), free


def _hash(words: np.ndarray) -> np.ndarray:
    """Spread the k-mers evenly over 64 bits, the high ones best; both strands alike."""
    return (words >> np.uint64(1)) * _MIX


def _alone(words: np.ndarray) -> np.ndarray:
    """Return which k-mers occur once; a few are missed, whose hash begins as another's.

    Most do, so that few need the order in which they sort, which takes several times as long as sorting.
    """
    place = np.uint64(len(words).bit_length())
    keys = _hash(words) >> place << place | np.arange(len(words), dtype=np.uint64)
    keys.sort()
    again = np.flatnonzero(keys[1:] >> place == keys[:-1] >> place)
    alone = np.ones(len(words), dtype=bool)
    for one in (again, again + 1):
        alone[keys[one] & ((np.uint64(1) << place) - np.uint64(1))] = False
    return alone


def _grouped(
    words: np.ndarray, ranks: np.ndarray, row_of_rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group windows by k-mer, each once and in order of rank: the groups' numbers, the rows, 1 where forward."""
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
    """Yield places of members, and places of those 1, 2, ... LINKS further on in their groups."""
    padded = np.concatenate([group, np.full(LINKS, -1)])
    place = np.arange(len(group))
    for lag in range(1, LINKS + 1):
        place = place[padded[place + lag] == group[place]]
        if not len(place):
            return
        yield place, place + lag


class _Counts:
    """How often each number was added, in memory that grows with the different ones."""

    def __init__(self) -> None:
        self._parts = [(np.zeros(0, np.int64), np.zeros(0, np.int32))]
        self._size = self._merged = 0

    def add(self, numbers: np.ndarray) -> None:
        keys, counts = np.unique(numbers, return_counts=True)
        self._parts.append((keys, counts.astype(np.int32)))
        self._size += len(keys)
        if self._size > 3 * self._merged // 2 + _SLICE // 4:
            self._merge()

    def total(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the different numbers, ascending, and their counts."""
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
    """Return which values differ from the one before; the first does."""
    return np.append(np.ones(len(ordered[:1]), dtype=bool), ordered[1:] != ordered[:-1])


def _contents(tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Number the contents of these rows, a window and its reverse complement alike; -1 for the other rows."""
    number_of: dict[bytes, int] = {}
    numbers = np.full(len(tokens), -1)
    for row in rows:
        both = tokens[row].tobytes(), np.asarray(reverse_complement(tokens[row])).tobytes()
        numbers[row] = number_of.setdefault(min(both), len(number_of))
    return numbers


def _stripped(sequences: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return the sequences without N at the start, and without N at the end."""
    return sequences.str.lstrip("N"), sequences.str.rstrip("N")


def _strand(same: np.ndarray) -> np.ndarray:
    return np.where(same, "same", "opposite").astype(object)
