"""Write a long result as a set of part files, so that a run that was stopped can resume with the missing parts.

A run's folder holds `manifest.json`, which identifies the run, and a folder of `part-NNNNN.parquet`. A part is a
Parquet file with a column `gene_id`; its metadata names the run it belongs to, such as by the model's checksum.
Once all parts are written, the manifest lists them with their checksums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NotRequired

import pyarrow as pa
from pydantic import PositiveInt
from typing_extensions import TypedDict
from upath import UPath

from promoter.errors import InputError
from promoter.storage.formats import (
    Checksums,
    open_table,
    open_whole_table,
    read_json,
    read_table_metadata,
    write_json,
)
from promoter.storage.paths import AnyPath, resolve
from promoter.storage.records import require_seal, seal
from promoter.storage.schema import checked

MANIFEST = "manifest.json"
PART_PATTERN = "part-*.parquet"
_FIX_MANIFEST = "copy it again from its source, or delete the folder and run the job again"
_READERS = 16  # parts read at a time; readers mostly wait for the store, but hold parts in memory


class PartEntry(TypedDict):
    """A part, as the manifest lists it; earlier versions wrote no checksums."""

    file: str
    genes: NotRequired[int]
    sha256: NotRequired[str | None]
    footer_sha256: NotRequired[str | None]


class RunManifest(TypedDict):
    """What is read of the manifest of a run that is to be resumed; others of its entries identify it."""

    complete: bool
    genes_per_part: PositiveInt
    parts: NotRequired[list[PartEntry] | int]  # a number in earlier versions of variants


def part_path(folder: AnyPath, index: int) -> UPath:
    """Return the path of part `index` in a folder of parts."""
    return resolve(folder) / f"part-{index:05d}.parquet"


def with_gene_names(table: pa.Table) -> pa.Table:
    """Return the rows of a part with a column `gene_name`: null in parts of earlier versions, which lack it."""
    if "gene_name" in table.column_names:
        return table
    place = table.schema.get_field_index("gene_id") + 1
    return table.add_column(place, "gene_name", pa.nulls(len(table), pa.string()))


def read_manifest(path: AnyPath) -> dict[str, Any]:
    """Read a manifest and check its seal.

    Raises:
        InputError: it is missing, damaged or edited.
    """
    manifest = checked(read_json(path, _FIX_MANIFEST), dict[str, Any], path, _FIX_MANIFEST)
    require_seal(manifest, path, _FIX_MANIFEST)
    return manifest


def listed_checksums(parts: Sequence[PartEntry] | int | None) -> dict[str, Checksums]:
    """Return the checksums of the parts that a manifest lists, by the parts' paths from the manifest.

    Args:
        parts: entry `parts` of the manifest; of an unfinished run, or one of an earlier version, it lists none.
    """
    entries = () if parts is None or isinstance(parts, int) else parts
    return {part["file"]: Checksums(part.get("sha256"), part.get("footer_sha256")) for part in entries}


def check_part(
    path: AnyPath, gene_ids: Sequence[str], metadata: Mapping[str, Any], listed: Checksums | None = None
) -> Checksums | None:
    """Read all of a part; return its checksums if it is intact, and has exactly these genes and this metadata.

    Args:
        path: path of the part, local or remote.
        gene_ids: expected values of the column `gene_id`, in order.
        metadata: entries that the part's metadata must have; it may have others.
        listed: checksums by the manifest; None, the default, where it lists none.

    Returns:
        The checksums, or None for a part that is missing, damaged or another.

    Raises:
        StorageError: a store refused to read it.
    """
    if not resolve(path).exists():
        return None
    try:
        with open_whole_table(path, "part", listed) as (file, checksums):
            stored = read_table_metadata(file, path)
            actual_ids: list[Any] = []
            for group in range(file.num_row_groups):  # reading it checks it; a group at a time needs little memory
                actual_ids += file.read_row_group(group)["gene_id"].to_pylist()
    except (InputError, KeyError):  # to be computed again
        return None
    agrees = actual_ids == list(gene_ids) and all(stored.get(key) == value for key, value in metadata.items())
    return checksums if agrees else None


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
        known: index -> checksums of a part that this process has checked or written.
    """

    out_dir: UPath
    folder: str
    gene_ids: Sequence[Sequence[str]]
    metadata: Sequence[Mapping[str, Any]]
    manifest: Mapping[str, Any] | None = None
    known: dict[int, Checksums] = field(default_factory=dict)

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
        """Return the indices of the parts that are missing, damaged or incomplete, in order.

        The folder is listed once, and a part that is found is read by one of several threads: all of it the first
        time, and only its footer once its checksums are known.

        Raises:
            StorageError: a store refused to read a part.
        """
        names = {path.name for path in (self.out_dir / self.folder).glob(PART_PATTERN)}
        paths = self.paths()
        existing = [index for index, path in enumerate(paths) if path.name in names]
        earlier = None if self.manifest is None else earlier_run(self.out_dir, self.manifest)
        listed = listed_checksums(earlier.get("parts") if earlier else None)

        def check(index: int) -> Checksums | None:
            path = paths[index]
            if index not in self.known:
                return check_part(
                    path, self.gene_ids[index], self.metadata[index], listed.get(f"{self.folder}/{path.name}")
                )
            try:
                with open_table(path, "part", self.known[index].footer):
                    return self.known[index]
            except InputError:  # changed or removed by another process
                return None

        with ThreadPoolExecutor(_READERS) as readers:
            results = dict(zip(existing, readers.map(check, existing), strict=True))
        self.known.clear()
        self.known.update((index, checksums) for index, checksums in results.items() if checksums)
        return [index for index in range(len(paths)) if index not in self.known]

    def write_manifest(self, *, complete: bool, **entries: Any) -> None:
        """Write the manifest: what identifies the run, whether all parts are written, and more entries.

        That of a complete run lists the parts with their checksums, which `missing` has found.
        """
        if complete:
            entries["parts"] = [
                {
                    "file": f"{self.folder}/{self.path(index).name}",
                    "genes": len(set(gene_ids)),
                    "sha256": self.known[index].file,
                    "footer_sha256": self.known[index].footer,
                }
                for index, gene_ids in enumerate(self.gene_ids)
            ]
        write_json(self.out_dir / MANIFEST, seal({**(self.manifest or {}), "complete": complete, **entries}))


def earlier_run(out_dir: UPath, identity: Mapping[str, Any]) -> RunManifest | None:
    """Return the manifest that an earlier start of the same run has left; None if there is none of these entries.

    Args:
        out_dir: the run's output folder, resolved.
        identity: entries that the manifest must have for its parts to be of use.
    """
    if not (out_dir / MANIFEST).exists():
        return None
    try:
        earlier = read_manifest(out_dir / MANIFEST)
        run = checked(earlier, RunManifest, out_dir / MANIFEST, _FIX_MANIFEST)
    except InputError:  # damaged: the parts tell themselves whether they are of use
        return None
    return run if all(earlier.get(key) == value for key, value in identity.items()) else None


def ensemble_checksum(checksums: Sequence[str]) -> str:
    """Return one checksum for the models of an ensemble.

    Args:
        checksums: checksum of each model, in order.

    Returns:
        The SHA-256 of all, one a line; the checksum itself if there is only one model.
    """
    return checksums[0] if len(checksums) == 1 else hashlib.sha256("\n".join(checksums).encode()).hexdigest()
