"""Make, write and read tables of predictions: one row per gene, observed and predicted values per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from promoter import storage
from promoter.checkpoint import ModelInfo
from promoter.dataset.gene_names import with_names
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.storage import AnyPath
from promoter.storage.records import open_recorded_table
from promoter.storage.schema import ColumnKind, require_columns, require_filled


def require_fitting(promoters: Promoters, info: ModelInfo) -> None:
    """Check that a data set has the windows that a model was trained on.

    Raises:
        InputError: the windows have another length, or another position relative to the TSS.
    """
    expected, window = info.window, promoters.metadata.get("window") or {}
    if expected["length"] not in (None, promoters.length):  # None: a network of any length
        fix = f"give sequences of {expected['length']} bases"
        if expected["upstream"] is not None:
            sides = f"({expected['upstream']} and {expected['downstream']})"
            fix = f"prepare the data with the model's `upstream` and `downstream` {sides}"
        problem = (
            f"the data has windows of {promoters.length} bases, the model was trained on {expected['length']}"
        )
        raise InputError(problem, fix=fix)
    for side in ("upstream", "downstream"):
        if window and expected[side] is not None and window[side] != expected[side]:
            raise InputError(
                f"the data has {window[side]} bases {side} of the TSS, the model was trained on {expected[side]}; "
                f"prepare the data with `{side}={expected[side]}`"
            )


def predictions_table(
    promoters: Promoters,
    info: ModelInfo,
    predicted: np.ndarray,
    *,
    spread: np.ndarray | None = None,
    half_width: np.ndarray | None = None,
) -> pd.DataFrame:
    """Join predictions with the genes' splits and observed values, in the data set's order.

    Args:
        promoters: the data set; observed values are taken from targets that have the names of the model's.
        info: description of the model, with the split of each gene.
        predicted: float32, shape (genes, targets of the model).
        spread: standard deviation over an ensemble's members, same shape; None (default) for one model.
        half_width: half-widths of the 95% intervals, same shape; None (default) gives no intervals.

    Returns:
        Columns `gene_id`, `gene_name`, `chrom`, `split` (None for a gene that was in no split of the model), and
        per target `TARGET` (observed, NaN if unknown) and `TARGET_predicted`, with a spread `TARGET_predicted_sd`,
        with intervals `TARGET_low` and `TARGET_high`.
    """
    table = promoters.genes[["gene_id", "gene_name", "chrom"]].reset_index(drop=True)
    table["split"] = info.get_split(promoters.genes.reset_index(drop=True))
    observed = dict(zip(promoters.target_names, promoters.targets.T, strict=True))
    unknown = np.full(len(promoters), np.nan, np.float32)
    values = {}
    for index, target in enumerate(info.targets):
        values[target] = observed.get(target, unknown)
        values[f"{target}_predicted"] = predicted[:, index]
        if spread is not None:
            values[f"{target}_predicted_sd"] = spread[:, index]
        if half_width is not None:
            values[f"{target}_low"] = predicted[:, index] - half_width[:, index]
            values[f"{target}_high"] = predicted[:, index] + half_width[:, index]
    return pd.concat([table, pd.DataFrame(values)], axis=1)


def baselines_table(
    predictions: pd.DataFrame, targets: Sequence[str], baselines: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Make a table of the baselines' predictions of the same genes as a table of `predictions_table`.

    Args:
        predictions: table of the model's predictions.
        targets: names of the targets.
        baselines: name -> predictions: shape (genes, targets).

    Returns:
        Columns `gene_id`, `gene_name`, `chrom`, `split`, and per target and baseline
        `TARGET_predicted_by_BASELINE`.
    """
    values = {
        baseline_column(target, name): predicted[:, index]
        for index, target in enumerate(targets)
        for name, predicted in baselines.items()
    }
    return pd.concat(
        [with_names(predictions)[["gene_id", "gene_name", "chrom", "split"]], pd.DataFrame(values)], axis=1
    )


def baseline_column(target: str, name: str) -> str:
    """Return the name of the column with a baseline's predictions of a target."""
    return f"{target}_predicted_by_{name}"


def separate_baselines(table: pd.DataFrame, targets: Sequence[str]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Separate the predictions of baselines from a model's.

    Args:
        table: predictions of a model, with the columns of `baselines_table` beside its own.
        targets: names of the targets.

    Returns:
        The table without baselines, and name -> predictions of each baseline: shape (genes, targets), in the order
        of the columns.
    """
    prefix = baseline_column(targets[0], "")
    names = [str(column).removeprefix(prefix) for column in table.columns if str(column).startswith(prefix)]
    columns = {name: [baseline_column(target, name) for target in targets] for name in names}
    baselines = {name: table[of_baseline].to_numpy() for name, of_baseline in columns.items()}
    return table.drop(columns=[column for of_baseline in columns.values() for column in of_baseline]), baselines


_KINDS: dict[str, ColumnKind] = {
    **dict.fromkeys(("gene_id", "gene_name", "chrom", "split"), "text"),
    "fold": "integers",
}


def write_predictions(path: AnyPath, table: pd.DataFrame) -> None:
    """Write a table of predictions as Parquet, atomically."""
    types = {"text": pa.string(), "integers": pa.int32(), "numbers": pa.float32()}
    fields = [(name, types[_KINDS.get(name, "numbers")]) for name in table.columns]
    storage.write_table(path, pa.Table.from_pandas(table, pa.schema(fields), preserve_index=False), {})


def read_predictions(path: AnyPath, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that `write_predictions` wrote.

    Args:
        path: local or remote.
        columns: columns of numbers that it must have, such as `TARGET_predicted`; others may be there too.

    Raises:
        InputError: the file is missing or damaged, or lacks a column.
    """
    source, fix = storage.resolve(path), "run the job that wrote it again"
    with open_recorded_table(path, "table of predictions", fix) as (file, _):
        names = file.schema_arrow.names
        needed: dict[str, ColumnKind] = {name: _KINDS[name] for name in ("gene_id", "chrom", "split")}
        needed |= {name: _KINDS.get(name, "numbers") for name in (*columns, *names)}
        require_columns(file.schema_arrow, needed, source, fix)
        table = file.read()
        require_filled(table, ["gene_id"], source, fix)
        return with_names(table.to_pandas())
