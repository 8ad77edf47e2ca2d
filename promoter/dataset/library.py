"""Make a data set of a table of sequences and measured values, such as that of an MPRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pandas as pd

from promoter.dataset.cells import mask_infinite, read_numbers, require_transformable
from promoter.dataset.config import Align, Missing, Transform
from promoter.dataset.expression import as_float32, transform_values
from promoter.dataset.library_columns import (
    LibraryColumns,
    find_columns,
    looks_like_sets,
    open_library,
    read_values,
)
from promoter.dataset.library_sequences import (
    align_sequences,
    clean_sequences,
    count_repeats,
    find_shared,
    note_flanks,
)
from promoter.dataset.prepare import Summary, composition, count_bases
from promoter.dataset.promoters import Promoters, without_coordinates
from promoter.dataset.tables import NO_VALUE, RawTable
from promoter.dataset.targets import describe_targets, require_target_names, warn_of_values
from promoter.errors import InputError, doubt, listed, note
from promoter.limits import require_limits
from promoter.storage import AnyPath

SETS = ("train", "val", "test")
_SET_OF_WORD = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "hold-out", "hold_out", "heldout", "held-out"), "test"),
}


@dataclass(frozen=True)
class LibrarySummary(Summary):
    """Describe the sequences that were kept; `padded` counts those that `align` filled with N.

    Attributes:
        length: number of bases of each sequence.
        columns: what a column holds (`id`, `sequence`, `gene_name`, `split`, `group`, `weight`) -> its name.
        splits: set -> number of its sequences; `none` for those in no set. Empty without a column of sets.
        groups: number of groups; None without a column of groups.
        repeated: number of different sequences that stand more than once, reverse complements counting as equal.
    """

    length: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    groups: int | None = None
    repeated: int = 0


def read_library(
    path: AnyPath,
    targets: Sequence[str] | None = None,
    *,
    transform: Transform = "none",
    missing: Missing = "keep",
    id_column: str | None = None,
    sequence_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    weight_column: str | None = None,
    align: Align | None = None,
    max_n: float = 0.5,
    allow_loss: bool = False,
) -> tuple[Promoters, LibrarySummary]:
    """Read a table with a sequence and measured values in each row, and make a data set of it.

    What is taken for granted is said by `errors.note`, what looks wrong by `errors.doubt`. In a table without a
    header the columns are `column_1`, `column_2` and so on, and may be named by their numbers.

    Args:
        path: text with any separator, optionally compressed, or `.parquet`.
        targets: columns of measured values; None (default) takes all columns of numbers but lengths, coordinates,
            p-values, identifiers, predictions, numbers of barcodes and amounts of DNA.
        transform: transform of the values, as for `expression.read_expression` (default `none`).
        missing: what to do with an empty or NaN value: `keep` it as NaN and leave out sequences without any
            (default), `drop` the sequence, or `error`. An infinite value counts as missing.
        id_column: column of the ids; None (default) takes `id`, or one with the name of ids whose cells all
            differ; without one, the ids are `seq_1`, `seq_2` and so on.
        sequence_column: column of the sequences; None (default) takes `sequence`, or the only one that holds
            bases.
        split_column: column of the sets, train, val or test; None (default) takes `split` if it is there.
        group_column: column of groups that no split may divide; None (default) takes `group` if it is
            there.
        weight_column: column of the weights of the loss; None (default) takes `weight` if it is there.
        align: how to pad shorter sequences with N: `right`, `left` or `center`; None (default) refuses them.
        max_n: largest share of a sequence that may be N, before it is padded, from 0 to 1 (default 0.5).
        allow_loss: whether more than half of the sequences may be left out for one reason (default False).

    Returns:
        The data set, without coordinates, and what was kept and left out.

    Raises:
        InputError: the table cannot be used; the message names the row and the column.
    """
    known = (("transform", transform, Transform), ("missing", missing, Missing), ("align", align, Align))
    for setting, value, kind in known:
        if value not in (*get_args(kind), *([None] if setting == "align" else [])):
            fix = f"choose one of {', '.join(get_args(kind))}"
            raise InputError("unknown", setting=setting, value=value, fix=fix)
    require_limits({"max_n": max_n})
    table = open_library(path)
    given = {"id": id_column, "sequence": sequence_column, "split": split_column, "group": group_column}
    given |= {"weight": weight_column}
    columns = find_columns(table, {f"{name}_column": column for name, column in given.items()})
    _note_columns(table, columns)
    frame = table.read(columns.texts)
    id_column, ids = _read_ids(table, frame, columns)
    raw, ignored, left_out = read_values(table, frame, columns, targets)
    require_target_names(list(raw.columns))
    mask_infinite(table, raw, ids, missing)
    require_transformable(table, raw, ids, unit=None, transform=transform)
    warn_of_values(table.path, raw, transform, None)
    values = as_float32(table.path, transform_values(table.path, raw, raw.sum(), transform))
    sequences = clean_sequences(table, frame[columns.sequence])
    reasons = _reasons(sequences, values, missing, max_n)
    _require_kept(table, reasons, allow_loss=allow_loss)
    kept = reasons.isna()
    sequences, values = sequences[kept], values[kept]
    aligned = align_sequences(table, sequences, align)
    note_flanks(table, sequences)
    genes = pd.DataFrame({"gene_id": ids[kept], "sequence": aligned})
    if columns.name is not None and columns.name != id_column:
        names = _clean(frame[columns.name])[kept]
        genes["gene_name"] = names.where(names != genes["gene_id"])
    if columns.split is not None:
        genes["split"] = _read_splits(table, frame[columns.split])[kept]
    if columns.group is not None:
        genes["group"] = _clean(frame[columns.group])[kept]
    if columns.weight is not None:
        genes["weight"] = _read_weights(table, frame, columns.weight, kept)
    _check_sets(table, genes, columns)
    repeated = _note_repeats(table, aligned)
    roles = {
        "id": id_column,
        "sequence": columns.sequence,
        "gene_name": columns.name if "gene_name" in genes else None,
        "split": columns.split,
        "group": columns.group,
        "weight": columns.weight,
    }
    named = {role: name for role, name in roles.items() if name is not None}
    promoters = Promoters(
        without_coordinates(genes.reset_index(drop=True)),
        values.to_numpy(dtype=np.float32),
        [str(name) for name in values],
        {"window": None, "columns": named, "align": align},
    )
    bases = count_bases(aligned).sum(axis=0)
    gc, n = composition(bases, len(aligned) * promoters.length)
    dropped = {str(reason): int(count) for reason, count in reasons.value_counts().items()}
    return promoters, LibrarySummary(
        len(genes),
        dropped,
        int((sequences.str.len() < promoters.length).sum()),
        examples={reason: ids[reasons == reason][:3].tolist() for reason in dropped},
        ignored_columns=[name for name in ignored if name not in named.values()],
        left_out_columns=left_out,
        targets=describe_targets(values, "sequence"),
        gc=gc,
        n=n,
        length=promoters.length,
        columns=named,
        splits=_count_splits(genes),
        groups=int(genes["group"].nunique()) if "group" in genes else None,
        repeated=repeated,
    )


def _clean(column: pd.Series) -> pd.Series:
    """Return text without spaces around it, None where a cell is empty."""
    cells = column.astype("object").where(column.notna(), "").astype(str).str.strip()
    return cells.astype("object").where(~cells.str.lower().isin(NO_VALUE), None)


def _read_ids(table: RawTable, frame: pd.DataFrame, columns: LibraryColumns) -> tuple[str | None, pd.Series]:
    """Return the column of the ids and the ids; made ones where no column holds any."""
    if columns.id is not None:
        return columns.id, _require_ids(table, _clean(frame[columns.id]), columns.id)
    for name in columns.other_ids:
        ids = _clean(frame[name])
        if ids.notna().all() and ids.is_unique:
            column = "the first column, which has no name" if name in table.nameless else f"column '{name}'"
            note(f"{table.path}: the ids are taken from {column}; its cells all differ; see `id_column`")
            return name, ids
    note(f"{table.path}: has no column of ids, so they are seq_1 to seq_{len(frame)}; see `id_column`")
    return None, pd.Series([f"seq_{row}" for row in range(1, len(frame) + 1)], frame.index, dtype="object")


def _require_ids(table: RawTable, ids: pd.Series, name: str) -> pd.Series:
    if ids.isna().any():
        row = int(ids.index[ids.isna()][0])
        raise InputError(
            f"{table.path}: {table.line(row)} has no id in column '{name}'; add one or delete the row"
        )
    again = ids.duplicated(keep=False)
    if again.any():
        first = ids[again].iloc[0]
        lines = " and ".join(table.line(int(row)) for row in ids.index[ids == first][:2])
        raise InputError(
            f"{table.path}: repeated ids in column '{name}': {ids[again].nunique():,} (such as '{first}', "
            f"{lines}); give each row an id of its own, with replicates in columns, or name "
            "another column in `id_column`"
        )
    return ids


def _note_columns(table: RawTable, columns: LibraryColumns) -> None:
    if not table.has_header:
        note(
            f"{table.path}: has no header: its first line is a sequence, its columns are {listed(table.columns)}; "
            f"the sequences are taken from {columns.sequence}"
        )
    if columns.split is None and (name := looks_like_sets(table, _SET_OF_WORD)) is not None:
        note(f"{table.path}: column '{name}' holds names of sets; to use them, name it in `split_column`")


def _reasons(sequences: pd.Series, values: pd.DataFrame, missing: Missing, max_n: float) -> pd.Series:
    """Return the first reason to leave out each row, None for one that is kept."""
    reasons = pd.Series([None] * len(sequences), sequences.index, dtype="object")
    known = values.notna()
    share_n = sequences.str.count("N").fillna(0) / sequences.str.len().fillna(1)
    for which, reason in (
        (sequences.isna(), "no sequence"),
        (~(known.any(axis=1) if missing == "keep" else known.all(axis=1)), "value missing"),
        (share_n > max_n, f"more than {max_n:.0%} of the sequence is N"),
    ):
        reasons[which & reasons.isna()] = reason
    return reasons


def _require_kept(table: RawTable, reasons: pd.Series, *, allow_loss: bool) -> None:
    counts = reasons.value_counts()
    if reasons.notna().all():
        why = ", ".join(f"{n:,} {reason}" for reason, n in counts.items())
        raise InputError(f"{table.path}: no sequence is left ({why}); fix the table, or choose other `targets`")
    if len(counts) and 2 * counts.iloc[0] > len(reasons) and not allow_loss:
        raise InputError(
            f"{table.path}: {counts.iloc[0]:,} of {len(reasons):,} sequences would be left out for one reason: "
            f"{counts.index[0]}; fix the table, or set `allow_loss=True` if that is meant"
        )


def _read_splits(table: RawTable, column: pd.Series) -> pd.Series:
    """Return train, val or test for each row, None for an empty cell."""
    cells = _clean(column)
    words = cells.str.lower()
    unknown = words.notna() & ~words.isin(list(_SET_OF_WORD))
    if unknown.any():
        found = cells[unknown].unique().tolist()
        folds = all(cell.replace(".", "", 1).isdecimal() for cell in found)
        fix = (
            f"folds are groups: name the column in `group_column={column.name!r}`"
            if folds
            else "write train, val or test"
        )
        raise InputError(
            f"{table.path}: {table.line(int(cells.index[unknown][0]))}: column '{column.name}' holds "
            f"{listed(found)}, which are no sets; {fix}, or leave the cell empty"
        )
    sets = words.map(_SET_OF_WORD)
    renamed = dict.fromkeys((cell, name) for cell, name in zip(cells, sets, strict=True) if cell != name and cell)
    if renamed:
        shown = listed([f"{cell} is {name}" for cell, name in renamed])
        note(f"{table.path}: sets of column '{column.name}': {shown}")
    return sets.astype("object").where(sets.notna(), None)


def _read_weights(table: RawTable, frame: pd.DataFrame, name: str, kept: pd.Series) -> pd.Series:
    weights = read_numbers(table, frame, [name], required=True)[0][name][kept]
    with np.errstate(over="ignore"):
        weights = weights.astype("float32")
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any():
        row = int(weights.index[wrong][0])
        value = "missing" if np.isnan(weights[row]) else f"{weights[row]:g}"
        raise InputError(
            f"{table.path}: {table.line(row)}, column '{name}': the weight is {value} ({int(wrong.sum()):,} such "
            "rows); each must be a number that is 0 or more"
        )
    if not weights.any():
        raise InputError(f"{table.path}: all weights of column '{name}' are 0; nothing would be learned")
    return weights


def _check_sets(table: RawTable, genes: pd.DataFrame, columns: LibraryColumns) -> None:
    """Refuse sets that part a group, and warn of sequences that stand in several sets or groups."""
    if "split" in genes and "group" in genes:
        sets = genes.groupby("group")["split"].nunique()
        parted = sets[sets > 1].index
        if len(parted):
            counts = genes.loc[genes["group"] == parted[0], "split"].value_counts()
            shown = ", ".join(f"{n:,} {name}" for name, n in counts.items())
            raise InputError(
                f"{table.path}: the sets of column '{columns.split}' part {len(parted):,} of {len(sets):,} groups "
                f"of column '{columns.group}' (such as '{parted[0]}': {shown}); put each group into one set, or "
                "rename the column that does not count"
            )
    label = next((name for name in ("split", "group") if name in genes), None)
    if label is None:
        return
    labels = genes[label].astype(pd.CategoricalDtype(list(SETS))) if label == "split" else genes[label]
    shared = find_shared(genes["sequence"], labels)
    if shared.empty:
        return
    many = f"as they are or reverse-complemented: {shared.sum():,}"
    if label == "group":
        doubt(
            f"{table.path}: sequences that stand in several groups, {many} (such as in {shared.index[0]}); a "
            "split may part these groups: make one of them"
        )
        return
    between = listed([f"{n:,} in {names}" for names, n in shared.items()])
    doubt(
        f"{table.path}: sequences that stand in several sets, {many} ({between}): a network is tested on what "
        "it has seen; leave them out of one, or train with `SplitConfig.homology='drop'`, which leaves those and "
        "their homologs out of training"
    )


def _note_repeats(table: RawTable, sequences: pd.Series) -> int:
    repeated, rows = count_repeats(sequences)
    if repeated:
        note(
            f"{table.path}: sequences that stand more than once, as they are or reverse-complemented: "
            f"{repeated:,}, in {rows:,} rows, which all count"
        )
    return repeated


def _count_splits(genes: pd.DataFrame) -> dict[str, int]:
    if "split" not in genes:
        return {}
    counts = {name: int((genes["split"] == name).sum()) for name in SETS}
    none = len(genes) - sum(counts.values())
    return counts | ({"none": none} if none else {})
