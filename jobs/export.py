"""ISM scores as files for motif discovery and genome browsers."""

from __future__ import annotations

from jobs.cli.config_file import require_same, resolved, write_config
from jobs.cli.run import console, run
from promoter import storage
from promoter.export import FORMATS, export_scores, modisco_command, require_formats
from promoter.ism.store import find_manifest

_DEFAULT = ["modisco", "bigwig", "bed"]


def export(
    scores: str,
    out: str,
    formats: list[str] | None = None,
    genome: str | None = None,
    genes: list[str] | None = None,
    target: str | None = None,
) -> None:
    """Write scores for tf-modisco-lite, genome browsers, bedtools and chrombpnet's tools.

    Args:
        scores: folder that jobs.ism wrote.
        out: folder for the files and config.yaml.
        formats: any of modisco (ohe.npz and shap.npz, hypothetical contributions, 5'→3' along each gene), bigwig
            and bedgraph (actual contributions on the genome; where promoters overlap, those to the gene whose TSS
            is nearest), bed (regions of high |contribution|: 7-base windows above the 95% quantile of the gene,
            merged) and h5 (as chrombpnet writes it, forward strand); modisco,bigwig,bed by default.
        genome: FASTA, .fai or chrom.sizes with the lengths of the chromosomes, for bigwig and h5.
        genes: ids to export; all by default.
        target: whose scores; may be left out when there is one.
    """
    settings = resolved(locals())
    formats = formats or _DEFAULT
    require_formats(formats, genome)
    where = storage.require_writable(out)
    folder = storage.resolve(scores)
    manifest = find_manifest(folder)
    named = [*([manifest] if manifest else []), *([storage.require_file(genome, "genome")] if genome else [])]
    inputs = {str(path): storage.sha256(path) for path in named}
    require_same(where, settings, inputs, ignored={"out"}, outputs=[])
    written = export_scores(scores, where, formats, genome=genome, genes=genes, target=target)
    write_config(where / "config.yaml", settings, inputs)
    for chrom, other in list(written.renamed.items())[:3]:
        console.print(f"note: {chrom} of the scores is {other} in the genome, and in the files")
    if not written.tss_known and any(FORMATS[name].uses_tss for name in formats):
        console.print(f"note: {folder} does not say where the TSS is; taken to be the base behind each window")
    if written.past_ends:
        console.print(f"note: the h5 leaves out {written.past_ends:,} genes whose windows pass a chromosome's end")
    names = ", ".join(path.name for path in written.files)
    console.print(f"contributions to {written.target} of {written.genes:,} genes in {where}: {names}")
    if "modisco" in formats:
        console.print(f"motifs: {modisco_command(where, written.genes, written.length)}")


if __name__ == "__main__":
    run(export)
