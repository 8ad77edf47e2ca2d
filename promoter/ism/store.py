"""The score store: a folder of Parquet parts, `part-*.parquet`, a row a gene.

Columns: `gene_id`, `chrom`, `start`, `end`, `strand`, `sequence`, and per target `TARGET_prediction`
(float32, target units) and `TARGET_scores`: fixed-size list<float32>[4·length], base-major (all A,
then C, G, T), each f(sequence with base at position) - f(sequence), 0 at the reference base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from promoter import storage
from promoter.errors import InputError
from promoter.sequence import BASES
from promoter.storage import AnyPath

FORMAT = 1
GENE_COLUMNS = ["gene_id", "chrom", "start", "end", "strand", "sequence"]
_GENE_TYPES = [pa.string(), pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string()]
_MEANING = (
    "TARGET_scores: f(sequence with base at position) - f(sequence), in target units, base-major "
    "(all A, then C, G, T), 0 at the reference base"
)


@dataclass(frozen=True)
class Scores:
    """ISM scores of some genes, in memory.

    Attributes:
        genes: a row a gene: `gene_id`, `chrom`, `start`, `end`, `strand`, `sequence`.
        targets: names.
        predictions: of the unchanged sequences, float32, shape (N, targets), target units.
        scores: differences of predictions, float32, shape (N, targets, 4, length), target units.
    """

    genes: pd.DataFrame
    targets: list[str]
    predictions: np.ndarray
    scores: np.ndarray


def part_path(folder: AnyPath, index: int) -> UPath:
    """Return the path of part `index` in a scores folder."""
    return storage.resolve(folder) / f"part-{index:05d}.parquet"


def write_part(path: AnyPath, scores: Scores, metadata: dict[str, Any]) -> None:
    """Write one part, whole or not at all.

    Args:
        path: as `part_path` gives it.
        scores: of the part's genes.
        metadata: kept with the part; names the checksums of model and data.
    """
    n, _, _, length = scores.scores.shape
    arrays = [
        pa.array(scores.genes[name], type=kind) for name, kind in zip(GENE_COLUMNS, _GENE_TYPES, strict=True)
    ]
    names = list(GENE_COLUMNS)
    for index, target in enumerate(scores.targets):
        arrays.append(pa.array(scores.predictions[:, index], type=pa.float32()))
        flat = np.ascontiguousarray(scores.scores[:, index], dtype=np.float32).reshape(n * len(BASES) * length)
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), len(BASES) * length))
        names += [f"{target}_prediction", f"{target}_scores"]
    table = pa.table(arrays, names=names)
    storage.write_table(
        path, table, {"format": FORMAT, "targets": scores.targets, "meaning": _MEANING, **metadata}
    )


def part_is_whole(path: AnyPath, gene_ids: Sequence[str], metadata: dict[str, Any]) -> bool:
    """Tell whether a part exists, can be read, and holds exactly these genes scored under this metadata."""
    if not storage.resolve(path).exists():
        return False
    try:
        with storage.open_table(path, "part") as file:
            found = storage.read_table_metadata(file)
            ids = file.read(columns=["gene_id"])["gene_id"].to_pylist()
    except InputError:  # unreadable: to be computed again
        return False
    return ids == list(gene_ids) and all(found.get(key) == value for key, value in metadata.items())


def load_scores(folder: AnyPath, genes: Sequence[str] | None = None) -> Scores:
    """Read scores from a folder that `jobs.ism` wrote, or from its `scores` folder.

    Args:
        folder: local or remote.
        genes: ids to read, in this order; all, in file order, when None. Parts without any of them are
            not read beyond their ids.

    Raises:
        InputError: no parts there, or a gene that none of them holds.
    """
    where = storage.resolve(folder)
    if (where / "scores").is_dir():
        where = where / "scores"
    paths = sorted(where.glob("part-*.parquet"), key=str)
    if not paths:
        raise InputError(f"{where}: holds no part-*.parquet; make them with jobs.ism --out")
    targets: list[str] = []
    tables = []
    for path in paths:
        with storage.open_table(path, "part") as file:
            found = storage.read_table_metadata(file)
            if found.get("format") != FORMAT:
                raise InputError(
                    f"{path}: has scores format {found.get('format')}, this version reads {FORMAT}; "
                    "make it again with jobs.ism"
                )
            targets = found["targets"]
            if genes is None:
                tables.append(file.read())
                continue
            wanted = pc.is_in(file.read(columns=["gene_id"])["gene_id"], pa.array(list(genes), pa.string()))
            if pc.any(wanted).as_py():
                tables.append(file.read().filter(wanted))
    return _from_tables(where, tables, targets, genes)


def _from_tables(where: UPath, tables: list[pa.Table], targets: list[str], genes: Sequence[str] | None) -> Scores:
    table = pa.concat_tables(tables) if tables else None
    found = table["gene_id"].to_pylist() if table is not None else []
    if genes is not None:
        row_of = {gene: row for row, gene in enumerate(found)}
        missing = [gene for gene in genes if gene not in row_of]
        if missing or table is None:
            raise InputError(
                f"{where}: has no scores of {', '.join(missing[:3])}; score them with jobs.ism --genes"
            )
        table = table.take([row_of[gene] for gene in genes])
    assert table is not None  # noqa: S101 # without `genes` every part was read
    predictions = np.stack([table[f"{name}_prediction"].to_numpy() for name in targets], axis=1)
    scores = np.stack([_as_array(table[f"{name}_scores"]) for name in targets], axis=1)
    return Scores(table.select(GENE_COLUMNS).to_pandas(), targets, predictions, scores)


def _as_array(column: pa.ChunkedArray) -> np.ndarray:
    """Turn a fixed-size list column into (N, 4, length)."""
    width = column.type.list_size
    flat: np.ndarray = column.combine_chunks().flatten().to_numpy()  # type: ignore[attr-defined] # stubs lack it
    return flat.reshape(-1, len(BASES), width // len(BASES))
