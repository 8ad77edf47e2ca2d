"""All jobs on a simulated genome whose grammar is known, so that the results can be judged."""

from __future__ import annotations

from math import nan

from jobs.cli.config_file import job_settings
from jobs.cli.console import console, new_table
from jobs.cli.outputs import own_folder
from jobs.cli.run import run
from jobs.ray_runtime.capacity import require_resources
from promoter import storage
from promoter.models.config import CNNConfig
from promoter.splits.config import SplitConfig
from promoter.training.config import TrainingConfig

_UPSTREAM = 300
_CHROMOSOMES = 8
_SPLIT = SplitConfig(val=["chr7"], test=["chr8"])


def demo(  # its imports count as statements
    out: str = "demo",
    workers: int = 2,
    epochs: int = 25,
    genes_per_chromosome: int = 750,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Simulate a genome, train on it, explain the model, and compare with what was implanted.

    Args:
        out: folder for all results.
        workers: number of processes that share each batch by DDP.
        epochs: maximum number of epochs.
        genes_per_chromosome: number of genes on each of eight chromosomes.
        seed: random seed of the genome and the training.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced.
    """
    settings = job_settings(demo, locals())
    require_resources(workers, None, None)

    from jobs.ism import ism
    from jobs.predict import predict
    from jobs.prepare import prepare
    from jobs.ray_runtime.connect import connect
    from jobs.report import report
    from jobs.train import train
    from jobs.training.resources import scaling_config
    from promoter.evaluation.evaluate import read_metrics
    from promoter.ism.store import load_scores
    from promoter.simulation.genome import GRAMMAR, INTERACTION, simulate
    from promoter.simulation.recovery import motif_recovery
    from promoter.training.batches import require_enough_genes

    training = TrainingConfig(epochs=epochs, learning_rate=2e-3, lr_patience=2, jitter=4, seed=seed)
    training_genes = (_CHROMOSOMES - 2) * genes_per_chromosome  # of the chromosomes not in _SPLIT
    require_enough_genes(training_genes, genes_per_chromosome, training, workers)
    with own_folder("demo", out, settings, {}, overwrite=overwrite) as output:
        out_dir = output.path
        scaling_config(connect(), workers, gpus_per_worker=0)  # refuses more workers than fit

        output.begin()
        _step("1/6 simulate a genome with a known grammar (python: promoter.simulation.genome)")
        truth = simulate(out_dir / "genome", _CHROMOSOMES, genes_per_chromosome, upstream=_UPSTREAM, seed=seed)
        counts = truth.motifs["motif"].value_counts()
        for motif in GRAMMAR:
            console.print(
                f"  {counts[motif.name]:>5,} × {motif.name:<10} {motif.consensus:<11} effect {motif.effect:+.1f}"
            )
        console.print(
            f"  and {INTERACTION[0]} with {INTERACTION[1]}: {INTERACTION[2]:+.1f} beyond their sum; then noise"
        )

        _step("2/6 prepare (promoter prepare)")
        prepare(
            str(out_dir / "data"),
            genome=str(truth.genome),
            genes=str(truth.genes),
            expression=str(truth.expression),
            upstream=_UPSTREAM,
            max_n=1,  # the first and last gene of each simulated chromosome lie at its ends
        )

        _step("3/6 train a small network by DDP (promoter train)")
        train(
            str(out_dir / "data"),
            str(out_dir / "run"),
            split=_SPLIT,
            model=CNNConfig(channels=(64, 32, 32), kernel_sizes=(11, 5, 3), pool_sizes=(4, 4), dropout=0.2),
            training=training,
            workers=workers,
            gpus_per_worker=0,  # small, and the same everywhere: with one GPU its two workers would not fit
        )

        _step("4/6 predict, and explain the test genes base by base (promoter predict, promoter ism)")
        model = str(out_dir / "run" / "model")
        predict(model, str(out_dir / "data"), str(out_dir / "predictions.parquet"))
        ism(model, str(out_dir / "data"), str(out_dir / "ism"), split="test")

        _step("5/6 compare with the truth")
        metrics = read_metrics(out_dir / "run" / "metrics.json", ["expression"])["test"]["expression"]
        low, high = metrics["pearson_ci95"] or (nan, nan)
        console.print(
            f"  held-out r = {metrics['pearson']:.3f} [{low:.2f}, {high:.2f}] on {metrics['n']} genes of a "
            f"chromosome never seen;\n  upper bound given the simulated noise: {truth.ceiling:.3f}"
        )
        recovery = motif_recovery(truth.motifs, load_scores(out_dir / "ism"))
        numbers = ("instances", "AUROC of |contribution|, inside against outside")
        table = new_table("implanted motif", *numbers, right=numbers)
        for row in recovery.itertuples():
            table.add_row(str(row.motif), f"{row.instances:,}", f"{row.auroc:.3f}")
        console.print(table)
        storage.write_text(out_dir / "motif_recovery.csv", recovery.to_csv(index=False))

        _step("6/6 put it on a page (promoter report)")
        report(model, str(out_dir / "report.html"), scores=str(out_dir / "ism"))
        output.finish()
        console.print(
            f"\nEverything is in {out_dir}: data/ run/ ism/ predictions.parquet motif_recovery.csv report.html\n"
            f"Open {out_dir / 'report.html'} in a browser.\n"
            "Network and window are smaller than the defaults, to fit a laptop; for your own data see the README."
        )


def _step(text: str) -> None:
    console.print(f"\n{text}", style="bold")


if __name__ == "__main__":
    run(demo)
