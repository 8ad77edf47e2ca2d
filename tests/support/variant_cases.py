"""What tests of variants share: a small genome with genes, and an oracle that edits a string."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from promoter.dataset.genome import Genome
from promoter.dataset.promoters import Promoters
from promoter.sequence import BASES, reverse_complement
from promoter.variants.windows import TrimmedVariant, TssWindow

VCF_HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
PAD = 60
GENES = [
    ("a", "chr1", 100, "+"),
    ("b", "chr1", 70, "-"),  # overlaps a
    ("left", "chr1", 20, "+"),  # passes the chromosome's start
    ("right", "chr2", 280, "-"),  # passes the chromosome's end
]


def vcf_line(chrom: str, pos: int, ref: str, alt: str) -> str:
    return f"{chrom}\t{pos}\t.\t{ref}\t{alt}\t.\t.\tEND={pos}\n"


def random_genome(folder: Path) -> Genome:
    """Write two chromosomes of 300 bases, the second half of each in lower case."""
    rng = np.random.default_rng(3)
    path = folder / "genome.fa"
    bases = {name: "".join(rng.choice(list(BASES), 300)) for name in ("chr1", "chr2")}
    path.write_text(
        "".join(f">{name}\n{sequence[:150]}\n{sequence[150:].lower()}\n" for name, sequence in bases.items())
    )
    return Genome(path)


def promoters_of(genome: Genome, genes: list[tuple[str, str, int, str]], up: int, down: int) -> Promoters:
    table = pd.DataFrame(genes, columns=pd.Index(["gene_id", "chrom", "tss", "strand"]))
    windows = [TssWindow(tss, strand, up, down) for _, _, tss, strand in genes]
    table["start"], table["end"] = zip(*(window.interval for window in windows), strict=True)
    table["sequence"] = [
        genome.promoter(chrom, tss, strand, upstream=up, downstream=down) for _, chrom, tss, strand in genes
    ]
    shape = {"upstream": up, "downstream": down}
    return Promoters(table, np.zeros((len(table), 0), np.float32), [], {"window": shape})


def haplotype_window(chromosome: str, variant: TrimmedVariant, window: TssWindow) -> str:
    """Edit a padded string in which the TSS is in lower case, find the TSS again and cut around it."""
    assert not variant.start <= window.tss < variant.end
    marked = chromosome[: window.tss] + chromosome[window.tss].lower() + chromosome[window.tss + 1 :]
    edited = "N" * PAD + marked[: variant.start] + variant.new + marked[variant.end :] + "N" * PAD
    tss = next(index for index, letter in enumerate(edited) if letter.islower())
    if window.strand == "+":
        return edited[tss - window.upstream : tss + window.downstream].upper()
    cut = edited[tss + 1 - window.downstream : tss + 1 + window.upstream].upper()
    return str(reverse_complement(cut))
