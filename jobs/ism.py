"""Saturation mutagenesis of every gene, fanned out as Ray tasks, to a folder of Parquet parts."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import ray
from ray.exceptions import OutOfMemoryError, RayError
from rich.table import Table
from upath import UPath

from jobs.cli.config_file import resolved, write_config
from jobs.cli.run import console, one_line, plural, run
from jobs.ray_runtime import cluster
from jobs.ray_runtime.estimate import announce_time
from promoter import storage
from promoter.checkpoint import ModelInfo, SerializedModel, deserialize_ensemble, serialize_models
from promoter.dataset.promoters import (
    Promoters,
    locate,
    narrow,
    read_promoters,
    region_around_tss,
    select,
    window_of_region,
)
from promoter.errors import InputError
from promoter.evaluation.predictions import require_fitting
from promoter.ism import Scores, saturation_mutagenesis
from promoter.ism.operations import operations
from promoter.ism.store import GENE_COLUMNS, Dtype, concatenate, write_part
from promoter.ism.top_effects import Substitution, strongest_substitutions
from promoter.models.build import Network
from promoter.storage.parts import (
    MANIFEST,
    earlier_run,
    ensemble_checksum,
    missing_parts,
    part_is_complete,
    part_path,
)
from promoter.training import predict

_FORMAT = 1
_SECONDS_PER_TASK = 4  # long beside what starting a task costs, short beside what losing one does
# Operations a second that a CPU and a GPU are taken to reach, only to choose the size of tasks
_RATE_CPU, _RATE_GPU = 5e10, 5e12
_MOST_GENES_PER_TASK = 512
_TASKS_PER_SLOT = 4  # at least, where there are enough genes, so that all workers end at about the same time
_STRONGEST = 5
_MUTANTS_AFTER_OOM = 64  # computed together once memory has run out; fewer each time that it does again


class _How(NamedTuple):
    """What `saturation_mutagenesis` is told."""

    batch_size: int | None
    positions: tuple[int, int] | None
    precision: Literal["fp32", "bf16"]


class _Failure(NamedTuple):
    gene: str
    reason: str


class _Outcome(NamedTuple):
    failed: list[_Failure]
    strongest: list[Substitution]


def ism(
    model: str,
    data: str,
    out: str,
    genes: list[str] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    ensemble: list[str] | None = None,
    dtype: Dtype = "float32",
    positions: list[int] | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    max_hours: float | None = None,
    genes_per_task: int | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
) -> None:
    """Score every single-base change of every gene's promoter.

    Rerun after an interruption, it computes only what is missing.

    Args:
        model: model directory that jobs.train wrote, or the folder of a run with --folds or --seeds, an ensemble.
        data: folder that jobs.prepare wrote, or a FASTA of sequences as long as the model's window.
        out: folder to write scores/part-*.parquet, manifest.json and config.yaml to.
        genes: ids of the genes to score; by default all.
        split: score only genes that were in this split when the model was trained.
        ensemble: more model directories; scores are then the means over all models, with their standard
            deviation.
        dtype: number type of the stored scores; float16 halves the files and is off by at most 0.05% of each
            score.
        positions: first and last of the bases to change, relative to the TSS, the last not included: '--positions
            -500,100'; by default the whole window. The result is that of a narrower window, with its sequence,
            start and end.
        precision: number type of the matrix products: fp32, or bf16, which is faster on GPUs and whose rounding
            can hide small effects.
        max_hours: refuse to begin work that is expected to take longer than this many hours, by the measured time
            of a forward pass; networks that are scored faster than by forward passes are not measured.
        genes_per_task: number of genes in each task and output file; by default as many as take about four
            seconds.
        workers: number of tasks that run at a time; by default as many as the cluster has room for.
        cpus_per_worker: number of CPUs reserved for each task.
        gpus_per_worker: number of GPUs reserved for each task, or a fraction of one.
    """
    settings = resolved(locals())
    if genes_per_task is not None and genes_per_task < 1:
        raise InputError(f"--genes_per_task {genes_per_task}: must be at least 1")
    limits = cluster.TaskLimits(workers, cpus_per_worker, gpus_per_worker)
    members = serialize_models([model, *(ensemble or [])])
    network, info = deserialize_ensemble(members)
    promoters = read_promoters(data)
    require_fitting(promoters, info)
    rows = select(promoters, genes, info.get_split(promoters.genes), split)
    stretch = None if positions is None else region_around_tss(promoters, positions)
    where = storage.require_writable(out)
    identity = _identity(members, promoters, rows, dtype, positions, precision)
    earlier = _earlier_run(where, identity, genes_per_task)
    metadata = {key: identity[key] for key in ("model", "data", "dtype", "positions", "precision")}
    size = int(earlier["genes_per_part"]) if earlier else genes_per_task
    if earlier and size and earlier["complete"]:
        if not _missing_parts(where, promoters, _cut(rows, size), metadata):
            console.print(f"{where}: all {plural(len(rows), 'gene')} are scored already; nothing to do")
            return
        console.print(f"{where}: some parts are missing or damaged; they are scored again")
    place = cluster.connect()
    cluster.require_shared(where)
    in_flight = limits.in_flight(place)  # refuses tasks that do not fit, so before anything is written
    size = size or _choose_size(network, promoters.length, len(members), limits, place, len(rows))
    if network.config.incremental is None:
        passes = _passes(where, promoters, _cut(rows, size), metadata, stretch)
        announce_time(passes, "mutants", members, promoters.tokens[rows[0]], precision, limits, place, max_hours)
    if begun := _earlier_run(where, identity, genes_per_task):  # meanwhile: then its parts are the ones to fill
        size = int(begun["genes_per_part"])
    identity["genes_per_part"] = size
    identity["window"] = window_of_region(promoters, stretch)  # says where in the sequences the TSS is
    storage.write_json(where / MANIFEST, {**identity, "complete": False})
    sources = {packed.source: packed.checksum for packed in members}
    write_config(where / "config.yaml", settings, {**sources, str(locate(data)): promoters.checksum})
    parts = _cut(rows, size)
    missing = _missing_parts(where, promoters, parts, metadata)
    done = len(rows) - sum(len(parts[index]) for index in missing)
    if done:
        console.print(f"resuming: {done:,} of {plural(len(rows), 'gene')} are scored already")
    failed, strongest = _score_parts(
        where, members, info, promoters, parts, missing, metadata, limits, in_flight, stretch
    )
    listed = [
        {"file": f"scores/{part_path('', index).name}", "genes": len(part)} for index, part in enumerate(parts)
    ]
    if failed:
        reasons = {failure.gene: failure.reason for failure in failed}
        storage.write_json(where / MANIFEST, {**identity, "complete": False, "failed": reasons})
        raise RuntimeError(_of_failures(reasons, len(rows), where))
    if lost := _missing_parts(where, promoters, parts, metadata):
        raise RuntimeError(
            f"{where}: {len(lost)} of {len(parts)} parts were changed by another process, the first is "
            f"{part_path('', lost[0]).name}; run the same command again"
        )
    storage.write_json(where / MANIFEST, {**identity, "complete": True, "parts": listed})
    _show(strongest, identity["window"], partly=done > 0)
    console.print(f"scores of {plural(len(rows), 'gene')} in {where / 'scores'}")


def _of_failures(reasons: dict[str, str], genes: int, where: UPath) -> str:
    """Say in a line which genes could not be scored."""
    names = ", ".join(list(reasons)[:5]) + (f" and {len(reasons) - 5} more" if len(reasons) > 5 else "")
    return (
        f"{plural(len(reasons), 'gene')} of {genes:,} could not be scored: "
        f"{names} ({next(iter(reasons.values()))}); "
        f"the others are in {where / 'scores'}, all failures in {where / MANIFEST}"
    )


def _show(strongest: list[Substitution], window: dict[str, int] | None, partly: bool) -> None:
    if not strongest:
        return
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    place = "position" if window is None else "to TSS"
    for name in ("gene", place, "change", "effect", "target"):
        table.add_column(name, justify="right" if name in (place, "effect") else "left")
    for one in strongest:
        at = f"{one.offset + 1:,}" if window is None else f"{one.offset - window['upstream']:+,}"
        table.add_row(one.gene_id, at, f"{one.reference}>{one.alternative}", f"{one.effect:+.3g}", one.target)
    console.print(f"strongest changes{' of the genes scored now' if partly else ''}, one a gene", style="dim")
    console.print(table)


def _identity(
    members: list[SerializedModel],
    promoters: Promoters,
    rows: np.ndarray,
    dtype: Dtype,
    positions: list[int] | None,
    precision: str,
) -> dict[str, Any]:
    """Return what must be equal for parts of two runs to belong together."""
    ids = "\n".join(promoters.genes["gene_id"].iloc[rows])
    checksums = [packed.checksum for packed in members]
    return {
        "format": _FORMAT,
        "model": ensemble_checksum(checksums),
        "models": checksums,
        "data": promoters.checksum,
        "genes": len(rows),
        "genes_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "length": promoters.length,
        "dtype": dtype,
        "positions": positions,
        "precision": None if precision == "fp32" else precision,  # None as in manifests that do not know of it
    }


def _earlier_run(where: UPath, identity: dict[str, Any], genes_per_task: int | None) -> dict[str, Any] | None:
    """Return the manifest of a run of the same settings, if there is one; refuse to mix with one of others."""
    wanted = identity | ({"genes_per_part": genes_per_task} if genes_per_task else {})
    return earlier_run(where, "scores", wanted)


def _choose_size(
    network: Network, length: int, members: int, limits: cluster.TaskLimits, place: cluster.Cluster, genes: int
) -> int:
    """Return how many genes make a task of some seconds, and no fewer tasks than keep all workers busy."""
    cnn = network.config.incremental
    if cnn is None:
        return 1  # minutes or hours each
    rate = _RATE_GPU if limits.gpus else _RATE_CPU * max(1, limits.cpus)
    by_time = _SECONDS_PER_TASK * rate / (members * operations(cnn, length) + 1)
    by_slots = genes / (_TASKS_PER_SLOT * limits.max_concurrent_tasks(place))
    return max(1, min(int(by_time), int(by_slots), _MOST_GENES_PER_TASK))


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _passes(
    where: UPath,
    promoters: Promoters,
    parts: list[np.ndarray],
    metadata: dict[str, Any],
    stretch: tuple[int, int] | None,
) -> int:
    """Return how many forward passes the genes not yet scored take: of each mutant, and of the gene as it is."""
    left = sum(len(parts[index]) for index in _missing_parts(where, promoters, parts, metadata))
    first, last = stretch or (0, promoters.length)
    return (3 * (last - first) + 1) * left


def _missing_parts(
    where: UPath, promoters: Promoters, parts: list[np.ndarray], metadata: dict[str, Any]
) -> list[int]:
    ids = promoters.genes["gene_id"].to_numpy()
    return missing_parts(where / "scores", [list(ids[part]) for part in parts], lambda _: metadata)


def _score_parts(
    where: UPath,
    members: list[SerializedModel],
    info: ModelInfo,
    promoters: Promoters,
    parts: list[np.ndarray],
    missing: list[int],
    metadata: dict[str, Any],
    limits: cluster.TaskLimits,
    in_flight: Callable[[], int],
    stretch: tuple[int, int] | None,
) -> _Outcome:
    """Score what is missing; return which genes failed, in their order, and the strongest changes."""
    task = limits.apply(_score_genes)
    references = [ray.put(packed) for packed in members]

    def submit(index: int, attempt: cluster.Retry) -> ray.ObjectRef:
        part = parts[index]
        known = promoters.genes[GENE_COLUMNS].iloc[part].reset_index(drop=True)
        path = str(part_path(where / "scores", index))
        oom_retries = attempt.oom_retries
        known = narrow(known, *stretch) if stretch else known
        return task.remote(
            known, promoters.tokens[part], info.targets, path, metadata, stretch, oom_retries, *references
        )

    def give_up(index: int, error: RayError) -> _Outcome:
        reason = f"its task was lost time and again, {type(error).__name__}"
        if isinstance(error, OutOfMemoryError):
            reason += "; lower --workers or raise --cpus_per_worker"
        return _Outcome([_Failure(gene, reason) for gene in promoters.genes["gene_id"].iloc[parts[index]]], [])

    failed: list[_Failure] = []
    strongest: list[Substitution] = []
    with cluster.progress("ism", sum(len(parts[index]) for index in missing), "genes") as advance:
        for index, outcome in cluster.fan_out(submit, missing, in_flight, give_up):
            advance(len(parts[index]))
            failed += outcome.failed
            strongest = heapq.nlargest(_STRONGEST, strongest + outcome.strongest, key=lambda one: abs(one.effect))
    order = {gene: row for row, gene in enumerate(promoters.genes["gene_id"])}
    return _Outcome(sorted(failed, key=lambda failure: order[failure.gene]), strongest)


@ray.remote
def _score_genes(
    genes: pd.DataFrame,
    tokens: np.ndarray,
    targets: list[str],
    path: str,
    metadata: dict[str, Any],
    stretch: tuple[int, int] | None,
    oom_retries: int,
    *members: SerializedModel,
) -> _Outcome:
    """Score a batch of genes in a worker process and write its part; little returns to the driver.

    A gene that cannot be scored is left out of the part, which a later run then takes for unfinished.
    """
    cluster.require_same_disk(storage.resolve(path).parent.parent / MANIFEST)
    if part_is_complete(path, genes["gene_id"].tolist(), metadata):
        return _Outcome([], [])  # written since the driver looked, by another run of the same command
    models = [cluster.loaded_model(packed) for packed in members]
    batch_size = max(1, _MUTANTS_AFTER_OOM >> 2 * (oom_retries - 1)) if oom_retries else None
    how = _How(batch_size, stretch, metadata["precision"] or "fp32")
    try:
        scored, failed = [_score(models, genes, tokens, targets, how)], []
    except _OF_A_GENE:
        scored, failed = _score_one_by_one(models, genes, tokens, targets, how)
    if not scored:
        return _Outcome(failed, [])
    every = concatenate(scored)
    write_part(path, every, metadata, metadata["dtype"])
    return _Outcome(failed, strongest_substitutions(every, _STRONGEST))


# what a model may raise at some sequence
_OF_A_GENE = (ArithmeticError, LookupError, RuntimeError, ValueError)


def _score_one_by_one(
    models: list[Network], genes: pd.DataFrame, tokens: np.ndarray, targets: list[str], how: _How
) -> tuple[list[Scores], list[_Failure]]:
    """Find out which genes made a batch fail, and score the others."""
    scored, failed = [], []
    for row in range(len(genes)):
        try:
            scored.append(_score(models, genes.iloc[[row]], tokens[[row]], targets, how))
        except _OF_A_GENE as error:
            failed.append(_Failure(genes["gene_id"].iloc[row], one_line(error)))
    return scored, failed


def _score(
    models: list[Network], genes: pd.DataFrame, tokens: np.ndarray, targets: list[str], how: _How
) -> Scores:
    """Score with every model; of several return means and standard deviations."""
    predictions = np.stack([predict(model, tokens) for model in models])
    scores = np.stack([saturation_mutagenesis(model, tokens, **how._asdict()) for model in models])
    if not (np.isfinite(predictions).all() and np.isfinite(scores).all()):
        raise FloatingPointError("the model's output is not a finite number")
    if len(models) == 1:
        return Scores(genes, targets, predictions[0], scores[0])
    spread = [values.std(axis=0, ddof=1) for values in (predictions, scores)]
    return Scores(genes, targets, predictions.mean(axis=0), scores.mean(axis=0), *spread)


if __name__ == "__main__":
    run(ism)
