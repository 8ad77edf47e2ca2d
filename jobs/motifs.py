"""Motifs that ISM scores show: named by JASPAR, with their instances on the genome."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.table import Table
from upath import UPath

from jobs.cli.config_file import require_same, resolved, write_config
from jobs.cli.run import console, run
from promoter import storage
from promoter.errors import InputError
from promoter.ism.store import find_manifest
from promoter.motifs.discovery import Discovery, discover_motifs, place_on_genome, read_contributions, write_h5
from promoter.motifs.known import as_meme, jaspar_motifs, match_motifs, read_motifs
from promoter.plots import motif_logo

_OUTPUTS = ["motifs.tsv", "motifs.meme", "instances.bed", "motifs.h5"]


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
) -> None:
    """Find the motifs that contributions show (TF-MoDISco), name them, and write where they stand.

    Args:
        scores: folder that jobs.ism wrote.
        out: folder to write motifs.tsv, motifs.meme, instances.bed (7th column: contribution), motifs.h5 (as
            modisco's report reads it), logos/ and config.yaml to.
        target: name of the target whose scores are read; may be left out when there is only one.
        taxon: part of JASPAR 2026 to name motifs by: vertebrates, plants, insects, nematodes, fungi,
            urochordates, all or none.
        motifs: MEME file to name motifs by, instead of JASPAR.
        window: number of bases at the end of each sequence to look at; by default all.
        max_seqlets: maximum number of seqlets of each sign to cluster; if there are more, those of genes drawn at
            random. Time grows with the square of this number.
        genes: ids of the genes to look at; by default all.
        seed: random seed for subsampling seqlets.
    """
    settings = resolved(locals())
    if max_seqlets < 1:
        raise InputError(f"--max_seqlets {max_seqlets}: must be at least 1")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be at least 0")
    known = read_motifs(motifs) if motifs else jaspar_motifs(taxon)
    where = storage.require_writable(out)
    manifest = find_manifest(scores)
    named = [*([manifest] if manifest else []), *([storage.resolve(motifs)] if motifs else [])]
    inputs = {str(path): storage.sha256(path) for path in named}
    require_same(where, settings, inputs, ignored={"out"}, outputs=_OUTPUTS)
    contributions = read_contributions(scores, target, window, genes)
    found = discover_motifs(contributions, max_seqlets, seed)
    matches = match_motifs({one.name: one.frequencies_AL for one in found.motifs}, known)
    table = _as_table(found, matches)
    _write(where, found, table, place_on_genome(found.instances, contributions.genes))
    write_config(where / "config.yaml", settings, inputs)
    _show(table, len(contributions.genes), contributions.target, where)


def _as_table(found: Discovery, matches: pd.DataFrame) -> pd.DataFrame:
    rows = [
        (one.name, one.consensus, one.iupac, one.sign, one.seqlets, one.contribution, one.group)
        for one in found.motifs
    ]
    columns = ["motif", "consensus", "iupac", "sign", "seqlets", "contribution", "modisco_name"]
    table = pd.DataFrame(rows, columns=pd.Index(columns))
    return pd.concat([table, matches.reset_index(drop=True)], axis=1)


def _write(where: UPath, found: Discovery, table: pd.DataFrame, placed: pd.DataFrame) -> None:
    frequencies = {one.name: one.frequencies_AL for one in found.motifs}
    seqlets = {one.name: one.seqlets for one in found.motifs}
    write_h5(where / "motifs.h5", found)
    for one in found.motifs:
        motif_logo(where / "logos", one.name, one.frequencies_AL, one.contributions_AL)
    storage.write_text(where / "motifs.meme", as_meme(frequencies, seqlets))
    storage.write_text(where / "instances.bed", placed.to_csv(sep="\t", header=False, index=False))
    storage.write_text(where / "motifs.tsv", table.to_csv(sep="\t", index=False))


def _show(table: pd.DataFrame, genes: int, target: str, where: UPath) -> None:
    if table.empty:
        console.print(
            f"no motifs: too few stretches of these {genes:,} genes stand out; score more genes with jobs.ism. "
            f"Empty tables in {where}"
        )
        return
    shown = Table(box=None, pad_edge=False)
    for name in ("motif", "IUPAC", "seqlets", "contribution", "resembles", "q"):
        shown.add_column(name, justify="right" if name in ("seqlets", "contribution", "q") else "left")
    for row in table.to_dict("records"):
        resembles = f"{row['match_name']} ({row['match_id']})" if row["match_id"] else ""
        q = "" if np.isnan(row["q"]) else f"{row['q']:.1g}"
        shown.add_row(
            row["motif"], row["iupac"], f"{row['seqlets']:,}", f"{row['contribution']:+.3f}", resembles, q
        )
    console.print(shown)
    console.print(f"{len(table):,} motifs in the contributions to {target} of {genes:,} genes, in {where}")


if __name__ == "__main__":
    run(motifs)
