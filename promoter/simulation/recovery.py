"""Measure how well scores and discovered motifs recover what was implanted in a simulated genome."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from promoter.ism import actual_contributions
from promoter.sequence import N_TOKEN, encode, one_hot
from promoter.simulation.genome import GRAMMAR

if TYPE_CHECKING:
    from promoter.ism import Scores
    from promoter.motifs.discovery import Discovery

_MAX_P = 1e-3  # of Tomtom; a word of 8 bases that matches exactly has some 1e-10, another implanted word 0.1


@dataclass(frozen=True)
class RecoveredMotifs:
    """Agreement of discovered motifs with the implanted ones.

    Attributes:
        table: a row per implanted motif: `motif`, `consensus`, `found` (names of the discovered motifs that
            resemble it), `implanted` and `found_instances`, `hits` (implanted ones that a discovered instance
            overlaps), `recall`.
        recall: share of the implanted motifs that a discovered one resembles.
        precision: share of the discovered motifs that resemble an implanted one.
        instance_recall: share of the implanted instances that an instance of a motif like theirs overlaps.
        instance_precision: share of the discovered instances that overlap an implanted one of a motif like theirs.
    """

    table: pd.DataFrame
    recall: float
    precision: float
    instance_recall: float
    instance_precision: float


def motif_recovery(motifs: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Measure how well contributions point at the implanted motifs.

    Args:
        motifs: implanted instances, as in `Simulation.motifs`.
        scores: ISM scores of one target over windows whose first base is the first promoter base.

    Returns:
        A row per motif and one named `all`: `instances`, and `auroc`, the probability that a base inside an
        instance has a larger |actual contribution| than a base outside all instances (0.5 is chance).
    """
    tokens = encode(scores.genes["sequence"].tolist())
    contributions = np.abs(actual_contributions(scores.scores, tokens)[:, 0])
    importance = contributions.sum(axis=1, dtype=np.float64)  # ranks, which are summed, take its type
    label = np.full(importance.shape, "", dtype=object)
    row_of = {gene: row for row, gene in enumerate(scores.genes["gene_id"])}
    present = motifs[motifs["gene_id"].isin(row_of.keys())]
    columns = (present[name] for name in ("gene_id", "offset", "width", "motif"))
    for gene, offset, width, motif in zip(*columns, strict=True):
        label[row_of[gene], offset : offset + width] = motif
    outside = importance[(label == "") & (tokens != N_TOKEN)]
    rows = []
    for name, count in [*present["motif"].value_counts().items(), ("all", len(present))]:
        inside = importance[label == name] if name != "all" else importance[label != ""]
        auroc = stats.mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside))
        rows.append((name, int(count), float(auroc)))
    return pd.DataFrame(rows, columns=pd.Index(["motif", "instances", "auroc"]))


def compare_with_implanted(discovery: Discovery, truth: pd.DataFrame, genes: Container[str]) -> RecoveredMotifs:
    """Compare discovered motifs with the truth of a simulation.

    Args:
        discovery: motifs discovered in sequences whose first base is the first promoter base.
        truth: implanted instances, as in `promoter.simulation.genome.Simulation.motifs`.
        genes: ids of the genes that motifs were discovered in.
    """
    from promoter.motifs.known import tomtom_p  # noqa: PLC0415 # slow to import, and the simulator needs none of it

    words = [one_hot(encode(motif.consensus)).numpy() for motif in GRAMMAR]
    shape = (len(discovery.motifs), len(GRAMMAR))
    p_QT = tomtom_p([motif.frequencies_AL for motif in discovery.motifs], words) if shape[0] else np.ones(shape)
    similar = {
        (motif.name, implanted.name)
        for row, motif in enumerate(discovery.motifs)
        for column, implanted in enumerate(GRAMMAR)
        if p_QT[row, column] < _MAX_P
    }
    truth = truth[[gene in genes for gene in truth["gene_id"]]].reset_index(drop=True)
    pairs = truth.reset_index().merge(discovery.instances.reset_index(), on="gene_id", suffixes=("", "_found"))
    overlap = (pairs["offset"] < pairs["offset_found"] + pairs["width_found"]) & (
        pairs["offset_found"] < pairs["offset"] + pairs["width"]
    )
    alike = [(a, b) in similar for a, b in zip(pairs["motif_found"], pairs["motif"], strict=True)]
    pairs = pairs[overlap & np.array(alike, dtype=bool)]
    hit = truth.index.isin(pairs["index"])
    rows = []
    for implanted in GRAMMAR:
        names = [motif.name for motif in discovery.motifs if (motif.name, implanted.name) in similar]
        of_motif = truth["motif"] == implanted.name
        hits, count = int(hit[of_motif].sum()), int(of_motif.sum())
        instances = int(discovery.instances["motif"].isin(names).sum())
        rows.append(
            (implanted.name, implanted.consensus, " ".join(names), count, instances, hits, hits / max(count, 1))
        )
    columns = ["motif", "consensus", "found", "implanted", "found_instances", "hits", "recall"]
    table = pd.DataFrame(rows, columns=pd.Index(columns))
    matched = {name for name, _ in similar}
    return RecoveredMotifs(
        table,
        recall=float((table["found"] != "").mean()),
        precision=float(np.mean([motif.name in matched for motif in discovery.motifs])) if shape[0] else 0.0,
        instance_recall=float(hit.mean()) if len(truth) else 0.0,
        instance_precision=pairs["index_found"].nunique() / max(len(discovery.instances), 1),
    )
