"""The score store: `manifest.json` and a folder of Parquet parts, `scores/part-*.parquet`, a row a gene.

Columns: `gene_id`, `chrom`, `start`, `end`, `strand`, `sequence`, and per target `TARGET_prediction`
(float32, target units) and `TARGET_scores`: fixed-size list<float32>[4·length], base-major (all A,
then C, G, T), each f(sequence with base at position) - f(sequence), 0 at the reference base; float16 if
so chosen. Of an ensemble these are means, and `TARGET_prediction_sd` and `TARGET_scores_sd` the standard
deviation over its members.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from promoter import storage
from promoter.errors import InputError
from promoter.sequence import BASES
from promoter.storage import AnyPath

FORMAT = 1
MANIFEST = "manifest.json"
Dtype = Literal["float32", "float16"]
GENE_COLUMNS = ["gene_id", "chrom", "start", "end", "strand", "sequence"]
_GENE_TYPES = [pa.string(), pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string()]
_READERS = 32  # of parts at a time; they mostly wait for the store
_GENES_PER_ROW_GROUP = 16  # read as one; some genes of a large part need not cost all of it
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
        predictions_sd: of an ensemble, the standard deviation over its members; else None.
        scores_sd: likewise, of each score.
    """

    genes: pd.DataFrame
    targets: list[str]
    predictions: np.ndarray
    scores: np.ndarray
    predictions_sd: np.ndarray | None = None
    scores_sd: np.ndarray | None = None


def concatenate(some: Sequence[Scores]) -> Scores:
    """Put scores of the same targets one after the other."""

    def joined(name: str) -> np.ndarray | None:
        values = [getattr(one, name) for one in some]
        return None if values[0] is None else np.concatenate(values)

    genes = pd.concat([one.genes for one in some], ignore_index=True)
    predictions, scores = joined("predictions"), joined("scores")
    assert predictions is not None and scores is not None  # noqa: S101, PT018 # never None
    return Scores(genes, some[0].targets, predictions, scores, joined("predictions_sd"), joined("scores_sd"))


def part_path(folder: AnyPath, index: int) -> UPath:
    """Return the path of part `index` in a scores folder."""
    return storage.resolve(folder) / f"part-{index:05d}.parquet"


def write_part(path: AnyPath, scores: Scores, metadata: dict[str, Any], dtype: Dtype = "float32") -> None:
    """Write one part, whole or not at all.

    Args:
        path: as `part_path` gives it.
        scores: of the part's genes.
        metadata: kept with the part; names the checksums of model and data.
        dtype: of the stored scores. float16 keeps 11 bits: off by at most 0.05% of each score, or 3e-8
            where that is more.

    Raises:
        ValueError: a score is too large for float16, which ends at 65,504.
    """
    arrays = [
        pa.array(scores.genes[name], type=kind) for name, kind in zip(GENE_COLUMNS, _GENE_TYPES, strict=True)
    ]
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
    table = pa.table(arrays, names=names)
    metadata = {"format": FORMAT, "targets": scores.targets, "meaning": _MEANING, **metadata}
    storage.write_table(path, table, metadata, row_group_size=_GENES_PER_ROW_GROUP)


def _as_lists(values_NAL: np.ndarray, dtype: Dtype) -> pa.Array:
    with np.errstate(over="ignore"):  # said below, with the mend
        flat = values_NAL.astype(dtype).reshape(-1)
    if dtype == "float16" and not np.isfinite(flat).all():
        raise ValueError(f"a score of {np.abs(values_NAL).max():g} is too large for float16; take --dtype float32")
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values_NAL.shape[1] * values_NAL.shape[2])


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


def missing_parts(
    folder: AnyPath, gene_ids: Sequence[Sequence[str]], metadata: Callable[[int], dict[str, Any]]
) -> list[int]:
    """Return which parts are not whole yet, in order.

    The folder is listed once, and what is there read by many threads at a time: of a bucket each part costs
    some requests, and a thousand of them one after another minutes.

    Args:
        folder: of the parts.
        gene_ids: of each part.
        metadata: gives that of a part by its number.
    """
    where = storage.resolve(folder)
    there = {path.name for path in where.glob("part-*.parquet")}
    paths = [part_path(where, index) for index in range(len(gene_ids))]
    listed = [index for index, path in enumerate(paths) if path.name in there]

    def is_whole(index: int) -> bool:
        return part_is_whole(paths[index], gene_ids[index], metadata(index))

    with ThreadPoolExecutor(_READERS) as readers:
        whole = readers.map(is_whole, listed)
        kept = {index for index, one in zip(listed, whole, strict=True) if one}
    return [index for index in range(len(paths)) if index not in kept]


