"""Whether the motifs implanted in the simulated genome of `jobs.demo` are found in its scores.

python benchmarks/motifs.py DEMO_FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd

from promoter.motifs.discovery import discover_motifs, read_contributions
from promoter.simulation.recovery import compare_with_implanted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("demo", type=Path)
    arguments = parser.parse_args()
    contributions = read_contributions(arguments.demo / "ism")
    began = time.perf_counter()
    discovery = discover_motifs(contributions)
    took = time.perf_counter() - began
    truth = pd.read_csv(arguments.demo / "genome" / "motifs.tsv", sep="\t")
    compared = compare_with_implanted(discovery, truth, set(contributions.genes["gene_id"]))
    for motif in discovery.motifs:
        print(f"{motif.name:<11} {motif.consensus:<24} {motif.seqlets:>4} seqlets {motif.contribution:+.3f}")
    print(compared.table.to_string(index=False, float_format="{:.2f}".format))
    print(
        f"{len(discovery.motifs)} motifs in {took:.0f} s: recall {compared.recall:.2f}, "
        f"precision {compared.precision:.2f};"
        f" instances: recall {compared.instance_recall:.2f}, precision {compared.instance_precision:.2f}"
    )


if __name__ == "__main__":
    main()
