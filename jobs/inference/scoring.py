"""Score every single-base change of some genes as a task of ism or attribute, and show the strongest changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jobs.cli.console import console, new_table, one_line
from jobs.inference.inputs import Inputs
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.model_cache import loaded_model
from jobs.ray_runtime.part_files import Computed, PartTask
from promoter.attribution import Method, explain
from promoter.checkpoint import SerializedModel
from promoter.dataset.promoters import crop_windows
from promoter.device_errors import is_device_error
from promoter.ism import Scores, saturation_mutagenesis
from promoter.ism.ensemble import mean_and_sd
from promoter.ism.operations import operations
from promoter.ism.store import GENE_COLUMNS, concatenate, genes_per_row_group, write_batches
from promoter.ism.top_effects import Substitution, strongest_substitutions
from promoter.models.build import Network
from promoter.sequence import BASES
from promoter.training import predict

_SECONDS_PER_TASK = 4  # long beside what starting a task costs, short beside what losing one does
# Operations a second that a CPU and a GPU are taken to reach, only to choose the size of tasks
_RATE_CPU, _RATE_GPU = 5e10, 5e12
_MAX_GENES_PER_TASK = 512
_BYTES_PER_TASK = (
    1 << 28
)  # of scores in memory, beside the 0.5 GB of a worker with PyTorch; more if a gene has more
_BYTES_PER_FILE = 1 << 28  # before compression: what a lost task or a damaged file costs
_TASKS_PER_SLOT = 4  # at least, where there are enough genes, so that all workers end at about the same time
SDS_UNKNOWN = "; the model does not tell the SDs of its targets, which are taken to be equal"
_STRONGEST = 5  # changes printed at the end
_MODEL_ERRORS = (ArithmeticError, LookupError, RuntimeError, ValueError)  # what a model may raise at some sequence


def engine_seconds(inputs: Inputs, limits: TaskLimits, *, both_strands: bool) -> float:
    """Return about how long the incremental engine takes for a gene, in seconds."""
    cnn = inputs.network.config.incremental
    assert cnn is not None  # noqa: S101 # for the type checker: other networks are measured
    rate = _RATE_GPU if limits.gpus else _RATE_CPU * max(1, limits.cpus)
    passes = len(inputs.models) * inputs.strands_read(both_strands)
    return (passes * operations(cnn, inputs.promoters.length) + 1) / rate


def choose_size(seconds: float, genes: int, scored: ScoredBytes, limits: TaskLimits, cluster: Cluster) -> int:
    """Return how many genes make a task of some seconds, a file of some size, and work for all workers.

    The memory of a task does not follow from it: see `ScoredBytes`.

    Args:
        seconds: seconds that a gene takes.
        genes: number of genes.
        scored: bytes that the scores of a gene take.
        limits: resources of each task.
        cluster: cluster that computes them.
    """
    by_time = _SECONDS_PER_TASK / seconds
    by_slots = genes / (_TASKS_PER_SLOT * limits.max_concurrent_tasks(cluster))
    return max(1, min(int(by_time), int(by_slots), _BYTES_PER_FILE // scored.stored, _MAX_GENES_PER_TASK))


class ScoredBytes(NamedTuple):
    """How much memory the scores of a gene take.

    Attributes:
        stored: bytes in a part, before compression.
        in_memory: bytes in a task while it computes and writes them: of an ensemble mean, squared differences, the
            scores of a member, a difference, and the columns of the file, whatever the number of members; of one
            model its scores, a copy and the columns.
        row_group: number of genes in a row group of the part.
    """

    stored: int
    in_memory: int
    row_group: int

    @classmethod
    def of(cls, targets: int, length: int, *, members: int, both_strands: bool = False) -> ScoredBytes:
        """Count the bytes of a gene.

        Args:
            targets: number of targets that are scored.
            length: number of bases that are scored.
            members: number of models in the ensemble.
            both_strands: whether the strands are averaged; those of the other are in memory too.
        """
        one = 4 * targets * len(BASES) * length
        stored, copies = (2 * one, 6) if members > 1 else (one, 3)
        return cls(stored, one * (copies + both_strands), genes_per_row_group(targets, length))

    @property
    def genes_at_a_time(self) -> int:
        """Number of genes that a task scores before it writes them: whole row groups within its memory."""
        return max(1, _BYTES_PER_TASK // self.in_memory // self.row_group) * self.row_group


def show_strongest(
    parts: list[list[Substitution] | None],
    first: int,
    *,
    noun: str,
    partly: bool,
    in_sds: bool,
    targets: int,
    method: str | None = None,
) -> None:
    """Print the strongest changes of the parts; None for one that another run has written.

    Args:
        parts: the strongest changes of each part.
        first: position of the first base scored: relative to the TSS, or 0-based where there is none.
        noun: what the rows of the data are: gene, or sequence where there is no TSS.
        partly: whether parts were there before, so that these changes are not of all rows.
        in_sds: whether the standard deviations of the targets are known, in which effects are compared.
        targets: number of targets.
        method: name of the method that estimates them; None (default) for differences of predictions.
    """
    substitutions = [substitution for part in parts for substitution in part or []]
    if not substitutions:
        return
    strongest = _largest(substitutions)
    located = noun == "gene"
    position = "to TSS" if located else "position"
    columns = (noun, position, "change", "effect", *(["in SDs"] if in_sds else []), "target")
    table = new_table(*columns, right={position, "effect", "in SDs"}, collapse_padding=True)
    for change in strongest:
        offset = f"{first + change.offset:{'+' if located else ''},}"
        bases = f"{change.reference}>{change.alternative}"
        deviations = [f"{change.in_sds:+.2f}"] if in_sds else []
        table.add_row(change.gene, offset, bases, f"{change.effect:+.3g}", *deviations, change.target)
    counted = "" if located else "; positions from 0"
    of_these = f" of the {noun}s scored now" if partly else ""
    compared = "" if in_sds or targets == 1 else SDS_UNKNOWN
    estimated = f" by {method}, estimates" if method else ""
    console.print(f"strongest changes{estimated}{of_these}, one a {noun}{counted}{compared}", style="dim")
    console.print(table)


def _largest(substitutions: list[Substitution]) -> list[Substitution]:
    return sorted(substitutions, key=lambda substitution: -abs(substitution.in_sds))[:_STRONGEST]


def score_arguments(
    inputs: Inputs, rows: np.ndarray, region: tuple[int, int] | None, *, both_strands: bool, method: Method | None
) -> dict[str, Any]:
    """Return what the task of a part takes, by name: its genes and their tokens, and how to score them."""
    genes = inputs.promoters.genes[GENE_COLUMNS].iloc[rows].reset_index(drop=True)
    genes = crop_windows(genes, *region) if region else genes
    return {
        "genes": genes,
        "tokens": inputs.promoters.tokens[rows],
        "targets": inputs.targets,
        "outputs": inputs.outputs,
        "sds": inputs.target_sds,
        "region": region,
        "both_strands": both_strands,
        "method": method,
    }


def score_genes(
    part: PartTask,
    *models: SerializedModel,
    genes: pd.DataFrame,
    tokens: np.ndarray,
    targets: list[str],
    outputs: list[int] | None,
    sds: list[float] | None,
    region: tuple[int, int] | None,
    both_strands: bool,
    method: Method | None = None,
) -> Computed:
    """Score a batch of genes in a worker process and write its part; the value is the strongest changes.

    Some genes are scored and written at a time, by `ScoredBytes`; after memory has run out, one is scored at a
    time, and a row group of them written.
    """
    networks = [loaded_model(model) for model in models]
    precision = part.metadata["precision"] or "fp32"
    start, end = region or (0, tokens.shape[1])
    scored = ScoredBytes.of(len(targets), end - start, members=len(models), both_strands=both_strands)
    at_a_time = scored.genes_at_a_time if part.batch_size is None else 1
    failed: dict[str, str] = {}
    strongest: list[Substitution] = []

    def score(rows: slice) -> Scores:
        predictions = np.stack([predict(network, tokens[rows], both_strands=both_strands) for network in networks])
        options: dict[str, Any] = {"positions": region, "targets": outputs, "batch_size": part.batch_size}
        options["both_strands"] = both_strands
        sums: list[np.ndarray] = []

        def of_member(network: Network) -> np.ndarray:
            if method is None:
                return saturation_mutagenesis(network, tokens[rows], precision=precision, **options)
            attributed = explain(network, tokens[rows], method, **options)
            sums.extend([] if attributed.sums is None else [attributed.sums])
            return attributed.scores

        of_targets = predictions if outputs is None else predictions[..., outputs]
        scores = _summarise(genes.iloc[rows], targets, of_targets, mean_and_sd(map(of_member, networks)))
        return replace(scores, sums=np.mean(sums, axis=0)) if sums else scores

    def batches() -> Iterator[Scores]:
        size = max(at_a_time, scored.row_group)
        for first in range(0, len(genes), size):
            last = min(first + size, len(genes))
            some = [slice(row, min(row + at_a_time, last)) for row in range(first, last, at_a_time)]
            if batch := _joined(list(_scored(score, some, part.gene_ids, failed))):
                strongest[:] = _largest([*strongest, *strongest_substitutions(batch, _STRONGEST, sds)])
                yield batch
                del batch  # before the next one is made

    checksums = write_batches(part.path, batches(), part.metadata, part.metadata["dtype"])
    return (strongest if checksums else None), failed, checksums


def _scored(
    score: Callable[[slice], Scores], batches: Sequence[slice], gene_ids: list[str], failed: dict[str, str]
) -> Iterator[Scores]:
    """Score batches of genes; where the model fails, find out by which genes, note why, and score the others."""
    for rows in batches:
        try:
            yield score(rows)
        except _MODEL_ERRORS as error:
            if is_device_error(error):  # no gene is to blame
                raise
            if rows.stop - rows.start == 1:
                failed[gene_ids[rows.start]] = one_line(error)
                continue
            alone = [slice(row, row + 1) for row in range(rows.start, rows.stop)]
            yield from _scored(score, alone, gene_ids, failed)


def _joined(batches: list[Scores]) -> Scores | None:
    return concatenate(batches) if len(batches) > 1 else next(iter(batches), None)


def _summarise(
    genes: pd.DataFrame,
    targets: list[str],
    predictions: np.ndarray,
    mean_and_sd: tuple[np.ndarray, np.ndarray | None],
) -> Scores:
    """Return the scores of the model, or the mean and standard deviation over several.

    Predictions have the shape (models, genes, targets), mean and SD of the scores (genes, targets, 4, length).
    """
    scores, scores_sd = mean_and_sd
    if not (np.isfinite(predictions).all() and np.isfinite(scores).all()):
        raise FloatingPointError("the model's output is not a finite number")
    if scores_sd is None:
        return Scores(genes, targets, predictions[0], scores)
    spread = predictions.std(axis=0, ddof=1)
    return Scores(genes, targets, predictions.mean(axis=0), scores, spread, scores_sd)
