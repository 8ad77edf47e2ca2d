"""The score store: `manifest.json` and Parquet parts, `scores/part-*.parquet`, with one row per gene.

Columns: `gene_id`, `gene_name` (null where unknown), `chrom`, `start`, `end`, `strand` (these four null for the
sequences of a library or a FASTA), `sequence`, and for each target:

- `TARGET_prediction`: float32, in target units;
- `TARGET_scores`: fixed-size list<float32>[4·length], base-major (all A, then C, G, T), each
  f(sequence with base at position) - f(sequence), 0 at the reference base; float16 if so chosen.

For an ensemble these are means over its members, and `TARGET_prediction_sd` and `TARGET_scores_sd` hold the
standard deviations. The scores of attribute are estimates of such differences: the metadata name its `method`,
which those of ism lack. Of methods that should add up, `TARGET_explained` and `TARGET_difference` tell whether
they do: the sum of the attributions of all bases, and f(sequence) - f(reference), which it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from promoter.dataset.gene_names import ids_of, with_names
from promoter.errors import InputError
from promoter.ism.contents import ISM, Contents
from promoter.ism.scores_format import (
    FORMAT,
    GENE_COLUMNS,
    MAKE_AGAIN,
    SUMS,
    listed_parts,
    manifest_of,
    read_part_metadata,
    require_values,
)
from promoter.sequence import BASES
from promoter.storage.formats import Checksums, open_table, open_whole_table, read_table_metadata, write_tables
from promoter.storage.parts import with_gene_names
from promoter.storage.paths import AnyPath, resolve

Dtype = Literal["float32", "float16"]
_GENE_TYPES = [pa.string(), pa.string(), pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string()]
_GENES_PER_ROW_GROUP = 16  # a row group is read as a unit: a few genes must not cost reading all of a large part
_BYTES_PER_ROW_GROUP = 1 << 25  # of scores in float32, so that a reader needs no more memory than this
_FIX_PART = "run the same job again: it computes damaged parts anew"
_MEANING = (
    "TARGET_scores: f(sequence with base at position) - f(sequence), in target units, base-major "
    "(all A, then C, G, T), 0 at the reference base"
)


@dataclass(frozen=True)
class Scores:
    """Hold the ISM scores of N genes in memory.

    Attributes:
        genes: one row per gene: `gene_id`, `gene_name`, `chrom`, `start`, `end`, `strand`, `sequence`.
        targets: names of the targets.
        predictions: predictions for the unchanged sequences, float32, shape (N, targets), target units.
        scores: differences of predictions, float32, shape (N, targets, 4, length), target units.
        predictions_sd: standard deviation of each prediction over an ensemble's members; None for a single model.
        scores_sd: standard deviation of each score over an ensemble's members; None for a single model.
        sums: what attributions add up to, and should add up to, float32, shape (N, 2, targets); None (default)
            where nothing need add up. Written, and not read with the scores.
    """

    genes: pd.DataFrame
    targets: list[str]
    predictions: np.ndarray
    scores: np.ndarray
    predictions_sd: np.ndarray | None = None
    scores_sd: np.ndarray | None = None
    sums: np.ndarray | None = None


def concatenate(batches: Sequence[Scores]) -> Scores:
    """Concatenate scores of the same targets, gene after gene."""

    def joined(name: str) -> np.ndarray | None:
        values = [getattr(batch, name) for batch in batches]
        return None if values[0] is None else np.concatenate(values)

    genes = pd.concat([batch.genes for batch in batches], ignore_index=True)
    predictions, scores = joined("predictions"), joined("scores")
    assert predictions is not None and scores is not None  # noqa: S101, PT018 # never None
    spread = {name: joined(name) for name in ("predictions_sd", "scores_sd", "sums")}
    return Scores(genes, batches[0].targets, predictions, scores, **spread)


def genes_per_row_group(targets: int, length: int) -> int:
    """Return how many genes make a row group, given targets and scored bases: 16, or fewer where they are many."""
    return max(1, min(_GENES_PER_ROW_GROUP, _BYTES_PER_ROW_GROUP // (4 * targets * len(BASES) * length)))


def write_part(path: AnyPath, scores: Scores, metadata: dict[str, Any], dtype: Dtype = "float32") -> Checksums:
    """Write one part, atomically; return its checksums.

    Arguments and errors are those of `write_batches`, but for the scores, which are those of all genes.
    """
    checksums = write_batches(path, [scores], metadata, dtype)
    assert checksums is not None  # noqa: S101 # there is a batch
    return checksums


def write_batches(
    path: AnyPath, batches: Iterable[Scores], metadata: dict[str, Any], dtype: Dtype = "float32"
) -> Checksums | None:
    """Write one part, some genes at a time, atomically; return its checksums, None if there is no batch.

    Args:
        path: path of the part, from `part_path`.
        batches: scores of the part's genes, which are not kept in memory; all but the last should be of a multiple
            of `genes_per_row_group`.
        metadata: plain values to store in the part, among them the checksums of model and data; of attribute also
            the method, and what a score means.
        dtype: type of the stored scores, float32 by default. float16 keeps 11 bits: each score is off by at most
            0.05% or 3e-8, whichever is more.

    Raises:
        ValueError: a score is too large for float16, whose largest value is 65,504.
    """
    rest = iter(batches)
    held = list(islice(rest, 1))
    if not held:
        return None
    metadata = {"format": FORMAT, "targets": held[0].targets, "meaning": _MEANING, **metadata}
    size = genes_per_row_group(len(held[0].targets), held[0].scores.shape[-1])

    def tables() -> Iterator[pa.Table]:
        while held:
            yield _to_table(held.pop(), dtype)
            held.extend(islice(rest, 1))  # once the one before is in memory no more

    return write_tables(path, tables(), metadata, size)


def _to_table(scores: Scores, dtype: Dtype) -> pa.Table:
    genes = with_names(scores.genes)
    arrays = [pa.array(genes[name], type=kind) for name, kind in zip(GENE_COLUMNS, _GENE_TYPES, strict=True)]
    names = list(GENE_COLUMNS)
    for index, target in enumerate(scores.targets):
        for suffix, predictions, values in (
            ("", scores.predictions, scores.scores),
            ("_sd", scores.predictions_sd, scores.scores_sd),
        ):
            if predictions is None or values is None:
                continue
            arrays.append(pa.array(predictions[:, index], type=pa.float32()))
            arrays.append(_as_lists(values[:, index], dtype))
            names += [f"{target}_prediction{suffix}", f"{target}_scores{suffix}"]
        if scores.sums is not None:
            arrays += [pa.array(values, type=pa.float32()) for values in scores.sums[..., index].T]
            names += [f"{target}_{kind}" for kind in SUMS]
    return pa.table(arrays, names=names)


def _as_lists(values_NAL: np.ndarray, dtype: Dtype) -> pa.Array:
    with np.errstate(over="ignore"):  # raised below, with the fix
        flat = values_NAL.astype(dtype).reshape(-1)
    if dtype == "float16" and not np.isfinite(flat).all():
        raise ValueError(f"a score of {np.abs(values_NAL).max():g} is too large for float16; take float32")
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values_NAL.shape[1] * values_NAL.shape[2])


def load_scores(
    folder: AnyPath, genes: Sequence[str] | None = None, targets: Sequence[str] | None = None
) -> Scores:
    """Load ISM scores into memory.

    Args:
        folder: folder that ism wrote, or the `scores` folder in it; local or remote.
        genes: gene ids to read, in this order; only the row groups that hold them are read. None, the default,
            means all, in file order.
        targets: names of the targets to read, as for `iterate_scores`; None, the default, means all.

    Raises:
        InputError: the folder holds no parts, or parts of several runs; no part holds one of the genes; or all
            genes are wanted while the run is not finished.
    """
    scores_dir = _scores_folder(folder)

    def read(file: pq.ParquetFile, stored: list[str]) -> Iterator[pa.Table]:
        columns = _columns(file, targets or stored)
        if genes is None:
            yield file.read(columns=columns)
        else:
            yield _select_rows(file.read_row_groups(_groups_with(file, genes), columns=columns), genes)

    whole = genes is None and targets is None
    tables = list(_read_parts(scores_dir, read, every=genes is None, whole=whole))
    table = _concatenate(scores_dir, tables)
    if genes is not None:
        row_by_gene = {gene: row for row, gene in enumerate(table["gene_id"].to_pylist())}
        require_genes(scores_dir, genes, row_by_gene)
        table = table.take([row_by_gene[gene] for gene in genes])
    return _from_table(table, list(targets or tables[0][1]))


def load_contents(folder: AnyPath, genes: Sequence[str] | None = None) -> Contents:
    """Read which genes a scores folder holds, in file order, without reading the scores.

    Args:
        folder: folder that ism wrote, or the `scores` folder in it; local or remote.
        genes: ids or names of the genes to list; None, the default, means all.

    Errors are those of `load_scores`.
    """
    scores_dir = _scores_folder(folder)
    widths: list[int] = []
    methods: list[str] = []  # by the parts, which may lie without their manifest

    def read(file: pq.ParquetFile, targets: list[str]) -> Iterator[pa.Table]:
        widths.append(file.schema_arrow.field(f"{targets[0]}_scores").type.list_size)
        methods.append(read_table_metadata(file, scores_dir).get("method") or ISM)
        yield file.read(columns=_present(file, GENE_COLUMNS[:-1]))

    tables = list(_read_parts(scores_dir, read, every=genes is None, whole=False))
    table = _concatenate(scores_dir, tables).to_pandas()
    if genes is not None:
        genes = ids_of(genes, table)
        require_genes(scores_dir, genes, set(table["gene_id"]))
        table = table[table["gene_id"].isin(genes)].reset_index(drop=True)
    manifest = manifest_of(scores_dir) or {}
    window, positions = manifest.get("window"), manifest.get("positions")
    first = positions[0] if positions and not window else 0
    downstream = window["downstream"] if window else None
    length, both_strands = widths[0] // len(BASES), bool(manifest.get("both_strands"))
    return Contents(table, tables[0][1], length, downstream, first, both_strands, methods[0])


def iterate_scores(
    folder: AnyPath, genes: Sequence[str] | None = None, targets: Sequence[str] | None = None
) -> Iterator[Scores]:
    """Yield scores a few genes at a time, in file order, so that memory does not grow with the number of genes.

    Args:
        folder: folder that ism wrote, or the `scores` folder in it; local or remote.
        genes: gene ids to read; None, the default, means all. Ids without scores are skipped; `load_contents`
            names them.
        targets: names of the targets to read, others are not read from the files; None, the default, means all.

    Yields:
        The scores of one row group.

    Raises:
        InputError: the folder holds no parts, or parts of several runs; or all genes are wanted while the run is
            not finished.
    """

    def read(file: pq.ParquetFile, stored: list[str]) -> Iterator[pa.Table]:
        columns = _columns(file, targets or stored)
        for group in range(file.num_row_groups) if genes is None else _groups_with(file, genes):
            table = file.read_row_group(group, columns=columns)
            yield table if genes is None else _select_rows(table, genes)

    every = genes is None
    for table, stored in _read_parts(_scores_folder(folder), read, every=every, whole=every and targets is None):
        yield _from_table(table, list(targets or stored))


def choose_target(targets: Sequence[str], target: str | None) -> str:
    """Return the name of the target to read scores of: `target`, or the only one there is if it is None.

    Raises:
        InputError: the scores lack the target, or have several and none was named.
    """
    if target is None and len(targets) == 1:
        return targets[0]
    if target is None or target not in targets:
        problem = "is missing" if target is None else "is not in the scores"
        fix = f"there are {', '.join(targets)}"
        raise InputError(problem, setting="target", value=... if target is None else target, fix=fix)
    return target


def _scores_folder(folder: AnyPath) -> UPath:
    resolved = resolve(folder)
    return resolved / "scores" if (resolved / "scores").is_dir() else resolved


def _read_parts(
    scores_dir: UPath, read: Callable[[pq.ParquetFile, list[str]], Iterator[pa.Table]], *, every: bool, whole: bool
) -> Iterator[tuple[pa.Table, list[str]]]:
    """Yield the tables that `read` takes from each part, with the targets, after checking that the parts agree.

    Args:
        scores_dir: folder of the parts.
        read: function that takes tables from a part, given its targets.
        every: whether the parts must be those of all genes, and not of a run that is not finished.
        whole: whether it takes all of each part, which is then checked by the checksum of the file.
    """
    parts = listed_parts(scores_dir, every)
    first: dict[str, Any] = {}
    for path, listed in parts.items():
        with _open_part(path, listed, whole) as file:
            metadata, targets = read_part_metadata(file, path)
            first = first or metadata
            if metadata != first:
                raise InputError(
                    f"{path}: is of another run than {next(iter(parts)).name}; delete the part that is stale"
                )
            for table in read(file, targets):
                require_values(table, path)
                yield with_gene_names(table), targets


@contextmanager
def _open_part(path: UPath, listed: Checksums, whole: bool) -> Iterator[pq.ParquetFile]:
    if whole:
        with open_whole_table(path, "part", listed, _FIX_PART) as (file, _):
            yield file
    else:
        with open_table(path, "part", listed.footer, _FIX_PART) as file:
            yield file


def _concatenate(scores_dir: UPath, tables: Sequence[tuple[pa.Table, list[str]]]) -> pa.Table:
    try:
        return pa.concat_tables([table for table, _ in tables])
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{scores_dir}: its parts differ in their columns ({reason}); {MAKE_AGAIN}") from error


def _columns(file: pq.ParquetFile, targets: Sequence[str]) -> list[str]:
    kinds = ("prediction", "scores", "prediction_sd", "scores_sd")
    return _present(file, GENE_COLUMNS + [f"{target}_{kind}" for target in targets for kind in kinds])


def _present(file: pq.ParquetFile, columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name in file.schema_arrow.names]


def _groups_with(file: pq.ParquetFile, genes: Sequence[str]) -> list[int]:
    return [
        group
        for group in range(file.num_row_groups)
        if len(_select_rows(file.read_row_group(group, columns=["gene_id"]), genes))
    ]


def _select_rows(table: pa.Table, genes: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["gene_id"], pa.array(list(genes), pa.string())))


def require_genes(folder: UPath, genes: Sequence[str], scored: Container[str]) -> None:
    """Raise InputError that names genes without scores in a folder."""
    missing = [gene for gene in genes if gene not in scored]
    if missing:
        raise InputError(f"{folder}: has no scores of {', '.join(missing[:3])}; score them with ism (`genes`)")


def _from_table(table: pa.Table, targets: list[str]) -> Scores:
    values: list[np.ndarray | None] = []
    for suffix in ("", "_sd"):
        if f"{targets[0]}_scores{suffix}" not in table.column_names:
            values += [None, None]
            continue
        values.append(np.stack([table[f"{name}_prediction{suffix}"].to_numpy() for name in targets], axis=1))
        values.append(np.stack([_as_array(table[f"{name}_scores{suffix}"]) for name in targets], axis=1))
    predictions, scores, predictions_sd, scores_sd = values
    assert predictions is not None and scores is not None  # noqa: S101, PT018 # each part has them
    return Scores(table.select(GENE_COLUMNS).to_pandas(), targets, predictions, scores, predictions_sd, scores_sd)


def _as_array(column: pa.ChunkedArray) -> np.ndarray:
    """Turn a fixed-size list column into (N, 4, length)."""
    width = column.type.list_size
    flat: np.ndarray = column.combine_chunks().flatten().to_numpy()  # type: ignore[attr-defined] # stubs lack it
    return flat.astype(np.float32, copy=False).reshape(-1, len(BASES), width // len(BASES))
