"""Choose transcription start sites (TSS) by transcript, or take measured ones from a BED of CAGE or PRO-cap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from upath import UPath

from promoter.dataset.chromosomes import Aliases, match_chromosomes
from promoter.dataset.gene_models import Place, Transcript
from promoter.dataset.gff import Line, Problem, open_annotation, require_valid
from promoter.errors import InputError, counted, doubt, note
from promoter.storage import AnyPath

_UPSTREAM = 1000  # bases before a gene in which a peak without its name may be its TSS
_MIN_NAMED = 0.1  # share of peaks or of genes whose names meet, from which names decide
_FAR = 1000  # bases: a median move that another assembly would cause rather than a measurement


def tss_of_transcripts(
    where: UPath, genes: pd.DataFrame, transcripts: Mapping[Place, Sequence[Transcript]], choice: str
) -> pd.Series:
    """Return the first base of one transcript of each gene.

    Args:
        where: address of the annotation, for messages.
        genes: table of genes with their TSS, which a gene without such a transcript keeps.
        transcripts: transcripts by (gene id, chromosome, strand).
        choice: `longest`, with most exonic bases, or `canonical`, by tag; of equal ones the 5'-most.

    Raises:
        InputError: no transcript has such a tag.
    """
    tss = genes["tss"].to_list()
    n_kept = 0
    for row, place in enumerate(zip(genes["gene_id"], genes["chrom"], genes["strand"], strict=True)):
        candidates = [
            (item.canonical or 0, -item.bases, _first_base(item, place[2]))
            for item in transcripts.get(place, ())
            if choice == "longest" or item.canonical is not None
        ]
        if not candidates:
            n_kept += 1
            continue
        if choice == "longest":
            candidates = [(0, bases, first) for _, bases, first in candidates]
        best = min(candidates, key=lambda item: (item[0], item[1], item[2] if place[2] == "+" else -item[2]))
        tss[row] = best[2]
    if choice == "canonical" and n_kept == len(genes):
        problem = f"{where} has no transcript tagged MANE_Select, Ensembl_canonical or RefSeq Select"
        raise InputError(problem, setting="transcript", value=choice, fix="choose `transcript='longest'`")
    if n_kept:
        note(f"{where}: {counted(n_kept, 'gene')} without a {choice} transcript keep their 5'-most start")
    return pd.Series(tss, index=genes.index, dtype="int64")


def _first_base(transcript: Transcript, strand: str) -> int:
    return transcript.extent.start if strand == "+" else transcript.extent.end - 1


def read_measured_tss(
    path: AnyPath,
    genes: pd.DataFrame,
    names: Sequence[pd.Series],
    *,
    chrom_names: Aliases | None = None,
    skip_invalid: bool = False,
) -> pd.Series:
    """Replace the TSSs of genes by measured ones.

    If a tenth of the peaks or genes have names in common, a peak belongs to the gene that it is named after, on
    its strand. Otherwise it belongs, of the genes on its strand that hold it or begin up to 1 kb after it, to the
    one with the nearest TSS. Of several peaks of a gene the one with the highest score counts (column 5), of equal
    ones the nearest. The TSS is the peak's first base on its strand or, where columns 7 and 8 mark one base in
    each peak as CAGE files do, that base. Genes without a peak keep the annotation's TSS.

    Args:
        path: BED with the strand in column 6, and optionally names in column 4 and scores in column 5.
        genes: table of genes, as `annotation.read_genes` returns it.
        names: the names that a gene has, aligned with `genes`: ids and symbols.
        chrom_names: names of each chromosome in several files; None (default) matches by spelling alone.
        skip_invalid: whether lines that cannot be used are left out and counted (default False).

    Returns:
        The TSS of each gene, with the index of `genes`.

    Raises:
        InputError: the file is no BED, has an invalid line, or no peak belongs to a gene.
    """
    where, peaks = _read_peaks(path, skip_invalid=skip_invalid)
    matched = match_chromosomes(peaks["chrom"].unique(), genes["chrom"].unique(), chrom_names)
    n_lost = int((~genes["chrom"].isin(list(matched.values()))).sum())
    if 2 * n_lost > len(genes):
        raise InputError(
            f"{where}: has no peak on the chromosomes of {n_lost:,} of {counted(len(genes), 'gene')}: it has "
            f"{', '.join(peaks['chrom'].unique()[:4])}, the annotation {', '.join(genes['chrom'].unique()[:4])}",
            fix="use files of one assembly, or map the names with `chrom_names`",
        )
    peaks["chrom"] = peaks["chrom"].map(matched)
    genes = genes.reset_index(drop=True).assign(row=range(len(genes)))
    pairs = _pairs_by_name(peaks, genes, names)
    how = "name"
    if pairs is None:
        how, pairs = "position", _pairs_by_position(peaks, genes)
    pairs["moved"] = (pairs["tss_peak"] - pairs["tss"]).abs()
    best = pairs.sort_values(["row", "score", "moved"], ascending=[True, False, True]).drop_duplicates("row")
    if best.empty:
        raise InputError(f"{where}: no peak belongs to a gene, by name or by position; is it of this assembly?")
    tss = genes["tss"].to_numpy().copy()
    tss[best["row"]] = best["tss_peak"]
    note(
        f"{where}: TSSs of {counted(len(best), 'gene')} are peaks found by {how}, {len(genes) - len(best):,} keep "
        f"the annotation's; median move {best['moved'].median():,.0f} bases, greatest {best['moved'].max():,}"
    )
    if best["moved"].median() > _FAR:
        doubt(f"{where}: half of the TSSs move by more than {_FAR:,} bases; are both files of one assembly?")
    return pd.Series(tss, index=names[0].index, dtype="int64")


def _read_peaks(path: AnyPath, *, skip_invalid: bool) -> tuple[UPath, pd.DataFrame]:
    """Return the address of a BED, and its lines as a table with the position and score of each peak."""
    with open_annotation(path) as file:
        if file.format != "bed":
            raise InputError(f"{file.where}: is {file.format.upper()}; measured TSSs are read from BED")
        lines = list(file.lines(lambda _: True))
    bad = [Problem(line.number, None, problem) for line in lines if (problem := _problem(line)) is not None]
    require_valid(file.where, bad, skip_invalid=skip_invalid)
    lines = [line for line in lines if _problem(line) is None]
    if not lines:
        raise InputError(f"{file.where}: has no lines; is it the right file?")
    summits = [_summit(line) for line in lines]
    if None in summits:
        summits = [line.start if line.strand == "+" else line.end - 1 for line in lines]
    else:
        note(f"{file.where}: the TSS of each peak is the base that its columns 7 and 8 mark")
    peaks = pd.DataFrame(
        {
            "name": pd.Series([line.attributes.get("gene_id") for line in lines], dtype="object"),
            "chrom": [line.chrom for line in lines],
            "strand": [line.strand for line in lines],
            "tss_peak": pd.Series(summits, dtype="int64"),
            "score": pd.to_numeric(pd.Series([line.attributes.get("score") for line in lines]), errors="coerce"),
        }
    )
    return file.where, peaks.fillna({"score": -np.inf})


def _problem(line: Line) -> str | None:
    no_strand = None if line.strand in ("+", "-") else "has no strand '+' or '-' in column 6"
    return line.problem or no_strand


def _summit(line: Line) -> int | None:
    start, end = line.attributes.get("thickStart", ""), line.attributes.get("thickEnd", "")
    if (
        start.isdecimal()
        and end.isdecimal()
        and int(end) - int(start) == 1
        and line.start <= int(start) < line.end
    ):
        return int(start)
    return None


def _pairs_by_name(peaks: pd.DataFrame, genes: pd.DataFrame, names: Sequence[pd.Series]) -> pd.DataFrame | None:
    """Return pairs of a peak and the gene that it is named after, on the same strand; None if names are others."""
    ids, rows = genes["gene_id"].tolist(), dict[str, list[int]]()
    for series in names:
        of_series = defaultdict(list)
        for row, name in enumerate(series):
            if isinstance(name, str) and not name.isdecimal():  # numbers are of peaks, not Entrez ids
                of_series[name].append(row)
        for name, found in of_series.items():
            if len({ids[row] for row in found}) == 1:  # a symbol may be that of several genes
                rows.setdefault(name, found)
    named = peaks.assign(row=peaks["name"].map(rows)).dropna(subset="row").explode("row").astype({"row": "int64"})
    n_named, n_genes = len(named), named["row"].nunique()
    if n_named == 0 or (n_named < _MIN_NAMED * len(peaks) and n_genes < _MIN_NAMED * len(genes)):
        return None
    return named.merge(genes[["row", "chrom", "strand", "tss"]], on=["row", "chrom", "strand"])


def _pairs_by_position(peaks: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of a peak and the one gene that it belongs to by position."""
    parts = [peaks.iloc[:0].assign(row=0, tss=0)]
    by_place = dict(list(genes.groupby(["chrom", "strand"], sort=False)))
    for place, group in peaks.groupby(["chrom", "strand"], sort=False):
        if place not in by_place:
            continue
        near = by_place[place]
        upstream = (_UPSTREAM, 0) if place[1] == "+" else (0, _UPSTREAM)
        starts, ends = near["start"].to_numpy() - upstream[0], near["end"].to_numpy() + upstream[1]
        tss, rows = near["tss"].to_numpy(), near["row"].to_numpy()
        chosen = []
        for position in group["tss_peak"].to_numpy():
            inside = np.flatnonzero((starts <= position) & (position < ends))
            nearest = inside[np.argmin(np.abs(tss[inside] - position))] if len(inside) else -1
            chosen.append(nearest)
        found = np.array(chosen)
        kept = group[found >= 0]
        parts.append(kept.assign(row=rows[found[found >= 0]], tss=tss[found[found >= 0]]))
    return pd.concat(parts, ignore_index=True)
