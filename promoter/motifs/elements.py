"""What a model's scores say of known words and known sites, against the rest of the same promoters."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from promoter.ism.contributions import actual_contributions
from promoter.ism.store import Scores
from promoter.sequence import encode, reverse_complement

_RESAMPLES = 1000


def word_contributions(scores: Scores, words: list[str], target: int = 0, seed: int = 0) -> pd.DataFrame:
    """Return what the bases of each word contribute where it occurs, on either strand, beyond what others do.

    A base's contribution is `promoter.ism.actual_contributions` of it. Occurrences are compared with all genes at
    the same distance from the window's end, since contributions grow towards the gene.

    Args:
        scores: of some genes.
        words: DNA, each of any length.
        target: index.
        seed: of the bootstrap.

    Returns:
        A row a word: `word` (with its reverse complement), `occurrences`, `genes`, `contribution`: the mean of the
        word's bases minus that of the same positions of all genes, target units; `low` and `high`: its 95%
        bootstrap interval over genes.
    """
    tokens = encode(scores.genes["sequence"].tolist())
    here_NL = actual_contributions(scores.scores[:, target : target + 1], tokens)[:, 0].sum(axis=1)
    beyond_NL = here_NL - here_NL.mean(axis=0)
    rows = []
    for word in words:
        strands = {word, str(reverse_complement(word))}
        pattern = re.compile("|".join(f"(?={strand})" for strand in sorted(strands)))
        sums, counts = np.zeros(len(tokens)), np.zeros(len(tokens), int)
        for row, sequence in enumerate(scores.genes["sequence"]):
            for match in pattern.finditer(sequence):
                sums[row] += beyond_NL[row, match.start() : match.start() + len(word)].mean()
                counts[row] += 1
        low, high = _interval(sums, counts, seed)
        rows.append(
            {
                "word": "/".join(sorted(strands, key=lambda one: one != word)),
                "occurrences": int(counts.sum()),
                "genes": int((counts > 0).sum()),
                "contribution": sums.sum() / max(counts.sum(), 1),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def site_contributions(scores: Scores, sites: pd.DataFrame, target: int = 0, seed: int = 0) -> dict[str, float]:
    """Compare |contribution| within known sites with the same positions of other genes' promoters.

    Args:
        scores: of some genes.
        sites: `gene_id`, `start`, `end` on the gene's chromosome, 0-based, half-open.
        target: index.
        seed: of the other genes drawn, 20 for each site.

    Returns:
        `sites` within the windows; `ratio` of the mean |contribution| in them to that in the others; `auroc`, the
        probability that a site's mean exceeds another gene's at the same position, `low` and `high` its 95%
        bootstrap interval over the sites.
    """
    tokens = encode(scores.genes["sequence"].tolist())
    size_NL = np.abs(actual_contributions(scores.scores[:, target : target + 1], tokens)[:, 0].sum(axis=1))
    row_of = {gene: row for row, gene in enumerate(scores.genes["gene_id"])}
    with_site = np.array([row_of[gene] for gene in sites["gene_id"].unique() if gene in row_of], int)
    others = np.setdiff1d(np.arange(len(tokens)), with_site)
    rng = np.random.default_rng(seed)
    inside, outside = [], []
    for gene_id, start, end in zip(sites["gene_id"], sites["start"], sites["end"], strict=True):
        row = row_of.get(gene_id)
        if row is None:
            continue
        gene = scores.genes.iloc[row]
        first = gene["end"] - end if gene["strand"] == "-" else start - gene["start"]
        last = first + end - start
        if first < 0 or last > size_NL.shape[1]:
            continue
        inside.append(size_NL[row, first:last].mean())
        outside.append(size_NL[rng.choice(others, 20), first:last].mean(axis=1))
    if not inside:
        return {"sites": 0} | dict.fromkeys(("ratio", "auroc", "low", "high"), float("nan"))
    own, theirs = np.array(inside), np.array(outside)
    larger = (own[:, None] > theirs).mean(axis=1) + (own[:, None] == theirs).mean(axis=1) / 2
    low, high = _interval(larger, np.ones(len(own)), seed)
    ratio = float(own.mean() / theirs.mean())
    return {"sites": len(own), "ratio": ratio, "auroc": float(larger.mean()), "low": low, "high": high}


def _interval(sums: np.ndarray, counts: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95% bootstrap interval of sum(sums) / sum(counts) over those that are counted."""
    have = np.flatnonzero(counts)
    if not len(have):
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, len(have), (_RESAMPLES, len(have)))
    means = sums[have][drawn].sum(axis=1) / counts[have][drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
