"""Score every single-base change of some genes as a task of `jobs.ism`, and show the strongest changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jobs.cli.console import console, new_table, one_line
from jobs.inference.inputs import Inputs
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.model_cache import loaded_model
from jobs.ray_runtime.part_files import Computed, PartTask
from promoter.checkpoint import SerializedModel
from promoter.dataset.promoters import crop_windows
from promoter.ism import Scores, saturation_mutagenesis
from promoter.ism.operations import operations
from promoter.ism.store import GENE_COLUMNS, concatenate, write_part
from promoter.ism.top_effects import Substitution, strongest_substitutions
from promoter.training import predict

_SECONDS_PER_TASK = 4  # long beside what starting a task costs, short beside what losing one does
# Operations a second that a CPU and a GPU are taken to reach, only to choose the size of tasks
_RATE_CPU, _RATE_GPU = 5e10, 5e12
_MAX_GENES_PER_TASK = 512
_TASKS_PER_SLOT = 4  # at least, where there are enough genes, so that all workers end at about the same time
_STRONGEST = 5  # changes printed at the end
_MODEL_ERRORS = (ArithmeticError, LookupError, RuntimeError, ValueError)  # what a model may raise at some sequence


def choose_size(inputs: Inputs, genes: int, limits: TaskLimits, cluster: Cluster) -> int:
    """Return how many genes make a task of some seconds, and no fewer tasks than keep all workers busy."""
    cnn = inputs.network.config.incremental
    if cnn is None:
        return 1  # minutes or hours each
    rate = _RATE_GPU if limits.gpus else _RATE_CPU * max(1, limits.cpus)
    by_time = _SECONDS_PER_TASK * rate / (len(inputs.models) * operations(cnn, inputs.promoters.length) + 1)
    by_slots = genes / (_TASKS_PER_SLOT * limits.max_concurrent_tasks(cluster))
    return max(1, min(int(by_time), int(by_slots), _MAX_GENES_PER_TASK))


def show_strongest(parts: list[list[Substitution] | None], first: int, *, noun: str, partly: bool) -> None:
    """Print the strongest changes of the parts; None for one that another run has written.

    Args:
        parts: the strongest changes of each part.
        first: position of the first base scored: relative to the TSS, or 0-based where there is none.
        noun: what the rows of the data are: gene, or sequence where there is no TSS.
        partly: whether parts were there before, so that these changes are not of all rows.
    """
    substitutions = [substitution for part in parts for substitution in part or []]
    if not substitutions:
        return
    strongest = sorted(substitutions, key=lambda substitution: -abs(substitution.effect))[:_STRONGEST]
    located = noun == "gene"
    position = "to TSS" if located else "position"
    columns = (noun, position, "change", "effect", "target")
    table = new_table(*columns, right={position, "effect"}, collapse_padding=True)
    for change in strongest:
        offset = f"{first + change.offset:{'+' if located else ''},}"
        bases = f"{change.reference}>{change.alternative}"
        table.add_row(change.gene, offset, bases, f"{change.effect:+.3g}", change.target)
    counted = "" if located else "; positions from 0"
    of_these = f" of the {noun}s scored now" if partly else ""
    console.print(f"strongest changes{of_these}, one a {noun}{counted}", style="dim")
    console.print(table)


def score_arguments(inputs: Inputs, rows: np.ndarray, region: tuple[int, int] | None) -> dict[str, Any]:
    """Return what the task of a part takes, by name: its genes, their tokens, the targets and the region."""
    genes = inputs.promoters.genes[GENE_COLUMNS].iloc[rows].reset_index(drop=True)
    genes = crop_windows(genes, *region) if region else genes
    tokens, targets = inputs.promoters.tokens[rows], inputs.info.targets
    return {"genes": genes, "tokens": tokens, "targets": targets, "region": region}


def score_genes(
    part: PartTask,
    *models: SerializedModel,
    genes: pd.DataFrame,
    tokens: np.ndarray,
    targets: list[str],
    region: tuple[int, int] | None,
) -> Computed:
    """Score a batch of genes in a worker process and write its part; the value is the strongest changes."""
    networks = [loaded_model(model) for model in models]
    precision = part.metadata["precision"] or "fp32"

    def score(rows: slice) -> Scores:
        predictions = np.stack([predict(network, tokens[rows]) for network in networks])
        options = {"batch_size": part.batch_size, "positions": region, "precision": precision}
        scores = np.stack([saturation_mutagenesis(network, tokens[rows], **options) for network in networks])
        return _summarise(genes.iloc[rows], targets, predictions, scores)

    failed = {}
    try:
        batches = [score(slice(None))]
    except _MODEL_ERRORS:  # find out by which genes, and score the others
        batches = []
        for row, gene in enumerate(part.gene_ids):
            try:
                batches.append(score(slice(row, row + 1)))
            except _MODEL_ERRORS as error:
                failed[gene] = one_line(error)
    if not batches:
        return None, failed, None
    scores = concatenate(batches)
    checksums = write_part(part.path, scores, part.metadata, part.metadata["dtype"])
    return strongest_substitutions(scores, _STRONGEST), failed, checksums


def _summarise(genes: pd.DataFrame, targets: list[str], predictions: np.ndarray, scores: np.ndarray) -> Scores:
    """Return the scores of the model, or the mean and standard deviation over several.

    Predictions have the shape (models, genes, targets), scores (models, genes, targets, 4, length).
    """
    if not (np.isfinite(predictions).all() and np.isfinite(scores).all()):
        raise FloatingPointError("the model's output is not a finite number")
    if len(predictions) == 1:
        return Scores(genes, targets, predictions[0], scores[0])
    spread = [values.std(axis=0, ddof=1) for values in (predictions, scores)]
    return Scores(genes, targets, predictions.mean(axis=0), scores.mean(axis=0), *spread)
