"""Read and write the prepared data set: `promoters.parquet`, one row per gene with its promoter and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NotRequired

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import TypedDict
from upath import UPath

from promoter import storage
from promoter.dataset.fasta import read_fasta
from promoter.dataset.gene_names import ids_of, with_names
from promoter.errors import InputError
from promoter.sequence import encode
from promoter.storage import AnyPath
from promoter.storage.records import open_recorded_table
from promoter.storage.schema import ColumnKind, checked, require_columns, require_filled, require_format

FILE_NAME = "promoters.parquet"
FORMAT = 1
_BYTES_PER_CHUNK = 1 << 30  # half of what an Arrow array of text can hold
_MAX_CNN_WINDOW = 1 << 14  # bases; longer windows are made for pretrained networks
_NEAR_TSS = 2000  # bases before the TSS, the default window
GENE_SCHEMA = pa.schema(
    [
        ("gene_id", pa.string()),
        ("gene_name", pa.string()),
        ("chrom", pa.string()),
        ("tss", pa.int64()),
        ("strand", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("sequence", pa.string()),
    ]
)
# where a library's table says them: the set of a sequence, what is never parted, the weight of its loss
LIBRARY_SCHEMA = pa.schema([("split", pa.string()), ("group", pa.string()), ("weight", pa.float32())])


_KINDS: dict[pa.DataType, ColumnKind] = {pa.string(): "text", pa.int64(): "integers", pa.float32(): "numbers"}
_MAKE_AGAIN = "make it again with prepare"


class Window(TypedDict):
    """Bases of a window before and after the TSS."""

    upstream: int
    downstream: int


class _Metadata(TypedDict):
    targets: list[str]
    window: NotRequired[Window | None]
    transform: NotRequired[str | None]


@dataclass(frozen=True)
class Promoters:
    """Hold promoters and their targets in memory.

    Attributes:
        genes: one row per gene: `gene_id`, `gene_name` (missing where unknown; added where the table lacks it),
            `chrom`, `tss`, `strand`, `start`, `end` (these five missing in a library), `sequence`; and of `split`,
            `group` and `weight` those that a library has.
        targets: float32, shape (genes, targets), NaN where unknown.
        target_names: name of each target.
        metadata: window (None for a library of sequences), transform and checksums of the sources.
        checksum: SHA-256 of the file the data set was read from; empty if it was not read from a file.
    """

    genes: pd.DataFrame
    targets: np.ndarray
    target_names: list[str]
    metadata: dict[str, Any]
    checksum: str = ""

    def __post_init__(self) -> None:
        """Add the column of names to a table without one."""
        object.__setattr__(self, "genes", with_names(self.genes))

    def __len__(self) -> int:
        """Return the number of genes."""
        return len(self.genes)

    @cached_property
    def tokens(self) -> np.ndarray:
        """Encode the sequences as tokens: uint8, shape (genes, length)."""
        return encode(self.genes["sequence"].tolist())

    @property
    def length(self) -> int:
        """Return the number of bases in a window; 0 if there are no genes."""
        return len(self.genes["sequence"].iloc[0]) if len(self.genes) else 0

    @property
    def located(self) -> bool:
        """Tell whether the windows lie on a genome, each around a TSS; those of a library do not."""
        return self.metadata.get("window") is not None

    @property
    def noun(self) -> str:
        """Return what a row is called in messages: gene, or sequence where the windows lie on no genome."""
        return "gene" if self.located else "sequence"

    @property
    def weights(self) -> np.ndarray | None:
        """Return the weight of each row's loss: float32, shape (genes,); None where the library gives none."""
        return self.genes["weight"].to_numpy(np.float32) if "weight" in self.genes else None


def without_coordinates(genes: pd.DataFrame) -> pd.DataFrame:
    """Return a table of sequences with the columns of a data set that it lacks, all missing.

    Args:
        genes: table with `gene_id` and `sequence`; of the other columns of a data set those that it has.
    """
    kinds = {"chrom": "object", "strand": "object", "tss": "Int64", "start": "Int64", "end": "Int64"}
    empty = {name: pd.Series([None] * len(genes), index=genes.index, dtype=kind) for name, kind in kinds.items()}
    genes = with_names(genes).assign(**empty)
    return genes[[*GENE_SCHEMA.names, *(name for name in LIBRARY_SCHEMA.names if name in genes)]]


def write_promoters(folder: AnyPath, promoters: Promoters) -> UPath:
    """Write `promoters.parquet` atomically.

    Args:
        folder: output folder, local or remote.
        promoters: the data set.

    Returns:
        The path of the file written.
    """
    fields = [*GENE_SCHEMA, *(field for field in LIBRARY_SCHEMA if field.name in promoters.genes)]
    columns: list[pa.Array | pa.ChunkedArray] = [
        _column(promoters.genes[field.name], field.type, promoters.length) for field in fields
    ]
    for index, name in enumerate(promoters.target_names):
        columns.append(pa.array(promoters.targets[:, index], type=pa.float32()))
        fields.append(pa.field(name, pa.float32()))
    path = storage.resolve(folder) / FILE_NAME
    metadata = {"format": FORMAT, **promoters.metadata, "targets": promoters.target_names}
    storage.write_table(path, pa.table(columns, schema=pa.schema(fields)), metadata)
    return path