def earlier_run(where: UPath, folder: str, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a run that left parts in `where`, if there is one.

    Args:
        where: the run's output folder.
        folder: name of that of its parts, and of what they hold.
        wanted: entries that the manifest must have.

    Raises:
        InputError: it is of another run, or there are parts without it.
    """
    mend = "choose another --out, or delete the folder"
    if not (where / MANIFEST).exists():
        if any((where / folder).glob("part-*.parquet")):
            raise InputError(f"{where}: holds {folder} without their {MANIFEST}; {mend}")
        return None
    earlier = storage.read_json(where / MANIFEST)
    different = [key for key, value in wanted.items() if earlier.get(key) != value]
    if different:
        raise InputError(f"{where}: holds {folder} of another run (different: {', '.join(different)}); {mend}")
    return earlier


def together(checksums: Sequence[str]) -> str:
    """Return one checksum for the members of an ensemble: a lone one is its own."""
    return checksums[0] if len(checksums) == 1 else hashlib.sha256("\n".join(checksums).encode()).hexdigest()


def load_scores(folder: AnyPath, genes: Sequence[str] | None = None) -> Scores:
    """Read scores from a folder that `jobs.ism` wrote, or from its `scores` folder.

    Args:
        folder: local or remote.
        genes: ids to read, in this order; all, in file order, when None. Only the stretches of the parts
            that hold them are read.

    Raises:
        InputError: no parts there; all asked for while the run is not finished; a gene that no part holds;
            parts of several runs.
    """
    where = _scores_folder(folder)

    def read(file: pq.ParquetFile, _: list[str]) -> Iterator[pa.Table]:
        yield file.read() if genes is None else _read_genes(file, genes)

    found = list(_read_parts(where, read, every=genes is None))
    table = pa.concat_tables([table for table, _ in found])
    if genes is not None:
        row_of = {gene: row for row, gene in enumerate(table["gene_id"].to_pylist())}
        _require_genes(where, genes, row_of)
        table = table.take([row_of[gene] for gene in genes])
    return _from_table(table, found[0][1])


@dataclass(frozen=True)
class Contents:
    """What a scores folder holds, without the scores.

    Attributes:
        genes: a row a gene, in file order: `gene_id`, `chrom`, `start`, `end`, `strand`.
        targets: names.
        length: of the sequences, in bases.
        downstream: how many of them lie from the TSS on; None when the folder does not say.
    """

    genes: pd.DataFrame
    targets: list[str]
    length: int
    downstream: int | None


def load_contents(folder: AnyPath, genes: Sequence[str] | None = None) -> Contents:
    """Read which genes a scores folder holds, all or those of `genes`, in file order.

    Raises:
        InputError: as `load_scores`.
    """
    where = _scores_folder(folder)
    widths: list[int] = []

    def read(file: pq.ParquetFile, targets: list[str]) -> Iterator[pa.Table]:
        widths.append(file.schema_arrow.field(f"{targets[0]}_scores").type.list_size)
        table = file.read(columns=GENE_COLUMNS[:-1])
        yield table if genes is None else _rows_of(table, genes)

    found = list(_read_parts(where, read, every=genes is None))
    table = pa.concat_tables([table for table, _ in found])
    if genes is not None:
        _require_genes(where, genes, set(table["gene_id"].to_pylist()))
    window = _manifest(where).get("window") or {}
    return Contents(table.to_pandas(), found[0][1], widths[0] // len(BASES), window.get("downstream"))


def iterate_scores(
    folder: AnyPath, genes: Sequence[str] | None = None, targets: Sequence[str] | None = None
) -> Iterator[Scores]:
    """Read scores some genes at a time, in file order: memory does not grow with the number of genes.

    Args:
        folder: as for `load_scores`.
        genes: ids to read; all when None. Those without scores are passed over; `load_contents` names them.
        targets: to read, all when None; others are not read from the files.

    Raises:
        InputError: as `load_scores`.
    """
    kinds = ("prediction", "scores", "prediction_sd", "scores_sd")

    def read(file: pq.ParquetFile, there: list[str]) -> Iterator[pa.Table]:
        wanted = GENE_COLUMNS + [f"{target}_{kind}" for target in targets or there for kind in kinds]
        columns = [name for name in wanted if name in file.schema_arrow.names]
        for group in range(file.num_row_groups) if genes is None else _groups_with(file, genes):
            table = file.read_row_group(group, columns=columns)
            yield table if genes is None else _rows_of(table, genes)

    for table, there in _read_parts(_scores_folder(folder), read, every=genes is None):
        yield _from_table(table, list(targets or there))


def _scores_folder(folder: AnyPath) -> UPath:
    where = storage.resolve(folder)
    return where / "scores" if (where / "scores").is_dir() else where


def _read_parts(
    where: UPath, read: Callable[[pq.ParquetFile, list[str]], Iterator[pa.Table]], every: bool
) -> Iterator[tuple[pa.Table, list[str]]]:
    """Yield the tables that `read` takes from each part, with the targets, once it is known to fit the others."""
    paths = _listed_parts(where, every)
    first: dict[str, Any] = {}
    for path in paths:
        with storage.open_table(path, "part") as file:
            found = storage.read_table_metadata(file)
            if found.get("format") != FORMAT:
                raise InputError(
                    f"{path}: has scores format {found.get('format')}, this version reads {FORMAT}; "
                    "make it again with jobs.ism"
                )
            first = first or found
            if found != first:
                raise InputError(f"{path}: is of another run than {paths[0].name}; delete the part that is stale")
            for table in read(file, first["targets"]):
                yield table, first["targets"]


def _manifest(where: UPath) -> dict[str, Any]:
    path = where.parent / MANIFEST
    return storage.read_json(path) if path.exists() else {}


def _listed_parts(where: UPath, every: bool) -> list[UPath]:
    """Return the parts that the manifest names, or those there are while it names none."""
    paths = sorted(where.glob("part-*.parquet"), key=str)
    manifest = _manifest(where)
    if manifest.get("complete"):
        paths = [where / _part_name(where.parent / MANIFEST, part) for part in manifest["parts"]]
    elif manifest and every:
        raise InputError(
            f"{where.parent}: is not finished; run the same jobs.ism again, or load some of its genes by name"
        )
    if not paths:
        raise InputError(f"{where}: holds no part-*.parquet; make them with jobs.ism --out")
    return paths


def _part_name(manifest: UPath, part: Any) -> str:
    """Return the name of a part that a manifest lists; what it names elsewhere is not ours to read."""
    file = part.get("file") if isinstance(part, dict) else None
    found = re.fullmatch(r"(?:scores/)?(part-\d+\.parquet)", file) if isinstance(file, str) else None
    if found is None:
        raise InputError(
            f"{manifest}: names {file!r}, which is no part-NNNNN.parquet in its own folder scores; "
            "take the folder from whoever made it once more, or run jobs.ism"
        )
    return found[1]


def _read_genes(file: pq.ParquetFile, genes: Sequence[str]) -> pa.Table:
    """Read the rows of some genes, and of the rest no more than shares a row group with them."""
    return _rows_of(file.read_row_groups(_groups_with(file, genes)), genes)


def _groups_with(file: pq.ParquetFile, genes: Sequence[str]) -> list[int]:
    return [
        group
        for group in range(file.num_row_groups)
        if len(_rows_of(file.read_row_group(group, columns=["gene_id"]), genes))
    ]


def _rows_of(table: pa.Table, genes: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["gene_id"], pa.array(list(genes), pa.string())))


def _require_genes(where: UPath, genes: Sequence[str], there: Container[str]) -> None:
    missing = [gene for gene in genes if gene not in there]
    if missing:
        raise InputError(f"{where}: has no scores of {', '.join(missing[:3])}; score them with jobs.ism --genes")


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
