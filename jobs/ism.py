"""Saturation mutagenesis of every gene, fanned out as Ray tasks, to a folder of Parquet parts."""

from __future__ import annotations

from typing import Literal

from jobs.cli.config_file import job_settings
from jobs.cli.run import run
from jobs.ray_runtime.capacity import TaskLimits


def ism(
    model: str,
    data: str,
    out: str,
    genes: list[str] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    targets: list[str] | None = None,
    ensemble: list[str] | None = None,
    model_weights: list[str] | None = None,
    trust_code: bool = False,
    both_strands: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    positions: list[int] | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    max_hours: float | None = None,
    genes_per_task: int | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    accelerator_type: str | None = None,
    overwrite: bool = False,
) -> None:
    """Score every single-base change of every gene's promoter, or of every sequence of a library.

    Rerun after an interruption, it computes only what is missing.

    Args:
        model: model directory of promoter train, or the folder of a run with --folds or --seeds, an ensemble;
            or external:package.module:function, a function that returns any PyTorch network (docs/your-model.md).
        data: folder that promoter prepare wrote, or a FASTA of sequences as long as the model's window.
        out: folder to write scores/part-*.parquet, manifest.json and config.yaml to.
        genes: ids or names of the genes or sequences to score; by default all.
        split: score only genes that were in this split when the model was trained.
        targets: names of the model's targets to score, '--targets A,B', which are stored in the model's order; by
            default all.
        ensemble: more model directories; scores are then the means over all models, with their standard
            deviation.
        model_weights: weights of an external model in the format of safetensors; several make an ensemble. By
            default those with which its function returns it.
        trust_code: run the code that an external model brings, here and on all nodes; false by default: refuse it.
        both_strands: score the mean of the predictions of the window and of the reverse complement of what the
            network sees of it, for networks trained on reverse complements; false by default: the window alone.
        dtype: number type of the stored scores; float16 halves the files and is off by at most 0.05% of each
            score.
        positions: first and last of the bases to change, relative to the TSS, the last not included: '--positions
            -500,100'; by default the whole window. In a library or a FASTA, which have no TSS, they count from the
            first base, which is 0: '--positions 0,50'. The result is that of a narrower window, with its sequence,
            start and end.
        precision: number type of the matrix products: fp32, or bf16, which is faster on GPUs and whose rounding
            can hide small effects.
        max_hours: refuse to begin work that is expected to take longer than this many hours, by the measured time
            of a forward pass; networks that are scored faster than by forward passes are not measured.
        genes_per_task: number of genes in each task and output file; by default as many as take about four
            seconds and 256 MB. The memory of a task does not grow with it, but with targets and positions.
        workers: number of tasks that run at a time; by default as many as the cluster has room for.
        cpus_per_worker: number of CPUs reserved for each task.
        gpus_per_worker: number of GPUs reserved for each task, or a fraction of one; by default 1 where the
            cluster has GPUs or may start some, else 0.
        accelerator_type: name of the card for each task, as Ray has it, such as L4; by default any.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced.
    """
    settings = job_settings(ism, locals())
    limits = TaskLimits(workers, cpus_per_worker, gpus_per_worker, accelerator_type)

    from jobs.inference.scoring_run import run_scoring

    run_scoring("ism", settings, limits, None, trust_code=trust_code, overwrite=overwrite)


if __name__ == "__main__":
    run(ism)
