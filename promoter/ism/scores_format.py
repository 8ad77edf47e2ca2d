"""The files of a scores folder, checked: `manifest.json`, and metadata and columns of `scores/part-*.parquet`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field
from typing_extensions import TypedDict
from upath import UPath

from promoter.dataset.promoters import Window
from promoter.errors import InputError
from promoter.sequence import BASES
from promoter.storage import parts as part_files
from promoter.storage.formats import Checksums, read_table_metadata
from promoter.storage.parts import MANIFEST, PART_PATTERN, PartEntry, listed_checksums
from promoter.storage.paths import AnyPath, resolve
from promoter.storage.schema import (
    ColumnKind,
    checked,
    require_columns,
    require_filled,
    require_format,
)

FORMAT = 1
GENE_COLUMNS = ["gene_id", "gene_name", "chrom", "start", "end", "strand", "sequence"]
_GENE_KINDS: dict[str, ColumnKind] = {
    **dict.fromkeys(("gene_id", "chrom", "strand", "sequence"), "text"),
    **dict.fromkeys(("start", "end"), "integers"),
}
SUMS = ("explained", "difference")  # columns of what attributions add up to, and should add up to
_MAY_BE_NULL = {"gene_name", "chrom", "start", "end", "strand"}
MAKE_AGAIN = "copy the folder again from its source, or make it again with ism"


class Manifest(TypedDict, total=False):
    """What is read of `manifest.json` of a scores folder."""

    complete: bool
    parts: list[PartEntry]
    genes: int
    window: Window | None
    positions: tuple[int, int] | None
    models: list[str] | None
    targets: list[str] | None  # null, and missing in earlier versions: all of the model
    both_strands: bool | None  # likewise: no
    method: str  # of attribute; missing in those of ism


class _PartMetadata(TypedDict):
    targets: Annotated[list[str], Field(min_length=1)]


def read_manifest(path: AnyPath) -> Manifest:
    """Read the manifest of a run; InputError if it is damaged."""
    return checked(part_files.read_manifest(path), Manifest, path, MAKE_AGAIN)


def find_manifest(folder: AnyPath) -> UPath | None:
    """Return the path of a run's manifest, None if there is none.

    Args:
        folder: the folder that ism wrote, or the `scores` folder in it.
    """
    resolved = resolve(folder)
    return next((place / MANIFEST for place in (resolved, resolved.parent) if (place / MANIFEST).exists()), None)


def read_part_metadata(file: pq.ParquetFile, path: UPath) -> tuple[dict[str, Any], list[str]]:
    """Return the metadata of a part, and its targets, after checking its columns.

    Raises:
        InputError: the metadata are damaged or of another format, or a column is missing or of another type.
    """
    metadata = read_table_metadata(file, path, MAKE_AGAIN)
    require_format(metadata, FORMAT, "scores", source=path, fix="make it again with ism")
    targets = checked(metadata, _PartMetadata, path, MAKE_AGAIN)["targets"]
    _require_columns(file.schema_arrow, targets, path)
    return metadata, targets


def _require_columns(schema: pa.Schema, targets: Sequence[str], path: UPath) -> None:
    """Raise InputError unless a part has the columns of genes and targets, all scores of one length."""
    columns = dict(_GENE_KINDS)
    for target in targets:
        for suffix in ("", "_sd") if f"{targets[0]}_scores_sd" in schema.names else ("",):
            columns[f"{target}_prediction{suffix}"] = "numbers"
            columns[f"{target}_scores{suffix}"] = "lists of numbers"
    if "gene_name" in schema.names:  # not in parts of earlier versions
        columns["gene_name"] = "text"
    require_columns(schema, columns, path, MAKE_AGAIN)
    sizes = {schema.field(name).type.list_size for name, kind in columns.items() if kind == "lists of numbers"}
    if len(sizes) > 1 or max(sizes) % len(BASES) or not max(sizes):
        raise InputError(f"{path}: has scores of {sorted(sizes)} values, not of four a base; {MAKE_AGAIN}")


def require_values(table: pa.Table, path: UPath) -> None:
    """Raise InputError if a row lacks a value, or its scores are not those of its sequence's length."""
    require_filled(table, [name for name in table.column_names if name not in _MAY_BE_NULL], path, MAKE_AGAIN)
    sizes = [field.type.list_size for field in table.schema if field.name.endswith("_scores")]
    if sizes and len(table) and set(pc.utf8_length(table["sequence"]).to_pylist()) != {sizes[0] // len(BASES)}:
        raise InputError(
            f"{path}: has scores of {sizes[0] // len(BASES)} bases, but other sequences; {MAKE_AGAIN}"
        )


def manifest_of(scores_dir: UPath) -> Manifest | None:
    """Read the manifest of a folder of parts; None if there is none."""
    path = scores_dir.parent / MANIFEST
    return read_manifest(path) if path.exists() else None


def listed_parts(scores_dir: UPath, every: bool) -> dict[UPath, Checksums]:
    """Return the parts that the manifest lists, else those in the folder, which are not `every` part of a run."""
    manifest = manifest_of(scores_dir)
    if manifest and manifest.get("complete"):
        path, listed = scores_dir.parent / MANIFEST, manifest.get("parts", [])
        names = [_part_name(path, part) for part in listed]
        twice = [name for name, count in Counter(names).items() if count > 1]
        counts = [part.get("genes") for part in listed]
        genes = manifest.get("genes")
        total = genes if None in counts or genes is None else sum(count or 0 for count in counts)
        if twice or total != genes:
            what = f"lists {twice[0]} twice" if twice else f"lists {total} of {genes} genes"
            raise InputError(f"{path}: {what}", fix=MAKE_AGAIN)
        checksums = listed_checksums(listed).values()
        parts = {scores_dir / name: of_part for name, of_part in zip(names, checksums, strict=True)}
    elif manifest and every:
        raise InputError(
            f"{scores_dir.parent}: is not finished; run the same job again, or load some of its genes by name"
        )
    else:
        parts = {path: Checksums() for path in sorted(scores_dir.glob(PART_PATTERN), key=str)}
    if not parts:
        raise InputError(f"{scores_dir}: holds no {PART_PATTERN}; make them with ism or attribute")
    return parts


def _part_name(manifest: UPath, part: PartEntry) -> str:
    """Return the file name of a part that a manifest lists, and refuse paths outside the scores folder."""
    match = re.fullmatch(r"(?:scores/)?(part-\d+\.parquet)", part["file"])
    if match is None:
        raise InputError(
            f"{manifest}: names {part['file']!r}, which is no part-NNNNN.parquet in its own folder scores; "
            f"{MAKE_AGAIN}"
        )
    return match[1]
