"""One HTML file about a run, to be opened without a network: what was trained, how good it is, why it predicts so.

Everything that the page shows comes from the files of a run and of jobs.ism, jobs.motifs and jobs.tune. It loads
nothing: its content security policy forbids that, and lets run only the two scripts that it was written with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from upath import UPath

import promoter
from promoter import plots, storage
from promoter.checkpoint import DESCRIPTION, PackedModel, pack_models, unpack_ensemble, unpack_model
from promoter.errors import InputError
from promoter.evaluation.predictions import baseline_column, read_predictions
from promoter.metrics import evaluate_predictions
from promoter.palette import BASE_COLOURS, UNKNOWN_BASE_COLOUR
from promoter.report import charts
from promoter.report.browser_links import require_assembly
from promoter.report.genes import choose, read_hits, view_genes
from promoter.splits.split import SPLITS
from promoter.storage import AnyPath

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_TARGETS, _MOST_LEAKS, _MOST_MOTIFS, _MOST_TRIALS = 50, 50, 60, 10
_MOST_IMAGE = 400_000  # bytes of a motif's or a search's figure


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        html: the page.
        genes: ids of the genes drawn.
        left_out: for each section that has nothing to show, how to make it.
        write_figures: writes the figures into a folder, each as SVG and PNG, and returns their names.
    """

    html: str
    genes: list[str]
    left_out: list[str]
    write_figures: Callable[[AnyPath], list[str]]


