"""Search for the best configuration on held-out chromosomes, with Ray Tune.

The genes of the test chromosomes never enter the search: they are left out before anything is sent to a
trial. A trial trains one configuration on all folds in step (`promoter.training.cross_validation`) and reports
after each epoch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import ray.train
import ray.tune
from ray.tune import CheckpointConfig, FailureConfig
from ray.tune.experiment import Trial
from rich.table import Table
from upath import UPath

from jobs.cli.config_file import require_same, resolved, write_config
from jobs.cli.model_flags import Model, ModelFlags, chosen
from jobs.cli.run import PROVENANCE, console, plural, run
from jobs.ray_runtime import cluster
from jobs.train import train
from jobs.training.run import Pretrained, TrainingJob, describe, scaling_config, with_pretrained, with_targets
from jobs.training.run import at_once as fitting
from jobs.tuning.live_table import SearchScreen, number_of, short, trials_table
from jobs.tuning.trials import (
    MAX_FAILURES,
    Halving,
    Reclaim,
    Sampler,
    TrialByDDP,
    TrialInOneProcess,
    TrialJob,
    last_states,
)
from promoter import checkpoint, plots, storage
from promoter.dataset.promoters import Promoters, locate, read_promoters
from promoter.errors import InputError
from promoter.models.build import NetworkConfig, require_length, whole_network
from promoter.models.cnn import CNNConfig
from promoter.models.pretrained import PretrainedConfig
from promoter.splits.assign import of_chromosomes
from promoter.splits.split import SplitConfig, chromosome_folds, split_by_chromosome
from promoter.training import Examples, TrainingConfig, require_enough_genes, require_orientation
from promoter.training.search_space import DEFAULT_SPACE, PRETRAINED_SPACE, SearchSpace, importance

_SEARCH = "search"  # Ray's folder in --out; removed when the search is done
_FINAL = "training"  # of the best configuration; moved up when it is done
_TABLE, _BEST, _METRICS = "trials.csv", "best.yaml", "metrics.json"
_OUTPUTS = (_TABLE, _BEST, "importance.csv", "model", "folds", "figures", "tensorboard", _METRICS)
_REDUCTION = 3  # ASHA keeps the best third at each rung


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

    Run again after an interruption it goes on, with the finished trials kept.

    Args:
        data: folder that jobs.prepare wrote.
        out: folder for trials.csv, best.yaml, importance.csv, figures/, tensorboard/, model/ and metrics.json.
        trials: configurations to try; a grid tries all it has.
        folds: each configuration is trained so many times, each time validated on other chromosomes; 1: validated
            on --split.val.
        space: YAML file, or YAML text, of what to try: '{training.learning_rate: {low: 1.0e-4, high: 1.0e-2,
            log: true}, model.kernel_sizes.0: {choices: [7, 15]}}'; by default learning rate, filters, widths,
            pools, blocks, crop, dropout, weight decay, batch size and jitter.
        split: chromosomes held out for the test and, with --folds 1, for validation.
        model: what the space leaves out of the network.
        training: what the space leaves out of the recipe.
        metric: by which a configuration is judged, the mean over folds and targets.
        algorithm: tpe learns from the trials so far; random does not; grid tries every combination.
        asha: stop trials early that do worse than two thirds of the others at the same epoch.
        seeds: networks per configuration and fold.
        keep_folds: keep the best configuration's networks of all folds, for --ensemble, in folds/.
        embeddings: folder to keep the embeddings of --model.adapt head in, for several runs; out/embeddings by
            default.
        at_once: trials at a time; as many as the cluster has room for by default.
        workers: processes that share each batch of one trial by DDP.
        gpus_per_worker: may be a fraction where workers is 1; 1 where the cluster has GPUs, else 0, by default.
        cpus_per_worker: of each process.
    """
    settings = resolved(locals())
    cluster.require_resources(workers, cpus_per_worker, gpus_per_worker)
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
    held_out = _hold_out(promoters.genes["chrom"], split, folds)
    searched = promoters.genes["chrom"].isin(held_out.fold_of_chrom).to_numpy()
    fold_of_gene = promoters.genes["chrom"][searched].map(held_out.fold_of_chrom).to_numpy()
    wanted = _read_space(space, network)
    settings |= resolved({"model": network, "space": wanted})
    if embeddings is None:
        del settings["embeddings"]
    genes_of_fold = [int((fold_of_gene == fold).sum()) for fold in range(len(held_out.folds))]
    suits = _Suits(promoters.length, len(fold_of_gene), genes_of_fold, workers)
    checked = SearchSpace(wanted, network, training, suits)
    points = checked.grid() if algorithm == "grid" else None
    count = len(points) if points else trials
    where = storage.require_writable(out)
    inputs = {str(locate(data)): promoters.checksum}
    ignored = {"workers", "gpus_per_worker", "cpus_per_worker", "at_once", "out", "data", "embeddings"}
    require_same(where, settings, inputs, ignored, (_SEARCH, *_OUTPUTS))
    if (where / _METRICS).exists():
        console.print(f"{where}: this search is finished already; nothing to do")
        return

    place = cluster.connect()
    cluster.require_shared(where)
    scaling = scaling_config(place, workers, gpus_per_worker, cpus_per_worker)
    of_all = TrainingJob(
        data,
        promoters,
        split,
        network,
        training,
        workers,
        baselines=False,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        embeddings=embeddings,
    )
    given = with_pretrained(of_all, where, place).pretrained
    embedded = given and given.embedded
    write_config(where / "config.yaml", settings, inputs)
    _show_start(promoters, held_out, count, seeds)
    tokens = promoters.tokens if embedded is None else embedded
    job = TrialJob(
        Examples(tokens[searched], promoters.targets[searched]),
        fold_of_gene,
        checked,
        metric,
        seeds,
        scaling,
        str(where / _SEARCH),
        given.trunk if given and embedded is None else None,
    )
    if not (where / _BEST).exists():
        limit = at_once or (None if workers == 1 else fitting(place, scaling))
        found = _search(job, where, count, algorithm, points, asha, limit, training.seed)
        _write_results(where, found, job, held_out, data, settings, keep_folds, promoters, given)
    _train_best(where, data, embeddings or (str(where / "embeddings") if embedded is not None else None))


