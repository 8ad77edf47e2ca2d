"""All jobs on a simulated genome whose grammar is known, so that the results can be judged."""

from __future__ import annotations

from rich.table import Table

from jobs.cli import console, run
from jobs.ism import ism
from jobs.predict import predict
from jobs.prepare import prepare
from jobs.train import train
from promoter import storage
from promoter.ism import load_scores
from promoter.model import CNNConfig
from promoter.simulate import GRAMMAR, INTERACTION, motif_recovery, simulate
from promoter.splits import SplitConfig
from promoter.training import TrainingConfig

_UPSTREAM = 300


def demo(
    out: str = "demo", workers: int = 2, epochs: int = 25, genes_per_chromosome: int = 750, seed: int = 0
) -> None:
    """Simulate a genome, train on it, explain the model, and compare with what was planted.

    Args:
        out: folder for everything.
        workers: DDP processes.
        epochs: at most.
        genes_per_chromosome: on each of eight chromosomes.
        seed: of the genome and the training.
    """
    where = storage.require_writable(out)
    _step("1/5 simulate a genome with a known grammar (python: promoter.simulate)")
    truth = simulate(where / "genome", genes_per_chromosome=genes_per_chromosome, upstream=_UPSTREAM, seed=seed)
    counts = truth.motifs["motif"].value_counts()
    for motif in GRAMMAR:
        console.print(
            f"  {counts[motif.name]:>5,} × {motif.name:<10} {motif.consensus:<11} effect {motif.effect:+.1f}"
        )
    console.print(
        f"  and {INTERACTION[0]} with {INTERACTION[1]}: {INTERACTION[2]:+.1f} beyond their sum; then noise"
    )

    _step("2/5 prepare (python -m jobs.prepare)")
    prepare(
        str(where / "data"),
        genome=str(truth.genome),
        genes=str(truth.genes),
        expression=str(truth.expression),
        upstream=_UPSTREAM,
    )

    _step("3/5 train a small network by DDP (python -m jobs.train)")
    train(
        str(where / "data"),
        str(where / "run"),
        split=SplitConfig(val=["chr7"], test=["chr8"]),
        model=CNNConfig(channels=(64, 32, 32), kernel_sizes=(11, 5, 3), pool_sizes=(4, 4), dropout=0.2),
        training=TrainingConfig(epochs=epochs, learning_rate=2e-3, lr_patience=2, jitter=4, seed=seed),
        workers=workers,
    )

    _step("4/5 predict, and explain the test genes base by base (python -m jobs.predict, jobs.ism)")
    model = str(where / "run" / "model")
    predict(model, str(where / "data"), str(where / "predictions.parquet"))
    ism(model, str(where / "data"), str(where / "ism"), split="test")

    _step("5/5 compare with the truth")
    metrics = storage.read_json(where / "run" / "metrics.json")["test"]["expression"]
    low, high = metrics["pearson_ci95"]
    console.print(
        f"  held-out r = {metrics['pearson']:.3f} [{low:.2f}, {high:.2f}] on {metrics['n']} genes of a chromosome "
        f"never seen;\n  the noise allows at most {truth.ceiling:.3f} on average"
    )
    recovery = motif_recovery(truth.motifs, load_scores(where / "ism"))
    table = Table(box=None, pad_edge=False)
    for name in ("planted motif", "instances", "AUROC of |contribution|, inside against outside"):
        table.add_column(name, justify="left" if name == "planted motif" else "right")
    for row in recovery.itertuples():
        table.add_row(str(row.motif), f"{row.instances:,}", f"{row.auroc:.3f}")
    console.print(table)
    storage.write_text(where / "motif_recovery.csv", recovery.to_csv(index=False))
    console.print(
        f"\nEverything is in {where}: data/ run/ ism/ predictions.parquet motif_recovery.csv\n"
        "Network and window are smaller than the defaults, to fit a laptop; for your own data see the README."
    )


def _step(text: str) -> None:
    console.print(f"\n{text}", style="bold")


if __name__ == "__main__":
    run(demo)
