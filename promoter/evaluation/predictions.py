"""The predictions table: a row a gene with its split, and per target observed and predicted values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from promoter import storage
from promoter.checkpoint import ModelInfo
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.storage import AnyPath


def require_fitting(promoters: Promoters, info: ModelInfo) -> None:
    """Refuse sequences that the model was not made for.

    Raises:
        InputError: another length, or the same length around the TSS cut differently.
    """
    ours, theirs = info.window, promoters.metadata.get("window") or {}
    if promoters.length != ours["length"]:
        raise InputError(
            f"the data has windows of {promoters.length} bases, the model was trained on {ours['length']}; "
            "prepare the data with the model's --upstream and --downstream"
            + (f" ({ours['upstream']} and {ours['downstream']})" if ours["upstream"] is not None else "")
        )
    for side in ("upstream", "downstream"):
        if theirs and ours[side] is not None and theirs[side] != ours[side]:
            raise InputError(
                f"the data has {theirs[side]} bases {side} of the TSS, the model was trained on {ours[side]}; "
                f"prepare the data with --{side} {ours[side]}"
            )


def predictions_table(
    promoters: Promoters,
    info: ModelInfo,
    predicted: np.ndarray,
    spread: np.ndarray | None = None,
    half_width: np.ndarray | None = None,
) -> pd.DataFrame:
    """Join predictions with what is known of the genes, in the data set's order.

    Args:
        promoters: the genes; observed values are taken where the target has the model's name.
        info: of the model; its split says what each gene was to it.
        predicted: float32, shape (genes, targets of the model).
        spread: of an ensemble, its standard deviation over the members, same shape.
        half_width: of the 95% intervals, same shape.

    Returns:
        Columns `gene_id`, `chrom`, `split` (None for a gene that the model never met), and per
        target `TARGET` (observed, NaN if unknown) and `TARGET_predicted`, with a spread `TARGET_predicted_sd`,
        with intervals `TARGET_low` and `TARGET_high`.
    """
    table = promoters.genes[["gene_id", "chrom"]].reset_index(drop=True)
    table["split"] = info.split_of(table)
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
    """Return what other models predict of the same genes.

    Args:
        predictions: as `predictions_table` returns them.
        targets: names.
        baselines: name -> predictions, shape (genes, targets).

    Returns:
        Columns `gene_id`, `chrom`, `split`, and per target and model `TARGET_predicted_by_MODEL`.
    """
    values = {
        baseline_column(target, name): predicted[:, index]
        for index, target in enumerate(targets)
        for name, predicted in baselines.items()
    }
    return pd.concat([predictions[["gene_id", "chrom", "split"]], pd.DataFrame(values)], axis=1)


def baseline_column(target: str, name: str) -> str:
    """Return the name of the column with the predictions of a baseline."""
    return f"{target}_predicted_by_{name}"


def write_predictions(path: AnyPath, table: pd.DataFrame) -> None:
    """Write a predictions table as Parquet, whole or not at all."""
    text, number = pa.string(), pa.float32()
    kinds = {"gene_id": text, "chrom": text, "split": text, "fold": pa.int32()}
    fields = [(name, kinds.get(name, number)) for name in table.columns]
    storage.write_table(path, pa.Table.from_pandas(table, pa.schema(fields), preserve_index=False), {})


def read_predictions(path: AnyPath) -> pd.DataFrame:
    """Read what `write_predictions` wrote.

    Raises:
        InputError: missing or damaged.
    """
    with storage.open_table(path, "table of predictions") as file:
        return file.read().to_pandas()