@dataclass(frozen=True)
class _HeldOut:
    """Chromosomes of each fold, of the test, and those that all folds learn from."""

    folds: list[list[str]]
    test: list[str]
    learned: list[str]

    @property
    def fold_of_chrom(self) -> dict[str, int]:
        """Chromosome -> the fold that it validates, -1 for none; without those of the test."""
        return {c: i for i, chroms in enumerate(self.folds) for c in chroms} | dict.fromkeys(self.learned, -1)


@dataclass(frozen=True)
class _Suits:
    """Refuses configurations that do not suit the data: window, genes in all and in each fold, workers."""

    length: int
    genes: int
    genes_of_fold: list[int]
    workers: int

    def __call__(self, model: NetworkConfig, training: TrainingConfig) -> None:
        if isinstance(model, CNNConfig):
            model = replace(model, channels=(1,) * len(model.channels))  # small: only to check it
        require_length(model, self.length)
        require_orientation(model, training)
        for held_out in self.genes_of_fold:
            require_enough_genes(self.genes - held_out, held_out, training, self.workers)


def _hold_out(chroms: pd.Series, split: SplitConfig, folds: int) -> _HeldOut:
    split_of_chrom = split_by_chromosome(chroms, split)
    test = [chrom for chrom, name in split_of_chrom.items() if name == "test"]
    if folds == 1:
        val = [chrom for chrom, name in split_of_chrom.items() if name == "val"]
        return _HeldOut([val], test, [c for c, name in split_of_chrom.items() if name == "train"])
    return _HeldOut(chromosome_folds(chroms[~chroms.isin(test)], folds), test, [])


def _read_space(space: dict[str, Any] | str | None, model: NetworkConfig) -> dict[str, Any]:
    """Take a space as it is, or from a file."""
    if space is None:
        return PRETRAINED_SPACE if isinstance(model, PretrainedConfig) else DEFAULT_SPACE
    return storage.read_yaml(space) if isinstance(space, str) else space


# The search -------------------------------------------------------------------------------------------------


