"""Find homologous or overlapping promoters, and the pairs that a split separates.

A network that has seen a held-out gene's sequence in a training gene is tested on its memory. Two windows are
homologous if a local alignment, on either strand, is better than chance explains: unrelated windows have one as
good in one of a hundred data sets of this size and composition. Tandem repeats and low complexity do not count; a
part of a window that more than 1% of all windows share is a repeat, which makes no two windows homologous.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from promoter.dataset.promoters import Promoters, crop_windows, near_tss
from promoter.sequence import N_TOKEN, reverse_complement
from promoter.splits.alignment import align, min_score
from promoter.splits.config import SPLITS
from promoter.splits.masking import mask_repeats
from promoter.splits.repeats import are_repeats
from promoter.splits.seeds import LINKS, candidates
from promoter.storage import AnyPath
from promoter.storage.schema import read_csv

REPEAT = "repeat"  # the kind of pairs that are listed, but do not count as related
FAMILY = "family"  # the kind of leaks that follow from a large homology group, of which not all pairs are listed
_ALL_LISTED = 16  # members of a homology group up to which each pair is listed
_MIN_BASES = 15  # fewer are no sequence that two windows have in common
_UNGAPPED = 0.6  # share of the smallest score that a candidate reaches without gaps
_CONSTANT = 0.99  # share of a library's sequences that have the same base where its flank is constant
Column = Sequence[Any] | np.ndarray | pd.Series
Related = Callable[[int | None], pd.DataFrame]  # pairs of related genes, of a crop; None: the complete window


def find_related_promoters(promoters: Promoters, crop: int | None = None) -> pd.DataFrame:
    """Find the pairs of genes whose windows are homologous or overlap on the genome.

    Args:
        promoters: the data set, in any order; of a library, flanks that all sequences share do not count.
        crop: number of bases at the end of the windows that the network sees; None (default): all. Only these are
            compared.

    Returns:
        One row per pair, ordered by `i` and `j`. `i` < `j`: row numbers. `fraction`: share of the shorter window
        that the alignment or the overlap covers, whichever is larger. `strand`: "same" or "opposite", relative
        to the directions of the genes. `kind`: "identical" (the complete window, or its reverse complement), else
        "overlapping" (by at least one base), else "similar", or "repeat" if all that the two have in common is a
        part that more than 1% of the genes share. `identity`: share of the aligned bases that are equal. `length`:
        number of aligned or overlapping bases.
    """
    promoters = near_tss(promoters)
    genes, tokens = promoters.genes, promoters.tokens
    if crop is not None and crop < promoters.length:
        genes = crop_windows(genes, promoters.length - crop, promoters.length)
        tokens = tokens[:, -crop:]
    similar = similar_pairs(tokens if promoters.located else without_flanks(tokens))
    pairs = similar.merge(
        overlapping_pairs(genes), how="outer", on=["i", "j"], suffixes=("", "_of_overlap"), sort=True
    )
    identical, repeat = pairs["identical"].eq(True), pairs["repeat"].eq(True)  # missing if they only overlap
    overlapping = pairs["overlap"].notna()
    kind = np.select([identical, overlapping, repeat], ["identical", "overlapping", REPEAT], "similar")
    return pd.DataFrame(
        {
            "i": pairs["i"],
            "j": pairs["j"],
            "fraction": pairs[["fraction", "fraction_of_overlap"]].max(axis=1),
            "strand": pairs["strand_of_overlap"].fillna(pairs["strand"]),
            "kind": kind.astype(object),
            "identity": pairs["identity"].where(~overlapping, 1.0),
            "length": pairs[["length", "overlap"]].max(axis=1).astype(np.int64),
        }
    )


def find_once(promoters: Promoters) -> Related:
    """Return a function that finds the related genes of a crop of the windows, at its first call for each crop."""
    find = functools.cache(functools.partial(find_related_promoters, promoters))
    return lambda crop: find(None if crop is None or crop >= promoters.length else crop)


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


def similar_pairs(tokens: np.ndarray) -> pd.DataFrame:
    """Find the pairs of windows that have a significant local alignment on either strand.

    An element in very many windows is aligned for some pairs only (`promoter.splits.seeds.candidates`), drawn at
    random: at least 16 for each 64 bases of a window. These join all windows that have it, so a homology group is
    complete, but not all of its pairs are listed. If a fifth of the group is in the training set, a held-out
    member is almost certainly listed with a training gene. Neither the order of the windows nor the number of
    cores changes the result.

    Args:
        tokens: the windows: uint8, shape (N, length); those with fewer than 15 bases are like no other.

    Returns:
        One row per pair, ordered by `i` and `j`. `i` < `j`: row numbers. `fraction`: aligned share of the bases of
        the window that has fewer. `identity`: share of the aligned bases that are equal. `length`: number of
        aligned bases. `strand`: "same" or "opposite". `identical`: whether the complete windows are equal, or one
        is the reverse complement of the other. `repeat`: whether all their alignments are of repeats
        (`promoter.splits.repeats.are_repeats`).
    """
    bases = (tokens < N_TOKEN).sum(axis=1)
    content = _contents(tokens)
    order = np.argsort(content, kind="stable")  # by a hash: a random order that only depends on the sequences
    masked = mask_repeats(tokens[order])
    least = min_score(masked)
    alignments = align(masked, candidates(masked, least, round(_UNGAPPED * least)))
    alignments["repeat"] = are_repeats(alignments, bases[order])
    alignments["length"] = (alignments["i_end"] - alignments["i_start"]).clip(
        upper=alignments["j_end"] - alignments["j_start"]
    )
    alignments = alignments.sort_values(["repeat", "score"], ascending=[True, False], kind="stable")
    alignments = alignments.drop_duplicates(["i", "j"])  # the best
    first, second = order[alignments["i"]], order[alignments["j"]]
    i, j = np.minimum(first, second), np.maximum(first, second)
    similar = pd.DataFrame({"i": i, "j": j, "identical": content[i] == content[j]})
    for name in ("identity", "length", "repeat"):
        similar[name] = alignments[name].to_numpy()
    similar["strand"] = _strand(~alignments["opposite"].to_numpy())
    pairs = pd.concat([similar, _equal_pairs(tokens, content, order, bases)], ignore_index=True)
    pairs = pairs.sort_values(["i", "j"], kind="stable").drop_duplicates(
        ["i", "j"], keep="last", ignore_index=True
    )
    shorter = np.minimum(bases[pairs["i"]], bases[pairs["j"]])
    pairs["fraction"] = (pairs["length"] / np.maximum(shorter, 1)).clip(upper=1.0)
    return pairs[["i", "j", "fraction", "identity", "length", "strand", "identical", "repeat"]]


def _contents(tokens: np.ndarray) -> np.ndarray:
    """Number the distinct windows by a hash of their bases, a window and its reverse complement alike."""

    def digest(row: np.ndarray) -> bytes:
        return hashlib.blake2b(row.tobytes(), digest_size=16).digest()

    keys = [min(digest(row), digest(np.asarray(reverse_complement(row)))).hex() for row in tokens]
    return np.unique(keys, return_inverse=True)[1]


def _equal_pairs(tokens: np.ndarray, content: np.ndarray, order: np.ndarray, bases: np.ndarray) -> pd.DataFrame:
    """Return each window with the next `LINKS` that are equal to it, or to its reverse complement."""
    order = order[bases[order] >= _MIN_BASES]
    found = [np.zeros((0, 2), np.int64)]
    for lag in range(1, LINKS + 1):
        pairs = np.stack([order[:-lag], order[lag:]], axis=1)
        pairs = np.sort(pairs[content[pairs[:, 0]] == content[pairs[:, 1]]], axis=1)
        if not len(pairs):
            break
        found.append(pairs)
    i, j = np.concatenate(found).T
    strand = _strand(np.array([np.array_equal(tokens[a], tokens[b]) for a, b in zip(i, j, strict=True)], bool))
    table = pd.DataFrame({"i": i, "j": j, "identical": True, "identity": 1.0, "length": bases[i], "repeat": False})
    return table.assign(strand=strand)


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
        pairs: table with the columns `i`, `j` and `kind`, as `find_related_promoters` returns it; pairs of kind
            "repeat" do not connect. Leave out others that shall not, such as those of kind "overlapping".
        n: number of windows.

    Returns:
        The group of each window: int, shape (n,), from 0 in order of the groups' first members; a window without
        homologs is a group of its own.
    """
    pairs = pairs[related(pairs)]
    links = sparse.coo_array((np.ones(len(pairs), bool), (pairs["i"], pairs["j"])), shape=(n, n))
    return connected_components(links, directed=False)[1]


