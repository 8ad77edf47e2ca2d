"""Time and peak memory of each stage on a made-up genome of mammalian size: 20,000 genes of 2 kb.

    python benchmarks/mammal.py [--genes 20000] [--folds 3]

What is like a mammal's genome: CpG is rare except in islands, which six of ten promoters have; a tenth of the
windows hold a repeat of 300 bases in lower case, young or old: up to 15% of the bases of a copy are changed; genes
lie on 24 chromosomes and on contigs whose names are accessions, with a few genes each; each begins with N.
Expression depends on the island and on a motif near the TSS, and is half noise.

Each stage is the command that a user types, in a process of its own, but the audit, which is the library's call.
The peak is the largest sum over that process and its children, Ray's included, of the memory that each has for
itself plus its share of what several have (PSS), sampled twice a second.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

WINDOW, BODY, APART = 2000, 1000, 2500
ISLAND, ELEMENT = 800, 300
CONTIGS = 40  # of five genes each
ACGT = np.frombuffer(b"ACGT", np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--folds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        genome, genes, expression = make_inputs(folder, options.genes)
        print(f"{options.genes:,} genes, {genome.stat().st_size / 1e6:,.0f} MB of FASTA", flush=True)
        data, run, folds = folder / "data", folder / "run", folder / "folds"
        epoch = ["--training.epochs", "1"]
        promoter = [sys.executable, "-m", "jobs"]
        inputs = ["--genome", genome, "--genes", genes, "--expression", expression]
        measure("prepare", [*promoter, "prepare", *inputs, "--out", data])
        measure("leakage audit", [sys.executable, __file__, "audit", data])
        measure("train, one epoch", [*promoter, "train", "--data", data, "--out", run, *epoch])
        several = ["--folds", str(options.folds)]
        measure(
            f"{options.folds} folds, one epoch each",
            [*promoter, "train", "--data", data, "--out", folds, *several, *epoch],
        )
        measure("report", [*promoter, "report", "--model", run / "model", "--out", folder / "report.html"])


def make_inputs(folder: Path, n_genes: int) -> tuple[Path, Path, Path]:
    """Write genome.fa, genes.bed and expression.tsv, and return their paths."""
    rng = np.random.default_rng(0)
    on_contigs = 5 * CONTIGS
    shares = rng.dirichlet(np.full(24, 8.0)) * (n_genes - on_contigs)
    sizes = [*np.diff(np.concatenate([[0], np.cumsum(shares).round()])).astype(int), *[5] * CONTIGS]
    names = [f"chr{i}" for i in range(1, 23)] + ["chrX", "chrY"] + [f"KI{270700 + i}.1" for i in range(CONTIGS)]
    element = rng.integers(0, 4, ELEMENT).astype(np.uint8)
    bed, table, number = [], ["gene\tlevel"], 0
    with (folder / "genome.fa").open("wb") as fasta:
        for name, size in zip(names, sizes, strict=True):
            step = WINDOW + BODY + APART
            tokens = rng.choice(4, size=size * step + APART, p=[0.295, 0.205, 0.205, 0.295]).astype(np.uint8)
            cpg = np.flatnonzero((tokens[:-1] == 1) & (tokens[1:] == 2))
            tokens[cpg[rng.random(len(cpg)) < 0.8]] = 3  # methylated CpG becomes TpG
            repeat = np.zeros(len(tokens), bool)
            for row in range(size):
                first = APART + row * step
                forward = rng.random() < 0.5
                start = first if forward else first + BODY  # of the window
                tss = first + WINDOW if forward else first + BODY - 1
                level = rng.normal(0, 1)
                if rng.random() < 0.6:
                    level += 1
                    place = start + (WINDOW - ISLAND if forward else 0)
                    tokens[place : place + ISLAND] = rng.choice(4, size=ISLAND, p=[0.175, 0.325, 0.325, 0.175])
                if rng.random() < 0.1:
                    place = start + int(rng.integers(0, WINDOW - ISLAND - ELEMENT)) + (0 if forward else ISLAND)
                    copy = np.where(
                        rng.random(ELEMENT) < 0.15 * rng.random(), rng.integers(0, 4, ELEMENT), element
                    )
                    tokens[place : place + ELEMENT] = copy if rng.random() < 0.5 else 3 - copy[::-1]
                    repeat[place : place + ELEMENT] = True
                if rng.random() < 0.4:
                    level += 1
                    motif = np.array([2, 1, 1, 0, 3, 1, 3, 3], np.uint8)  # GCCATCTT
                    place = tss - 40 if forward else tss + 33
                    tokens[place : place + 8] = motif if forward else 3 - motif[::-1]
                body = tss if forward else tss - BODY + 1
                bed.append(f"{name}\t{body}\t{body + BODY}\tG{number:05d}\t0\t{'+' if forward else '-'}")
                table.append(f"G{number:05d}\t{level:.4f}")
                number += 1
            letters = ACGT[tokens]
            letters[repeat] |= 32  # lower case
            letters[:1000] = ord("N")
            lines = np.full((-(-len(letters) // 60), 61), ord("\n"), np.uint8)
            padded = np.full(lines.shape[0] * 60, ord("\n"), np.uint8)
            padded[: len(letters)] = letters
            lines[:, :60] = padded.reshape(-1, 60)
            content = lines.tobytes().rstrip(b"\n")
            fasta.write(f">{name}\n".encode() + content + b"\n")
    (folder / "genes.bed").write_text("\n".join(bed) + "\n")
    (folder / "expression.tsv").write_text("\n".join(table) + "\n")
    return folder / "genome.fa", folder / "genes.bed", folder / "expression.tsv"


def measure(stage: str, command: list[str | Path]) -> None:
    """Run a command, and print its seconds, its peak memory and the last line of what it says."""
    began = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    peaks = [0]
    sampler = threading.Thread(target=sample, args=(psutil.Process(process.pid), peaks), daemon=True)
    sampler.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit(f"{stage} failed with exit code {process.returncode}\n{output}")
    said = output.strip().splitlines()[-1:] if stage == "leakage audit" else []
    print(f"{stage:24} {seconds:7.1f} s {max(peaks) / 1e6:7,.0f} MB  {' '.join(said)}", flush=True)


def sample(process: psutil.Process, peaks: list[int]) -> None:
    """Append the memory of a process and its children, twice a second, until it ends."""
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                continue
        peaks.append(total)
        time.sleep(0.5)


def audit(data: str) -> None:
    """Find the related promoters of a data set, and print how many there are."""
    from promoter.dataset.promoters import read_promoters  # noqa: PLC0415 # the other stages do not need it
    from promoter.splits.homology import find_related_promoters, homology_groups  # noqa: PLC0415 # likewise

    promoters = read_promoters(data)
    pairs = find_related_promoters(promoters)
    sizes = np.bincount(homology_groups(pairs, len(promoters)))
    print(f"{len(pairs):,} pairs; the largest of {len(sizes):,} groups has {sizes.max():,} genes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["audit"]:
        audit(sys.argv[2])
    else:
        main()