def _search(
    job: TrialJob,
    where: UPath,
    count: int,
    algorithm: str,
    points: list[dict[str, Any]] | None,
    asha: bool,
    at_once: int | None,
    seed: int,
) -> list[Trial]:
    """Run the trials, or those that an earlier run has left, and return all."""
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is to end the job, not to pass for the search's end
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # what a kill can cost of the searcher's memory
    if not cluster.is_debug():
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints each failure whatever `verbose` says
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # trials.csv tells why a trial failed
    if job.in_one_process:
        kind: Any = TrialInOneProcess
        resources: Any = job.scaling.resources_per_worker
        saving = CheckpointConfig(num_to_keep=1, checkpoint_frequency=1)
    else:
        kind = TrialByDDP  # whose workers save
        # of the process that starts the workers: as good as nothing, but Tune wants something
        resources, saving = {"memory": float(1 << 20)}, CheckpointConfig(checkpoint_at_end=False)
    trainable = ray.tune.with_resources(ray.tune.with_parameters(kind, job=job), resources)
    mode = "max" if job.larger_is_better else "min"
    longest = _longest(job.space)
    filesystem, storage_path = storage.arrow_filesystem(where)
    tuner = _restored(job.search, trainable)
    if tuner is None:
        storage.remove_folder(storage.resolve(job.search))
        # with rungs at a ninth and a third of the epochs; the last epoch ends a trial by itself, not by ASHA
        scheduler = (
            Halving(
                time_attr="epoch",
                max_t=longest + 1,
                grace_period=max(1, longest // _REDUCTION**2),
                reduction_factor=_REDUCTION,
            )
            if asha and longest > 1
            else None
        )
        tuner = ray.tune.Tuner(
            trainable,
            tune_config=ray.tune.TuneConfig(
                metric="score",
                mode=mode,
                num_samples=count,
                search_alg=Sampler(job.space, algorithm, points, job.larger_is_better, seed),
                scheduler=scheduler,
                max_concurrent_trials=at_once,
                reuse_actors=job.in_one_process,
                trial_dirname_creator=_trial_folder,
            ),
            run_config=ray.tune.RunConfig(
                name=_SEARCH,
                storage_path=storage_path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=saving,
                callbacks=[SearchScreen(count, job.metric), *([] if job.in_one_process else [Reclaim()])],
                verbose=0,
            ),
        )
    try:
        results = tuner.fit()
    finally:
        SearchScreen.close()
    trials = list(results._experiment_analysis.trials)  # the public results do not hold trials without any
    unfinished = [trial for trial in trials if not trial.is_finished()]
    if unfinished:
        raise RuntimeError(f"Ray Tune ended with {len(unfinished)} trials unfinished; run the same command again")
    return trials


def _trial_folder(trial: Trial) -> str:
    return f"trial_{trial.trial_id}"


def _longest(space: SearchSpace) -> int:
    """Return the most epochs that a trial can have."""
    domain = space.space.get("training.epochs")
    if domain is None:
        return space.training.epochs
    return max(domain["choices"]) if "choices" in domain else int(domain["high"])


def _restored(folder: str, trainable: Any) -> ray.tune.Tuner | None:
    """Return the search that an earlier run has left, None if it left too little."""
    where = storage.resolve(folder)
    if not where.is_dir() or not any("experiment_state" in path.name for path in where.iterdir()):
        return None
    filesystem, path = storage.arrow_filesystem(where)
    if not ray.tune.Tuner.can_restore(path, filesystem):
        return None
    console.print("going on with the search that was interrupted")
    # a trial in error is one whose workers were lost, or could not save: it may succeed now
    return ray.tune.Tuner.restore(
        path, trainable, resume_unfinished=True, resume_errored=True, storage_filesystem=filesystem
    )


def _show_start(promoters: Promoters, held_out: _HeldOut, count: int, seeds: int) -> None:
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


# Results ----------------------------------------------------------------------------------------------------


def _write_results(
    where: UPath,
    trials: list[Trial],
    job: TrialJob,
    held_out: _HeldOut,
    data: str,
    settings: dict[str, Any],
    keep_folds: bool,
    promoters: Promoters,
    given: Pretrained | None,
) -> None:
    """Write what the search found; best.yaml comes last, so that it stands for a finished search."""
    table = trials_table(trials, job.larger_is_better)
    scored = table[table["status"] != "failed"]
    storage.write_text(where / _TABLE, table.to_csv(index=False))
    if scored.empty:
        raise RuntimeError(
            f"all {len(table)} trials failed; the first: {table['reason'].iloc[0]}; see {where / _TABLE}"
        )
    by_number = {number_of(trial): trial for trial in trials}
    best = by_number[int(scored["trial"].iloc[0])]
    drawn = [by_number[int(number)].config for number in scored["trial"]]
    mattered = importance(job.space, drawn, scored["score"].tolist())
    storage.write_text(where / "importance.csv", mattered.to_csv(index=False))
    label = "Pearson r" if job.metric == "pearson" else "MSE"
    label += ", validation"
    ranges = {name: bool(domain.get("log")) for name, domain in job.space.space.items() if "low" in domain}
    figures = where / "figures"
    plots.write_figure(figures, "search_progress", plots.search_progress(table, label, job.larger_is_better))
    ordered = mattered["setting"].tolist()
    plots.write_figure(figures, "score_by_setting", plots.score_by_setting(table, ordered, ranges, label))
    if keep_folds:
        _write_folds(where / "folds", best, job, held_out, promoters, given)
    _keep_logs(where, trials)
    _show_results(scored, mattered, best.config)
    settled = job.space.settings(best.config)
    last: dict[str, Any] = best.last_result
    storage.write_yaml(
        where / _BEST,
        {
            "data": str(storage.resolve(data)),
            "split": {"val": held_out.folds[0], "test": held_out.test},
            "model": resolved(asdict(settled.model)),
            "training": resolved(asdict(replace(settled.training, epochs=int(last["epoch"])))),
            **{name: settings[name] for name in ("workers", "gpus_per_worker", "cpus_per_worker")},
            PROVENANCE: {"trial": int(scored["trial"].iloc[0]), "metric": job.metric, "score": last["score"]},
        },
    )
    storage.remove_folder(storage.resolve(job.search))


def _write_folds(
    folder: UPath,
    best: Trial,
    job: TrialJob,
    held_out: _HeldOut,
    promoters: Promoters,
    given: Pretrained | None,
) -> None:
    """Save the best trial's networks, one a fold and seed."""
    training = last_states(best, job)
    recipe = training.training
    for index, network in enumerate(training.best_networks()):
        fold, seed = divmod(index, job.seeds)
        split_of_chrom = dict.fromkeys(held_out.fold_of_chrom, "train")
        split_of_chrom |= dict.fromkeys(held_out.folds[fold], "val") | dict.fromkeys(held_out.test, "test")
        parted = of_chromosomes(promoters.genes, split_of_chrom)
        info = describe(promoters, parted, replace(recipe, seed=recipe.seed + seed))
        info = replace(info, training={**info.training, "best_epoch": training.states[index].best_epoch})
        name = f"fold_{fold + 1}" + (f"_seed_{seed + 1}" if job.seeds > 1 else "")
        whole = whole_network(network, promoters.length, given and given.trunk)
        checkpoint.save_model(folder / name, whole, info)


def _keep_logs(where: UPath, trials: list[Trial]) -> None:
    """Keep the logs that TensorBoard reads."""
    for trial in trials:
        held = storage.resolve(where / _SEARCH / _trial_folder(trial))
        if not held.is_dir():
            continue
        for path in held.iterdir():
            if path.name.startswith("events.out."):
                storage.copy_file(path, where / "tensorboard" / f"trial_{number_of(trial)}" / path.name)


def _show_results(scored: pd.DataFrame, mattered: pd.DataFrame, best: Mapping[str, Any]) -> None:
    row = scored.iloc[0]
    folds = ", ".join(f"{row[str(name)]:.4f}" for name in scored.columns if str(name).startswith("fold_"))
    console.print(f"best: trial {row['trial']}, {row['score']:.4f} (by fold {folds}) after {row['epochs']} epochs")
    shares = dict(zip(mattered["setting"], mattered["importance"], strict=True))
    table = Table(box=None, pad_edge=False)
    for name in ("setting", "best value", "importance"):
        table.add_column(name, justify="right" if name == "importance" else "left")
    for name in mattered["setting"]:
        if name in best:
            share = shares[name]
            table.add_row(name, short(best[name]), f"{share:.2f}" if np.isfinite(share) else "–")
    console.print(table)


def _train_best(where: UPath, data: str, embeddings: str | None) -> None:
    """Train the best configuration as `jobs.train --config best.yaml` does, and look at the test set once."""
    best = storage.read_yaml(where / _BEST)
    console.print("training the best configuration; then the test chromosomes are looked at, once")

    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    train(
        data,
        str(where / _FINAL),
        split=SplitConfig(**best["split"]),
        model=ModelFlags(**tuples(best["model"])),
        training=TrainingConfig(**best["training"]),
        embeddings=embeddings,
        **{name: best[name] for name in ("workers", "gpus_per_worker", "cpus_per_worker")},
    )
    final = where / _FINAL
    checkpoint.copy_model(final / "model", where / "model")
    # metrics.json last: it stands for the end
    for name in ("history.csv", "leakage.csv", "baselines.parquet", "predictions.parquet", _METRICS):
        storage.copy_file(final / name, where / name)
    storage.remove_folder(final)
    console.print(f"trials, figures, model and metrics in {where}")


if __name__ == "__main__":
    run(tune)
