"""The table of yeast's response to salt: its split, and what its replicates say of the best possible result."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pooch

from benchmarks.published_sources import Files
from promoter.dataset import named

YEAST_ORIGINALS = Path("yeast", "original")  # in the folder of the data
TEST_FLAGS = ["--split.test", "chrIV,chrXV", "--split.val", "chrI,chrVI"]
FOLD_FLAGS = ["--split.test", "chrII,chrIII,chrVI,chrX,chrXII", "--split.val", "chrI"]


def salt_ceiling(files: Files, genes: Iterable[str]) -> str:
    """Say how well some experiments' response agrees with that of the others, and what r noise then allows.

    The five experiments, of three replicates before and after salt each, are divided in two in all ten ways. The
    formula of Spearman and Brown turns the correlation of halves into that of the complete set with another such
    set; its root is the r of a perfect prediction.

    Args:
        files: the files.
        genes: the genes that count.
    """
    folder = Path(pooch.os_cache("promoter")) / "yeast" if files.is_cache else files.folder / YEAST_ORIGINALS
    paths = [named.fetch(source, folder, setting="data") for source in named.SALT_SOURCES]
    counts, samples = (pd.read_csv(path, sep="\t", index_col=0) for path in paths[:2])
    length = pd.read_csv(paths[2], sep="\t", comment="#", index_col="Geneid")["Length"]
    halves = agreement(counts[counts.index.isin(length.index)], samples, length, list(genes))
    reliability = 2 * halves / (1 + halves)
    return (
        f"r = {np.sqrt(reliability):.2f} by the replicates (halves of the five experiments agree by r = "
        f"{halves:.2f}, mean over the ten ways to divide them), if all that differs between experiments is noise"
    )


def agreement(counts: pd.DataFrame, samples: pd.DataFrame, length: pd.Series, genes: list[str]) -> float:
    """Return r between the responses that two and the other three experiments measured, mean over all divisions.

    Args:
        counts: reads by gene and sample.
        samples: columns `condition` (basal or salt) and `batch`, the experiment; a row a sample.
        length: number of bases of each gene.
        genes: genes that count.
    """
    samples = samples[samples.index.isin(counts.columns)]
    rate = counts[samples.index].div(length.reindex(counts.index), axis=0)
    tpm = (rate / rate.sum() * 1e6).reindex(genes)
    experiments = sorted(samples["batch"].unique())
    correlations = []
    for some in combinations(experiments, len(experiments) // 2):
        responses = []
        for inside in (samples["batch"].isin(some), ~samples["batch"].isin(some)):
            mean = {
                condition: tpm[samples.index[inside & (samples["condition"] == condition)]].mean(axis=1)
                for condition in ("basal", "salt")
            }
            responses.append(np.log2(mean["salt"] + 1) - np.log2(mean["basal"] + 1))
        correlations.append(responses[0].corr(responses[1]))
    return float(np.mean(correlations))
