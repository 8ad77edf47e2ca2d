"""Draw the README's figure: a gene's promoter as networks of yeast's salt response read it.

    python benchmarks/yeast_figure.py RUN ISM_FOLDER docs/salt_response.png

RUN: what `jobs.train --seeds 5` wrote; ISM_FOLDER: what `jobs.ism` wrote for it (benchmarks/yeast.md).
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.patches import Rectangle

from promoter import plots, storage
from promoter.evaluation.predictions import read_predictions
from promoter.ism import actual_contributions, load_scores
from promoter.ism.store import load_contents
from promoter.sequence import encode

GENE, NAME = "YDR171W", "HSP42"  # a small heat shock protein, on a chromosome held out
STRESS = ("AGGGG", "CCCCT")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("scores")
    parser.add_argument("out")
    parser.add_argument("--start", type=int, default=-225, help="first base shown, from the start codon")
    parser.add_argument("--bases", type=int, default=85)
    options = parser.parse_args()
    figure = plt.figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=[1, 1.15])
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    scatter, bars = top.subplots(1, 2, width_ratios=[1, 1.6])
    metrics = storage.read_json(storage.resolve(options.run) / "metrics.json")["test"]
    (target,) = metrics
    draw_predictions(scatter, options.run, target, metrics[target]["pearson"])
    draw_models(bars, metrics[target])
    draw_promoter(bottom.subplots(2, 1, sharex=True, height_ratios=[1.5, 1]), options)
    figure.savefig(options.out, dpi=140)


def draw_predictions(axes: Axes, run: str, target: str, r: float) -> None:
    table = read_predictions(storage.resolve(run) / "predictions.parquet").query("split == 'test'")
    axes.scatter(table[f"{target}_predicted"], table[target], s=5, alpha=0.5, linewidths=0, color="#1f5fa8")
    axes.set_xlabel("predicted log2 fold change")
    axes.set_ylabel("observed")
    axes.set_title(f"{len(table):,} genes of chromosomes held out: r = {r:.2f}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def draw_models(axes: Axes, metrics: dict) -> None:
    """Draw r of the networks with its interval, and that of each plain model."""
    names = {
        "kmers_by_distance": "ridge, 6-mers by distance",
        "kmers": "ridge, 6-mers",
        "composition": "GC and CpG",
    }
    r = [metrics["baselines"][name]["pearson"] for name in names] + [metrics["pearson"]]
    low, high = metrics["pearson_ci95"]
    error = [[0.0] * len(names) + [metrics["pearson"] - low], [0.0] * len(names) + [high - metrics["pearson"]]]
    labels = [*names.values(), "five networks"]
    order = np.argsort(r)
    axes.barh(
        [labels[i] for i in order],
        [r[i] for i in order],
        xerr=np.array(error)[:, order],
        color=["#1f5fa8" if labels[i] == "five networks" else "#b9c3cd" for i in order],
        height=0.6,
    )
    for row, i in enumerate(order):
        axes.text(0.01, row, f"{r[i]:.2f}", va="center", color="white" if i == len(names) else "black", fontsize=9)
    axes.set_xlabel("Pearson r on the same genes")
    axes.set_title("beside baselines, in every run", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def draw_promoter(panels: np.ndarray, options: argparse.Namespace) -> None:
    scores, contents = load_scores(options.scores, [GENE]), load_contents(options.scores, [GENE])
    gene = scores.genes.iloc[0]
    length = len(gene["sequence"])
    shown = slice(length + options.start, length + options.start + options.bases)
    sequence = gene["sequence"][shown]
    actual = actual_contributions(scores.scores, encode([gene["sequence"]]))[0, 0][:, shown]
    plus = gene["strand"] == "+"
    start = gene["start"] + shown.start if plus else gene["end"] - shown.stop
    downstream = contents.downstream or 0
    tss = gene["end"] - downstream if plus else gene["start"] + downstream - 1
    coords = {"start": int(start), "strand": gene["strand"], "tss": int(tss), "chrom": gene["chrom"]}
    upper, lower = panels
    plots.logo(actual, axes=upper, **coords)
    plots.mutation_map(scores.scores[0, 0][:, shown], sequence, axes=lower, **coords)
    lower.set_xlabel(f"distance to the start codon of {NAME}")
    upper.set_xlabel("")
    bottom, top = upper.get_ylim()
    room = top + 0.16 * (top - bottom)
    upper.set_ylim(bottom, room)
    for axis in lower.child_axes:
        if isinstance(axis, SecondaryAxis):
            axis.set_visible(False)  # the coordinates stand above already
    for word in STRESS:
        at = sequence.find(word)
        while at >= 0:
            x = options.start + at - 0.5
            upper.add_patch(Rectangle((x, bottom), len(word), room - bottom, color="#ffe9a8", zorder=-1))
            upper.text(x + len(word) / 2, room, "stress element", ha="center", va="top", fontsize=8)
            at = sequence.find(word, at + 1)


if __name__ == "__main__":
    main()
