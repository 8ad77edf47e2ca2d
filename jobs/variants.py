"""What variants do to the predictions of genes or of a library's sequences, fanned out as Ray tasks."""

from __future__ import annotations

from typing import Literal

from jobs.cli.config_file import job_settings
from jobs.cli.console import console
from jobs.cli.notes import kept_notes
from jobs.cli.outputs import own_folder
from jobs.cli.run import run
from jobs.ray_runtime.capacity import TaskLimits
from promoter import storage

_FORMAT = 1
# settings that name inputs
_PATHS = ("variants", "model", "model_weights", "data", "genome", "chrom_names", "ensemble")


def variants(  # noqa: PLR0915 # its imports count as statements
    variants: str,
    model: str,
    data: str,
    out: str,
    genome: str | None = None,
    genes: list[str] | None = None,
    targets: list[str] | None = None,
    chrom_names: str | None = None,
    ensemble: list[str] | None = None,
    model_weights: list[str] | None = None,
    trust_code: bool = False,
    both_strands: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    max_hours: float | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    accelerator_type: str | None = None,
    overwrite: bool = False,
) -> None:
    """Predict what each variant does to the genes in whose windows it falls, or to the sequences of a library.

    Rerun after an interruption, it computes only what is missing.

    Args:
        variants: VCF or BCF, compressed or not; it needs no index and no order. Of a library of sequences, a table
            with the columns id, position (from 1, as in a VCF), ref and alt, or with id and alternative (the
            complete changed sequence).
        model: model directory of promoter train, or the folder of a run with --folds or --seeds, an ensemble;
            or external:package.module:function, a function that returns any PyTorch network (docs/your-model.md).
        data: folder that promoter prepare wrote, or a FASTA of sequences as long as the model's window.
        out: folder to write variants.parquet, variants.tsv.gz, skipped.tsv and summary.json to.
        genome: FASTA that promoter prepare was given; a VCF needs it, a library of sequences has none.
        genes: ids or names of the genes or sequences to look at; by default all.
        targets: names of the model's targets to predict, '--targets A,B', which come in the model's order; by
            default all.
        chrom_names: table of the names that chromosomes have in other files: two columns, UCSC's chromAlias.txt or
            NCBI's assembly report; by default names match that differ in spelling only (chr1 and 1, II and 2).
        ensemble: more model directories; predictions are then the means over all models, with the standard
            deviation of the difference.
        model_weights: weights of an external model in the format of safetensors; several make an ensemble. By
            default those with which its function returns it.
        trust_code: run the code that an external model brings, here and on all nodes; false by default: refuse it.
        both_strands: average the predictions of the window and of the reverse complement of what the network sees
            of it, for networks trained on reverse complements; false by default: the window alone.
        precision: number type of a pretrained network's forward passes: fp32, or bf16, which is faster on GPUs
            and whose rounding can hide small effects.
        max_hours: refuse to begin work that is expected to take longer than this many hours, by the measured time
            of a forward pass.
        workers: number of tasks that run at a time; by default as many as the cluster has room for.
        cpus_per_worker: number of CPUs reserved for each task.
        gpus_per_worker: number of GPUs reserved for each task, or a fraction of one; by default 1 where the
            cluster has GPUs or may start some, else 0.
        accelerator_type: name of the card for each task, as Ray has it, such as L4; by default any.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced.
    """
    settings = job_settings(globals()["variants"], locals())  # `variants` is the file here
    limits = TaskLimits(workers, cpus_per_worker, gpus_per_worker, accelerator_type)

    from jobs.inference import variant_effects
    from jobs.inference.estimate import announce_time, seconds_per_pass
    from jobs.inference.inputs import announce_strands, load_inputs
    from jobs.ray_runtime.connect import connect
    from jobs.ray_runtime.model_cache import task_memory
    from jobs.ray_runtime.part_files import compute_parts
    from jobs.ray_runtime.shared_disk import require_shared
    from promoter.checkpoint import DESCRIPTION
    from promoter.dataset.promoters import select
    from promoter.storage.parts import earlier_run

    inputs = load_inputs(model, ensemble, data, targets, model_weights=model_weights, trust_code=trust_code)
    promoters = inputs.promoters
    sources = variant_effects.require_sources(
        variants, genome=genome, chrom_names=chrom_names, located=promoters.located
    )
    rows = select(promoters, genes)
    files = {name: storage.sha256(path) for name, path in sources.items()}
    identity = {
        "format": _FORMAT,
        **inputs.identity(rows, precision, both_strands=both_strands),
        **files,
        "both_strands": both_strands,
    }
    checksums = inputs.checksums | {str(path): files[name] for name, path in sources.items()}
    owned = own_folder("variants", out, settings, checksums, paths=_PATHS, overwrite=overwrite)
    with owned as output:
        out_dir = output.path
        earlier = earlier_run(out_dir, identity)
        size = earlier["genes_per_part"] if earlier else variant_effects.choose_genes_per_part(inputs)
        identity["genes_per_part"] = size
        cluster = None
        with output.nothing_if_refused(), kept_notes() as notes:
            announce_strands(inputs.models, both_strands)
            source = variant_effects.AlleleSource(promoters, genome, chrom_names)
            in_windows = source.read(sources["variants"], rows, out_dir / "skipped.tsv")
            alleles, parts = variant_effects.cut_alleles(in_windows, inputs, identity, out_dir)
            missing = parts.missing()
            if earlier and earlier["complete"] and not missing and output.finished and not output.damaged():
                console.print(
                    f"{out_dir}: all {len(in_windows.alleles):,} effects are there already; nothing to do"
                )
                return
            if missing:
                cluster = connect()
                require_shared(out_dir)
                limits = limits.on(cluster, task_memory(inputs.models))  # refuses tasks that do not fit
                if max_hours is not None or inputs.network.config.incremental is None:
                    sequences = parts.count_rows(missing) + sum(
                        alleles[index]["gene"].nunique() for index in missing
                    )
                    announce_time(
                        sequences * inputs.strands_read(both_strands),
                        "forward passes (windows)",
                        seconds_per_pass(inputs, limits, cluster, precision),
                        limits=limits,
                        cluster=cluster,
                        max_hours=max_hours,
                    )
            output.begin()
            inputs.write_description(out_dir / DESCRIPTION)
            parts.write_manifest(complete=False)
        if cluster is not None:
            compute_parts(
                parts,
                missing,
                variant_effects.predict_effects,
                lambda index: variant_effects.effect_arguments(
                    alleles[index], source.group(alleles[index]), inputs, both_strands=both_strands
                ),
                shared=inputs.models,
                limits=limits,
                cluster=cluster,
                name="variants",
                verb="predicted",
                noun=promoters.noun,
                unit="effects",
                oom_fix="lower --workers, raise --cpus_per_worker, or predict fewer --targets",
            )
        strongest = variant_effects.combine_parts(
            inputs, out_dir, files=parts.paths(), in_windows=in_windows, windows=source.windows
        )
        storage.write_json(out_dir / "summary.json", {**in_windows.counts, "notes": [str(one) for one in notes]})
        parts.write_manifest(complete=True)
        output.finish()
        variant_effects.show_effects(in_windows.counts, strongest, inputs)
        console.print(f"{len(in_windows.alleles):,} effects in {out_dir / 'variants.parquet'}")


if __name__ == "__main__":
    run(variants)
