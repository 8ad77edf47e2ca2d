"""Time and peak memory of jobs.prepare on a made-up genome: 20,000 genes of 2 kb from 200 Mb, plain and bgzip.

    python benchmarks/prepare.py [--genes 20000] [--megabases 200]

Each run is a process of its own, so that its peak memory (RSS) is its own. "cut" is the library call
alone with the index made; "job" is the whole command, imports and checksums included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from Bio.bgzf import BgzfWriter
from fresh_process import measured

CHROMOSOMES = 5
LINE = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--megabases", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fasta = make_inputs(folder, options.genes, options.megabases * 1_000_000)
        packed = compress(fasta)
        for genome in (fasta, packed):
            kind = "bgzip" if genome.suffix == ".gz" else "plain"
            for what, step in (("index + job", run_job), ("job", run_job), ("cut", cut)):
                seconds, peak, _ = measured(step, folder, genome)
                print(f"{kind:6} {what:12} {seconds:7.1f} s {peak / 1e6:6.0f} MB peak", flush=True)


def make_inputs(folder: Path, n_genes: int, n_bases: int) -> Path:
    """Write genome.fa, genes.bed and expression.tsv, and return the first."""
    rng = np.random.default_rng(0)
    length = n_bases // CHROMOSOMES // LINE * LINE
    with (folder / "genome.fa").open("wb") as file:
        for number in range(1, CHROMOSOMES + 1):
            lines = np.full((length // LINE, LINE + 1), ord("\n"), np.uint8)
            lines[:, :LINE] = np.frombuffer(b"ACGT", np.uint8)[
                rng.integers(0, 4, (length // LINE, LINE), np.uint8)
            ]
            file.write(f">chr{number}\n".encode() + lines.tobytes())
    starts, chroms = rng.integers(0, length - 1000, n_genes), rng.integers(1, CHROMOSOMES + 1, n_genes)
    genes = zip(chroms, starts, rng.choice(["+", "-"], n_genes), strict=True)
    bed = [f"chr{c}\t{s}\t{s + 1000}\tgene{i}\t0\t{strand}\n" for i, (c, s, strand) in enumerate(genes)]
    (folder / "genes.bed").write_text("".join(bed))
    values = [f"gene{i}\t{value:.4f}\n" for i, value in enumerate(rng.normal(size=n_genes))]
    (folder / "expression.tsv").write_text("gene\tlevel\n" + "".join(values))
    return folder / "genome.fa"


def compress(fasta: Path) -> Path:
    packed = fasta.with_name(f"{fasta.name}.gz")
    with fasta.open("rb") as source, BgzfWriter(str(packed), compresslevel=1) as target:
        while chunk := source.read(1 << 24):
            target.write(chunk)
    return packed


def run_job(folder: Path, genome: Path) -> tuple[float, None]:
    inputs = ["--genome", genome, "--genes", folder / "genes.bed", "--expression", folder / "expression.tsv"]
    began = time.perf_counter()
    command = [sys.executable, "-m", "jobs.prepare", *map(str, inputs), "--out", str(folder / "out")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    return time.perf_counter() - began, None


def cut(folder: Path, genome: Path) -> tuple[float, None]:
    from promoter.dataset.annotation import read_genes  # noqa: PLC0415 # imports are not what is measured
    from promoter.dataset.expression import read_expression  # noqa: PLC0415
    from promoter.dataset.genome import Genome  # noqa: PLC0415
    from promoter.dataset.prepare import prepare  # noqa: PLC0415

    genes, expression = read_genes(folder / "genes.bed"), read_expression(folder / "expression.tsv")
    began = time.perf_counter()
    prepare(Genome(genome), genes, expression)
    return time.perf_counter() - began, None


if __name__ == "__main__":
    main()
