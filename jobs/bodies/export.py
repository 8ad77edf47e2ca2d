"""Write ISM scores for motif discovery and genome browsers: what `jobs.export` does."""

from __future__ import annotations

from typing import Any

from jobs.cli.config_file import require_same, write_config
from jobs.cli.console import console
from promoter import storage
from promoter.export import FORMATS, export_scores, modisco_command, require_formats
from promoter.ism.store import find_manifest

_DEFAULT = ["modisco", "bigwig", "bed"]


def export(
    settings: dict[str, Any],
    scores: str,
    out: str,
    formats: list[str] | None,
    genome: str | None,
    genes: list[str] | None,
    target: str | None,
) -> None:
    """Write scores in each format; the arguments are those of `jobs.export.export`, after its settings."""
    formats = formats or _DEFAULT
    require_formats(formats, genome)
    out_dir = storage.require_writable(out)
    folder = storage.resolve(scores)
    manifest = find_manifest(folder)
    named = [*([manifest] if manifest else []), *([storage.require_file(genome, "genome")] if genome else [])]
    inputs = {str(path): storage.sha256(path) for path in named}
    require_same(out_dir, settings, inputs, ignored={"out"}, outputs=[])
    written = export_scores(scores, out_dir, formats, genome=genome, genes=genes, target=target)
    write_config(out_dir / "config.yaml", settings, inputs)
    for chrom, other in list(written.renamed.items())[:3]:
        console.print(f"note: {chrom} of the scores is {other} in the genome, and in the files")
    if not written.tss_known and any(FORMATS[name].uses_tss for name in formats):
        console.print(f"note: {folder} does not say where the TSS is; taken to be the base behind each window")
    if written.past_ends:
        console.print(f"note: the h5 leaves out {written.past_ends:,} genes whose windows pass a chromosome's end")
    names = ", ".join(path.name for path in written.files)
    console.print(f"contributions to {written.target} of {written.genes:,} genes in {out_dir}: {names}")
    if "modisco" in formats:
        console.print(f"motifs: {modisco_command(out_dir, written.genes, written.length)}")
