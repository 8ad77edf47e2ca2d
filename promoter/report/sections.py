"""Gather the sections of the report's page from the files of a run, and of ism, motifs and tune.

A section is a dictionary for the template, or None if its files are missing; `PageParts.left_out` then says how to
make them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from typing_extensions import TypedDict
from upath import UPath

import promoter
from promoter import storage
from promoter.checkpoint import DESCRIPTION, ModelInfo, SerializedModel, deserialize_model
from promoter.dataset.gene_names import gene_labels
from promoter.errors import listed
from promoter.evaluation.evaluate import Metrics, TargetMetrics, read_metrics
from promoter.report import charts
from promoter.splits.config import SPLITS
from promoter.splits.homology import read_leaks, related
from promoter.storage import AnyPath
from promoter.storage.records import read_record, require_intact
from promoter.storage.schema import read_csv, read_yaml_as

_MAX_TARGETS, _MAX_LEAKS, _MAX_MOTIFS, _MAX_TRIALS = 50, 50, 60, 10  # rows of a table that a reader still reads
_LIBRARY_COLUMNS = {
    "split": "split (which set a sequence is in)",
    "group": "group (sequences that are never parted)",
    "weight": "weight (multiplies a sequence's loss)",
}
FIX_FILE = "run the job that wrote it again, or copy it again"
_MAX_IMAGE_BYTES = 400_000  # size of a motif's or a search's figure; the page stays small enough to send


@dataclass
class PageParts:
    """Collect the charts and figures of the page, and what is missing.

    Attributes:
        charts: name -> chart.
        figures: name -> function that draws the figure.
        left_out: for each section without files, how to make them.
    """

    charts: dict[str, charts.Chart] = field(default_factory=dict)
    figures: dict[str, Callable[[], Figure]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def model_noun(info: ModelInfo) -> str:
    """Return what a row of the data that a model was trained on is called: gene, or sequence in a library."""
    return "sequence" if info.window.get("upstream") is None else "gene"


def model_section(run: UPath, members: list[SerializedModel], network: Any, info: Any) -> dict[str, Any]:
    """Describe the networks and the data they were trained on."""
    window = info.window
    config = _read_config(run)
    provenance = config.get("provenance") or {}
    around = (
        f"{window['upstream']:,} bases upstream of the TSS, {window['downstream']:,} from it on"
        if window.get("upstream") is not None
        else f"{window['length']:,} bases"
        if window["length"]
        else "any length"
    )
    parameters = sum(weights.numel() for weights in network.parameters())
    genes, noun = info.data.get("genes"), model_noun(info)
    seen = info.init.get("held_out_genes_it_learned_from", {})
    facts = {
        "Networks": f"{len(members)}, an ensemble" if len(members) > 1 else "1",
        "Parameters": f"{parameters:,}" + " each" * (len(members) > 1),
        "Code": getattr(network.config, "factory", None),
        "Targets": listed(info.targets, 20),
        "Window": around,
        f"{'Expression v' if noun == 'gene' else 'V'}alues": (
            {None: "as given", "none": "as given"}.get(info.transform, info.transform) if info.training else None
        ),
        f"{noun.capitalize()}s": f"{genes:,}" if genes else None,
        "Columns of the table": "; ".join(_LIBRARY_COLUMNS[name] for name in info.data.get("library", [])),
        "Split": _split_words(config.get("split") or {}, info),
        "Started from": info.init.get("model"),
        "Held out here, learned from there": ", ".join(f"{n:,} {name}" for name, n in seen.items() if n),
    }
    if len(members) == 1:
        if noun == "gene":
            facts |= {f"Chromosomes, {name}": listed(info.split.get(name, []), 30) for name in SPLITS}
        facts["Best epoch"] = info.training.get("best_epoch")
    checksums = {"data set": info.data.get("sha256")}
    checksums |= {f"model {member.source.removeprefix(f'{run}/')}": member.checksum for member in members}
    checksums |= {f"input {path}": checksum for path, checksum in (provenance.get("inputs") or {}).items()}
    settings = {
        "network": asdict(network.config),
        "training": {name: value for name, value in info.training.items() if name != "best_epoch"},
    }
    return {
        "trained": bool(info.training),
        "facts": {name: value for name, value in facts.items() if value},
        "versions": info.versions,
        "checksums": {name: value for name, value in checksums.items() if value},
        "settings": settings,
        "version": promoter.__version__,
    }


class _SplitSettings(TypedDict, total=False):
    by: str | None
    random: bool
    block_size: int
    homology: str


class _Provenance(TypedDict, total=False):
    inputs: dict[str, str]


class _RunConfig(TypedDict, total=False):
    """What the page shows of a run's `config.yaml`."""

    split: _SplitSettings | None
    provenance: _Provenance | None


