"""Motifs that scores show: named by JASPAR, with their instances on the genome or in the sequences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from upath import UPath

from jobs.cli.config_file import job_settings
from jobs.cli.console import console, new_table, plural
from jobs.cli.outputs import own_folder
from jobs.cli.run import run
from promoter import storage

if TYPE_CHECKING:
    import pandas as pd

    from promoter.motifs.discovery import Contributions


def motifs(
    scores: str,
    out: str,
    target: str | None = None,
    taxon: str = "vertebrates",
    motifs: str | None = None,
    window: int | None = None,
    max_seqlets: int = 2000,
    genes: list[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Find the motifs that contributions show (TF-MoDISco), name them, and write where they stand.

    Args:
        scores: folder that promoter ism or attribute wrote.
        out: folder to write motifs.tsv, motifs.meme, instances.bed (7th column: contribution; the first is the
            id of the sequence in a library), motifs.h5 (as modisco's report reads it), logos/ and config.yaml to.
        target: name of the target whose scores are read; may be left out when there is only one.
        taxon: part of JASPAR 2026 to name motifs by: vertebrates, plants, insects, nematodes, fungi,
            urochordates, all or none.
        motifs: MEME file to name motifs by, instead of JASPAR.
        window: number of bases at the end of each sequence to look at; by default all.
        max_seqlets: maximum number of seqlets of each sign to cluster; if there are more, those of genes drawn at
            random. Time grows with the square of this number.
        genes: ids or names of the genes or sequences to look at; by default all.
        seed: random seed for subsampling seqlets.
        overwrite: take over an output folder that another run, job or person has filled: what a job has left there
            is removed, other files of the same names are replaced.
    """
    settings = job_settings(globals()["motifs"], locals())  # here the name is that of a setting

    import pandas as pd

    from promoter.ism.scores_format import find_manifest
    from promoter.motifs.discovery import discover_motifs, place_on_genome, read_contributions, write_h5
    from promoter.motifs.known import MAX_Q, as_meme, jaspar_motifs, match_motifs, read_motifs
    from promoter.plots import motif_logo

    database = read_motifs(motifs) if motifs else jaspar_motifs(taxon)
    manifest = find_manifest(scores)
    files = [*([manifest] if manifest else []), *([storage.resolve(motifs)] if motifs else [])]
    inputs = {str(path): storage.sha256(path) for path in files}
    owned = own_folder("motifs", out, settings, inputs, paths=["scores", "motifs"], overwrite=overwrite)
    with owned as output:
        out_dir = output.path
        contributions = read_contributions(scores, target, window, genes)
        discovery = discover_motifs(contributions, max_seqlets, seed)
        frequencies = {motif.name: motif.frequencies_AL for motif in discovery.motifs}
        seqlets = {motif.name: motif.seqlets for motif in discovery.motifs}
        matches = match_motifs(frequencies, database).reset_index(drop=True)
        table = pd.concat([discovery.to_table(), matches], axis=1)
        instances = place_on_genome(discovery.instances, contributions.genes)
        output.begin()
        write_h5(out_dir / "motifs.h5", discovery)
        for motif in discovery.motifs:
            motif_logo(out_dir / "logos", motif.name, motif.frequencies_AL, motif.contributions_AL)
        storage.write_text(out_dir / "motifs.meme", as_meme(frequencies, seqlets))
        storage.write_text(out_dir / "instances.bed", instances.to_csv(sep="\t", header=False, index=False))
        storage.write_text(out_dir / "motifs.tsv", table.to_csv(sep="\t", index=False))
        output.finish()
        if discovery.uninformative:
            console.print(f"{plural(discovery.uninformative, 'pattern')} without an informative position left out")
        _show(table, contributions, out_dir)
        if database and not table.empty:
            source = motifs or f"{taxon} in JASPAR 2026; --taxon and --motifs choose others"
            console.print(f"resembles: motifs of {source}")
            console.print(
                f"named where q, corrected for all of these, is at most {MAX_Q}; motifs.tsv has each best match"
            )


def _show(table: pd.DataFrame, contributions: Contributions, out_dir: UPath) -> None:
    rows = plural(len(contributions.genes), contributions.noun)
    if table.empty:
        console.print(
            f"no motifs: too few regions of these {rows} stand out; score more {contributions.noun}s. "
            f"Empty tables in {out_dir}"
        )
        return
    columns = ("motif", "resembles", "q", "IUPAC", "seqlets", "contribution")
    shown = new_table(*columns, right={"seqlets", "contribution", "q"})
    for row in table.to_dict("records"):
        q = "" if math.isnan(row["q"]) else f"{row['q']:.2g}"
        numbers = f"{row['seqlets']:,}", f"{row['contribution']:+.3f}"
        shown.add_row(row["motif"], row["resembles"], q, row["iupac"], *numbers)
    console.print(shown)
    target = contributions.target
    of = f"{target} of {rows}, by {contributions.method}"
    console.print(f"{len(table):,} motifs in the contributions to {of}, in {out_dir}")


if __name__ == "__main__":
    run(motifs)
