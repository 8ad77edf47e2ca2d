"""Search for the best configuration on held-out genes, with Ray Tune.

The test genes never enter the search: they are left out before anything is sent to a trial. A trial trains one
configuration on all folds in step (`promoter.training.cross_validation`) and reports after each epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal

from jobs.cli.config_file import job_settings, resolved
from jobs.cli.console import console, plural
from jobs.cli.model_flags import Model, ModelFlags, find_trusted, resolve_model
from jobs.cli.outputs import own_folder
from jobs.cli.run import given_settings, run
from jobs.ray_runtime.capacity import require_resources
from promoter import storage
from promoter.errors import InputError, note
from promoter.splits.config import SplitConfig
from promoter.training.config import TrainingConfig

if TYPE_CHECKING:
    from promoter.models.config import NetworkConfig

_NEW_SETTINGS = (("embeddings", None), ("track", None))  # which earlier versions did not write


def tune(  # noqa: PLR0915 # its imports count as statements
    data: str,
    out: str,
    trials: int = 40,
    folds: int | None = None,
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
    trust_code: bool = False,
    at_once: int | None = None,
    workers: int = 1,
    gpus_per_worker: float | None = None,
    accelerator_type: str | None = None,
    cpus_per_worker: int = 1,
    track: list[Literal["tensorboard", "mlflow"]] | None = None,
    overwrite: bool = False,
) -> None:
    """Search for the best network and recipe, then train it and evaluate it once on the test genes.

    Run again after an interruption, the search resumes, with the finished trials kept.

    Args:
        data: folder that promoter prepare wrote.
        out: folder for trials.csv, best.yaml, importance.csv, figures/, tensorboard/, model/ and metrics.json.
        trials: number of configurations to try; a grid tries all it has.
        folds: number of folds: each configuration is trained once for each, and validated on its genes; 1:
            validated on the validation set of --split; by default 3, or as many as there are chromosomes, say.
        space: YAML file, or YAML text, with the settings to try: '{training.learning_rate: {low: 1.0e-4, high:
            1.0e-2, log: true}, model.kernel_sizes.0: {choices: [7, 15]}}'; by default learning rate and its
            schedule, epochs, filters, widths, pools, blocks, crop, bins, both strands and whether they are kept
            apart, dropout, weight decay, batch size, jitter and reverse complements; of an external
            network those of training. A setting that has a flag of its own here is not searched.
        split: genes held out for the test, which the search does not look at, and those that the final network
            chooses its epoch by; the folds hold out what --split.by names.
        model: settings of the network that are not searched; one given here leaves the default space.
        training: settings of the recipe that are not searched; one given here leaves the default space.
        metric: score of a configuration, a mean over folds and targets.
        algorithm: tpe learns from the trials so far; random does not; grid tries every combination.
        asha: stop trials early that do worse than two thirds of the others at the same epoch; under one_cycle, of
            those with as many epochs, once the rate has fallen.
        seeds: networks per configuration and fold.
        keep_folds: keep the best configuration's networks of all folds, for --ensemble, in folds/.
        embeddings: folder to keep the embeddings of --model.adapt head in, for several runs; out/embeddings by
            default.
        trust_code: run the code of --model.name external, here and on all nodes; false by default: refuse it.
        at_once: maximum number of concurrent trials; by default as many as the cluster has room for.
        workers: 1 (the default), or 0 to train the final network in this process. A trial is always one process,
            since a search scales by trials; for more workers, give best.yaml to promoter train.
        gpus_per_worker: number of GPUs for each trial, or a fraction of one; by default 1 where the cluster has
            GPUs or may start some, else 0.
        accelerator_type: name of the card for each trial, as Ray has it, such as L4; by default any.
        cpus_per_worker: number of CPUs for each trial.
        track: tensorboard, mlflow or both: follow the final training there; by default neither. Logs of the trials
            for TensorBoard are always left in tensorboard/. MLflow, an extra, shows the trials as they run; its
            address is MLFLOW_TRACKING_URI.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced. A finished
            search that is damaged starts anew.
    """
    settings = job_settings(tune, locals())
    require_resources(workers or 1, cpus_per_worker, gpus_per_worker, accelerator_type)
    if workers > 1:
        raise InputError(
            f"--workers {workers}: a trial is one process, and a search scales by trials; use --at_once for more "
            "trials at the same time, and promoter train --config best.yaml --workers for the final network"
        )
    if split.fold is not None or split.max_train is not None or split.homology == "move":
        raise InputError(
            "--split.fold, --split.max_train and --split.homology move: a search has folds of its own; give these "
            "to promoter train, with the best.yaml of the search"
        )
    code = find_trusted(resolve_model(model), trust_code)

    from jobs.ray_runtime.connect import connect
    from jobs.ray_runtime.shared_disk import require_shared
    from jobs.training.job import (
        TrainingJob,
        inputs_of,
        network_for,
        note_schedule,
        read_training_data,
        try_code,
        with_pretrained,
        with_targets,
    )
    from jobs.training.resources import resources_of_worker
    from jobs.training.run import METRICS, PATHS
    from jobs.training.tracking import start_tracking
    from jobs.tuning.results import BEST, FINAL, SearchResult, show_folds, train_best, write_results
    from jobs.tuning.search import SEARCH_FOLDER, run_trials
    from jobs.tuning.trials import TrialJob
    from promoter.splits.folds import search_folds
    from promoter.splits.homology import find_once
    from promoter.splits.units import choose_unit
    from promoter.training.batches import Examples, doubt_constant_targets, require_values, weights_of
    from promoter.training.cross_validation import require_scorable
    from promoter.training.search_space import SearchSpace, SpaceValidator

    tracking = start_tracking(storage.resolve(out), track)
    promoters = read_training_data(data, training.loss)
    network = with_targets(resolve_model(model), promoters.target_names)
    network_for(network, promoters)  # refuses windows that it cannot take; the trials fit their own to them
    try_code(code, promoters)
    split = choose_unit(split, promoters)
    related = find_once(promoters)
    held_out = search_folds(promoters, split, folds, related)
    searched = held_out.searched
    splits = [fold.split[searched] for fold in held_out.folds]
    targets = promoters.targets[searched]
    weights = weights_of(promoters.weights, searched)
    for number, of_fold in enumerate(splits, start=1):
        train, val = of_fold == "train", of_fold == "val"
        of_sets = weights_of(weights, train), weights_of(weights, val)
        try:
            require_values(targets[train], targets[val], promoters.target_names, weights=of_sets)
        except InputError as error:
            raise InputError(f"fold {number}: {error}") from error
    require_scorable(targets, splits, metric, promoters.target_names)
    doubt_constant_targets(targets, promoters.target_names)
    domains = _domains(space, network, training)
    if "training.schedule" not in domains:
        note_schedule(training)
    settings |= resolved({"model": network, "space": domains, "split": split.settings(), "folds": len(splits)})
    settings = {name: value for name, value in settings.items() if (name, value) not in _NEW_SETTINGS}
    genes_of_fold = [(int((fold == "train").sum()), int((fold == "val").sum())) for fold in splits]
    validator = SpaceValidator(promoters.length, genes_of_fold)
    search_space = SearchSpace(domains, network, training, validator)
    points = search_space.grid() if algorithm == "grid" else None
    count = len(points) if points else trials
    inputs = inputs_of(data, promoters, code)
    with own_folder("tune", out, settings, inputs, paths=PATHS, overwrite=overwrite) as output:
        out_dir = output.path
        if output.is_finished(METRICS, overwrite=overwrite):
            storage.remove_folder(out_dir / FINAL)  # a crash at the very end leaves it
            console.print(f"{out_dir}: this search is finished already; nothing to do")
            return
        cluster = connect()
        require_shared(out_dir)
        base = TrainingJob(
            data=data,
            promoters=promoters,
            split=split,
            model=network,
            training=training,
            workers=workers,
            baselines=True,
            gpus_per_worker=gpus_per_worker,
            accelerator_type=accelerator_type,
            cpus_per_worker=cpus_per_worker,
            embeddings=embeddings,
            code=code,
            tracking=tracking,
        ).on(cluster)
        resources = resources_of_worker(replace(base, workers=1).scaling_config(cluster))  # of a trial
        output.begin()
        pretrained = with_pretrained(base, out_dir, cluster).pretrained
        embedded = pretrained and pretrained.embedded
        show_folds(promoters, held_out)
        console.print(f"{count} trials of {plural(len(splits) * seeds, 'network')} each")
        tokens = promoters.tokens if embedded is None else embedded
        job = TrialJob(
            examples=Examples(tokens[searched], targets, weights),
            splits=splits,
            space=search_space,
            metric=metric,
            seeds=seeds,
            resources=resources,
            folder=str(out_dir / SEARCH_FOLDER),
            trunk=pretrained.trunk if pretrained and embedded is None else None,
            code=code,
        )
        if not (out_dir / BEST).exists():
            finished = run_trials(
                job,
                out_dir,
                cluster=cluster,
                tracking=tracking,
                count=count,
                algorithm=algorithm,
                points=points,
                asha=asha,
                max_concurrent_trials=at_once,
                seed=training.seed,
            )
            given = settings | {"data": str(storage.resolve(data))}
            result = SearchResult(
                trials=finished, job=job, promoters=promoters, folds=held_out, pretrained=pretrained
            )
            write_results(out_dir, result, given, keep_folds)
        storage.remove_folder(out_dir / SEARCH_FOLDER)
        if embeddings is None and embedded is not None:
            base = replace(base, embeddings=str(out_dir / "embeddings"))
        train_best(out_dir, base, related)
        output.finish(without=[FINAL])
        storage.remove_folder(out_dir / FINAL)
    console.print(f"trials, figures, model and metrics in {out_dir}")


def _domains(
    space: dict[str, Any] | str | None, network: NetworkConfig, training: TrainingConfig
) -> Mapping[str, Any]:
    """Return the domains to search: those of `space`, or the default ones, without settings given by hand.

    A flag takes its setting out of any space. A `--config` file takes its settings out of the default space alone:
    in config.yaml of a search it stands beside the space that was searched. From Python, settings that differ from
    their defaults count as given where the space is the default one.

    Raises:
        InputError: no setting is left to search.
    """
    from promoter.training.search_space import default_space, leave_out

    configs = {"model": network, "training": training}
    values = {f"{group}.{f.name}": (f, config) for group, config in configs.items() for f in fields(config)}
    given = [setting for setting in given_settings() if setting.name in values]
    if space is None:
        asked: Mapping[str, Any] = default_space(network)
        names = {setting.name for setting in given}
        names |= {name for name, (field, config) in values.items() if getattr(config, field.name) != field.default}
    else:
        domains = storage.read_yaml(space) if isinstance(space, str) else space
        asked = {str(name): domain for name, domain in domains.items()}
        names = {setting.name for setting in given if not setting.source}
    left, givers = leave_out(asked, names)
    if givers:
        shown = [
            f"`{type(config).__name__}.{field.name}={getattr(config, field.name)!r}`"
            for field, config in map(values.__getitem__, givers)
        ]
        problem = f"{', '.join(shown)}: given by hand"
        if not left:
            which = "default search space" if space is None else "search space"
            raise InputError(
                f"{problem}, which leaves nothing of the {which}", fix="leave one out, or search others by `space`"
            )
        note(f"{problem}, so left out of the search space")
    return left


if __name__ == "__main__":
    run(tune)
