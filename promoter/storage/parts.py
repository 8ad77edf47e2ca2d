"""Write a long result as a set of part files, so that a run that was stopped can resume with the missing parts.

A run's folder holds `manifest.json`, which identifies the run, and a folder of `part-NNNNN.parquet`. A part is a
Parquet file with a column `gene_id`; its metadata names the run it belongs to, such as by the model's checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import PositiveInt
from typing_extensions import TypedDict
from upath import UPath

from promoter.errors import InputError
from promoter.storage.formats import open_table, read_json, read_table_metadata, write_json
from promoter.storage.paths import AnyPath, resolve
from promoter.storage.schema import checked

MANIFEST = "manifest.json"
PART_PATTERN = "part-*.parquet"
_MAKE_AGAIN = "delete the folder and run the same command again"
_READERS = 32  # parts read at a time; readers mostly wait for the store


class RunManifest(TypedDict):
    """What is read of the manifest of a run that is to be resumed; others of its entries identify it."""

    complete: bool
    genes_per_part: PositiveInt


def part_path(folder: AnyPath, index: int) -> UPath:
    """Return the path of part `index` in a folder of parts."""
    return resolve(folder) / f"part-{index:05d}.parquet"


def with_gene_names(table: pa.Table) -> pa.Table:
    """Return the rows of a part with a column `gene_name`: null in parts of earlier versions, which lack it."""
    if "gene_name" in table.column_names:
        return table
    place = table.schema.get_field_index("gene_id") + 1
    return table.add_column(place, "gene_name", pa.nulls(len(table), pa.string()))


def part_is_complete(path: AnyPath, gene_ids: Sequence[str], metadata: Mapping[str, Any]) -> bool:
    """Return whether a part exists, can be read, and holds exactly these genes under this metadata.

    Args:
        path: path of the part, local or remote.
        gene_ids: expected values of the column `gene_id`, in order.
        metadata: entries that the part's metadata must have; it may have others.

    Raises:
        StorageError: a store refused to read it.
    """
    if not resolve(path).exists():
        return False
    try:
        with open_table(path, "part") as file:
            actual_metadata = read_table_metadata(file, path)
            actual_ids = file.read(columns=["gene_id"])["gene_id"].to_pylist()
    except InputError:  # unreadable: to be computed again
        return False
    return actual_ids == list(gene_ids) and all(
        actual_metadata.get(key) == value for key, value in metadata.items()
    )


@dataclass(frozen=True)
class PartFiles:
    """The part files of a run and its manifest.

    Attributes:
        out_dir: output folder of the run, resolved.
        folder: name of the folder of parts in it.
        gene_ids: expected column `gene_id` of each part.
        metadata: entries that the metadata of each part must have.
        manifest: entries of the manifest that identify the run; None, the default, for a folder whose name
            identifies it, which gets no manifest.
    """

    out_dir: UPath
    folder: str
    gene_ids: Sequence[Sequence[str]]
    metadata: Sequence[Mapping[str, Any]]
    manifest: Mapping[str, Any] | None = None

    def path(self, index: int) -> UPath:
        """Return the path of part `index`."""
        return part_path(self.out_dir / self.folder, index)

    def paths(self) -> list[UPath]:
        """Return the path of each part."""
        return [self.path(index) for index in range(len(self.gene_ids))]

    def count_rows(self, indices: Iterable[int]) -> int:
        """Return how many rows these parts have together."""
        return sum(len(self.gene_ids[index]) for index in indices)

    def missing(self) -> list[int]:
        """Return the indices of the parts that are missing or incomplete, in order.

        The folder is listed once, and the parts found are read by many threads: in a bucket each part costs some
        requests, and a thousand of them one after another would take minutes.

        Raises:
            StorageError: a store refused to read a part.
        """
        names = {path.name for path in (self.out_dir / self.folder).glob(PART_PATTERN)}
        paths = self.paths()
        existing = [index for index, path in enumerate(paths) if path.name in names]

        def is_complete(index: int) -> bool:
            return part_is_complete(paths[index], self.gene_ids[index], self.metadata[index])

        with ThreadPoolExecutor(_READERS) as readers:
            results = readers.map(is_complete, existing)
            complete = {index for index, result in zip(existing, results, strict=True) if result}
        return [index for index in range(len(paths)) if index not in complete]

    def write_manifest(self, *, complete: bool, **entries: Any) -> None:
        """Write the manifest: what identifies the run, whether all parts are written, and more entries."""
        write_json(self.out_dir / MANIFEST, {**(self.manifest or {}), "complete": complete, **entries})


def earlier_run(out_dir: UPath, folder: str, wanted: Mapping[str, Any]) -> RunManifest | None:
    """Return the manifest of the run that wrote parts into an output folder, None if there was no run.

    Args:
        out_dir: the run's output folder, resolved.
        folder: name of the folder of parts in it, which also names in messages what the parts hold, such as
            `scores`.
        wanted: entries that the manifest must have for this run to resume that one.

    Raises:
        InputError: the manifest is damaged or another run's, or there are parts without a manifest.
    """
    fix = "choose another output folder, or delete this one"
    if not (out_dir / MANIFEST).exists():
        if any((out_dir / folder).glob(PART_PATTERN)):
            raise InputError(f"{out_dir}: holds {folder} without their {MANIFEST}; {fix}")
        return None
    manifest = out_dir / MANIFEST
    earlier = checked(read_json(manifest, _MAKE_AGAIN), dict[str, Any], manifest, _MAKE_AGAIN)
    different = [key for key, value in wanted.items() if earlier.get(key) != value]
    if different:
        raise InputError(f"{out_dir}: holds {folder} of another run (different: {', '.join(different)}); {fix}")
    return checked(earlier, RunManifest, manifest, _MAKE_AGAIN)


def ensemble_checksum(checksums: Sequence[str]) -> str:
    """Return one checksum for the models of an ensemble.

    Args:
        checksums: checksum of each model, in order.

    Returns:
        The SHA-256 of all, one a line; the checksum itself if there is only one model.
    """
    return checksums[0] if len(checksums) == 1 else hashlib.sha256("\n".join(checksums).encode()).hexdigest()