def _read_config(run: UPath) -> _RunConfig:
    path = run / "config.yaml"
    if not path.exists():
        return {}
    config = read_yaml_as(path, _RunConfig, "train again into another folder")
    read_record(path)  # which checks its seal
    return config


def _split_words(split: _SplitSettings, info: ModelInfo) -> str | None:
    if not split:
        return None
    noun, columns = model_noun(info), info.data.get("library", [])
    by = "random" if split.get("random") else split.get("by")
    if noun == "sequence" and by in (None, "chromosome"):  # chosen by the columns that the table has
        by = "column" if "split" in columns else "group" if "group" in columns else "family"
    if by == "random":
        alike = "homologs and neighbours of held-out genes" if noun == "gene" else "sequences like held-out ones"
        return f"random {noun}s ({alike} are in the training set, which can inflate r)"
    alike = "homologous promoters" if noun == "gene" else "similar sequences"
    words = {
        "family": f"groups of {alike}",
        "block": f"regions of {split.get('block_size', 0):,} bases",
        "group": "the groups of the table, none of them divided",
        "column": "as the table's column split says",
    }.get(by or "", "whole chromosomes")
    homology = {
        "drop": "; homologs of held-out genes dropped",
        "move": "; groups divided by it are in the training set",
    }
    return words + homology.get(split.get("homology", ""), "")


def metrics_section(
    metrics: Metrics | None, targets: list[str], *, target: str, parts: PageParts
) -> dict[str, Any] | None:
    """Return the metrics of the network and the baselines by split and target."""
    if metrics is None:
        parts.left_out.append("Metrics: give as `model` the model/ in the folder that train wrote")
        return None
    rows = []
    for split in reversed(SPLITS):
        for name in targets[:_MAX_TARGETS]:
            if (values := metrics.get(split, {}).get(name)) is not None:
                rows.append({"split": split, "target": name, **values})
                if weighted := values.get("weighted"):
                    rows.append({"split": f"{split}, weighted", "target": name, **weighted})
    test = metrics["test"]
    baselines = [
        {"target": name, "model": model, **values}
        for name in targets[:_MAX_TARGETS]
        for model, values in test[name].get("baselines", {}).items()
    ]
    if baselines:
        parts.charts["beside_plain_models"] = charts.beside_baselines(_correlations(test[target]))
    else:
        parts.left_out.append("Baselines beside the network: train with `baselines=True`")
    clean = [
        {"target": name, **of_clean}
        for name in targets[:_MAX_TARGETS]
        if (of_clean := test[name].get("without_homologs")) is not None
    ]
    more = max(len(targets) - _MAX_TARGETS, 0)
    of_target = [row for row in baselines if row["target"] == target and row["pearson"] is not None]
    return {
        "rows": rows,
        "weighted": any("weighted" in row for row in rows),
        "verdicts": [{"target": name, **test[name]} for name in targets[:_MAX_TARGETS] if "verdict" in test[name]],
        "baselines": [{**row, "model": row["model"].replace("_", " ")} for row in baselines],
        "best_baseline": max(of_target, key=lambda row: row["pearson"], default=None),
        "clean": clean,
        "more": more,
        "test": test[target],
    }


def _correlations(test: TargetMetrics) -> pd.DataFrame:
    """Return r of the network and of each baseline, with intervals; earlier versions wrote none of baselines."""
    models = {"network": test, **test.get("baselines", {})}
    rows = []
    for name, values in models.items():
        if values["pearson"] is not None or name == "network":  # undefined for a constant
            low, high = values.get("pearson_ci95") or (np.nan, np.nan)
            rows.append({"model": name.replace("_", " "), "pearson": values["pearson"], "low": low, "high": high})
    return pd.DataFrame(rows)


