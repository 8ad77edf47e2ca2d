"""Search for the best configuration on held-out chromosomes, with Ray Tune.

The genes of the test chromosomes never enter the search: they are left out before anything is sent to a
trial. A trial trains one configuration on all folds in step (`promoter.training.cross_validation`) and reports
after each epoch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from upath import UPath

from jobs.cli.config_file import require_same, resolved, write_config
from jobs.cli.model_flags import Model, ModelFlags, chosen
from jobs.cli.run import console, plural, run
from jobs.ray_runtime import cluster
from jobs.training.job import TrainingJob, with_pretrained, with_targets
from jobs.training.resources import scaling_config
from jobs.training.run import METRICS, train_once
from jobs.tuning import results
from jobs.tuning.results import SearchResult, write_results
from jobs.tuning.search import SEARCH_FOLDER, run_trials
from jobs.tuning.trials import TrialJob
from promoter import checkpoint, storage
from promoter.dataset.promoters import Promoters, locate, read_promoters
from promoter.errors import InputError
from promoter.models.build import NetworkConfig, require_length
from promoter.splits.config import SplitConfig
from promoter.splits.folds import ChromosomeFolds, assign_folds
from promoter.training import Examples, TrainingConfig
from promoter.training.search_space import DEFAULT_SPACE, PRETRAINED_SPACE, SearchSpace
from promoter.training.space_validator import SpaceValidator

_FINAL = "training"  # folder in --out of the best configuration's training; its files are moved up in the end
_OUTPUTS = (SEARCH_FOLDER, *results.OUTPUTS, "model", METRICS)
# may change between a run and its resumption
_MAY_DIFFER = {"workers", "gpus_per_worker", "cpus_per_worker", "at_once", "out", "data", "embeddings"}


def tune(
    data: str,
    out: str,
    trials: int = 40,
    folds: int = 3,
    space: dict[str, Any] | str | None = None,
    split: SplitConfig = SplitConfig(),
    model: Model = ModelFlags(),
    training: TrainingConfig = TrainingConfig(),
    metric: Literal["pearson", "mse"] = "pearson",
    algorithm: Literal["tpe", "random", "grid"] = "tpe",
    asha: bool = True,
    seeds: int = 1,
    keep_folds: bool = False,
    embeddings: str | None = None,
    at_once: int | None = None,
    workers: int = 1,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int = 1,
) -> None:
    """Search for the best network and recipe, then train it and evaluate it once on the test chromosomes.

    Run again after an interruption, the search resumes, with the finished trials kept.

    Args:
        data: folder that jobs.prepare wrote.
        out: folder for trials.csv, best.yaml, importance.csv, figures/, tensorboard/, model/ and metrics.json.
        trials: number of configurations to try; a grid tries all it has.
        folds: number of folds: each configuration is trained once for each, and validated on its chromosomes; 1:
            validated on --split.val.
        space: YAML file, or YAML text, with the settings to try: '{training.learning_rate: {low: 1.0e-4, high:
            1.0e-2, log: true}, model.kernel_sizes.0: {choices: [7, 15]}}'; by default learning rate, filters,
            widths, pools, blocks, crop, dropout, weight decay, batch size and jitter.
        split: chromosomes held out for the test and, with --folds 1, for validation.
        model: settings of the network that the space leaves out.
        training: settings of the recipe that the space leaves out.
        metric: score of a configuration, a mean over folds and targets.
        algorithm: tpe learns from the trials so far; random does not; grid tries every combination.
        asha: stop trials early that do worse than two thirds of the others at the same epoch.
        seeds: networks per configuration and fold.
        keep_folds: keep the best configuration's networks of all folds, for --ensemble, in folds/.
        embeddings: folder to keep the embeddings of --model.adapt head in, for several runs; out/embeddings by
            default.
        at_once: maximum number of concurrent trials; by default as many as the cluster has room for.
        workers: processes of a trial; only 1, since a search scales by trials: train best.yaml with jobs.train
            for more.
        gpus_per_worker: number of GPUs for each trial, or a fraction of one; by default 1 where the cluster has
            GPUs, else 0.
        cpus_per_worker: number of CPUs for each trial.
    """
    settings = resolved(locals())
    cluster.require_resources(workers, cpus_per_worker, gpus_per_worker)
    if workers > 1:
        raise InputError(
            f"--workers {workers}: a trial is one process, and a search scales by trials; use --at_once for more "
            "trials at the same time, and jobs.train --config best.yaml --workers for the final network"
        )
    for flag, value in (("trials", trials), ("folds", folds), ("seeds", seeds), ("at_once", at_once)):
        if value is not None and value < 1:
            raise InputError(f"--{flag} {value}: must be at least 1")
    if folds > 1 and split.val is not None:
        raise InputError(
            f"--split.val {', '.join(split.val)}: with --folds {folds} each fold has its own; use --folds 1"
        )
    if not split.by_chromosome or split.homology != "report":
        raise InputError(
            "--split.random, --split.by and --split.homology: a search holds out whole chromosomes, whatever they "
            "share; give these to jobs.train, with the best.yaml of the search"
        )
    promoters = read_promoters(data)
    if not promoters.target_names:
        raise InputError(f"{data}: has sequences but no expression; prepare it with jobs.prepare")
    network = with_targets(chosen(model), promoters.target_names)
    require_length(network, promoters.length, promoters.metadata["window"])
    held_out = assign_folds(promoters.genes["chrom"], split, folds)
    searched = promoters.genes["chrom"].isin(held_out.fold_of_chrom).to_numpy()
    fold_of_gene = promoters.genes["chrom"][searched].map(held_out.fold_of_chrom).to_numpy()
    given_space = _read_space(space, network)
    settings |= resolved({"model": network, "space": given_space})
    if embeddings is None:
        del settings["embeddings"]
    genes_of_fold = [int((fold_of_gene == fold).sum()) for fold in range(len(held_out.folds))]
    validator = SpaceValidator(promoters.length, len(fold_of_gene), genes_of_fold)
    search_space = SearchSpace(given_space, network, training, validator)
    points = search_space.grid() if algorithm == "grid" else None
    count = len(points) if points else trials
    out_dir = storage.require_writable(out)
    inputs = {str(locate(data)): promoters.checksum}
    require_same(out_dir, settings, inputs, _MAY_DIFFER, _OUTPUTS)
    if (out_dir / METRICS).exists():
        console.print(f"{out_dir}: this search is finished already; nothing to do")
        return

    ray_cluster = cluster.connect()
    cluster.require_shared(out_dir)
    scaling: Any = scaling_config(ray_cluster, workers, gpus_per_worker, cpus_per_worker)
    base = TrainingJob(
        data=data,
        promoters=promoters,
        split=split,
        model=network,
        training=training,
        workers=workers,
        baselines=True,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        embeddings=embeddings,
    )
    pretrained = with_pretrained(base, out_dir, ray_cluster).pretrained
    embedded = pretrained and pretrained.embedded
    write_config(out_dir / "config.yaml", settings, inputs)
    _show_start(promoters, held_out, count, seeds)
    tokens = promoters.tokens if embedded is None else embedded
    job = TrialJob(
        examples=Examples(tokens[searched], promoters.targets[searched]),
        fold_of_gene=fold_of_gene,
        space=search_space,
        metric=metric,
        seeds=seeds,
        resources=scaling.resources_per_worker,
        folder=str(out_dir / SEARCH_FOLDER),
        trunk=pretrained.trunk if pretrained and embedded is None else None,
    )
    if not (out_dir / results.BEST).exists():
        found = run_trials(
            job,
            out_dir,
            count=count,
            algorithm=algorithm,
            points=points,
            asha=asha,
            max_concurrent_trials=at_once,
            seed=training.seed,
        )
        given = settings | {"data": str(storage.resolve(data))}
        write_results(out_dir, SearchResult(found, job, promoters, held_out, pretrained), given, keep_folds)
    if embeddings is None and embedded is not None:
        base = replace(base, embeddings=str(out_dir / "embeddings"))
    _train_best(out_dir, base)


def _read_space(space: dict[str, Any] | str | None, model: NetworkConfig) -> dict[str, Any]:
    """Take a space as it is, or from a file."""
    if space is None:
        return PRETRAINED_SPACE if model.pretrained else DEFAULT_SPACE
    return storage.read_yaml(space) if isinstance(space, str) else space


def _show_start(promoters: Promoters, held_out: ChromosomeFolds, count: int, seeds: int) -> None:
    chroms = promoters.genes["chrom"]
    for number, fold in enumerate(held_out.folds, start=1):
        console.print(
            f"fold {number}: validates on {int(chroms.isin(fold).sum()):,} genes of {', '.join(fold[:12])}"
        )
    console.print(
        f" test: {int(chroms.isin(held_out.test).sum()):,} genes of {', '.join(held_out.test[:12])}, "
        "not looked at by the search"
    )
    networks = len(held_out.folds) * seeds
    console.print(f"{count} trials of {plural(networks, 'network')} each")


def _train_best(out_dir: UPath, base: TrainingJob) -> None:
    """Train the best configuration as `jobs.train --config best.yaml` does, and look at the test set once."""
    best = storage.read_yaml(out_dir / results.BEST)  # read, since an earlier run may have ended after the search
    console.print("training the best configuration; then the test chromosomes are looked at, once")

    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    job = replace(
        base,
        split=SplitConfig(**best["split"]),
        model=with_targets(chosen(ModelFlags(**tuples(best["model"]))), base.promoters.target_names),
        training=TrainingConfig(**best["training"]),
        **{name: best[name] for name in ("workers", "gpus_per_worker", "cpus_per_worker")},
    )
    final = storage.require_writable(out_dir / _FINAL)
    train_once(job, final)
    checkpoint.copy_model(final / "model", out_dir / "model")
    # metrics.json last: it stands for the end
    for name in ("history.csv", "leakage.csv", "baselines.parquet", "predictions.parquet", METRICS):
        storage.copy_file(final / name, out_dir / name)
    storage.remove_folder(final)
    console.print(f"trials, figures, model and metrics in {out_dir}")


if __name__ == "__main__":
    run(tune)