def large_families(pairs: pd.DataFrame, n: int) -> np.ndarray:
    """Number the homology groups of which not all pairs are listed, overlaps on the genome left out.

    Args:
        pairs: related genes, as `find_related_promoters` returns them.
        n: number of windows.

    Returns:
        The group of each window: int, shape (n,); -1 for one in a group of up to 16 windows.
    """
    group = homology_groups(pairs[pairs["kind"] != "overlapping"], n)
    return np.where(np.bincount(group, minlength=1)[group] > _ALL_LISTED, group, -1)


def related(pairs: pd.DataFrame) -> pd.Series:
    """Return which pairs count as related: those that share more than a repeat."""
    return pairs["kind"] != REPEAT


def find_leaks(pairs: pd.DataFrame, gene_ids: Column, splits: Column) -> pd.DataFrame:
    """List the pairs that cross the split.

    Args:
        pairs: related genes, as `find_related_promoters` returns them.
        gene_ids: id of each gene.
        splits: "train", "val" or "test" of each gene; genes with any other value are ignored.

    Returns:
        One row per pair, the largest `fraction` first, those of kind "repeat" last. `gene_id` and `split` are the
        held-out gene's, or the test gene's of a pair from validation and test; `other_gene_id` and `other_split`
        are the other gene's. `fraction`, `strand`, `kind`, `identity` and `length` are the pair's. A held-out gene
        of a large homology group with training genes that is listed with none of these has a row of kind "family",
        with one of them and without `fraction`.
    """
    ids = np.asarray(gene_ids, dtype=object)
    rank = pd.Series(list(splits), dtype=object).map({name: i for i, name in enumerate(SPLITS)}).to_numpy(float)
    if len(ids) != len(rank):
        raise ValueError(f"{len(ids)} gene ids and {len(rank)} splits: give one of each per gene")
    group = large_families(pairs, len(ids))
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
    columns |= {name: pairs[name].to_numpy() for name in ("fraction", "strand", "kind", "identity", "length")}
    leaks = pd.DataFrame(columns)
    trained = np.flatnonzero((rank == 0) & (group >= 0))
    members = dict(zip(group[trained[::-1]], trained[::-1], strict=True))  # the first of each group
    rows = np.flatnonzero((rank > 0) & np.isin(group, list(members)) & ~leaking_genes(leaks, ids))
    unlisted = pd.DataFrame({"gene_id": ids[rows], "split": names[rank[rows].astype(int)]})
    unlisted["other_gene_id"] = ids[np.array([members[number] for number in group[rows]], dtype=int)]
    if len(rows):
        leaks = pd.concat([leaks, unlisted.assign(other_split=SPLITS[0], kind=FAMILY)], ignore_index=True)
    leaks["repeat"] = ~related(leaks)
    # the alphabet has the kinds in the right order
    worst = ["repeat", "fraction", "kind", "gene_id", "other_gene_id"]
    leaks = leaks.sort_values(worst, ascending=[True, False, True, True, True], ignore_index=True)
    return leaks.drop(columns="repeat")


def read_leaks(path: AnyPath) -> pd.DataFrame:
    """Read a `leakage.csv`, in which `find_leaks` was written; InputError if it is missing or damaged."""
    text = ("gene_id", "split", "other_gene_id", "other_split", "strand", "kind")
    return read_csv(
        path, "train again into another folder", text=text, numbers=["fraction", "identity?", "length?"]
    )


def leaking_genes(leaks: pd.DataFrame, gene_ids: Column) -> np.ndarray:
    """Return which genes are held out and related to a training gene by more than a repeat.

    Args:
        leaks: pairs that cross the split, as `find_leaks` returns them.
        gene_ids: id of each gene.

    Returns:
        bool, shape (genes,).
    """
    of_training = (leaks["other_split"] == "train") & related(leaks)
    return np.isin(np.asarray(gene_ids, dtype=object), leaks["gene_id"][of_training])


def _strand(same: np.ndarray) -> np.ndarray:
    return np.where(same, "same", "opposite").astype(object)