def comparison_section(
    compare: AnyPath | None, metrics: Metrics | None, run: UPath, info: ModelInfo
) -> dict[str, Any] | None:
    """Return the test metrics of this run beside another run's."""
    if compare is None:
        return None
    other = storage.resolve(compare)
    other = other.parent if (other / DESCRIPTION).exists() else other
    other_metrics = read_metrics(other / "metrics.json")
    rows = []
    for name, folder, of_run in (("this run", run, metrics or {}), (other.name, other, other_metrics)):
        split = _read_config(folder).get("split") or {}
        for target in info.targets[:_MAX_TARGETS]:
            if (values := of_run.get("test", {}).get(target)) is not None:
                rows.append({"run": name, "split": _split_words(split, info) or "?", "target": target, **values})
    return {"rows": rows, "random": any(row["split"].startswith("random") for row in rows), "other": other.name}


def predicted_section(
    predictions: pd.DataFrame | None,
    metrics: Metrics | None,
    target: str,
    parts: PageParts,
    *,
    noun: str,
) -> dict[str, Any] | None:
    """Return errors by chromosome, where there are chromosomes, and the worst predictions of the test set."""
    located = noun == "gene"
    if predictions is None or not (predictions[target].notna() & predictions["split"].isin(SPLITS)).any():
        by_chromosome = ", error by chromosome" if located else ""
        parts.left_out.append(
            f"Predicted against observed{by_chromosome}: give as `model` the model/ in the folder that train "
            "wrote, with its predictions.parquet"
        )
        return None
    parts.charts["predicted_against_observed"] = charts.predicted_against_observed(predictions, target, noun)
    errors = charts.chromosome_errors(predictions, target) if located else pd.DataFrame()
    if len(errors):
        parts.charts["error_by_chromosome"] = charts.error_by_chromosome(errors, target)
    elif located:
        parts.left_out.append(f"Error by chromosome: no test gene has an observed value of {target}")
    held_out = predictions[(predictions["split"] == "test") & predictions[target].notna()]
    off = (held_out[f"{target}_predicted"] - held_out[target]).abs().sort_values(ascending=False)
    columns = {"gene_id": "gene", target: "observed", f"{target}_predicted": "predicted"}
    columns |= {"chrom": "chrom"} if located else {}
    worst = held_out.loc[off.index[:10]]
    worst = worst.assign(gene_id=gene_labels(worst))[list(columns)].rename(columns=columns)
    covered = metrics["test"][target].get("interval_coverage") if metrics else None
    most = errors.nlargest(60, "genes", keep="first").sort_index() if len(errors) else errors
    return {
        "genes": len(held_out),
        "errors": most.to_dict("records"),
        "chromosomes": len(errors),
        "worst": worst.to_dict("records"),
        "coverage": covered,
    }


def curves_section(run: UPath, members: list[SerializedModel], parts: PageParts) -> dict[str, Any] | None:
    """Return the epochs of each network and chart the learning curves."""
    histories = []
    for member in members:
        path = storage.resolve(member.source).parent / "history.csv"
        if path.exists():
            numbers = ("epoch", "train_mse", "val_mse", "val_pearson")
            history = _read_csv(path, "train again into another folder", numbers=numbers)
            best = deserialize_model(member)[1].training.get("best_epoch", np.nan)
            name = storage.resolve(member.source).parent.name if len(members) > 1 else "network"
            histories.append(history.assign(network=name, best=best))
    if not histories:
        parts.left_out.append("Learning curves: give as `model` the model/ in the folder that train wrote")
        return None
    history = pd.concat(histories, ignore_index=True)
    parts.charts["learning_curve_mse"] = charts.learning_curve(
        history, {"train_mse": "train", "val_mse": "val"}, "MSE"
    )
    parts.charts["learning_curve_r"] = charts.learning_curve(history, {"val_pearson": "val"}, "Pearson r")
    ends = []
    for name, rows in history.groupby("network", sort=False):
        best = rows[rows["epoch"] == rows["best"]]
        ends.append({"network": name, "epochs": len(rows), **(best.iloc[0].to_dict() if len(best) else {})})
    return {"networks": ends}


