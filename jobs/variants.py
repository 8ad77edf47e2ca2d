"""What variants do to the predictions of the genes that they fall in, fanned out as Ray tasks."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import heapq
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import ray
from ray.exceptions import OutOfMemoryError, RayError
from rich.table import Table
from upath import UPath

from jobs.cli.config_file import resolved, write_config
from jobs.cli.run import console, run
from jobs.ray_runtime import cluster
from jobs.ray_runtime.estimate import announce_time
from promoter import storage
from promoter.checkpoint import SerializedModel, deserialize_ensemble, serialize_models
from promoter.dataset.genome import Genome
from promoter.dataset.promoters import Promoters, locate, read_promoters, select
from promoter.evaluation.predictions import require_fitting
from promoter.storage.parts import (
    MANIFEST,
    earlier_run,
    ensemble_checksum,
    missing_parts,
    part_is_complete,
    part_path,
)
from promoter.variants.effects import effects_to_table, predict_alleles
from promoter.variants.vcf import REASONS, VcfRecord, read_records
from promoter.variants.windows import (
    GeneVariants,
    TssWindow,
    WindowVariants,
    find_alleles,
    group_by_gene,
    tss_windows,
)

_FORMAT = 1
_PARTS = "parts"
_OUTPUTS = ("variants.parquet", "variants.tsv.gz", "skipped.tsv", "summary.json")
_GENES_PER_PART = 128  # seconds of work on a CPU; never chosen by the cluster, so that any can go on
_LONG = 1 << 14  # bases of a window that only pretrained networks read: a gene is work enough for a part
_MUTANTS_AFTER_OOM = 64  # computed together once memory has run out; fewer each time that it does again
_STRONGEST = 5


def variants(
    variants: str,
    genome: str,
    model: str,
    data: str,
    out: str,
    genes: list[str] | None = None,
    ensemble: list[str] | None = None,
    both_strands: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    max_hours: float | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
) -> None:
    """Predict what each variant of a VCF does to the genes in whose windows it falls.

    Rerun after an interruption, it computes only what is missing.

    Args:
        variants: VCF or BCF, plain or bgzip; it needs no index and no order.
        genome: FASTA that jobs.prepare was given.
        model: model directory that jobs.train wrote, or the folder of a run with --folds or --seeds, an ensemble.
        data: folder that jobs.prepare wrote.
        out: folder to write variants.parquet, variants.tsv.gz, skipped.tsv and summary.json to.
        genes: ids of the genes to look at; by default all.
        ensemble: more model directories; predictions are then the means over all models, with the standard
            deviation of the difference.
        both_strands: average the predictions of the window and of its reverse complement.
        precision: number type of a pretrained network's forward passes: fp32, or bf16, which is faster on GPUs
            and whose rounding can hide small effects.
        max_hours: refuse to begin work that is expected to take longer than this many hours, by the measured time
            of a forward pass.
        workers: number of tasks that run at a time; by default as many as the cluster has room for.
        cpus_per_worker: number of CPUs reserved for each task.
        gpus_per_worker: number of GPUs reserved for each task, or a fraction of one.
    """
    settings = resolved(locals())
    limits = cluster.TaskLimits(workers, cpus_per_worker, gpus_per_worker)
    members = serialize_models([model, *(ensemble or [])])
    network, info = deserialize_ensemble(members)
    promoters = read_promoters(data)
    require_fitting(promoters, info)
    rows = select(promoters, genes)
    gene_windows = tss_windows(promoters)
    opened = Genome(genome)
    source = storage.require_file(variants, "VCF")
    where = storage.require_writable(out)
    identity = _identity(members, promoters, rows, source, opened, both_strands, precision)
    earlier = earlier_run(where, _PARTS, identity)
    with storage.removed_on_error(where, unless=MANIFEST):  # a run that is refused leaves nothing
        with _listing(where / "skipped.tsv") as skip:
            found = find_alleles(read_records(source), opened, promoters, rows=rows.tolist(), skip=skip)
        parts = _cut(found, identity["genes_per_part"])
        metadata = [_metadata(identity, part, info.targets) for part in parts]
        missing = _missing_parts(where, promoters, parts, metadata)
        if earlier and earlier["complete"] and not missing and all((where / name).exists() for name in _OUTPUTS):
            console.print(f"{where}: all {len(found.alleles):,} effects are there already; nothing to do")
            return
        place = None
        if missing:
            place = cluster.connect()
            cluster.require_shared(where)
        if place and (max_hours is not None or network.config.incremental is None):
            windows = sum(len(parts[index]) + parts[index]["gene"].nunique() for index in missing)
            passes = windows * (1 + both_strands)
            announce_time(
                passes,
                "windows",
                members,
                promoters.tokens[rows[0]],
                precision,
                limits,
                place,
                max_hours,
            )
        earlier_run(where, _PARTS, identity)  # once more: another run may have begun meanwhile
        storage.write_json(where / MANIFEST, {**identity, "complete": False})
    sources = {packed.source: packed.checksum for packed in members} | {
        str(locate(data)): promoters.checksum,
        str(source): identity["variants"],
        str(opened.path): identity["genome"],
    }
    write_config(where / "config.yaml", settings, sources)
    if place is not None:
        if len(missing) < len(parts):
            console.print(f"resuming: {len(parts) - len(missing):,} of {len(parts):,} parts are there already")
        _predict_parts(
            where, members, opened, promoters, gene_windows, parts, missing, metadata, both_strands, limits, place
        )
    if lost := _missing_parts(where, promoters, parts, metadata):
        raise RuntimeError(
            f"{where}: {len(lost)} of {len(parts)} parts were changed by another process; "
            "run the same command again"
        )
    files = [part_path(where / _PARTS, index) for index in range(len(parts))]
    strongest = _combine(
        where, files, _empty_table(promoters, info.targets, gene_windows, len(members)), info.targets
    )
    storage.write_json(where / "summary.json", found.counts)
    storage.write_json(where / MANIFEST, {**identity, "complete": True, "parts": len(parts)})
    _show(found.counts, strongest, info.targets)
    console.print(f"{len(found.alleles):,} effects in {where / 'variants.parquet'}")


def _identity(
    members: list[SerializedModel],
    promoters: Promoters,
    rows: np.ndarray,
    source: UPath,
    genome: Genome,
    both: bool,
    precision: str,
) -> dict[str, Any]:
    """Return what must be equal for parts of two runs to belong together."""
    ids = "\n".join(promoters.genes["gene_id"].iloc[rows])
    return {
        "format": _FORMAT,
        "model": ensemble_checksum([packed.checksum for packed in members]),
        "data": promoters.checksum,
        "variants": storage.sha256(source),
        "genome": storage.sha256(genome.path),
        "genes_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "both_strands": both,
        "genes_per_part": _GENES_PER_PART if promoters.length <= _LONG else 1,
        "precision": None if precision == "fp32" else precision,  # None as in manifests that do not know of it
    }


@contextmanager
def _listing(path: UPath) -> Iterator[Callable[[VcfRecord, str, str], None]]:
    """Open the list of what is left out."""
    with storage.atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["chrom", "pos", "ref", "alt", "reason"])
        yield lambda record, alt, reason: rows.writerow([*record[:3], alt, REASONS[reason]])


def _cut(found: WindowVariants, genes_per_part: int) -> list[pd.DataFrame]:
    """Cut the alleles into parts, each of some genes."""
    if found.alleles.empty:
        return []
    of_part = found.alleles["gene"].rank(method="dense").astype(int).sub(1) // genes_per_part
    return [part for _, part in found.alleles.groupby(of_part)]


def _metadata(identity: dict[str, Any], part: pd.DataFrame, targets: list[str]) -> dict[str, Any]:
    listed = part.to_csv(index=False).encode()
    kept = ("format", "model", "data", "genome", "both_strands", "precision")
    named = {key: identity[key] for key in kept}
    return {**named, "targets": targets, "alleles": hashlib.sha256(listed).hexdigest()}


def _missing_parts(
    where: UPath, promoters: Promoters, parts: list[pd.DataFrame], metadata: list[dict[str, Any]]
) -> list[int]:
    ids = promoters.genes["gene_id"].to_numpy()
    return missing_parts(where / _PARTS, [list(ids[part["gene"]]) for part in parts], metadata.__getitem__)


def _predict_parts(
    where: UPath,
    members: list[SerializedModel],
    genome: Genome,
    promoters: Promoters,
    gene_windows: list[TssWindow],
    parts: list[pd.DataFrame],
    missing: list[int],
    metadata: list[dict[str, Any]],
    both_strands: bool,
    limits: cluster.TaskLimits,
    place: cluster.Cluster,
) -> None:
    task = limits.apply(_predict_part)
    references = [ray.put(packed) for packed in members]
    genes = promoters.genes[["gene_id", "chrom"]]

    def submit(index: int, attempt: cluster.Retry) -> ray.ObjectRef:
        part = parts[index]
        gene_variants = group_by_gene(part, genome, promoters, gene_windows)
        rows = part["gene"].unique()
        known = part.assign(gene=part["gene"].map({row: number for number, row in enumerate(rows)}))
        path = str(part_path(where / _PARTS, index))
        return task.remote(
            genes.iloc[rows],
            known,
            gene_variants,
            path,
            metadata[index],
            both_strands,
            attempt.oom_retries,
            *references,
        )

    def give_up(index: int, error: RayError) -> None:
        fix = "; lower --workers or raise --cpus_per_worker" if isinstance(error, OutOfMemoryError) else ""
        raise RuntimeError(
            f"{part_path('', index).name}: its task was lost time and again, {type(error).__name__}{fix}; "
            "finished parts are kept, run the same command again"
        )

    with cluster.progress("variants", sum(len(parts[index]) for index in missing), "effects") as advance:
        for index, _ in cluster.fan_out(submit, missing, limits.in_flight(place), give_up):
            advance(len(parts[index]))


@ray.remote
def _predict_part(
    genes: pd.DataFrame,
    alleles: pd.DataFrame,
    gene_variants: list[GeneVariants],
    path: str,
    metadata: dict[str, Any],
    both_strands: bool,
    oom_retries: int,
    *members: SerializedModel,
) -> None:
    """Predict the alleles of some genes in a worker process and write their part."""
    cluster.require_same_disk(storage.resolve(path).parent.parent / MANIFEST)
    if part_is_complete(path, genes["gene_id"].iloc[alleles["gene"]].tolist(), metadata):
        return  # written since the driver looked, by another run of the same command
    batch_size = max(1, _MUTANTS_AFTER_OOM >> 2 * (oom_retries - 1)) if oom_retries else None
    predicted = [
        predict_alleles(
            cluster.loaded_model(packed),
            gene_variants,
            both_strands=both_strands,
            batch_size=batch_size,
            precision=metadata["precision"] or "fp32",
        )
        for packed in members
    ]
    reference, difference = (np.stack(values) for values in zip(*predicted, strict=True))
    if not np.isfinite(reference + difference).all():
        bad = int(np.flatnonzero(~np.isfinite(reference + difference).all(axis=(0, 2)))[0])
        raise FloatingPointError(
            f"{genes['gene_id'].iloc[alleles['gene'].iloc[bad]]}: the model's output is not a finite number"
        )
    gene_windows = [gene.window for gene in gene_variants]
    storage.write_table(
        path,
        effects_to_table(
            genes,
            alleles,
            targets=metadata["targets"],
            reference=reference,
            difference=difference,
            windows=gene_windows,
        ),
        metadata,
    )


def _empty_table(promoters: Promoters, targets: list[str], gene_windows: list[TssWindow], members: int) -> Any:
    """Return a table without rows: what a VCF gives of which nothing falls in a window."""
    whole, text = np.zeros(0, np.int64), np.zeros(0, object)
    alleles = pd.DataFrame({"gene": whole, "pos": whole, "ref": text, "alt": text, "start": whole, "end": whole})
    none = np.zeros((members, 0, len(targets)), np.float32)
    return effects_to_table(
        promoters.genes,
        alleles.assign(new=text),
        targets=targets,
        reference=none,
        difference=none,
        windows=gene_windows,
    )


def _combine(where: UPath, files: list[UPath], empty: Any, targets: list[str]) -> list[Mapping[Any, Any]]:
    """Put the parts together, one at a time, and return the strongest effects."""
    strongest: list[Mapping[Any, Any]] = []
    with contextlib.ExitStack() as stack:
        parquet = stack.enter_context(storage.atomic_path(where / "variants.parquet"))
        text = stack.enter_context(storage.atomic_path(where / "variants.tsv.gz"))
        schema = empty.schema
        table = stack.enter_context(pq.ParquetWriter(parquet, schema, compression="zstd"))
        # without the time, equal runs give equal files
        packed = stack.enter_context(gzip.GzipFile(text, "wb", compresslevel=6, mtime=0))
        lines = stack.enter_context(io.TextIOWrapper(packed, encoding="utf-8", newline=""))
        lines.write("\t".join(schema.names) + "\n")
        for file in files:
            with storage.open_table(file, "part") as part:
                rows = part.read().replace_schema_metadata(None)
            table.write_table(rows)
            frame = rows.to_pandas()
            frame.to_csv(lines, sep="\t", header=False, index=False, float_format="%.7g", lineterminator="\n")
            effect = frame[[f"{target}_difference" for target in targets]].abs().max(axis=1)
            some = frame.assign(_effect=effect).nlargest(_STRONGEST, "_effect").to_dict("records")
            strongest = heapq.nlargest(_STRONGEST, [*strongest, *some], key=lambda row: row["_effect"])
    return strongest


def _show(counts: dict[str, int], strongest: list[Mapping[Any, Any]], targets: list[str]) -> None:
    table = Table("", "", show_header=False, box=None)
    named = {
        "variants": "variants read",
        "alleles": "alleles",
        "in_windows": "alleles in windows",
        "outside": "alleles in no window",
        "rows": "effects (allele and gene)",
        "spanning_tss": "of these across the TSS",
        **{reason: f"skipped: {text}" for reason, text in REASONS.items()},
    }
    for name, text in named.items():
        if counts[name] or name not in REASONS:
            table.add_row(text, f"{counts[name]:,}")
    console.print(table)
    if not strongest:
        return
    best = Table("strongest", "gene", "to TSS", *targets, box=None)
    for row in strongest:
        ref, alt = (value if len(value) <= 12 else f"{value[:9]}..." for value in (row["ref"], row["alt"]))
        effects = [f"{row[f'{target}_difference']:+.3g}" for target in targets]
        best.add_row(
            f"{row['chrom']}:{row['pos']} {ref}>{alt}", row["gene_id"], f"{row['tss_distance']:+}", *effects
        )
    console.print(best)


if __name__ == "__main__":
    run(variants)
