"""Saturation mutagenesis of every gene, fanned out as Ray tasks, to a folder of Parquet parts."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal

from jobs.cli.config_file import job_settings
from jobs.cli.console import console, plural
from jobs.cli.outputs import own_folder
from jobs.cli.run import run
from jobs.ray_runtime.capacity import TaskLimits
from promoter.errors import InputError

if TYPE_CHECKING:
    from upath import UPath

    from promoter.storage.parts import PartFiles

_FORMAT = 1
_FOLDER = "scores"
_PATHS = (
    "model",
    "model_weights",
    "trust_code",
    "data",
    "ensemble",
    "genes_per_task",
)  # settings that do not change the scores


def ism(  # noqa: PLR0915 # its imports count as statements
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
    gpus_per_worker: float = 0,
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
        gpus_per_worker: number of GPUs reserved for each task, or a fraction of one.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced.
    """
    settings = job_settings(ism, locals())
    limits = TaskLimits(workers, cpus_per_worker, gpus_per_worker)

    from jobs.inference.estimate import announce_time
    from jobs.inference.inputs import announce_strands, load_inputs
    from jobs.inference.scoring import ScoredBytes, choose_size, score_arguments, score_genes, show_strongest
    from jobs.ray_runtime.connect import connect
    from jobs.ray_runtime.part_files import compute_parts
    from jobs.ray_runtime.shared_disk import require_shared
    from promoter.checkpoint import DESCRIPTION
    from promoter.dataset.promoters import region_of_positions, select, window_of_region
    from promoter.storage.parts import PartFiles, earlier_run

    inputs = load_inputs(model, ensemble, data, targets, model_weights=model_weights, trust_code=trust_code)
    announce_strands(inputs.models, both_strands)
    promoters = inputs.promoters
    rows = select(promoters, genes, inputs.info.get_split(promoters.genes), split)
    region = None if positions is None else region_of_positions(promoters, positions)
    window = window_of_region(promoters, region)
    identity = {
        "format": _FORMAT,
        **inputs.identity(rows, precision, both_strands=both_strands),
        "models": [serialized.checksum for serialized in inputs.models],
        "genes": len(rows),
        "length": promoters.length,
        "dtype": dtype,
        "positions": positions,
    }
    names = ("model", "data", "dtype", "positions", "precision", "both_strands")
    metadata = {"targets": inputs.targets, **{name: identity[name] for name in names}}
    first, last = region or (0, promoters.length)
    scored = ScoredBytes.of(
        len(inputs.targets), last - first, members=len(inputs.models), both_strands=both_strands
    )

    @functools.cache  # which remembers what parts were checked
    def cut(out_dir: UPath, size: int) -> PartFiles:
        ids = promoters.genes["gene_id"].iloc[rows].tolist()
        gene_ids = [ids[start : start + size] for start in range(0, len(ids), size)]
        manifest = {**identity, "genes_per_part": size, "window": window}
        return PartFiles(out_dir, _FOLDER, gene_ids, [metadata] * len(gene_ids), manifest)

    owned = own_folder("ism", out, settings, inputs.checksums, paths=_PATHS, overwrite=overwrite)
    with owned as output:
        out_dir = output.path
        earlier = earlier_run(out_dir, identity)
        if earlier and genes_per_task not in {None, earlier["genes_per_part"]}:
            begun = f"the parts of this run have {earlier['genes_per_part']}"
            raise InputError(begun, setting="genes_per_task", value=genes_per_task, fix="leave it out")
        if earlier and earlier["complete"] and output.finished:
            if not cut(out_dir, earlier["genes_per_part"]).missing():
                console.print(
                    f"{out_dir}: all {plural(len(rows), promoters.noun)} are scored already; nothing to do"
                )
                return
            console.print(f"{out_dir}: some parts are missing or damaged; they are scored again")
        cluster = connect()
        require_shared(out_dir)
        in_flight = limits.in_flight(cluster)  # refuses tasks that do not fit, so before anything is written
        size = earlier["genes_per_part"] if earlier else genes_per_task
        size = size or choose_size(inputs, len(rows), scored, limits, cluster, both_strands=both_strands)
        if inputs.network.config.incremental is None:
            parts = cut(out_dir, size)
            passes_per_gene = 3 * (last - first) + 1  # each mutant, and the gene as it is
            passes = parts.count_rows(parts.missing()) * passes_per_gene * inputs.strands_read(both_strands)
            announce_time(
                passes, "mutants", inputs, precision=precision, limits=limits, cluster=cluster, max_hours=max_hours
            )
        parts = cut(out_dir, size)
        output.begin()
        inputs.write_description(out_dir / DESCRIPTION)
        parts.write_manifest(complete=False)
        strongest = compute_parts(
            parts,
            parts.missing(),
            score_genes,
            lambda index: score_arguments(
                inputs, rows[index * size : (index + 1) * size], region, both_strands=both_strands
            ),
            shared=inputs.models,
            limits=limits,
            in_flight=in_flight,
            name="ism",
            verb="scored",
            noun=promoters.noun,
            oom_fix="lower --workers, raise --cpus_per_worker, or score fewer --targets or --positions",
        )
        parts.write_manifest(complete=True)
        output.finish()
        show_strongest(
            strongest,
            -window["upstream"] if window else (region or (0,))[0],
            noun=promoters.noun,
            partly=len(strongest) < len(parts.gene_ids),
            in_sds=inputs.target_sds is not None,
            targets=len(inputs.targets),
        )
        console.print(f"scores of {plural(len(rows), promoters.noun)} in {out_dir / _FOLDER}")


if __name__ == "__main__":
    run(ism)