def leakage_section(run: UPath, parts: PageParts) -> dict[str, Any] | None:
    """Return the pairs of related genes that cross the split."""
    path = run / "leakage.csv"
    if not path.exists():
        parts.left_out.append("Leakage: train with this version, which writes leakage.csv")
        return None
    require_intact(path, FIX_FILE)
    leaks = read_leaks(path)
    if "identity" not in leaks:  # a run of an earlier version
        leaks["identity"] = np.nan
    counts = []
    for (split, other), rows in leaks[related(leaks)].groupby(["split", "other_split"], sort=True):
        genes = rows["gene_id"].nunique()
        counts.append({"split": split, "other": other, "genes": genes, "pairs": len(rows)})
    return {"counts": counts, "rows": leaks.head(_MAX_LEAKS).to_dict("records"), "pairs": len(leaks)}


def motifs_section(folder: AnyPath | None, parts: PageParts) -> dict[str, Any] | None:
    """Return the table of motifs with their logos."""
    if folder is None:
        parts.left_out.append("Motifs: find some with motifs, give their folder as `motifs`")
        return None
    where = storage.resolve(folder)
    storage.require_file(where / "motifs.tsv", "table of motifs")
    text = ("motif", "resembles?", "consensus?")
    numbers = ("q?", "seqlets?", "contribution?")
    fix = "give as `motifs` a folder that motifs wrote, or find the motifs again"
    table = _read_csv(where / "motifs.tsv", fix, text=text, numbers=numbers, sep="\t")
    rows = []
    for row in table.head(_MAX_MOTIFS).to_dict("records"):
        logo = where / "logos" / f"{row['motif']}.svg"
        inside = str(logo).startswith(f"{where / 'logos'}/") and ".." not in str(row["motif"])
        rows.append({**row, "logo": _image(logo) if inside else None})
    columns = [name for name in ("resembles", "q", "consensus", "seqlets", "contribution") if name in table]
    numbers = ("q", "seqlets", "contribution")
    return {"rows": rows, "columns": columns, "numbers": numbers, "more": max(len(table) - _MAX_MOTIFS, 0)}


def search_section(folder: AnyPath | None, parts: PageParts) -> dict[str, Any] | None:
    """Return a hyperparameter search's figures and best trials."""
    if folder is None:
        parts.left_out.append("Search: look for a better configuration with tune, give its folder as `search`")
        return None
    where = storage.resolve(folder)
    storage.require_file(where / "trials.csv", "table of trials")
    fix = "give as `search` a folder that tune wrote, or search again"
    columns_of_text = ("status", "reason?")
    trials = _read_csv(where / "trials.csv", fix, text=columns_of_text, numbers=("trial", "score", "epochs?"))
    captions = {
        "search_progress": "Score of each trial in order, and the best so far.",
        "score_by_setting": "Score against each setting that was searched.",
    }
    images = [
        {"name": name, "src": image, "words": words}
        for name, words in captions.items()
        if (image := _image(where / "figures" / f"{name}.svg"))
    ]
    importance = []
    if (where / "importance.csv").exists():
        table = _read_csv(where / "importance.csv", fix, text=["setting"], numbers=["importance", "trials?"])
        importance = table.head(_MAX_TRIALS).to_dict("records")
    hidden = ("reason", "seconds")
    columns = [name for name in map(str, trials) if name not in hidden and not name.startswith("fold_")]
    counts = trials["status"].value_counts().to_dict()
    return {
        "images": images,
        "trials": trials.head(_MAX_TRIALS)[columns].to_dict("records"),
        "columns": columns,
        "counts": counts,
        "importance": importance,
    }


def _image(path: UPath) -> str | None:
    """Return an SVG file as a data address; an image runs no script that the file may contain."""
    if not path.exists() or path.stat().st_size > _MAX_IMAGE_BYTES:
        return None
    require_intact(path, FIX_FILE)
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _read_csv(path: UPath, fix: str, **columns: Any) -> pd.DataFrame:
    """Read a table as `read_csv` does, and check it against the run's record."""
    require_intact(path, FIX_FILE)
    return read_csv(path, fix, **columns)
