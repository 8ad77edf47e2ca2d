"""Simulate a small genome whose expression follows a known grammar, to test training and explanation.

Each promoter is random sequence with some implanted motifs. Log expression is the sum of the effects
of its motif instances, which depend on orientation and on the distance to the TSS, plus one
interaction, plus normal noise. Since the noise is known, so is the best r that any model can reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from upath import UPath

from promoter import storage
from promoter.dataset.genome import window
from promoter.sequence import decode, encode, reverse_complement
from promoter.storage import AnyPath


@dataclass(frozen=True)
class Motif:
    """A motif that is implanted in promoters.

    Attributes:
        name: name of the motif.
        consensus: its bases, on the gene's strand.
        effect: effect on log expression of one instance at its preferred distance, in units of `expression`.
        rate: probability that a promoter gets an instance.
        centre: preferred distance of its first base upstream of the TSS, in bases.
        spread: SD, in bases, of the distances around `centre`; the effect falls off with twice this SD. None:
            instances lie anywhere, with the same effect everywhere.
        both_strands: whether instances are implanted in either orientation with the same effect (default), or
            only as written.
    """

    name: str
    consensus: str
    effect: float
    rate: float
    centre: int = 0
    spread: float | None = None
    both_strands: bool = True


GRAMMAR = (
    Motif("TATA box", "TATAAAAG", 1.2, 0.4, centre=31, spread=3, both_strands=False),
    Motif("initiator", "TCAGTCTT", 0.5, 0.4, centre=8, spread=1, both_strands=False),
    Motif("GC box", "GGGGCGGGG", 0.8, 0.6, centre=80, spread=40),
    Motif("CCAAT box", "AGCCAATCA", 0.7, 0.5, centre=90, spread=30),
    Motif("repressor", "TTCAGCACCG", -1.2, 0.5),
)
INTERACTION = ("GC box", "CCAAT box", 0.8)
_BASE_LEVEL = 3.0
_MAX_TRIES = 20  # to implant an instance clear of the others before it is left out
_INSTANCE_COLUMNS = ["gene_id", "motif", "offset", "width", "orientation", "effect"]
_BODY = 60  # bases of each gene
_MARGIN = 40  # bases between the first promoter or the last gene and the chromosome's end, fewer than a window


@dataclass(frozen=True)
class Simulation:
    """The files of a simulated genome, and the truth behind them.

    Attributes:
        genome: path of the FASTA.
        genes: path of the genes, BED6.
        expression: path of the TSV with one target, `expression` (log2 scale).
        motifs: implanted instances: `gene_id`, `motif`, `offset` of its first base in the promoter (5'→3'),
            `width`, `orientation`, `effect`.
        ceiling: upper bound of r given the simulated noise: SD of the signal over SD of signal and noise.
    """

    genome: UPath
    genes: UPath
    expression: UPath
    motifs: pd.DataFrame
    ceiling: float


def simulate(
    folder: AnyPath,
    chromosomes: int = 8,
    genes_per_chromosome: int = 300,
    *,
    upstream: int = 300,
    noise: float = 0.4,
    seed: int = 0,
) -> Simulation:
    """Simulate a genome, its genes and their expression, and write them.

    Genes alternate between both strands at random; the first and the last gene of a chromosome lie so
    near its ends that their windows pass them.

    Args:
        folder: output folder for `genome.fa`, `genes.bed`, `expression.tsv` and `motifs.tsv`.
        chromosomes: number of chromosomes, named `chr1` and so on (default 8).
        genes_per_chromosome: number of genes on each chromosome (default 300).
        upstream: length in bases of the promoters that motifs are implanted in (default 300).
        noise: SD of the noise as a share of the SD of the signal (default 0.4).
        seed: random seed; equal seeds give equal files (default 0).
    """
    rng = np.random.default_rng(seed)
    out_dir = storage.resolve(folder)
    sequences: dict[str, np.ndarray] = {}
    genes, instances, signals = [], [], []
    for number in range(1, chromosomes + 1):
        chrom = f"chr{number}"
        sequences[chrom], on_chrom = _chromosome(rng, chrom, genes_per_chromosome, upstream)
        for gene in on_chrom:
            implanted = list(_implant(rng, sequences[chrom], gene, upstream))
            signals.append(_signal(implanted))
            instances += implanted
        genes += on_chrom
    signal = np.array(signals)
    expression = _BASE_LEVEL + signal + rng.normal(0, noise * signal.std(), len(signal))
    truth = pd.DataFrame(instances, columns=pd.Index(_INSTANCE_COLUMNS))
    paths = (out_dir / name for name in ("genome.fa", "genes.bed", "expression.tsv"))
    files = Simulation(*paths, motifs=truth, ceiling=float(1 / np.hypot(1, noise)))
    _write(files, out_dir, sequences, genes=genes, expression=expression)
    return files


@dataclass(frozen=True)
class _Gene:
    gene_id: str
    chrom: str
    start: int
    end: int
    strand: str

    @property
    def tss(self) -> int:
        return self.start if self.strand == "+" else self.end - 1


def _chromosome(
    rng: np.random.Generator, chrom: str, n_genes: int, upstream: int
) -> tuple[np.ndarray, list[_Gene]]:
    """Return random bases and genes whose promoters do not overlap, but for the ends of the chromosome."""
    genes = []
    position = 0
    for number in range(n_genes):
        strand = str(rng.choice(["+", "-"]))
        if number == 0:
            strand, before = "+", _MARGIN  # its promoter passes the left end
        elif number == n_genes - 1:
            strand, before = "-", 0
        else:
            before = upstream if strand == "+" else 0
        start = position + before + int(rng.integers(20, 60))
        end = start + _BODY
        genes.append(_Gene(f"{chrom}_g{number:04d}", chrom, start, end, strand))
        position = end + (upstream if strand == "-" else 0)
    length = genes[-1].end + _MARGIN if genes else _MARGIN  # the last promoter passes the right end
    return rng.integers(0, 4, length).astype(np.uint8), genes


def _implant(
    rng: np.random.Generator, tokens: np.ndarray, gene: _Gene, upstream: int
) -> Iterator[tuple[str, str, int, int, str, float]]:
    """Write motif instances into a chromosome's tokens, in place, and yield them as rows of the truth."""
    start, end = window(gene.tss, gene.strand, upstream, 0)
    taken: list[tuple[int, int]] = []
    for motif in GRAMMAR:
        if rng.random() >= motif.rate:
            continue
        width = len(motif.consensus)
        for _ in range(_MAX_TRIES):
            if motif.spread is None:
                offset = int(rng.integers(0, upstream - width))
            else:
                offset = upstream - round(rng.normal(motif.centre, motif.spread))
            on_chrom = start + offset if gene.strand == "+" else end - offset - width
            inside = 0 <= offset <= upstream - width and 0 <= on_chrom <= len(tokens) - width
            if inside and all(offset + width < a or b < offset for a, b in taken):
                break
        else:
            continue
        taken.append((offset, offset + width))
        reverse = motif.both_strands and rng.random() < 0.5
        forward_on_chrom = (gene.strand == "+") != reverse
        word = encode(motif.consensus)
        tokens[on_chrom : on_chrom + width] = word if forward_on_chrom else reverse_complement(word)
        effect = motif.effect
        if motif.spread is not None:
            effect *= float(np.exp(-(((upstream - offset - motif.centre) / (2 * motif.spread)) ** 2) / 2))
        yield gene.gene_id, motif.name, offset, width, "-" if reverse else "+", effect


def _signal(instances: list[tuple[str, str, int, int, str, float]]) -> float:
    present = {instance[1] for instance in instances}
    first, second, bonus = INTERACTION
    return sum(instance[5] for instance in instances) + (bonus if {first, second} <= present else 0.0)


def _write(
    files: Simulation,
    out_dir: UPath,
    sequences: dict[str, np.ndarray],
    *,
    genes: list[_Gene],
    expression: np.ndarray,
) -> None:
    fasta = []
    for chrom, tokens in sequences.items():
        letters = decode(tokens[None])[0]
        fasta += [f">{chrom}", *(letters[i : i + 60] for i in range(0, len(letters), 60))]
    storage.write_text(files.genome, "\n".join(fasta) + "\n")
    bed = [f"{g.chrom}\t{g.start}\t{g.end}\t{g.gene_id}\t0\t{g.strand}" for g in genes]
    storage.write_text(files.genes, "\n".join(bed) + "\n")
    rows = [f"{gene.gene_id}\t{value:.4f}" for gene, value in zip(genes, expression, strict=True)]
    storage.write_text(files.expression, "\n".join(["gene_id\texpression", *rows]) + "\n")
    storage.write_text(out_dir / "motifs.tsv", files.motifs.to_csv(sep="\t", index=False))