def _column(values: pd.Series, kind: pa.DataType, length: int) -> pa.ChunkedArray:
    """Convert a column in chunks, since an Arrow array of text holds at most 2 GB: 11,000 windows of 200 kb."""
    rows_per_chunk = max(1, _BYTES_PER_CHUNK // max(length, 1))
    # as objects, because a slice of pandas' own text column keeps the complete column in memory
    plain = values.astype(object) if kind == pa.string() else values
    chunks = [
        pa.array(plain.iloc[i : i + rows_per_chunk], type=kind, from_pandas=True)
        for i in range(0, max(len(values), 1), rows_per_chunk)
    ]
    return pa.chunked_array(chunks)


def locate(data: AnyPath) -> UPath:
    """Find the file of a data set.

    Args:
        data: folder that holds `promoters.parquet`, or a FASTA of sequences.

    Returns:
        The path of `promoters.parquet`, or of the FASTA.

    Raises:
        InputError: there is neither.
    """
    where = storage.resolve(data)
    if where.is_dir():
        if not (where / FILE_NAME).exists():
            raise InputError(f"{where}: holds no {FILE_NAME}; make it with prepare")
        return where / FILE_NAME
    return storage.require_file(where, "data set")


def read_promoters(data: AnyPath) -> Promoters:
    """Read a prepared data set, or a FASTA of sequences that all have one length.

    A FASTA has no coordinates and no targets: those columns are empty.

    Args:
        data: folder that holds `promoters.parquet`, or a FASTA.

    Raises:
        InputError: the file is missing, truncated, of another format version, or its sequences differ in length.
    """
    path = locate(data)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    return _read_fasta(path)


def select(
    promoters: Promoters,
    genes: Sequence[str] | None = None,
    splits: pd.Series | None = None,
    split: str | None = None,
) -> np.ndarray:
    """Select genes by id and by split.

    Args:
        promoters: the data set.
        genes: ids or names of the genes to take; None (default) takes all.
        splits: split of each gene; needed if `split` is given.
        split: the only split to take genes from; None (default) takes all.

    Returns:
        Row numbers of the selected genes, in the data set's order.

    Raises:
        InputError: a gene id is unknown, or no gene is selected.
    """
    chosen = np.ones(len(promoters), dtype=bool)
    if genes is not None:
        genes = ids_of(genes, promoters.genes)
        unknown = sorted(set(genes) - set(promoters.genes["gene_id"]))
        if unknown:
            raise InputError(
                f"not in the data ({len(unknown)} of {len(genes)})",
                setting="genes",
                value=unknown[:3],
                fix=f"it has ids like {', '.join(promoters.genes['gene_id'][:3])}",
            )
        chosen &= promoters.genes["gene_id"].isin(set(genes)).to_numpy()
    if split is not None and splits is not None:
        chosen &= (splits == split).to_numpy()
    if not chosen.any():
        by = "`genes`" if split is None else f"`genes` and `split={split!r}`"
        raise InputError(f"no {promoters.noun} is left by {by}; choose others")
    return np.flatnonzero(chosen)


def crop_windows(genes: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    """Crop the windows of genes to the region `[first, last)`: `sequence`, `start` and `end`.

    Args:
        genes: columns `sequence`, `start`, `end`, `strand`; sequences of equal length. Missing coordinates stay
            missing.
        first: index of the region's first base in the window, 5'→3' along the gene, 0-based.
        last: index after the region's last base.

    Returns:
        The table with the three columns replaced.
    """
    minus = genes["strand"] == "-"
    start = (genes["start"] + first).where(~minus, genes["end"] - last)
    return genes.assign(sequence=genes["sequence"].str[first:last], start=start, end=start + last - first)


def near_tss(promoters: Promoters) -> Promoters:
    """Crop windows longer than 16,384 bases to the 2,000 bases before each TSS.

    Homology and baselines are computed on these: windows that long are made for pretrained networks, neighbouring
    genes share most of theirs, and repeats make every gene similar to every other.

    Args:
        promoters: the data set.

    Returns:
        The cropped data set, or the same one if its windows are shorter or lack 2,000 bases before the TSS.
    """
    window = promoters.metadata.get("window") or {}
    upstream = window.get("upstream")
    if promoters.length <= _MAX_CNN_WINDOW or upstream is None or upstream < _NEAR_TSS:
        return promoters
    metadata = promoters.metadata | {"window": {"upstream": _NEAR_TSS, "downstream": 0}}
    return replace(
        promoters, genes=crop_windows(promoters.genes, upstream - _NEAR_TSS, upstream), metadata=metadata
    )


def region_of_positions(promoters: Promoters, positions: Sequence[int]) -> tuple[int, int]:
    """Translate positions, as users count them, into indices of the window.

    Args:
        promoters: the data set; its metadata says where the TSS is.
        positions: first and last position, the last not included: relative to the TSS, -500 and 100, say; in a
            library of sequences, or a FASTA, from the first base, which is 0.

    Returns:
        The region `[first, last)` as indices of the window, 0-based, 5'→3' along the gene.

    Raises:
        InputError: the positions are not in the window.
    """
    window = promoters.metadata.get("window") or {"upstream": 0, "downstream": promoters.length}
    upstream, downstream = window["upstream"], window["downstream"]
    if len(positions) != 2 or not -upstream <= positions[0] < positions[1] <= downstream:
        which = "which the window has around the TSS"
        if not promoters.located:
            which = "counted from the first base of each sequence, since none has a TSS"
        raise InputError(
            f"must be first and last, the last not included, from {-upstream} to {downstream}, {which}",
            setting="positions",
            value=list(positions),
        )
    return upstream + positions[0], upstream + positions[1]


def window_of_region(promoters: Promoters, region: tuple[int, int] | None) -> dict[str, int] | None:
    """Return the bases before and after the TSS in a region of the window.

    Args:
        promoters: the data set.
        region: `[first, last)` as indices of the window; None means the complete window.

    Returns:
        `upstream` and `downstream` in bases, one of them negative if the region lies on one side of the TSS; None
        if the data set does not say where the TSS is.
    """
    window = promoters.metadata.get("window")
    if region is None or window is None:
        return window
    return {"upstream": window["upstream"] - region[0], "downstream": region[1] - window["upstream"]}


def _read_parquet(path: UPath) -> Promoters:
    with open_recorded_table(path, "data set", _MAKE_AGAIN) as (file, checksum):
        metadata = storage.read_table_metadata(file, path, _MAKE_AGAIN)
        require_format(metadata, FORMAT, "data", source=path, fix=_MAKE_AGAIN)
        described = checked(metadata, _Metadata, f"{path}: its metadata", _MAKE_AGAIN)
        names, window = described["targets"], described.get("window")
        # data sets of earlier versions have no names of genes, and a target may be called as a column of a library
        optional = {"gene_name", *LIBRARY_SCHEMA.names} - ({*file.schema_arrow.names} - {*names})
        stored = [field for field in (*GENE_SCHEMA, *LIBRARY_SCHEMA) if field.name not in optional]
        columns: dict[str, ColumnKind] = {field.name: _KINDS[field.type] for field in stored}
        columns.update(dict.fromkeys(names, "numbers"))
        require_columns(file.schema_arrow, columns, path, _MAKE_AGAIN)
        table = file.read()
        _require_genes(table, window, path)
    targets = np.empty((len(table), len(names)), np.float32)
    for index, name in enumerate(names):
        targets[:, index] = table[name].to_numpy()
    genes = table.select([field.name for field in stored]).to_pandas()
    return Promoters(genes, targets, names, metadata, checksum)


def _require_genes(table: pa.Table, window: Window | None, path: UPath) -> None:
    """Raise InputError unless each row is another gene with a window of one length, on a genome in its place."""
    required = [name for name in GENE_SCHEMA.names if name != "gene_name"] if window else ["gene_id", "sequence"]
    require_filled(table, required, path, _MAKE_AGAIN)
    if len(pc.unique(table["gene_id"])) < len(table):
        raise InputError(f"{path}: a gene_id occurs twice; {_MAKE_AGAIN}")
    lengths = pc.unique(pc.utf8_length(table["sequence"])).to_pylist()
    expected = window["upstream"] + window["downstream"] if window else lengths[0] if lengths else 0
    if wrong := [length for length in lengths if length != expected]:
        raise InputError(f"{path}: has a sequence of {wrong[0]} bases beside windows of {expected}; {_MAKE_AGAIN}")
    if window and (strands := {*pc.unique(table["strand"]).to_pylist()} - {"+", "-"}):
        raise InputError(f"{path}: has the strand {strands.pop()!r}, which is neither + nor -; {_MAKE_AGAIN}")


def _read_fasta(path: UPath) -> Promoters:
    names, sequences = [], []
    for name, sequence in read_fasta(path):
        if sequences and len(sequence) != len(sequences[0]):
            raise InputError(
                f"{path}: '{name}' has {len(sequence)} bases, '{names[0]}' has {len(sequences[0])}; "
                "all sequences need one length"
            )
        names.append(name)
        sequences.append(sequence)
    genes = without_coordinates(pd.DataFrame({"gene_id": names, "sequence": sequences}))
    return Promoters(genes, np.zeros((len(names), 0), np.float32), [], {"window": None}, storage.sha256(path))
