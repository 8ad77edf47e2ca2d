"""Compare the contributions of known words and known sites with those of the same positions of other genes."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from promoter.ism.contributions import actual_contributions
from promoter.ism.store import Scores
from promoter.sequence import encode, reverse_complement

_RESAMPLES = 1000


def word_contributions(scores: Scores, words: list[str], target: int = 0, seed: int = 0) -> pd.DataFrame:
    """Measure the contribution of each word, on either strand, beyond that of the same positions of all genes.

    A base's contribution is computed by `promoter.ism.actual_contributions`. Occurrences are compared with all
    genes at the same distance from the window's end, since contributions grow towards the gene.

    Args:
        scores: ISM scores of some genes.
        words: DNA words of any length.
        target: index of the target (default 0).
        seed: random seed of the bootstrap (default 0).

    Returns:
        A row per word: `word` (with its reverse complement), `occurrences`, `genes`, `contribution`: mean of the
        word's bases minus that of the same positions of all genes, target units; `low` and `high`: its 95%
        bootstrap interval over genes.
    """
    tokens = encode(scores.genes["sequence"].tolist())
    actual_NL = actual_contributions(scores.scores[:, target : target + 1], tokens)[:, 0].sum(axis=1)
    excess_NL = actual_NL - actual_NL.mean(axis=0)
    rows = []
    for word in words:
        strands = {word, str(reverse_complement(word))}
        pattern = re.compile("|".join(f"(?={strand})" for strand in sorted(strands)))
        sums, counts = np.zeros(len(tokens)), np.zeros(len(tokens), int)
        for row, sequence in enumerate(scores.genes["sequence"]):
            for match in pattern.finditer(sequence):
                sums[row] += excess_NL[row, match.start() : match.start() + len(word)].mean()
                counts[row] += 1
        low, high = _interval(sums, counts, seed)
        rows.append(
            {
                "word": "/".join(sorted(strands, key=lambda strand: strand != word)),
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
        scores: ISM scores of some genes.
        sites: table of `gene_id`, `start`, `end` on the gene's chromosome, 0-based, half-open; where there are no
            coordinates, from the first base that was scored.
        target: index of the target (default 0).
        seed: random seed for drawing the other genes, 20 for each site, and for the bootstrap (default 0).

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
        origin = 0 if pd.isna(gene["start"]) else gene["start"]
        first = gene["end"] - end if gene["strand"] == "-" else start - origin
        last = first + end - start
        if first < 0 or last > size_NL.shape[1]:
            continue
        inside.append(size_NL[row, first:last].mean())
        outside.append(size_NL[rng.choice(others, 20), first:last].mean(axis=1))
    if not inside:
        return {"sites": 0} | dict.fromkeys(("ratio", "auroc", "low", "high"), float("nan"))
    own, others_mean = np.array(inside), np.array(outside)
    larger = (own[:, None] > others_mean).mean(axis=1) + (own[:, None] == others_mean).mean(axis=1) / 2
    low, high = _interval(larger, np.ones(len(own)), seed)
    ratio = float(own.mean() / others_mean.mean())
    return {"sites": len(own), "ratio": ratio, "auroc": float(larger.mean()), "low": low, "high": high}


def _interval(sums: np.ndarray, counts: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95% bootstrap interval of sum(sums) / sum(counts) over the entries with a count."""
    counted = np.flatnonzero(counts)
    if not len(counted):
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, len(counted), (_RESAMPLES, len(counted)))
    means = sums[counted][drawn].sum(axis=1) / counts[counted][drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
