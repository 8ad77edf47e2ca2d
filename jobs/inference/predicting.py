"""Predict some genes as a task of `jobs.predict`, and summarise the predictions of all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import ray
from rich.table import Table

from jobs.cli.console import console, new_table
from jobs.inference.inputs import Inputs
from jobs.ray_runtime.devices import ends_process_on_device_error
from jobs.ray_runtime.model_cache import loaded_model
from promoter.checkpoint import SerializedModel
from promoter.dataset.gene_names import gene_labels
from promoter.evaluation.intervals import read_calibration
from promoter.training import predict

_MAX_TARGETS_SHOWN = 8


def summarise(table: pd.DataFrame, targets: list[str], noun: str) -> Table:
    """Return a printable table, a row a target: which genes (`noun`) are predicted lowest and highest."""
    columns = ("target", "lowest", noun, "median", "highest", noun)
    summary = new_table(*columns, right={"lowest", "median", "highest"}, collapse_padding=True)
    genes = gene_labels(table)
    for target in targets[:_MAX_TARGETS_SHOWN]:
        values = table[f"{target}_predicted"].to_numpy()
        low, high = int(values.argmin()), int(values.argmax())
        cells = [f"{values[low]:.3f}", genes[low], f"{np.median(values):.3f}", f"{values[high]:.3f}", genes[high]]
        summary.add_row(target, *cells)
    if len(targets) > _MAX_TARGETS_SHOWN:
        summary.caption = f"and {len(targets) - _MAX_TARGETS_SHOWN} more targets"
    return summary


def interval_half_width(
    model: str, inputs: Inputs, predicted: np.ndarray, *, both_strands: bool
) -> np.ndarray | None:
    """Return half-widths of 95% intervals where the models are an ensemble whose run has learned them.

    Args:
        model: folder of the run.
        inputs: models and data.
        predicted: predictions of each model, (models, genes, targets).
        both_strands: whether these are means over the strands, which the intervals were not learned from.
    """
    calibration = read_calibration(model)
    checksums = [serialized.checksum for serialized in inputs.models]
    if calibration is None or not calibration.matches(checksums):
        return None
    if inputs.strands_read(both_strands) > 1:
        console.print("the 95% intervals were learned from predictions of one strand", style="dim")
    return calibration.half_width(predicted, checksums, inputs.info.targets)


@ray.remote
@ends_process_on_device_error
def predict_genes(tokens: np.ndarray, both_strands: bool, *models: SerializedModel) -> np.ndarray:
    """Predict a batch of genes in a worker process: (models, genes, targets)."""
    return np.stack([predict(loaded_model(model), tokens, both_strands=both_strands) for model in models])
