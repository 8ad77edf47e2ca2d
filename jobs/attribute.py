"""Attributions of every gene from gradients, fanned out as Ray tasks, to a folder as ism writes it."""

from __future__ import annotations

from typing import Literal

from jobs.cli.config_file import job_settings
from jobs.cli.run import run
from jobs.ray_runtime.capacity import TaskLimits
from promoter.attribution.methods import Method


def attribute(
    model: str,
    data: str,
    out: str,
    method: Literal["gradient", "integrated_gradients", "deeplift"],
    genes: list[str] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    targets: list[str] | None = None,
    ensemble: list[str] | None = None,
    model_weights: list[str] | None = None,
    trust_code: bool = False,
    both_strands: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    positions: list[int] | None = None,
    steps: int | None = None,
    shuffles: int | None = None,
    seed: int | None = None,
    max_hours: float | None = None,
    genes_per_task: int | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    accelerator_type: str | None = None,
    overwrite: bool = False,
) -> None:
    """Estimate the score of every single-base change from gradients, in a few passes a gene.

    The scores are those that promoter ism would compute, estimated: in the same units and files, for motifs,
    export and report. Rerun after an interruption, it computes only what is missing.

    Args:
        model: model directory of promoter train, or the folder of a run with --folds or --seeds, an ensemble;
            or external:package.module:function, a function that returns any PyTorch network (docs/your-model.md).
        data: folder that promoter prepare wrote, or a FASTA of sequences as long as the model's window.
        out: folder to write scores/part-*.parquet, manifest.json and config.yaml to.
        method: gradient, the gradient at the sequence; integrated_gradients, its mean along the path from a
            baseline of 0.25 of each base; or deeplift, DeepLIFT/SHAP against dinucleotide shuffles of the window.
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
        positions: first and last of the bases to score, relative to the TSS, the last not included: '--positions
            -500,100'; by default the whole window. In a library or a FASTA, which have no TSS, they count from the
            first base, which is 0: '--positions 0,50'. The result is that of a narrower window, with its sequence,
            start and end.
        steps: number of points between baseline and sequence, of integrated_gradients; by default 20.
        shuffles: number of shuffled references of each sequence, of deeplift; by default 20.
        seed: random seed of the shuffles, of deeplift; by default 0. The shuffles of a sequence depend on it and
            the sequence alone.
        max_hours: refuse to begin work that is expected to take longer than this many hours, by the measured time
            of a pass, forward and back.
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
    settings = job_settings(attribute, locals())
    limits = TaskLimits(workers, cpus_per_worker, gpus_per_worker, accelerator_type)
    how = Method.of(method, steps=steps, shuffles=shuffles, seed=seed)

    from jobs.inference.scoring_run import run_scoring

    run_scoring("attribute", {**settings, **how.settings}, limits, how, trust_code=trust_code, overwrite=overwrite)


if __name__ == "__main__":
    run(attribute)
