"""Scores as files for motif discovery and genome browsers."""

from __future__ import annotations

from typing import Any

from upath import UPath

from jobs.cli.config_file import job_settings
from jobs.cli.console import console, plural
from jobs.cli.outputs import own_folder
from jobs.cli.run import run
from promoter import storage
from promoter.export.formats import FORMATS, require_formats
from promoter.storage.schema import read_json_as

_MANIFEST = "manifest.json"  # of scores; the module that defines it imports PyArrow, which a refusal does without


def export(
    scores: str,
    out: str,
    formats: list[str] | None = None,
    genome: str | None = None,
    genes: list[str] | None = None,
    target: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write scores for tf-modisco-lite, genome browsers, bedtools and chrombpnet's tools.

    Args:
        scores: folder that promoter ism or attribute wrote.
        out: folder to write the files and config.yaml to.
        formats: one or more of modisco (ohe.npz and shap.npz, hypothetical contributions, 5'→3' along each gene),
            bigwig and bedgraph (actual contributions on the genome; where promoters overlap, those to the gene
            whose TSS is nearest), bed (regions of high |contribution|: 7-base windows above the 95% quantile of
            the gene, merged) and h5 (as chrombpnet writes it, forward strand); modisco,bigwig,bed by default. A
            library of sequences has no coordinates: modisco, the default then, and h5.
        genome: FASTA, .fai or chrom.sizes with the lengths of the chromosomes, for bigwig and h5 of genes.
        genes: ids or names of the genes or sequences to export; all by default.
        target: name of the target to export; may be left out when there is only one.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced.
    """
    settings = job_settings(export, locals())
    folder = storage.resolve(scores)
    located = _lie_on_a_genome(folder)
    formats = formats or (["modisco", "bigwig", "bed"] if located else ["modisco"])
    require_formats(formats, genome, located=located)

    from promoter.export.modisco import modisco_command
    from promoter.export.scores import export_scores
    from promoter.ism.scores_format import find_manifest

    manifest = find_manifest(folder)
    named = [*([manifest] if manifest else []), *([storage.require_file(genome, "genome")] if genome else [])]
    inputs = {str(path): storage.sha256(path) for path in named}
    owned = own_folder("export", out, settings, inputs, paths=["scores", "genome"], overwrite=overwrite)
    with owned as output, output.nothing_if_refused():
        out_dir = output.path
        written = export_scores(scores, out_dir, formats, genome=genome, genes=genes, target=target)
        output.finish(written.files)
    for chrom, other in list(written.renamed.items())[:3]:
        console.print(f"note: {chrom} of the scores is {other} in the genome, and in the files")
    if not written.tss_known and any(FORMATS[name].uses_tss for name in formats):
        console.print(f"note: {folder} does not say where the TSS is; taken to be the base behind each window")
    if written.past_ends:
        console.print(f"note: the h5 leaves out {written.past_ends:,} genes whose windows pass a chromosome's end")
    names = ", ".join(path.name for path in written.files)
    rows = plural(written.genes, written.noun)
    console.print(f"contributions to {written.target} of {rows}, by {written.method}, in {out_dir}: {names}")
    if "modisco" in formats:
        console.print(f"motifs: {modisco_command(out_dir, written.genes, written.length)}")


def _lie_on_a_genome(folder: UPath) -> bool:
    """Tell, by the manifest alone, whether scores are of windows on a genome; true where it does not say."""
    manifest = next((place / _MANIFEST for place in (folder, folder.parent) if (place / _MANIFEST).exists()), None)
    if manifest is None:
        return True
    fix = "copy the folder again from its source, or make it again with ism"
    return read_json_as(manifest, dict[str, Any], fix).get("window", {}) is not None


if __name__ == "__main__":
    run(export)
