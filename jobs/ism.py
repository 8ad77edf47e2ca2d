"""Saturation mutagenesis of every gene, fanned out as Ray tasks, to a folder of Parquet parts."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
import pandas as pd
import ray
from upath import UPath

from jobs import cluster
from jobs.cli import console, run
from jobs.config import resolved, write_config
from promoter import splits, storage
from promoter.checkpoint import ModelInfo, PackedModel, pack_model, unpack_model
from promoter.dataset import Promoters, locate, read_promoters, select
from promoter.errors import InputError
from promoter.ism import Scores, saturation_mutagenesis
from promoter.ism.store import GENE_COLUMNS, part_is_whole, part_path, write_part
from promoter.predictions import require_fitting
from promoter.training import predict

MANIFEST = "manifest.json"
_FORMAT = 1


def ism(
    model: str,
    data: str,
    out: str,
    genes: list[str] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    genes_per_task: int = 16,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
) -> None:
    """Score every single-base change of every gene's promoter.

    Run again after an interruption it computes only what is missing.

    Args:
        model: model directory that jobs.train wrote.
        data: folder that jobs.prepare wrote, or a FASTA of sequences as long as the model's window.
        out: folder for scores/part-*.parquet, manifest.json and config.yaml.
        genes: ids to score; all by default.
        split: score only genes that were in this split when the model was trained.
        genes_per_task: genes in a task and in a part.
        workers: tasks at a time; as many as the cluster has room for by default.
        cpus_per_worker: of each task.
        gpus_per_worker: of each task; may be a fraction.
    """
    settings = resolved(locals())
    if genes_per_task < 1:
        raise InputError(f"--genes_per_task {genes_per_task}: must be at least 1")
    limits = cluster.TaskLimits(workers, cpus_per_worker, gpus_per_worker)
    packed = pack_model(model)
    _, info = unpack_model(packed)
    promoters = read_promoters(data)
    require_fitting(promoters, info)
    rows = select(promoters, genes, splits.assign(promoters.genes["chrom"], info.split_of_chrom), split)
    where = storage.require_writable(out)
    identity = _identity(packed, promoters, rows, genes_per_task)
    if _require_same(where, identity):
        console.print(f"{where}: all {len(rows):,} genes are scored already; nothing to do")
        return
    metadata = {"model": packed.checksum, "data": promoters.checksum}
    parts = [rows[start : start + genes_per_task] for start in range(0, len(rows), genes_per_task)]
    missing = _missing_parts(where, promoters, parts, metadata)
    in_flight = limits.in_flight(cluster.connect())  # refuses tasks that do not fit, so before anything is written
    storage.write_json(where / MANIFEST, {**identity, "complete": False})
    write_config(
        where / "config.yaml",
        settings,
        {packed.source: packed.checksum, str(locate(data)): promoters.checksum},
    )
    done = len(rows) - sum(len(parts[index]) for index in missing)
    if done:
        console.print(f"going on: {done:,} of {len(rows):,} genes are scored already")
    if missing:
        _score_parts(where, packed, info, promoters, parts, missing, metadata, limits, in_flight)
    listed = [
        {"file": f"scores/{part_path('', index).name}", "genes": len(part)} for index, part in enumerate(parts)
    ]
    storage.write_json(where / MANIFEST, {**identity, "complete": True, "parts": listed})
    console.print(f"scores of {len(rows):,} genes in {where / 'scores'}")


def _identity(packed: PackedModel, promoters: Promoters, rows: np.ndarray, genes_per_part: int) -> dict[str, Any]:
    """Return what must be equal for parts of two runs to belong together."""
    ids = "\n".join(promoters.genes["gene_id"].iloc[rows])
    return {
        "format": _FORMAT,
        "model": packed.checksum,
        "data": promoters.checksum,
        "genes": len(rows),
        "genes_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "genes_per_part": genes_per_part,
        "length": promoters.length,
    }


def _require_same(where: UPath, identity: dict[str, Any]) -> bool:
    """Tell whether a finished run of the same settings is there; refuse to mix with one of others."""
    if not (where / MANIFEST).exists():
        return False
    earlier = storage.read_json(where / MANIFEST)
    different = [key for key, value in identity.items() if earlier.get(key) != value]
    if different:
        raise InputError(
            f"{where}: holds scores of another run (different: {', '.join(different)}); "
            "choose another --out, or delete the folder"
        )
    return bool(earlier["complete"]) and all((where / part["file"]).exists() for part in earlier["parts"])


def _missing_parts(
    where: UPath, promoters: Promoters, parts: list[np.ndarray], metadata: dict[str, Any]
) -> list[int]:
    ids = promoters.genes["gene_id"].to_numpy()
    folder = where / "scores"
    return [
        i for i, part in enumerate(parts) if not part_is_whole(part_path(folder, i), list(ids[part]), metadata)
    ]


def _score_parts(
    where: UPath,
    packed: PackedModel,
    info: ModelInfo,
    promoters: Promoters,
    parts: list[np.ndarray],
    missing: list[int],
    metadata: dict[str, Any],
    limits: cluster.TaskLimits,
    in_flight: int,
) -> None:
    task = limits.apply(_score_genes)
    model_ref = ray.put(packed)

    def submit(index: int) -> ray.ObjectRef:
        part = parts[index]
        known = promoters.genes[GENE_COLUMNS].iloc[part].reset_index(drop=True)
        path = str(part_path(where / "scores", index))
        return task.remote(model_ref, known, promoters.tokens[part], info.targets, path, metadata)

    with cluster.progress("ism", sum(len(parts[index]) for index in missing), "genes") as advance:
        for index, _ in cluster.fan_out(submit, missing, in_flight):
            advance(len(parts[index]))


@ray.remote
def _score_genes(
    packed: PackedModel,
    genes: pd.DataFrame,
    tokens: np.ndarray,
    targets: list[str],
    path: str,
    metadata: dict[str, Any],
) -> None:
    """Score a batch of genes in a worker process and write its part; nothing returns to the driver."""
    model = cluster.loaded_model(packed)
    scores = Scores(genes, targets, predict(model, tokens), saturation_mutagenesis(model, tokens))
    write_part(path, scores, metadata)


if __name__ == "__main__":
    run(ism)
