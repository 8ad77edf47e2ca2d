"""The embeddings of a data set's genes by a frozen trunk: computed once, as Ray tasks, and kept as Parquet."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from upath import UPath

from jobs.cli.console import console
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.model_cache import task_device
from jobs.ray_runtime.part_files import Computed, PartTask, compute_parts
from jobs.ray_runtime.shared_disk import require_shared
from promoter import storage
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.models.config import PretrainedConfig
from promoter.models.pretrained import PretrainedModel, build_model, embed, genes_per_pass
from promoter.models.weights import SerializedTrunk
from promoter.storage.parts import PartFiles
from promoter.storage.schema import require_columns, require_filled
from promoter.training.allocator import keep_freed_memory

_FORMAT = 1
_PASSES_PER_PART = 64  # of the trunk: a minute or so of a GPU at the full context
_MAX_GENES_PER_PART = 512
_STRANDS = ("embedding", "embedding_reverse_complement")


def embed_genes(
    config: PretrainedConfig,
    trunk: SerializedTrunk,
    promoters: Promoters,
    *,
    folder: UPath,
    precision: str,
    both_strands: bool,
    limits: TaskLimits,
    cluster: Cluster,
) -> np.ndarray:
    """Embed every gene, or read what an earlier run has left.

    Args:
        config: configuration of the network, of which only the bins matter.
        trunk: weights of the trunk.
        promoters: data set whose genes are embedded.
        folder: folder that gets one folder for each trunk, data set and setting, so that none are mixed up.
        precision: number type of the forward passes, fp32 or bf16.
        both_strands: whether to embed the reverse complements too.
        limits: resources of each task.
        cluster: cluster to compute on.

    Returns:
        float32, shape (genes, 1 or 2, dim).
    """
    metadata = {
        "format": _FORMAT,
        "trunk": trunk.checksum,
        "data": promoters.checksum,
        "tss_bins": config.tss_bins,
        "precision": precision,
        "both_strands": both_strands,
    }
    name = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:16]
    require_shared(folder / name)
    size = min(_MAX_GENES_PER_PART, _PASSES_PER_PART * genes_per_pass(promoters.length, 32))
    ids = promoters.genes["gene_id"].tolist()
    cuts = [slice(start, start + size) for start in range(0, len(ids), size)]
    parts = PartFiles(folder, name, [ids[rows] for rows in cuts], [metadata] * len(cuts))
    if missing := parts.missing():
        compute_parts(
            parts,
            missing,
            _embed_part,
            lambda index: {"tokens": promoters.tokens[cuts[index]], "config": config},
            shared=[trunk],
            limits=limits,
            cluster=cluster,
            name="embed",
            verb="embedded",
        )
    else:
        console.print(f"embeddings of {len(ids):,} genes are in {folder / name} already")
    embedded = [_read(path, _STRANDS[: 1 + both_strands]) for path in parts.paths()]
    if len({part.shape[2] for part in embedded}) > 1:
        raise InputError(f"{folder / name}: holds embeddings of several sizes; delete it and run again")
    return np.concatenate(embedded)


def _embed_part(
    part: PartTask, trunk: SerializedTrunk, *, tokens: np.ndarray, config: PretrainedConfig
) -> Computed:
    """Embed some genes in a worker process and write their part."""
    device = task_device()
    model = _loaded(trunk, config, tokens.shape[1], device)
    embeddings = embed(
        model,
        tokens,
        device=device,
        precision=part.metadata["precision"],
        both_strands=part.metadata["both_strands"],
    )
    if not np.isfinite(embeddings).all():
        bad = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=(1, 2)))[0])
        raise FloatingPointError(f"{part.gene_ids[bad]}: the embedding is not finite")
    columns: list[pa.Array] = [pa.array(part.gene_ids, pa.string())]
    for strand in range(embeddings.shape[1]):
        flat = pa.array(np.ascontiguousarray(embeddings[:, strand]).reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[2]))
    names = ["gene_id", *_STRANDS[: embeddings.shape[1]]]
    return None, {}, storage.write_table(part.path, pa.table(columns, names=names), part.metadata)


@functools.lru_cache(maxsize=1)
def _loaded(trunk: SerializedTrunk, config: PretrainedConfig, length: int, device: str) -> PretrainedModel:
    """Return the network on this worker's device; each worker process builds it once."""
    keep_freed_memory()
    return build_model(config, length, trunk).to(device).eval()


def _read(path: UPath, names: Sequence[str]) -> np.ndarray:
    """Read a part -> (genes, strands, dim)."""
    fix = "delete it and run the same command again"
    with storage.open_table(path, "part") as file:
        require_columns(file.schema_arrow, dict.fromkeys(names, "lists of numbers"), path, fix)
        table = file.read()
        require_filled(table, names, path, fix)
    if len({table[name].type.list_size for name in names}) > 1:
        raise InputError(f"{path}: holds embeddings of several sizes; {fix}")
    strands = []
    for name in names:
        column = table[name]
        flat: np.ndarray = column.combine_chunks().flatten().to_numpy()  # type: ignore[attr-defined] # stubs lack it
        strands.append(flat.reshape(-1, column.type.list_size))
    return np.stack(strands, axis=1)
