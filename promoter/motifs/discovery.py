"""Discover motifs in contributions by TF-MoDISco (tf-modisco-lite), and locate their instances.

A seqlet is a region whose contributions stand out from the rest of the sequences; similar seqlets make a motif.
Motifs that raise the prediction and motifs that lower it are discovered separately.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import modiscolite.io
import modiscolite.tfmodisco
import numpy as np
import pandas as pd
from Bio import motifs as biopython

from promoter import storage
from promoter.dataset.gene_names import bed_names
from promoter.errors import InputError
from promoter.ism import hypothetical_contributions, iterate_scores
from promoter.ism.store import choose_target, load_contents
from promoter.labels import bed_field
from promoter.sequence import BASES, N_TOKEN, encode, one_hot
from promoter.storage import AnyPath

_CORE, _FLANK = 21, 10  # bases that make a seqlet stand out, and those kept on either side: modisco's defaults
_PAD = 2 * _FLANK  # modisco takes no seqlet nearer an end, where the TSS is and its motifs are
_MIN_SEQLETS = 50  # of one sign, to be clustered; modisco's 100 is for genomes of tens of thousands of genes
_MIN_SEQLETS_OF_MOTIF = 20  # modisco's default
_LEIDEN_RUNS = 10  # of which the best is kept; modisco's 50 take most of the time, on a laptop minutes
_MIN_BITS = 0.25  # of a position, weighted by its contribution: flanks of less are trimmed, gaps may have less
_MIN_WIDTH = 6  # bases; Tomtom aligns shorter motifs with anything
_GROUPS = ("pos_patterns", "neg_patterns")
INSTANCE_COLUMNS = ["motif", "gene_id", "offset", "width", "orientation", "contribution"]


@dataclass(frozen=True)
class Contributions:
    """Contributions of some genes to one target, 5'→3' along each gene.

    Attributes:
        genes: a row per gene: `gene_id`, `chrom`, `start`, `end`, `strand`, `sequence`; where only the last bases
            of the windows were read, coordinates and sequence are those of these bases. Without a genome `chrom`
            and `strand` are missing, and `start` and `end` count from the first base of the sequence, 0-based.
        target: name of the target.
        hypothetical_NAL: hypothetical contributions, float32, (genes, 4, length), target units; zeros at N.
        one_hot_NAL: one-hot sequences, float32, same shape; zeros at N.
        noun: what a row is called in messages: gene (default), or sequence where it lies on no genome.
        method: name of the method by which the scores were computed (default ISM).
    """

    genes: pd.DataFrame
    target: str
    hypothetical_NAL: np.ndarray
    one_hot_NAL: np.ndarray
    noun: str = "gene"
    method: str = "ISM"


@dataclass(frozen=True)
class FoundMotif:
    """A motif discovered in contributions.

    Attributes:
        name: `pattern_0` and so on: modisco's positive ones first, then its negative ones, each by number
            of seqlets.
        group: name of the motif in modisco's file.
        sign: 1 if its bases raise the prediction, -1 if they lower it.
        frequencies_AL: frequencies of the bases, (4, width), columns sum to 1.
        contributions_AL: mean actual contributions, (4, width), target units.
        seqlets: number of seqlets that the motif is made of.
        contribution: mean over the seqlets of the sum over the motif's bases, target units.
    """

    name: str
    group: str
    sign: int
    frequencies_AL: np.ndarray
    contributions_AL: np.ndarray
    seqlets: int
    contribution: float

    @property
    def consensus(self) -> str:
        """The most frequent base at each position."""
        return str(_counts(self.frequencies_AL).consensus)

    @property
    def iupac(self) -> str:
        """IUPAC codes by the rules of Cavener (1987)."""
        return str(_counts(self.frequencies_AL).degenerate_consensus)


@dataclass(frozen=True)
class Discovery:
    """The motifs that `discover_motifs` found, and their instances.

    Attributes:
        motifs: motifs, ordered by sign, then by number of seqlets.
        instances: a row per seqlet: `motif`, `gene_id`, `offset` of its first base (5'→3' along the gene),
            `width`, `orientation` relative to the gene, `contribution`: sum of the actual contributions of its
            bases, target units.
        patterns: modisco's own objects: patterns that raise the prediction, and patterns that lower it; untrimmed,
            with those that are no motif.
        length: length of the sequences in bases.
        uninformative: number of patterns that are left out, since no position of them tells more than chance.
    """

    motifs: list[FoundMotif]
    instances: pd.DataFrame
    patterns: tuple[list[Any], list[Any]] = field(repr=False)
    length: int
    uninformative: int = 0

    def to_table(self) -> pd.DataFrame:
        """Return a row per motif: names, consensus, IUPAC codes, sign, seqlets and contribution."""
        rows = [
            (motif.name, motif.consensus, motif.iupac, motif.sign, motif.seqlets, motif.contribution, motif.group)
            for motif in self.motifs
        ]
        columns = ["motif", "consensus", "iupac", "sign", "seqlets", "contribution", "modisco_name"]
        return pd.DataFrame(rows, columns=pd.Index(columns))


def read_contributions(
    scores: AnyPath, target: str | None = None, window: int | None = None, genes: Sequence[str] | None = None
) -> Contributions:
    """Read the contributions that a folder of scores gives.

    Args:
        scores: folder that ism or attribute wrote.
        target: name of the target; may be left out when there is only one.
        window: number of bases to keep, counted from the end of each sequence; all by default.
        genes: ids or names of the genes to read; all by default.

    Raises:
        InputError: a target or gene does not exist; the window is too short or longer than the sequences; the
            scores are unfinished.
    """
    contents = load_contents(scores, genes)
    target = choose_target(contents.targets, target)
    window = contents.length if window is None else window
    if not _CORE <= window <= contents.length:
        raise InputError(
            f"must be from {_CORE}, the bases of a seqlet, to {contents.length}, the bases that were scored",
            setting="window",
            value=window,
        )
    tables, hypothetical, ones = [], [], []
    for batch in iterate_scores(scores, genes and contents.genes["gene_id"].tolist(), [target]):
        tokens_NL = encode(batch.genes["sequence"].str[-window:].tolist())
        known_N1L = (tokens_NL != N_TOKEN)[:, None]
        values_NAL = hypothetical_contributions(batch.scores[:, 0, :, -window:])
        hypothetical.append(np.where(known_N1L, values_NAL, np.float32(0)))
        ones.append(one_hot(tokens_NL).numpy())
        tables.append(batch.genes)
    table = pd.concat(tables, ignore_index=True)
    if not contents.located:
        table = table.assign(start=contents.first, end=contents.first + contents.length)
    table["sequence"] = table["sequence"].str[-window:]
    minus = table["strand"] == "-"
    table["end"] = table["end"].where(~minus, table["start"] + window)
    table["start"] = table["start"].where(minus, table["end"] - window)
    return Contributions(
        table, target, np.concatenate(hypothetical), np.concatenate(ones), contents.noun, contents.method_name
    )


def discover_motifs(contributions: Contributions, max_seqlets: int = 2000, seed: int = 0) -> Discovery:
    """Cluster the regions with high contributions into motifs.

    Args:
        contributions: contributions of some genes.
        max_seqlets: maximum number of seqlets to cluster of each sign (default 2000); time grows with its square.
            If there are more, seqlets of randomly drawn genes are taken.
        seed: random seed for the order in which genes are taken (default 0).

    Returns:
        The motifs; none if too few regions stand out.
    """
    order = np.random.default_rng(seed).permutation(len(contributions.genes))
    pad = ((0, 0), (_PAD, _PAD), (0, 0))
    # modisco wants (genes, length, 4), in memory as such
    ones_NLA, hypothetical_NLA = (
        np.ascontiguousarray(np.pad(x_NAL[order].transpose(0, 2, 1), pad), dtype=np.float32)
        for x_NAL in (contributions.one_hot_NAL, contributions.hypothetical_NAL)
    )
    length = contributions.one_hot_NAL.shape[2]
    patterns: tuple[list[Any], list[Any]] = ([], [])
    if _both_signs((ones_NLA * hypothetical_NLA).sum(axis=2)):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of the packages that modisco calls; none that a user could fix
            of_signs = modiscolite.tfmodisco.TFMoDISco(
                ones_NLA,
                hypothetical_NLA,
                sliding_window_size=_CORE,
                flank_size=_FLANK,
                min_metacluster_size=_MIN_SEQLETS,
                max_seqlets_per_metacluster=max_seqlets,
                final_min_cluster_size=_MIN_SEQLETS_OF_MOTIF,
                n_leiden_runs=_LEIDEN_RUNS,
            )
        patterns = (list(of_signs[0] or []), list(of_signs[1] or []))
    for seqlet in _all_seqlets([*patterns[0], *patterns[1]]):
        seqlet.example_idx = int(order[seqlet.example_idx])
        seqlet.start, seqlet.end = seqlet.start - _PAD, seqlet.end - _PAD
    motifs, rows, uninformative = [], [], 0
    background_A = contributions.one_hot_NAL.mean(axis=(0, 2))
    for group, of_sign in zip(_GROUPS, patterns, strict=True):
        for number, pattern in enumerate(of_sign):
            name = f"pattern_{len(motifs)}"
            bits_L = information(_as_frequencies(pattern.sequence.T), background_A, len(pattern.seqlets))
            core = trim(bits_L, np.abs(pattern.contrib_scores).sum(axis=1))
            if core is None:
                uninformative += 1
                continue
            first, last = core
            contribution = float(pattern.contrib_scores[first:last].sum())
            motifs.append(
                FoundMotif(
                    name,
                    f"{group}.pattern_{number}",
                    1 if contribution > 0 else -1,  # of the motif; modisco's groups go by its surroundings, too
                    _as_frequencies(pattern.sequence[first:last].T),
                    pattern.contrib_scores[first:last].T,
                    len(pattern.seqlets),
                    contribution,
                )
            )
            rows += _instances(name, pattern, first=first, last=last, contributions=contributions)
    return Discovery(
        motifs, pd.DataFrame(rows, columns=pd.Index(INSTANCE_COLUMNS)), patterns, length, uninformative
    )


def place_on_genome(instances: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """Return motif instances as BED columns.

    Args:
        instances: instances, as in `Discovery.instances`.
        genes: genes, as in `Contributions.genes`. Without a genome, a sequence counts as its own chromosome.

    Returns:
        In the order of the genome: `chrom`, `start`, `end` (0-based, half-open), `name` (motif|gene, and
        |name where the gene has one; escaped as `bed_field` does), `score`
        (|contribution|, 1000 for the largest), `strand` of the motif on the genome, `contribution`.
    """
    table = instances.merge(genes.drop(columns="sequence"), on="gene_id", how="left")
    free = table["chrom"].isna()
    table["chrom"] = table["chrom"].where(~free, table["gene_id"]).map(bed_field)
    minus = table["strand"] == "-"
    left, right = table["start"] + table["offset"], table["end"] - table["offset"]
    start = left.where(~minus, right - table["width"]).astype("int64")
    same = minus == (table["orientation"] == "-")
    strength = table["contribution"].abs()
    score = (1000 * strength / max(strength.max(), 1e-30)).round() if len(table) else strength
    return (
        pd.DataFrame(
            {
                "chrom": table["chrom"],
                "start": start,
                "end": start + table["width"],
                "name": table["motif"] + "|" + pd.Series(bed_names(table), index=table.index),
                "score": score.astype("int64"),
                "strand": np.where(same, "+", "-"),
                "contribution": table["contribution"],
            }
        )
        .sort_values(["chrom", "start", "end", "name"])
        .reset_index(drop=True)
    )


def write_h5(path: AnyPath, discovery: Discovery) -> None:
    """Write the motifs atomically in the format that `modisco report` reads.

    Rows of the seqlets are those of the genes; a seqlet near an end may begin before it, at a negative position.
    """
    with storage.open_atomic(path, late_errors=True) as file:  # h5py ends the process if a write fails
        modiscolite.io.save_hdf5(file, *discovery.patterns, window_size=discovery.length)  # type: ignore[arg-type] # h5py takes both


def _counts(frequencies_AL: np.ndarray) -> biopython.Motif:
    return biopython.Motif("ACGT", counts=dict(zip(BASES, frequencies_AL.tolist(), strict=True)))


def _as_frequencies(sums_AL: np.ndarray) -> np.ndarray:
    """Scale columns to sum to 1; where some seqlets pass the sequence's end, they sum to less."""
    total_L = sums_AL.sum(axis=0)
    return np.where(total_L > 0, sums_AL / np.maximum(total_L, 1e-12), 1 / len(BASES))


