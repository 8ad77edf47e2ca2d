"""Compute the missing part files of a run as Ray tasks: every job that can resume does it by this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import ray
from ray.exceptions import OutOfMemoryError, RayError

from jobs.cli.console import console, plural
from jobs.ray_runtime.capacity import Cluster, TaskLimits
from jobs.ray_runtime.devices import DeviceError, ends_process_on_device_error
from jobs.ray_runtime.fan_out import Retry, fan_out
from jobs.ray_runtime.progress import progress
from jobs.ray_runtime.shared_disk import require_same_disk
from promoter.errors import listed
from promoter.storage.formats import Checksums
from promoter.storage.parts import MANIFEST, PartFiles, check_part

# A small value for the job, such as the strongest effects in a part; the id of each gene that could not be
# computed -> reason; and the checksums of the part, None if nothing was written. The part lacks the genes that
# failed, and a later run takes it for unfinished.
Computed: TypeAlias = tuple[Any, dict[str, str], Checksums | None]
_MAX_NAMED = 5  # genes named in the message


@dataclass(frozen=True)
class PartTask:
    """The part that a task computes and writes.

    Attributes:
        path: path to write it to.
        gene_ids: its column `gene_id`.
        metadata: entries of its metadata.
        batch_size: maximum number of sequences computed together; None: as many as usual.
    """

    path: str
    gene_ids: list[str]
    metadata: dict[str, Any]
    batch_size: int | None


def compute_parts(
    parts: PartFiles,
    missing: Sequence[int],
    compute: Callable[..., Computed],
    arguments: Callable[[int], Mapping[str, Any]],
    *,
    shared: Sequence[Any],
    limits: TaskLimits,
    cluster: Cluster,
    name: str,
    verb: str,
    noun: str = "gene",
    unit: str | None = None,
    oom_fix: str = "lower --workers or raise --cpus_per_worker",
) -> list[Any]:
    """Compute and write parts, then check that all parts are there.

    A task that is lost is repeated, with smaller batches if it may have lacked memory; after four times its genes
    count as failed. All other parts are written before the failure is raised.

    Args:
        parts: all parts of the run.
        missing: indices of the parts to compute.
        compute: function of a module that computes and writes a part in a worker process. It takes a `PartTask`,
            what is shared, and the arguments of the part by name.
        arguments: function from a part's index to its arguments by name.
        shared: values that all tasks take, such as the models.
        limits: resources of each task.
        cluster: cluster that they run on.
        name: name of the progress bar.
        verb: past participle for messages, such as `scored`.
        noun: what the data's rows are called in messages (default gene).
        unit: plural noun for the rows of a part (default: that of `noun`).
        oom_fix: what to change where tasks run out of memory, for the message.

    Returns:
        The value of each part that was computed, in the order of parts.

    Raises:
        RuntimeError: genes could not be computed, which the manifest then lists; or another process changed parts.
        Exception: the first other error that a task raised.
    """
    if len(missing) < len(parts.gene_ids):
        present = len(parts.gene_ids) - len(missing)
        console.print(f"resuming: {present:,} of {plural(len(parts.gene_ids), 'part')} are there already")
    references = [ray.put(value) for value in shared]
    manifest = None if parts.manifest is None else str(parts.out_dir / MANIFEST)

    def submit(index: int, retry: Retry) -> ray.ObjectRef:
        gene_ids, metadata = list(parts.gene_ids[index]), dict(parts.metadata[index])
        part = PartTask(str(parts.path(index)), gene_ids, metadata, retry.batch_size)
        task = limits.apply(_compute_part, name=compute.__name__, label_selector=retry.label_selector)
        return task.remote(compute, part, manifest, *references, **arguments(index))

    def give_up(index: int, error: RayError | DeviceError) -> Computed:
        last = str(error) if isinstance(error, DeviceError) else type(error).__name__
        reason = f"its task was lost time and again, {last}"
        if isinstance(error, OutOfMemoryError) or getattr(error, "out_of_memory", False):
            reason += f"; {oom_fix}"
        return None, dict.fromkeys(parts.gene_ids[index], reason), None

    results: dict[int, Computed] = {}
    with progress(name, parts.count_rows(missing), unit or f"{noun}s") as shown:
        for index, result in fan_out(submit, missing, limits, cluster, progress=shown, give_up=give_up):
            shown.advance(len(parts.gene_ids[index]))
            results[index] = result
    if failed := {gene: reason for index in missing for gene, reason in results[index][1].items()}:
        raise RuntimeError(_record_failures(parts, failed, verb, noun))
    parts.known.update((index, checksums) for index in missing if (checksums := results[index][2]))
    if lost := parts.missing():
        raise RuntimeError(
            f"{parts.out_dir}: {len(lost)} of {len(parts.gene_ids)} parts were changed by another process, "
            f"the first is {parts.path(lost[0]).name}; run the same command again"
        )
    return [results[index][0] for index in missing]


def _record_failures(parts: PartFiles, failed: dict[str, str], verb: str, noun: str) -> str:
    """Write the genes that could not be computed to the manifest, and say it in a line."""
    total = len({gene for gene_ids in parts.gene_ids for gene in gene_ids})
    message = (
        f"{plural(len(failed), noun)} of {total:,} could not be {verb}: {listed(list(failed), _MAX_NAMED)} "
        f"({next(iter(failed.values()))}); the others are in {parts.out_dir / parts.folder}"
    )
    if parts.manifest is None:
        return message
    parts.write_manifest(complete=False, failed=failed)
    return f"{message}, all failures in {parts.out_dir / MANIFEST}"


@ray.remote
@ends_process_on_device_error
def _compute_part(
    compute: Callable[..., Computed], part: PartTask, manifest: str | None, *shared: Any, **arguments: Any
) -> Computed:
    """Compute a part in a worker process, unless another run of the same command has written it meanwhile."""
    if manifest is not None:
        require_same_disk(manifest)
    if checksums := check_part(part.path, part.gene_ids, part.metadata):
        return None, {}, checksums
    return compute(part, *shared, **arguments)
