"""A run of ism or attribute: from their flags to a complete folder of scores, resumed if it was begun before."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from upath import UPath

from jobs.cli.console import console, plural
from jobs.cli.outputs import own_folder
from jobs.inference.estimate import announce_time, seconds_per_pass
from jobs.inference.inputs import announce_strands, load_inputs
from jobs.inference.scoring import (
    ScoredBytes,
    choose_size,
    engine_seconds,
    score_arguments,
    score_genes,
    show_strongest,
)
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.connect import connect
from jobs.ray_runtime.model_cache import task_memory
from jobs.ray_runtime.part_files import compute_parts
from jobs.ray_runtime.shared_disk import require_shared
from promoter.attribution.attributions import require_explainable
from promoter.attribution.completeness import doubt_incomplete, read_sums, unexplained_share
from promoter.attribution.methods import Method
from promoter.checkpoint import DESCRIPTION
from promoter.dataset.promoters import region_of_positions, select, window_of_region
from promoter.errors import InputError
from promoter.ism.rounding import doubt_unchecked
from promoter.models.external import ExternalModel
from promoter.storage.parts import PartFiles, earlier_run

_FORMAT = 1
_FOLDER = "scores"
# settings that do not change the scores
_PATHS = ("model", "model_weights", "data", "ensemble", "genes_per_task")


class _Plan:
    """What a run scores, and what identifies it, by the settings that ism and attribute share."""

    def __init__(self, settings: Mapping[str, Any], method: Method | None, *, trust_code: bool) -> None:
        self.inputs = load_inputs(
            settings["model"],
            settings["ensemble"],
            settings["data"],
            settings["targets"],
            model_weights=settings["model_weights"],
            trust_code=trust_code,
        )
        self.precision = settings.get("precision", "fp32")
        if method:
            require_explainable(self.inputs.network, method)
        elif self.precision == "fp32" and isinstance(self.inputs.network, ExternalModel):
            doubt_unchecked(self.inputs.network, torch.tensor(self.inputs.promoters.tokens[:1]))
        self.method = method
        self.both_strands: bool = settings["both_strands"]
        announce_strands(self.inputs.models, self.both_strands)
        promoters = self.promoters = self.inputs.promoters
        held_out = self.inputs.info.get_split(promoters.genes)
        self.rows = select(promoters, settings["genes"], held_out, settings["split"])
        positions = settings["positions"]
        self.region = None if positions is None else region_of_positions(promoters, positions)
        self.first, self.last = self.region or (0, promoters.length)
        self.window = window_of_region(promoters, self.region)
        described = method.describe() if method else {}
        self.identity = {
            "format": _FORMAT,
            **self.inputs.identity(self.rows, self.precision, both_strands=self.both_strands),
            "models": [serialized.checksum for serialized in self.inputs.models],
            "genes": len(self.rows),
            "length": promoters.length,
            "dtype": settings["dtype"],
            "positions": positions,
            **described,
        }
        names = ("model", "data", "dtype", "positions", "precision", "both_strands", *described)
        self.metadata = {"targets": self.inputs.targets, **{name: self.identity[name] for name in names}}
        if method:
            self.metadata["meaning"] = method.meaning

    @property
    def passes(self) -> int:
        """Number of passes of each model that a gene takes, if it is not scored faster than by passes."""
        mutants = 3 * (self.last - self.first) + 1  # and the gene as it is
        one_strand = self.method.passes * len(self.inputs.targets) if self.method else mutants
        return one_strand * self.inputs.strands_read(self.both_strands)

    @property
    def takes_passes(self) -> bool:
        """Whether the incremental engine does not score the genes."""
        return self.method is not None or self.inputs.network.config.incremental is None

    def seconds_per_gene(self, limits: TaskLimits, cluster: Cluster) -> float:
        """Return how long a gene takes: measured on a worker, or estimated for the engine."""
        if not self.takes_passes:
            return engine_seconds(self.inputs, limits, both_strands=self.both_strands)
        return self.passes * seconds_per_pass(self.inputs, limits, cluster, self.method or self.precision)

    def choose_size(self, seconds: float, limits: TaskLimits, cluster: Cluster) -> int:
        """Return the number of genes in a part, of which each takes some seconds."""
        members, targets = len(self.inputs.models), len(self.inputs.targets)
        length = self.last - self.first
        scored = ScoredBytes.of(targets, length, members=members, both_strands=self.both_strands)
        return choose_size(seconds, len(self.rows), scored, limits, cluster)

    def cut(self, out_dir: UPath, size: int) -> PartFiles:
        """Return the part files of so many genes each."""
        ids = self.promoters.genes["gene_id"].iloc[self.rows].tolist()
        gene_ids = [ids[start : start + size] for start in range(0, len(ids), size)]
        manifest = {**self.identity, "genes_per_part": size, "window": self.window}
        return PartFiles(out_dir, _FOLDER, gene_ids, [self.metadata] * len(gene_ids), manifest)

    def arguments(self, index: int, size: int) -> dict[str, Any]:
        """Return what the task of a part takes, by name."""
        rows = self.rows[index * size : (index + 1) * size]
        options = {"both_strands": self.both_strands, "method": self.method}
        return score_arguments(self.inputs, rows, self.region, **options)


def run_scoring(
    job: str,
    settings: Mapping[str, Any],
    limits: TaskLimits,
    method: Method | None,
    *,
    trust_code: bool,
    overwrite: bool,
) -> None:
    """Score genes and write their folder.

    Args:
        job: name of the job.
        settings: its settings by name, those that ism and attribute share and its own.
        limits: resources of each task.
        method: method of attribution; None for saturation mutagenesis.
        trust_code: whether to run the code that an external model brings.
        overwrite: whether to take over an output folder that something else has filled.
    """
    plan = _Plan(settings, method, trust_code=trust_code)
    inputs, noun = plan.inputs, plan.promoters.noun
    cut = functools.cache(plan.cut)  # which remembers what parts were checked
    owned = own_folder(job, settings["out"], settings, inputs.checksums, paths=_PATHS, overwrite=overwrite)
    with owned as output:
        out_dir = output.path
        earlier = earlier_run(out_dir, plan.identity)
        size = settings["genes_per_task"]
        if earlier and size not in {None, earlier["genes_per_part"]}:
            begun = f"the parts of this run have {earlier['genes_per_part']}"
            raise InputError(begun, setting="genes_per_task", value=size, fix="leave it out")
        if earlier and earlier["complete"] and output.finished:
            if not cut(out_dir, earlier["genes_per_part"]).missing():
                console.print(f"{out_dir}: all {plural(len(plan.rows), noun)} are scored already; nothing to do")
                return
            console.print(f"{out_dir}: some parts are missing or damaged; they are scored again")
        cluster = connect()
        require_shared(out_dir)
        limits = limits.on(cluster, task_memory(inputs.models))  # refuses before anything is written
        seconds = plan.seconds_per_gene(limits, cluster)
        size = earlier["genes_per_part"] if earlier else size or plan.choose_size(seconds, limits, cluster)
        parts = cut(out_dir, size)
        missing = parts.missing()
        if plan.takes_passes:
            announce_time(
                parts.count_rows(missing) * plan.passes,
                "passes, forward and back," if method else "forward passes (mutants)",
                seconds / plan.passes,
                limits=limits,
                cluster=cluster,
                max_hours=settings["max_hours"],
            )
        output.begin()
        inputs.write_description(out_dir / DESCRIPTION)
        parts.write_manifest(complete=False)
        strongest = compute_parts(
            parts,
            missing,
            score_genes,
            lambda index: plan.arguments(index, size),
            shared=inputs.models,
            limits=limits,
            cluster=cluster,
            name=job,
            verb="scored",
            noun=noun,
            oom_fix="lower --workers, raise --cpus_per_worker, or score fewer --targets or --positions",
        )
        unexplained = _unexplained(parts, inputs.targets) if method and method.is_complete else {}
        parts.write_manifest(complete=True, **({"unexplained": unexplained} if unexplained else {}))
        output.finish()
        show_strongest(
            strongest,
            -plan.window["upstream"] if plan.window else plan.first,
            noun=noun,
            partly=len(strongest) < len(parts.gene_ids),
            in_sds=inputs.target_sds is not None,
            targets=len(inputs.targets),
            method=method.name if method else None,
        )
        if method and unexplained:
            _show_unexplained(method, unexplained)
        console.print(f"scores of {plural(len(plan.rows), noun)} in {out_dir / _FOLDER}")


def _unexplained(parts: PartFiles, targets: list[str]) -> dict[str, float]:
    """Return the share of the differences that the attributions of each target leave unexplained."""
    shares = unexplained_share(read_sums(parts.paths(), targets))
    return {target: float(f"{share:.3g}") for target, share in zip(targets, shares, strict=True)}


def _show_unexplained(method: Method, unexplained: dict[str, float]) -> None:
    worst = max(unexplained, key=lambda target: unexplained[target])
    which = f", most of {worst}" if len(unexplained) > 1 else ""
    against = "the baseline" if method.name == "integrated_gradients" else "the shuffled references"
    console.print(
        f"left unexplained{which}: {unexplained[worst]:.2%} of the differences between predictions of the "
        f"sequences and of {against}",
        style="dim",
    )
    doubt_incomplete(method.name, np.array(list(unexplained.values())), list(unexplained))