def _both_signs(actual_NL: np.ndarray) -> bool:
    """Tell whether there are windows of both signs: modisco compares each sign with chance."""
    sums_NW = np.lib.stride_tricks.sliding_window_view(actual_NL, _CORE, axis=1).sum(axis=-1)
    return bool((sums_NW > 0).any() and (sums_NW < 0).any())


def _all_seqlets(patterns: list[Any]) -> list[Any]:
    """Return the seqlets of patterns and their subpatterns, each once, since these share them."""
    subpatterns = [sub for pattern in patterns for sub in (pattern.subcluster_to_subpattern or {}).values()]
    seqlets = [seqlet for pattern in [*patterns, *subpatterns] for seqlet in pattern.seqlets]
    return list({id(seqlet): seqlet for seqlet in seqlets}.values())


def information(frequencies_AL: np.ndarray, background_A: np.ndarray, sites: int) -> np.ndarray:
    """Compute how much each position of a motif tells about the base there.

    Args:
        frequencies_AL: frequencies of the bases, (4, width), columns sum to 1.
        background_A: shares of the bases in all sequences, (4,); need not sum to 1, where N makes up the rest.
        sites: number of sites that the frequencies are of.

    Returns:
        Relative entropy in bits, (width,), less what so few sites have by chance (Schneider et al. 1986); 0 where
        that is more.
    """
    expected_A1 = (background_A / background_A.sum())[:, None]
    some = frequencies_AL > 0  # then it occurs in the sequences, too
    ratio_AL = np.divide(frequencies_AL, expected_A1, out=np.ones_like(frequencies_AL), where=some)
    chance = (len(BASES) - 1) / (2 * np.log(2) * sites)
    return np.maximum((frequencies_AL * np.log2(ratio_AL)).sum(axis=0) - chance, 0)


