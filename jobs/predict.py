"""Predict the expression of every gene of a data set, on as many workers as there are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import ray
from rich.table import Table

from jobs.cli.config_file import job_settings, write_config
from jobs.cli.run import console, run
from jobs.ray_runtime import cluster
from promoter import storage
from promoter.checkpoint import SerializedModel, deserialize_ensemble, serialize_models
from promoter.dataset.promoters import locate, read_promoters
from promoter.errors import InputError
from promoter.evaluation.intervals import read_calibration
from promoter.evaluation.predictions import predictions_table, require_fitting, write_predictions
from promoter.training import predict as predict_tokens

_TARGETS_SHOWN = 8
_GENES_PER_TASK = 512  # a multiple of the prediction batch, so that results do not depend on the tasks


def predict(
    model: str,
    data: str,
    out: str,
    ensemble: list[str] | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
) -> None:
    """Predict every gene of a data set, or every sequence of a FASTA.

    Args:
        model: model directory that jobs.train wrote, or the folder of a run with --folds or --seeds, an ensemble;
            the ensemble adds 95% intervals for genes that were held out.
        data: folder that jobs.prepare wrote, or a FASTA of sequences as long as the model's window.
        out: Parquet file to write, one row per gene, in the order of the data.
        ensemble: more model directories; predictions are then the means over all models, with their standard
            deviation.
        workers: number of tasks that run at a time; by default as many as the cluster has room for.
        cpus_per_worker: number of CPUs reserved for each task.
        gpus_per_worker: number of GPUs reserved for each task, or a fraction of one.
    """
    settings = job_settings(predict, locals())
    limits = cluster.TaskLimits(workers, cpus_per_worker, gpus_per_worker)
    target = storage.resolve(out)
    if target.suffix != ".parquet":
        raise InputError(f"--out {out}: must be a file that ends in .parquet")
    if target.is_dir():
        raise InputError(f"--out {out}: is a folder; name a file in it, such as {target / 'predictions.parquet'}")
    members = serialize_models([model, *(ensemble or [])])
    _, info = deserialize_ensemble(members)
    promoters = read_promoters(data)
    require_fitting(promoters, info)
    storage.require_writable(target.parent)

    place = cluster.connect()
    task = limits.apply(_predict_genes)
    models = [ray.put(packed) for packed in members]
    predicted = np.empty((len(members), len(promoters), len(info.targets)), np.float32)
    chunks = [slice(start, start + _GENES_PER_TASK) for start in range(0, len(promoters), _GENES_PER_TASK)]
    with cluster.progress("predict", len(promoters), "genes") as advance:
        for rows, result in cluster.fan_out(
            lambda rows, _: task.remote(promoters.tokens[rows], *models), chunks, limits.in_flight(place)
        ):
            predicted[:, rows] = result
            advance(result.shape[1])
    spread = predicted.std(axis=0, ddof=1) if len(members) > 1 else None
    half_width = _half_width(model, [one.checksum for one in members], predicted, info.targets)
    table = predictions_table(promoters, info, predicted.mean(axis=0), spread=spread, half_width=half_width)
    write_predictions(target, table)
    inputs = {packed.source: packed.checksum for packed in members} | {str(locate(data)): promoters.checksum}
    write_config(target.with_suffix(".config.yaml"), settings, inputs)
    console.print(_summary(table, info.targets))
    console.print(f"predictions of {len(promoters):,} genes in {target}")


def _summary(table: pd.DataFrame, targets: list[str]) -> Table:
    """Return a row a target: which genes are predicted lowest and highest."""
    shown = Table(box=None, pad_edge=False, collapse_padding=True)
    for name in ("target", "lowest", "gene", "median", "highest", "gene"):
        shown.add_column(name, justify="left" if name in ("target", "gene") else "right")
    for target in targets[:_TARGETS_SHOWN]:
        values, genes = table[f"{target}_predicted"].to_numpy(), table["gene_id"].tolist()
        low, high = int(values.argmin()), int(values.argmax())
        cells = [f"{values[low]:.3f}", genes[low], f"{np.median(values):.3f}", f"{values[high]:.3f}", genes[high]]
        shown.add_row(target, *cells)
    if len(targets) > _TARGETS_SHOWN:
        shown.caption = f"and {len(targets) - _TARGETS_SHOWN} more targets"
    return shown


def _half_width(model: str, checksums: list[str], predicted: np.ndarray, targets: list[str]) -> np.ndarray | None:
    """Return half-widths of 95% intervals where the models are an ensemble whose run has learned them."""
    calibration = read_calibration(model)
    if calibration is None or not calibration.matches(checksums):
        return None
    return calibration.half_width(predicted, checksums, targets)


@ray.remote
def _predict_genes(tokens: np.ndarray, *members: SerializedModel) -> np.ndarray:
    """Predict a batch of genes in a worker process: (members, genes, targets)."""
    return np.stack([predict_tokens(cluster.loaded_model(packed), tokens) for packed in members])


if __name__ == "__main__":
    run(predict)
