"""Which of the motifs planted in a simulated genome were found again, and which of their instances."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import pandas as pd

from promoter.motifs.discovery import Discovery
from promoter.motifs.known import tomtom_p
from promoter.sequence import encode, one_hot
from promoter.simulation.genome import GRAMMAR

_P = 1e-3  # of Tomtom; a word of 8 bases that matches exactly has some 1e-10, another planted word 0.1


@dataclass(frozen=True)
class PlantedFound:
    """How well motifs that were found agree with those that were planted.

    Attributes:
        table: a row a planted motif: `motif`, `consensus`, `found` (names of those that resemble it), `planted`
            and `found_instances`, `hits` (planted ones that an instance found overlaps), `recall`.
        recall: share of the planted motifs that a found one resembles.
        precision: share of the found motifs that resemble a planted one.
        instance_recall: share of the planted instances that an instance of a motif like theirs overlaps.
        instance_precision: share of the instances found that overlap a planted one of a motif like theirs.
    """

    table: pd.DataFrame
    recall: float
    precision: float
    instance_recall: float
    instance_precision: float


def compare_with_planted(found: Discovery, truth: pd.DataFrame, genes: Container[str]) -> PlantedFound:
    """Compare with the truth of a simulation.

    Args:
        found: in sequences whose first base is the first promoter base.
        truth: planted instances, as in `promoter.simulation.genome.Simulation.motifs`.
        genes: ids of those that were looked at.
    """
    words = [one_hot(encode(one.consensus)).numpy() for one in GRAMMAR]
    shape = (len(found.motifs), len(GRAMMAR))
    p_QT = tomtom_p([one.frequencies_AL for one in found.motifs], words) if found.motifs else np.ones(shape)
    like = {
        (one.name, planted.name)
        for row, one in enumerate(found.motifs)
        for column, planted in enumerate(GRAMMAR)
        if p_QT[row, column] < _P
    }
    truth = truth[[gene in genes for gene in truth["gene_id"]]].reset_index(drop=True)
    pairs = truth.reset_index().merge(found.instances.reset_index(), on="gene_id", suffixes=("", "_found"))
    overlap = (pairs["offset"] < pairs["offset_found"] + pairs["width_found"]) & (
        pairs["offset_found"] < pairs["offset"] + pairs["width"]
    )
    alike = [(a, b) in like for a, b in zip(pairs["motif_found"], pairs["motif"], strict=True)]
    pairs = pairs[overlap & np.array(alike, dtype=bool)]
    hit = truth.index.isin(pairs["index"])
    rows = []
    for planted in GRAMMAR:
        names = [one.name for one in found.motifs if (one.name, planted.name) in like]
        of_it = truth["motif"] == planted.name
        hits, count = int(hit[of_it].sum()), int(of_it.sum())
        instances = int(found.instances["motif"].isin(names).sum())
        rows.append(
            (planted.name, planted.consensus, " ".join(names), count, instances, hits, hits / max(count, 1))
        )
    columns = ["motif", "consensus", "found", "planted", "found_instances", "hits", "recall"]
    table = pd.DataFrame(rows, columns=pd.Index(columns))
    return PlantedFound(
        table,
        float((table["found"] != "").mean()),
        float(np.mean([any(name == one.name for name, _ in like) for one in found.motifs]))
        if found.motifs
        else 0.0,
        float(hit.mean()) if len(truth) else 0.0,
        pairs["index_found"].nunique() / max(len(found.instances), 1),
    )
