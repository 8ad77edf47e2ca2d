"""Motifs out of contributions: a track with words at known places of a simulated genome."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from pyfaidx import Fasta

from promoter.errors import InputError
from promoter.genome import window
from promoter.ism.store import Scores, part_path, write_part
from promoter.motifs import Contributions, discover_motifs, place_on_genome, read_contributions, write_h5
from promoter.sequence import encode, one_hot, reverse_complement
from promoter.simulate import GRAMMAR, Simulation, simulate

UPSTREAM = 200
KNOWN = {one.name: one for one in GRAMMAR}


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(tmp_path_factory.mktemp("genome"), 2, 300, UPSTREAM)


@pytest.fixture(scope="module")
def contributions(simulation: Simulation) -> Contributions:
    """What a model that knows the grammar would give: the effect at the bases of each instance; noise elsewhere."""
    genome = Fasta(str(simulation.genome), as_raw=True, sequence_always_upper=True)
    rows = []
    for line in simulation.genes.read_text().splitlines():
        chrom, start, end, gene, _, strand = line.split("\t")
        tss = int(start) if strand == "+" else int(end) - 1
        left, right = window(tss, strand, UPSTREAM, 0)
        length = len(genome[chrom])
        bases = "N" * max(-left, 0) + genome[chrom][max(left, 0) : right] + "N" * max(right - length, 0)
        rows.append((gene, chrom, left, right, strand, bases if strand == "+" else str(reverse_complement(bases))))
    columns = ["gene_id", "chrom", "start", "end", "strand", "sequence"]
    genes = pd.DataFrame(rows, columns=pd.Index(columns))
    ones_NAL = one_hot(encode(genes["sequence"].tolist())).numpy()
    rng = np.random.default_rng(0)
    actual_NL = rng.normal(0, 0.02, ones_NAL[:, 0].shape).astype(np.float32)
    row_of = {gene: row for row, gene in enumerate(genes["gene_id"])}
    for one in simulation.motifs.itertuples():
        actual_NL[row_of[one.gene_id], one.offset : one.offset + one.width] += KNOWN[one.motif].effect
    known_N1L = ones_NAL.any(axis=1)[:, None]
    # of the base that is there, and a third of it less for each of the others, so that they sum to 0
    hypothetical_NAL = np.where(known_N1L, actual_NL[:, None] * (ones_NAL - (1 - ones_NAL) / 3), 0)
    return Contributions(genes, "expression", hypothetical_NAL.astype(np.float32), ones_NAL)


@pytest.fixture(scope="module")
def found(contributions: Contributions):
    return discover_motifs(contributions)


def test_x(found, contributions):
    for one in found.motifs:
        print(one.name, one.group, one.consensus, one.iupac, one.seqlets, one.contribution)
    print(place_on_genome(found.instances, contributions.genes).head())