def trim(bits_L: np.ndarray, strength_L: np.ndarray) -> tuple[int, int] | None:
    """Return start and end of a motif's informative positions; None if there are none.

    A position's information is weighted by its contribution, relative to the largest: in sequences that are alike
    as a family is, all positions are conserved, and few matter to the model. The motif is the interval whose
    positions exceed `_MIN_BITS` by most in sum, so that it spans a gap between two halves that outweigh it, and no
    stray position of the flanks. It is widened to `_MIN_WIDTH` where it is shorter.

    Args:
        bits_L: information of each position in bits, as `information` returns it.
        strength_L: |contribution| of each position, in any unit.
    """
    weighted_L = bits_L * strength_L / max(strength_L.max(), 1e-30)
    before_L = np.concatenate([[0.0], np.cumsum(weighted_L - _MIN_BITS)])
    lowest_L = np.minimum.accumulate(before_L)
    end = int((before_L - lowest_L).argmax())
    if end == 0:
        return None
    start = int(before_L[:end].argmin())
    width = max(end - start, min(_MIN_WIDTH, len(bits_L)))
    starts = range(max(end - width, 0), min(start, len(bits_L) - width) + 1)
    best = max(starts, key=lambda at: weighted_L[at : at + width].sum())
    return best, best + width


def _instances(
    name: str, pattern: Any, *, first: int, last: int, contributions: Contributions
) -> Iterator[tuple[str, str, int, int, str, float]]:
    """Yield a pattern's seqlets as rows, without unknown bases such as those past a chromosome's end."""
    for seqlet in pattern.seqlets:
        if seqlet.is_revcomp:
            start, end = seqlet.end - last, seqlet.end - first
        else:
            start, end = seqlet.start + first, seqlet.start + last
        start, end = max(start, 0), min(end, contributions.one_hot_NAL.shape[2])
        if end <= start:  # all of it in what pads the sequence
            continue
        row = seqlet.example_idx
        known = np.flatnonzero(contributions.one_hot_NAL[row, :, start:end].any(axis=0))
        if not len(known):
            continue
        start, end = start + int(known[0]), start + int(known[-1]) + 1
        ones, hypothetical = (
            x[row, :, start:end] for x in (contributions.one_hot_NAL, contributions.hypothetical_NAL)
        )
        gene = contributions.genes["gene_id"].iloc[row]
        value = float((ones * hypothetical).sum())
        yield name, gene, start, end - start, "-" if seqlet.is_revcomp else "+", value
