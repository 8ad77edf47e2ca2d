"""Choose the genes that the report shows, and prepare their scores and motif hits for the browser."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from upath import UPath

from promoter import plots, storage
from promoter.checkpoint import SerializedModel
from promoter.dataset.gene_names import bed_names, gene_label, ids_of
from promoter.errors import InputError
from promoter.ism import Scores, actual_contributions, load_scores
from promoter.ism.scores_format import find_manifest, read_manifest
from promoter.ism.store import Contents, load_contents, require_genes
from promoter.labels import bed_field
from promoter.report.browser_links import browser_links
from promoter.sequence import BASES, encode
from promoter.storage import AnyPath
from promoter.storage.records import require_intact

_MAX_HITS = 40
_INT16 = 32767
_LETTERS = 80  # bases of a gene's most important region, which its figure shows as letters


@dataclass(frozen=True)
class ChosenGenes:
    """Hold the genes of a scores folder that are to be shown.

    Attributes:
        known: table by gene id: `predicted`, `observed`, `split`.
        reasons: gene id -> why it was chosen, in the order to show.
    """

    folder: UPath
    target: str
    contents: Contents
    known: pd.DataFrame
    reasons: dict[str, str]


@dataclass(frozen=True)
class GeneView:
    """Hold a gene's values for the page's template, and the function that draws its figure."""

    page: dict[str, Any]
    draw: Callable[[], Figure]


def first_scored(targets: Sequence[str], scores: AnyPath | None) -> str:
    """Return the first target that a folder of scores has by its manifest; the first of all where it has none.

    Args:
        targets: names of the model's targets.
        scores: folder that ism wrote; None for none.
    """
    manifest = None if scores is None else find_manifest(scores)
    stored = read_manifest(manifest).get("targets") if manifest else None
    return next((name for name in targets if name in (stored or targets)), targets[0])


def choose(
    scores: AnyPath,
    members: Sequence[SerializedModel],
    predictions: pd.DataFrame | None,
    *,
    named: Sequence[str],
    each: int,
    target: str,
) -> ChosenGenes:
    """Choose genes of a folder that ism wrote, by `choose_genes`, without reading the scores.

    Raises:
        InputError: the scores are of other models than `members`, or the target or a gene has no scores.
    """
    folder = storage.resolve(scores)
    require_scores_of(folder, members)
    contents = load_contents(folder)
    if target not in contents.targets:
        raise InputError(f"{folder}: has no scores of {target}; there are {', '.join(contents.targets)}")
    named = ids_of(named, contents.genes)
    require_genes(folder, named, set(contents.genes["gene_id"]))
    known = _known(contents.genes, predictions, target)
    return ChosenGenes(folder, target, contents, known, choose_genes(known, named, each))


def view_genes(chosen: ChosenGenes, hits: pd.DataFrame, assembly: str | None) -> list[GeneView]:
    """Read the scores of the chosen genes and return a view of each.

    Args:
        chosen: the genes, as `choose` returns them.
        hits: motif hits, as `read_hits` returns them.
        assembly: UCSC's name of the genome assembly, for links to browsers; None makes no links.
    """
    if not chosen.reasons:
        return []
    scores = load_scores(chosen.folder, list(chosen.reasons), [chosen.target])
    return [_view(chosen, scores, row, hits=hits, assembly=assembly) for row in range(len(scores.genes))]


def _view(chosen: ChosenGenes, scores: Scores, row: int, *, hits: pd.DataFrame, assembly: str | None) -> GeneView:
    gene = {str(name): value for name, value in scores.genes.iloc[row].items()}
    index = scores.targets.index(chosen.target)
    scores_AL = scores.scores[row, index]
    tokens = encode([gene["sequence"]])
    actual_AL = actual_contributions(scores.scores[row : row + 1, index : index + 1], tokens)[0, 0]
    contents, length = chosen.contents, len(gene["sequence"])
    upstream = length - (contents.downstream or 0) if contents.located else -contents.first
    place = {name: _plain(gene[name]) for name in ("chrom", "start", "end", "strand")}
    if not contents.located:  # then each sequence is the chromosome of its motif hits
        first, last = contents.first, contents.first + length
        gene |= {"chrom": gene["gene_id"], "start": first, "end": last, "strand": "+"}
    of_gene = _in_window(hits[hits["gene"] == gene["gene_id"]], gene)
    known = chosen.known.loc[gene["gene_id"]]
    predicted, sd = float(scores.predictions[row, index]), None
    if np.isfinite(known["predicted"]) and not np.isclose(known["predicted"], predicted, rtol=1e-3, atol=1e-3):
        # of networks of several folds: the one that the gene was held out from, as in the page's other figures
        predicted = float(known["predicted"])
    elif scores.predictions_sd is not None:
        sd = float(scores.predictions_sd[row, index])
    data = {
        "id": gene_label(gene["gene_id"], gene["gene_name"]),
        "sequence": gene["sequence"],
        "upstream": upstream,
        "place": place if contents.located else None,
        "scores": _packed(scores_AL),
        "contribution": _packed(actual_AL.sum(axis=0)),
        "hits": [{key: one[key] for key in ("motif", "start", "end", "strand")} for one in of_gene],
    }
    page = {
        "key": gene["gene_id"],
        "id": gene_label(gene["gene_id"], gene["gene_name"]),
        "why": chosen.reasons[gene["gene_id"]],
        "place": data["place"],
        "observed": known["observed"],
        "split": known["split"],
        "predicted": predicted,
        "sd": sd,
        "links": browser_links(assembly, gene["chrom"], place["start"], place["end"]) if assembly else {},
        "hits": of_gene[:_MAX_HITS],
        "more_hits": max(len(of_gene) - _MAX_HITS, 0),
        "lines": [(start - upstream, gene["sequence"][start : start + 60]) for start in range(0, length, 60)],
        "strongest": _strongest(scores_AL, gene["sequence"], upstream),
        "tss_known": contents.downstream is not None or not contents.located,
        "data": data,
    }
    return GeneView(page, partial(_figure, actual_AL, scores_AL, gene, contents=contents, target=chosen.target))


def choose_genes(known: pd.DataFrame, named: Sequence[str], each: int) -> dict[str, str]:
    """Choose the genes to draw.

    Args:
        known: table by gene id: `predicted`, `observed` (each may be NaN) and `split`. The highest, the lowest and
            the worst predictions are chosen among the test genes, or among all genes if there are none.
        named: ids of genes that are drawn in any case, and first.
        each: number of genes to choose of each kind.

    Returns:
        Id -> why it is drawn.
    """
    reasons = {gene: ["named"] for gene in named}
    among = known[known["split"] == "test"] if (known["split"] == "test").any() else known
    off = (among["predicted"] - among["observed"]).abs().dropna()
    sure = among["predicted"].dropna()
    for why, ids in (
        ("highest prediction", sure.nlargest(each).index),
        ("lowest prediction", sure.nsmallest(each).index),
        ("largest error", off.nlargest(each).index),
    ):
        for gene in ids:
            reasons[gene] = [*reasons.get(gene, []), why]
    if not len(sure):
        for gene in among.index[:each]:
            reasons.setdefault(gene, ["first in the scores"])
    return {gene: ", ".join(why) for gene, why in reasons.items()}


def require_scores_of(folder: UPath, members: Sequence[SerializedModel]) -> None:
    """Raise InputError if a folder holds scores of other models than `members`."""
    manifest = find_manifest(folder)
    theirs = set((read_manifest(manifest).get("models") or []) if manifest else [])
    if theirs and theirs.isdisjoint(one.checksum for one in members):
        raise InputError(
            f"{folder}: holds scores of another model; score the genes with this one by ism (`model`)"
        )


def _known(genes: pd.DataFrame, predictions: pd.DataFrame | None, target: str) -> pd.DataFrame:
    """Look up `predicted`, `observed` and `split` of each gene that has scores, by id."""
    if predictions is None:
        return pd.DataFrame({"predicted": np.nan, "observed": np.nan, "split": None}, index=genes["gene_id"])
    by_gene = predictions.drop_duplicates("gene_id").set_index("gene_id")
    names = {f"{target}_predicted": "predicted", target: "observed", "split": "split"}
    return by_gene[list(names)].rename(columns=names).reindex(genes["gene_id"])


def read_hits(motifs: AnyPath | None, genes: pd.DataFrame) -> pd.DataFrame:
    """Read the hits in the promoters of some genes from a folder of motifs; it, or its hits, may be missing.

    Args:
        motifs: folder that motifs wrote; None for none.
        genes: table of genes with `gene_id` and `gene_name`.

    Returns:
        One row per hit: `chrom`, `start`, `end`, `name`, `score`, `strand` as in BED, `motif`, `gene`.

    Raises:
        InputError: instances.bed is not BED of six columns.
    """
    columns = ["chrom", "start", "end", "name", "score", "strand"]
    path = storage.resolve(motifs) / "instances.bed" if motifs is not None else None
    if path is None or not path.exists() or path.stat().st_size == 0:
        return pd.DataFrame(columns=[*columns, "motif", "gene"])
    require_intact(path, "run motifs again, or copy it again")
    kinds = {"chrom": str, "start": "int64", "end": "int64", "name": str, "strand": str}
    try:
        with storage.open_text(path) as file:
            options = {"sep": "\t", "header": None, "names": columns, "usecols": range(6), "quoting": 3}
            # names as they are: "#" and "NA" may be part of one
            table = pd.read_csv(file, dtype=kinds, keep_default_na=False, **options)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: is not BED of six columns ({' '.join(str(error).split())})") from error
    split = table["name"].str.split("|", n=1, expand=True).reindex(columns=[0, 1])
    ids = genes["gene_id"].tolist()
    by_label = dict(zip([*map(bed_field, ids), *bed_names(genes)], [*ids, *ids], strict=True))
    table = table.assign(motif=split[0], gene=split[1].map(by_label))
    return table[table["gene"].notna()]


def _in_window(hits: pd.DataFrame, gene: dict[str, Any]) -> list[dict[str, Any]]:
    """Return hits by their position in the window, 5'→3' along the gene."""
    found = []
    for hit in hits.to_dict("records"):
        first, last = hit["start"] - gene["start"], hit["end"] - gene["start"]
        if gene["strand"] == "-":
            first, last = gene["end"] - hit["end"], gene["end"] - hit["start"]
        if hit["chrom"] == bed_field(gene["chrom"]) and first >= 0 and last <= len(gene["sequence"]):
            found.append(
                {
                    "motif": hit["motif"],
                    "start": int(first),
                    "end": int(last),
                    "strand": "same" if hit["strand"] == gene["strand"] else "opposite",
                    "score": _plain(hit["score"]),
                    "chrom": hit["chrom"],
                    "genomic": f"{int(hit['start']):,}–{int(hit['end']):,}",
                    "sequence": gene["sequence"][int(first) : int(last)],
                }
            )
    return sorted(found, key=lambda one: one["start"])


def _packed(values: np.ndarray) -> dict[str, Any]:
    """Encode numbers as little-endian int16 in base64; `factor` restores them to 0.002% of the largest."""
    largest = float(np.abs(values).max()) or 1.0
    integers = np.rint(values / largest * _INT16).astype("<i2")
    return {"factor": float(f"{largest / _INT16:.6g}"), "values": base64.b64encode(integers.tobytes()).decode()}


def _strongest(scores_AL: np.ndarray, sequence: str, upstream: int) -> list[dict[str, Any]]:
    """Return the five positions with the strongest substitutions, each with its strongest one."""
    size = np.abs(scores_AL)
    places = np.argsort(-size.max(axis=0), kind="stable")[:5]
    found = []
    for at in places:
        base = int(size[:, at].argmax())
        change = f"{sequence[at]}→{BASES[base]}"
        found.append({"distance": int(at) - upstream, "change": change, "effect": float(scores_AL[base, at])})
    return found


def _figure(
    actual_AL: np.ndarray, scores_AL: np.ndarray, gene: dict[str, Any], *, contents: Contents, target: str
) -> Figure:
    """Draw a gene's window, and below it the most important region as letters and as a map of mutations."""
    length = actual_AL.shape[1]
    size = min(_LETTERS, length)
    strength = np.abs(actual_AL).sum(axis=0)
    first = int(np.convolve(strength, np.ones(size), "valid").argmax())
    some = slice(first, first + size)
    figure = plots.new_figure(11, 7)
    whole, letters, changes = figure.subplots(3, 1, height_ratios=(1, 1.2, 0.8))

    def place(window: slice) -> dict[str, Any]:
        if not contents.located:
            return {"first": contents.first + window.start}
        minus, downstream = gene["strand"] == "-", contents.downstream or 0
        tss = gene["start"] + downstream - 1 if minus else gene["end"] - downstream
        start = gene["end"] - window.stop if minus else gene["start"] + window.start
        return {"start": int(start), "strand": gene["strand"], "tss": int(tss), "chrom": gene["chrom"]}

    plots.logo(actual_AL, **place(slice(0, length)), axes=whole)
    plots.logo(actual_AL[:, some], **place(some), axes=letters)
    plots.mutation_map(scores_AL[:, some], gene["sequence"][some], **place(some), axes=changes)
    name = plots.figure_label(f"{gene_label(gene['gene_id'], gene['gene_name'])}, {target}")
    whole_name = "window" if contents.located else "sequence"
    figure.suptitle(f"{name}: the {whole_name}, and the {size} bases that matter most")
    return figure


def _plain(value: Any) -> Any:
    """Convert a NumPy number to Python's, and NaN to None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
