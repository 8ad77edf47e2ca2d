"""Predict the expression of every gene of a data set, on as many workers as there are."""

from __future__ import annotations

from jobs.cli.config_file import job_settings
from jobs.cli.console import console, plural
from jobs.cli.outputs import own_file
from jobs.cli.run import run
from jobs.ray_runtime.capacity import TaskLimits
from promoter import storage
from promoter.errors import InputError

_METRICS = ".metrics.json"  # endings of files beside the predictions
_DESCRIPTION = ".model.yaml"
_GENES_PER_TASK = 512  # a multiple of the prediction batch, so that results do not depend on the tasks


def predict(  # noqa: PLR0915 # its imports count as statements
    model: str,
    data: str,
    out: str,
    ensemble: list[str] | None = None,
    model_weights: list[str] | None = None,
    trust_code: bool = False,
    both_strands: bool = False,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    accelerator_type: str | None = None,
    overwrite: bool = False,
) -> None:
    """Predict every gene of a data set, or every sequence of a FASTA.

    Where the data has values of the model's targets, metrics are printed, and written beside the output: by the
    set that a gene was in when the model was trained, and for genes that are new to it.

    Args:
        model: model directory of promoter train, or the folder of a run with --folds or --seeds, an ensemble;
            the ensemble adds 95% intervals for genes that were held out;
            or external:package.module:function, a function that returns any PyTorch network (docs/your-model.md).
        data: folder that promoter prepare wrote, or a FASTA of sequences as long as the model's window.
        out: Parquet file to write, one row per gene, in the order of the data.
        ensemble: more model directories; predictions are then the means over all models, with their standard
            deviation.
        model_weights: weights of an external model in the format of safetensors; several make an ensemble. By
            default those with which its function returns it.
        trust_code: run the code that an external model brings, here and on all nodes; false by default: refuse it.
        both_strands: average the predictions of the window and of the reverse complement of what the network sees
            of it, for networks trained on reverse complements; false by default: the window alone.
        workers: number of tasks that run at a time; by default as many as the cluster has room for.
        cpus_per_worker: number of CPUs reserved for each task.
        gpus_per_worker: number of GPUs reserved for each task, or a fraction of one; by default 1 where the
            cluster has GPUs or may start some, else 0.
        accelerator_type: name of the card for each task, as Ray has it, such as L4; by default any.
        overwrite: replace a file that promoter predict did not write.
    """
    settings = job_settings(predict, locals())
    limits = TaskLimits(workers, cpus_per_worker, gpus_per_worker, accelerator_type)
    path = storage.resolve(out)
    if path.suffix != ".parquet":
        raise InputError(f"--out {out}: must be a file that ends in .parquet")
    if path.is_dir():
        raise InputError(f"--out {out}: is a folder; name a file in it, such as {path / 'predictions.parquet'}")

    import numpy as np
    import ray

    from jobs.inference.inputs import announce_strands, load_inputs
    from jobs.inference.predicting import interval_half_width, predict_genes, summarise
    from jobs.ray_runtime.connect import connect
    from jobs.ray_runtime.fan_out import Retry, fan_out
    from jobs.ray_runtime.model_cache import task_memory
    from jobs.ray_runtime.progress import progress
    from jobs.training.metrics_table import show_metrics
    from promoter.evaluation.evaluate import evaluate_data, kept_baselines, measured_targets
    from promoter.evaluation.predictions import predictions_table, write_predictions

    inputs = load_inputs(model, ensemble, data, model_weights=model_weights, trust_code=trust_code)
    announce_strands(inputs.models, both_strands)
    promoters, info = inputs.promoters, inputs.info
    owned = own_file(
        "predict", path, settings, inputs.checksums, beside=[_METRICS, _DESCRIPTION], overwrite=overwrite
    )
    with owned as output:
        targets = measured_targets(promoters, info)
        baselines = kept_baselines(inputs.models, promoters) if targets else {}
        cluster = connect()
        limits = limits.on(cluster, task_memory(inputs.models))
        models = [ray.put(serialized) for serialized in inputs.models]
        predicted = np.empty((len(models), len(promoters), len(info.targets)), np.float32)
        batches = [slice(start, start + _GENES_PER_TASK) for start in range(0, len(promoters), _GENES_PER_TASK)]
        with progress("predict", len(promoters), f"{promoters.noun}s") as shown:

            def submit(rows: slice, retry: Retry) -> ray.ObjectRef:
                task = limits.apply(predict_genes, label_selector=retry.label_selector)
                return task.remote(promoters.tokens[rows], both_strands, *models)

            for rows, result in fan_out(submit, batches, limits, cluster, progress=shown):
                predicted[:, rows] = result
                shown.advance(result.shape[1])
        spread = predicted.std(axis=0, ddof=1) if len(models) > 1 else None
        half_width = interval_half_width(model, inputs, predicted, both_strands=both_strands)
        table = predictions_table(promoters, info, predicted.mean(axis=0), spread=spread, half_width=half_width)
        output.begin()
        metrics_path = path.with_suffix(_METRICS)
        if metrics_path.exists():
            metrics_path.unlink()  # of the predictions that are replaced
        write_predictions(path, table)
        console.print(summarise(table, info.targets, promoters.noun))
        if targets:
            metrics = evaluate_data(
                table, promoters, info, targets=targets, baselines=baselines, crop=inputs.bases_seen
            )
            storage.write_json(metrics_path, metrics)
            show_metrics(metrics, promoters.noun)
            if "train" in metrics:
                console.print(
                    f"the model was fitted to the {promoters.noun}s of train: their metrics are no test of it"
                )
            console.print(f"metrics in {metrics_path}")
        described = inputs.write_description(path.with_suffix(_DESCRIPTION))
        output.finish([path, *([metrics_path] if targets else []), *described])
        console.print(f"predictions of {plural(len(promoters), promoters.noun)} in {path}")


if __name__ == "__main__":
    run(predict)