@dataclass
class _Parts:
    """What is found, part by part."""

    charts: dict[str, charts.Chart] = field(default_factory=dict)
    figures: dict[str, Callable[[], Figure]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def build_report(
    model: AnyPath,
    scores: AnyPath | None = None,
    genes: Sequence[str] | None = None,
    show: int = 3,
    target: str | None = None,
    motifs: AnyPath | None = None,
    search: AnyPath | None = None,
    compare: AnyPath | None = None,
    assembly: str | None = None,
) -> Report:
    """Gather what is known of a model into one page.

    Args:
        model: model directory of a run, or the folder of a run, of one network or of several.
        scores: folder that `jobs.ism` wrote with this model.
        genes: ids to draw, beside those that are chosen.
        show: so many of the genes with the highest, the lowest and the worst prediction are chosen.
        target: whose figures; the first by default. The tables of metrics show all.
        motifs: folder that `jobs.motifs` wrote.
        search: folder that `jobs.tune` wrote.
        compare: folder of another run, to show its metrics beside.
        assembly: UCSC's or Ensembl's name, for links to their browsers.

    Raises:
        InputError: a file that is missing or damaged, scores of another model, a gene without scores, a target or
            an assembly that there is not.
    """
    if show < 0:
        raise InputError(f"--show {show}: must be at least 0")
    assembly = require_assembly(assembly) if assembly else None
    if genes and scores is None:
        raise InputError("--genes: their logos need --scores; make them with jobs.ism")
    members = pack_models([model])
    network, info = unpack_ensemble(members)
    if target is not None and target not in info.targets:
        raise InputError(f"--target {target}: is not of the model; there are {', '.join(info.targets)}")
    target = target or info.targets[0]
    where = storage.resolve(model)
    run = where.parent if (where / DESCRIPTION).exists() else where
    parts = _Parts()
    metrics = storage.read_json(run / "metrics.json") if (run / "metrics.json").exists() else None
    predictions = read_predictions(run / "predictions.parquet") if (run / "predictions.parquet").exists() else None
    if predictions is not None and not {target, f"{target}_predicted"} <= set(predictions):
        raise InputError(f"{run / 'predictions.parquet'}: has no {target}; is it of another model?")
    chosen = choose(scores, members, predictions, genes or (), show, target) if scores is not None else None
    page = {
        "run": run.name,
        "folder": str(run),
        "target": target,
        "model": _model(run, members, network, info),
        "metrics": _metrics(metrics, run, info.targets, target, parts),
        "compare": _comparison(compare, metrics, run, info.targets),
        "predicted": _predicted(predictions, metrics, target, parts),
        "curves": _curves(run, members, parts),
        "leaks": _leaks(run, parts),
        "motifs": _motifs(motifs, parts),
        "search": _search(search if search is not None else run if (run / "trials.csv").exists() else None, parts),
    }
    views = view_genes(chosen, read_hits(motifs, list(chosen.reasons)), assembly) if chosen else []
    page["genes"] = [view.page for view in views]
    for view in views:
        name = f"gene_{re.sub(r'[^A-Za-z0-9._-]+', '_', view.page['id'])[:80]}"
        while name in parts.figures:  # two ids may be the same once made fit for a file
            name += "_"
        parts.figures[name] = view.draw
    if chosen is None:
        parts.left_out.append(
            "Genes base by base: score some with jobs.ism --model MODEL --data DATA --out ISM, give --scores ISM"
        )
    return Report(
        _render(page, parts), [one["id"] for one in page["genes"]], parts.left_out, partial(_write_figures, parts)
    )


def _write_figures(parts: _Parts, folder: AnyPath) -> list[str]:
    for name, chart in parts.charts.items():
        charts.write_chart(folder, name, chart)
    for name, draw in parts.figures.items():
        plots.write_figure(folder, name, draw())
    return [*parts.charts, *parts.figures]


def _model(run: UPath, members: list[PackedModel], network: Any, info: Any) -> dict[str, Any]:
    """Return what was trained on what."""
    window = info.window
    config = storage.read_yaml(run / "config.yaml") if (run / "config.yaml").exists() else {}
    provenance = config.pop("provenance", None) or {}
    around = (
        f"{window['upstream']:,} bases upstream of the TSS, {window['downstream']:,} from it on"
        if window.get("upstream") is not None
        else f"{window['length']:,} bases"
    )
    parameters = sum(one.numel() for one in network.parameters())
    genes = info.data.get("genes")
    facts = {
        "Networks": f"{len(members)}, an ensemble" if len(members) > 1 else "1",
        "Parameters": f"{parameters:,}" + " each" * (len(members) > 1),
        "Targets": _listed(info.targets, 20),
        "Window": around,
        "Expression values": {None: "as given", "none": "as given"}.get(info.transform, info.transform),
        "Genes": f"{genes:,}" if genes else None,
        "Split": _split_words(config.get("split") or {}),
    }
    if len(members) == 1:
        facts |= {f"Chromosomes, {name}": _listed(info.split.get(name, []), 30) for name in SPLITS}
        facts["Best epoch"] = info.training.get("best_epoch")
    checksums = {"data set": info.data.get("sha256")}
    checksums |= {f"model {_short_source(run, one)}": one.checksum for one in members}
    checksums |= {f"input {path}": checksum for path, checksum in (provenance.get("inputs") or {}).items()}
    settings = {
        "network": asdict(network.config),
        "training": {name: value for name, value in info.training.items() if name != "best_epoch"},
    }
    return {
        "facts": {name: value for name, value in facts.items() if value},
        "versions": info.versions,
        "checksums": {name: value for name, value in checksums.items() if value},
        "settings": settings,
        "version": promoter.__version__,
    }


def _short_source(run: UPath, packed: PackedModel) -> str:
    return packed.source.removeprefix(f"{run}/")


def _listed(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _split_words(split: dict[str, Any]) -> str | None:
    if not split:
        return None
    if split.get("random"):
        return "random genes (relatives and neighbours of held-out genes are learned from, which can inflate r)"
    words = "families of homologous promoters" if split.get("by") == "family" else "whole chromosomes"
    homology = {
        "drop": "; relatives of held-out genes dropped",
        "move": "; families parted by it learned from whole",
    }
    return words + homology.get(split.get("homology", ""), "")


def _metrics(
    metrics: dict[str, Any] | None, run: UPath, targets: list[str], target: str, parts: _Parts
) -> dict[str, Any] | None:
    if metrics is None or "test" not in metrics:
        parts.left_out.append("Metrics: give --model the model/ in the folder that jobs.train wrote")
        return None
    rows = [
        {"split": split, "target": name, **metrics[split][name]}
        for split in reversed(SPLITS)
        for name in targets[:_MOST_TARGETS]
        if name in metrics.get(split, {})
    ]
    test = metrics["test"]
    plain = [
        {"target": name, "model": model, **values}
        for name in targets[:_MOST_TARGETS]
        for model, values in test.get(name, {}).get("baselines", {}).items()
    ]
    if plain:
        parts.charts["beside_plain_models"] = charts.beside_plain_models(_plain_models(run, test[target], target))
    else:
        parts.left_out.append("Plain models beside the network: train with --baselines true")
    clean = [
        {"target": name, **test[name]["without_homologs"]}
        for name in targets[:_MOST_TARGETS]
        if "without_homologs" in test.get(name, {})
    ]
    more = max(len(targets) - _MOST_TARGETS, 0)
    of_target = [one for one in plain if one["target"] == target and one["pearson"] is not None]
    return {
        "rows": rows,
        "plain": [{**one, "model": one["model"].replace("_", " ")} for one in plain],
        "best_plain": max(of_target, key=lambda one: one["pearson"], default=None),
        "clean": clean,
        "more": more,
        "test": test.get(target),
    }


def _plain_models(run: UPath, test: dict[str, Any], target: str) -> pd.DataFrame:
    """Return r of the network and of each plain model; intervals of these where their predictions are kept."""
    low, high = test.get("pearson_ci95") or (np.nan, np.nan)
    rows = [{"model": "network", "pearson": test["pearson"], "low": low, "high": high}]
    kept = None
    if (run / "baselines.parquet").exists():
        kept = read_predictions(run / "baselines.parquet")
        kept = kept.assign(observed=read_predictions(run / "predictions.parquet")[target].to_numpy())
        kept = kept[kept["split"] == "test"]
    for name, values in test["baselines"].items():
        column, low, high = baseline_column(target, name), np.nan, np.nan
        if kept is not None and column in kept and values["pearson"] is not None:
            table = kept[["split"]].assign(y=kept["observed"], y_predicted=kept[column])
            low, high = evaluate_predictions(table, ["y"])["test"]["y"]["pearson_ci95"] or (np.nan, np.nan)
        if values["pearson"] is not None:  # that of a constant is undefined
            rows.append({"model": name.replace("_", " "), "pearson": values["pearson"], "low": low, "high": high})
    return pd.DataFrame(rows)


def _comparison(
    compare: AnyPath | None, metrics: dict[str, Any] | None, run: UPath, targets: list[str]
) -> dict[str, Any] | None:
    if compare is None:
        return None
    other = storage.resolve(compare)
    other = other.parent if (other / DESCRIPTION).exists() else other
    theirs = storage.read_json(other / "metrics.json")
    if not isinstance(theirs, dict) or "test" not in theirs:
        raise InputError(f"{other / 'metrics.json'}: holds no metrics; give --compare the folder of a run")
    rows = []
    for name, where, found in (("this run", run, metrics or {}), (other.name, other, theirs)):
        config = storage.read_yaml(where / "config.yaml") if (where / "config.yaml").exists() else {}
        split = config.get("split") or {}
        for target in targets[:_MOST_TARGETS]:
            if target in found.get("test", {}):
                values = found["test"][target]
                rows.append({"run": name, "split": _split_words(split) or "?", "target": target, **values})
    return {"rows": rows, "random": any(row["split"].startswith("random") for row in rows), "other": other.name}


def _predicted(
    predictions: pd.DataFrame | None, metrics: dict[str, Any] | None, target: str, parts: _Parts
) -> dict[str, Any] | None:
    if predictions is None or predictions[target].isna().all():
        parts.left_out.append(
            "Predicted against observed, error by chromosome: give --model the model/ in the folder that "
            "jobs.train wrote, with its predictions.parquet"
        )
        return None
    parts.charts["predicted_against_observed"] = charts.predicted_against_observed(predictions, target)
    errors = charts.chromosome_errors(predictions, target)
    parts.charts["error_by_chromosome"] = charts.error_by_chromosome(errors, target)
    held_out = predictions[(predictions["split"] == "test") & predictions[target].notna()]
    off = (held_out[f"{target}_predicted"] - held_out[target]).abs().sort_values(ascending=False)
    worst = [
        {
            "gene": row["gene_id"],
            "chrom": row["chrom"],
            "observed": row[target],
            "predicted": row[f"{target}_predicted"],
        }
        for row in held_out.loc[off.index[:10]].to_dict("records")
    ]
    covered = ((metrics or {}).get("test", {}).get(target) or {}).get("interval_coverage")
    most = errors.nlargest(60, "genes", keep="first").sort_index()
    return {
        "genes": len(held_out),
        "errors": most.to_dict("records"),
        "chromosomes": len(errors),
        "worst": worst,
        "coverage": covered,
    }


def _curves(run: UPath, members: list[PackedModel], parts: _Parts) -> dict[str, Any] | None:
    found = []
    for one in members:
        path = storage.resolve(one.source).parent / "history.csv"
        if path.exists():
            history = _read_csv(path)
            if not {"epoch", "train_mse", "val_mse", "val_pearson"} <= set(history):
                raise InputError(
                    f"{path}: lacks epoch, train_mse, val_mse or val_pearson; was it written by jobs.train?"
                )
            best = unpack_model(one)[1].training.get("best_epoch", np.nan)
            name = storage.resolve(one.source).parent.name if len(members) > 1 else "network"
            found.append(history.assign(network=name, best=best))
    if not found:
        parts.left_out.append("Learning curves: give --model the model/ in the folder that jobs.train wrote")
        return None
    history = pd.concat(found, ignore_index=True)
    parts.charts["learning_curve_mse"] = charts.learning_curve(
        history, {"train_mse": "train", "val_mse": "val"}, "MSE"
    )
    parts.charts["learning_curve_r"] = charts.learning_curve(history, {"val_pearson": "val"}, "Pearson r")
    ends = []
    for name, rows in history.groupby("network", sort=False):
        best = rows[rows["epoch"] == rows["best"]]
        ends.append({"network": name, "epochs": len(rows), **(best.iloc[0].to_dict() if len(best) else {})})
    return {"networks": ends}


def _leaks(run: UPath, parts: _Parts) -> dict[str, Any] | None:
    path = run / "leakage.csv"
    if not path.exists():
        parts.left_out.append("Leakage: train with this version's jobs.train, which writes leakage.csv")
        return None
    try:
        leaks = _read_csv(path, ["gene_id", "split", "other_gene_id", "other_split", "strand", "kind"])
    except pd.errors.EmptyDataError:
        leaks = pd.DataFrame(columns=["gene_id", "split", "other_gene_id", "other_split", "fraction"])
    counts = []
    for (split, other), rows in leaks.groupby(["split", "other_split"], sort=True):
        genes = rows["gene_id"].nunique()
        counts.append({"split": split, "other": other, "genes": genes, "pairs": len(rows)})
    return {"counts": counts, "rows": leaks.head(_MOST_LEAKS).to_dict("records"), "pairs": len(leaks)}


def _motifs(folder: AnyPath | None, parts: _Parts) -> dict[str, Any] | None:
    if folder is None:
        parts.left_out.append("Motifs: find some with jobs.motifs --scores ISM --out MOTIFS, give --motifs MOTIFS")
        return None
    where = storage.resolve(folder)
    storage.require_file(where / "motifs.tsv", "table of motifs")
    table = _read_csv(
        where / "motifs.tsv", ["motif", "consensus", "sign", "match", "match_id", "match_name"], sep="\t"
    )
    if "motif" not in table:
        raise InputError(
            f"{where / 'motifs.tsv'}: has no column motif; give --motifs a folder that jobs.motifs wrote"
        )
    rows = []
    for row in table.head(_MOST_MOTIFS).to_dict("records"):
        logo = where / "logos" / f"{row['motif']}.svg"
        inside = str(logo).startswith(f"{where / 'logos'}/") and ".." not in str(row["motif"])
        rows.append({**row, "logo": _image(logo) if inside else None})
    named = ("consensus", "sign", "match_name", "match", "match_id")
    numbers = ("seqlets", "mean_contribution", "contribution", "p", "q")
    columns = [name for name in (*named[:2], *numbers[:3], *named[2:], *numbers[3:]) if name in table]
    return {"rows": rows, "columns": columns, "numbers": numbers, "more": max(len(table) - _MOST_MOTIFS, 0)}


def _search(folder: AnyPath | None, parts: _Parts) -> dict[str, Any] | None:
    if folder is None:
        parts.left_out.append(
            "Search: look for a better configuration with jobs.tune --out SEARCH, give --search SEARCH"
        )
        return None
    where = storage.resolve(folder)
    storage.require_file(where / "trials.csv", "table of trials")
    trials = _read_csv(where / "trials.csv", ["status", "reason"])
    images = []
    for name, words in (
        ("search_progress", "Score of each trial in order, and the best so far."),
        ("score_by_setting", "Score against each setting that was searched."),
    ):
        image = _image(where / "figures" / f"{name}.svg")
        if image:
            images.append({"name": name, "src": image, "words": words})
    importance = []
    if (where / "importance.csv").exists():
        try:
            importance = _read_csv(where / "importance.csv").head(_MOST_TRIALS).to_dict("records")
        except pd.errors.EmptyDataError:
            importance = []
    hidden = ("reason", "seconds")
    columns = [name for name in map(str, trials) if name not in hidden and not name.startswith("fold_")]
    counts = trials["status"].value_counts().to_dict() if "status" in trials else {}
    return {
        "images": images,
        "trials": trials.head(_MOST_TRIALS)[columns].to_dict("records"),
        "columns": columns,
        "counts": counts,
        "importance": importance,
    }


def _image(path: UPath) -> str | None:
    """Return an SVG file as the address of an image, which runs no script that the file may hold."""
    if not path.exists() or path.stat().st_size > _MOST_IMAGE:
        return None
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _read_csv(path: UPath, text: Sequence[str] = (), sep: str = ",") -> pd.DataFrame:
    """Read a table in which some columns are text, even where it says NA or 1."""
    with storage.open_text(path) as file:
        try:
            header = pd.read_csv(file, sep=sep, nrows=0).columns
        except pd.errors.EmptyDataError:
            raise
        except (pd.errors.ParserError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: is not a table ({' '.join(str(error).split())}); write it again") from error
    kept = [name for name in text if name in header]
    with storage.open_text(path) as file:
        try:
            table = pd.read_csv(
                file,
                sep=sep,
                dtype=dict.fromkeys(kept, str),
                keep_default_na=False,
                na_values={name: ["", "nan", "NaN", "NA"] for name in header if name not in kept},
            )
        except pd.errors.ParserError as error:
            raise InputError(f"{path}: is not a table ({' '.join(str(error).split())}); write it again") from error
    return table


def _render(page: dict[str, Any], parts: _Parts) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "interval": _interval, "embedded": _embedded}
    scripts = [_script(charts.javascript()), _script((_TEMPLATES / "report.js").read_text())]
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    drawn = {name: charts.packed(chart) for name, chart in parts.charts.items()}
    return environment.get_template("report.html").render(
        page,
        charts=drawn,
        base_colours=json.dumps({**BASE_COLOURS, "N": UNKNOWN_BASE_COLOUR}),
        left_out=parts.left_out,
        style=Markup((_TEMPLATES / "report.css").read_text()),  # noqa: S704 # our own file
        scripts=[Markup(one) for one in scripts],  # noqa: S704 # our own file, and Vega
        hashes=hashes,
    )


def _script(text: str) -> str:
    """Return JavaScript that ends where its element ends; the two texts can stand in strings only."""
    return text.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _embedded(value: Any) -> Markup:
    """Return JSON for a script element: without <, > and &, which could end it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 # escaped above


def _number(value: Any, digits: int = 3, sign: str = "") -> str:
    if isinstance(value, str):
        return value
    if value is None or not np.isfinite(value):
        return "–"
    if isinstance(value, (int, np.integer)):
        return _minus(f"{value:{sign},}")
    if value != 0 and abs(value) < 10.0**-digits:
        return _minus(f"{value:{sign}.1e}")
    return _minus(f"{value:{sign}.{digits}f}")


def _interval(bounds: Sequence[float] | None, sign: str = "") -> str:
    if bounds is None:
        return ""
    return _minus(f"[{bounds[0]:{sign}.2f}, {bounds[1]:{sign}.2f}]")


def _minus(text: str) -> str:
    """Return a number with a minus sign, which is as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")
