"""Build one HTML file about a run, readable offline: what was trained, how good it is, and why it predicts so.

Everything on the page comes from the files of a run, and of ism, motifs and tune. It loads nothing:
its content security policy forbids that, and runs only the two scripts that the page was written with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from promoter import plots, storage
from promoter.checkpoint import DESCRIPTION, SerializedModel, deserialize_ensemble
from promoter.errors import InputError
from promoter.evaluation.evaluate import read_metrics
from promoter.evaluation.predictions import read_predictions
from promoter.ism.contents import ISM
from promoter.labels import shown
from promoter.model_argument import BY_CODE, open_models
from promoter.palette import BASE_COLOURS, UNKNOWN_BASE_COLOUR
from promoter.report import charts
from promoter.report.agreement import agreement_section
from promoter.report.browser_links import require_assembly
from promoter.report.genes import choose, first_scored, read_hits, view_genes
from promoter.report.sections import (
    PageParts,
    comparison_section,
    curves_section,
    leakage_section,
    metrics_section,
    model_noun,
    model_section,
    motifs_section,
    predicted_section,
    search_section,
)
from promoter.report.training_size import training_size_section
from promoter.storage import AnyPath

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Report:
    """Hold a report.

    Attributes:
        html: the page.
        genes: ids of the genes drawn.
        left_out: for each section without files, how to make them.
        write_figures: function that writes each figure as SVG and PNG into a folder, and returns their names.
        noun: what a row of the data is called: gene, or sequence where the model is of a library.
    """

    html: str
    genes: list[str]
    left_out: list[str]
    write_figures: Callable[[AnyPath], list[str]]
    noun: str


def build_report(
    model: AnyPath,
    members: Sequence[SerializedModel] | None = None,
    *,
    scores: AnyPath | None = None,
    attributions: Sequence[AnyPath] = (),
    genes: Sequence[str] | None = None,
    show: int = 3,
    target: str | None = None,
    motifs: AnyPath | None = None,
    search: AnyPath | None = None,
    compare: AnyPath | None = None,
    assembly: str | None = None,
) -> Report:
    """Build the page about a run of one or several networks.

    Args:
        model: model directory of a run, or the folder of a run; or `external:package.module:function`.
        members: the models, as `promoter.model_argument.open_models` returns them; None (default): those in
            `model`.
        scores: folder that ism or attribute wrote with this model; None (default) leaves out the section on genes.
        attributions: folders that attribute wrote with this model, to be compared with `scores`; none by default.
        genes: ids of genes to draw in addition to the chosen ones.
        show: number of genes to choose of each kind: highest, lowest and worst predicted (default 3).
        target: name of the target to draw figures of (default: the first that has scores); the tables of metrics
            show the first 50 targets.
        motifs: folder that motifs wrote; None (default) leaves out the section.
        search: folder that tune wrote; None (default) means the run's own folder, if it is a search.
        compare: folder of another run to compare metrics with; None (default) leaves out the section.
        assembly: UCSC's or Ensembl's name of the genome assembly, for links to their browsers; None (default)
            makes no links.

    Raises:
        InputError: a file is missing or damaged, the scores are of another model, a gene has no scores, the
            target or the assembly is unknown, or an assembly was given for sequences without coordinates.
    """
    if show < 0:
        raise InputError("must be at least 0", setting="show", value=show)
    assembly = require_assembly(assembly) if assembly else None
    if genes and scores is None:
        raise InputError("their logos need `scores`", setting="genes", fix="make them with ism")
    members = list(members or open_models([model]))
    network, info = deserialize_ensemble(members)
    if target is not None and target not in info.targets:
        fix = f"there are {', '.join(info.targets)}"
        raise InputError("is not of the model", setting="target", value=target, fix=fix)
    target = target or first_scored(info.targets, scores)
    where = storage.resolve(model)
    run = where.parent if (where / DESCRIPTION).exists() else where
    if search is None and (run / "trials.csv").exists():
        search = run
    parts = PageParts()
    metrics, predictions = None, None
    if (run / "metrics.json").exists():
        metrics = read_metrics(run / "metrics.json", info.targets)
    if (run / "predictions.parquet").exists():
        predictions = read_predictions(run / "predictions.parquet", [target, f"{target}_predicted"])
    chosen = None
    if scores is not None:
        chosen = choose(scores, members, predictions, named=genes or (), each=show, target=target)
    noun = model_noun(info)
    scored_noun = chosen.contents.noun if chosen else noun
    if assembly and scored_noun == "sequence":
        problem = "the sequences have no coordinates"
        raise InputError(problem, setting="assembly", value=assembly, fix="leave it out")
    page = {
        "noun": noun,
        "scored_noun": scored_noun,
        "run": run.name,
        "folder": str(model if str(model).startswith(BY_CODE) else run),
        "target": target,
        "other_targets": len(info.targets) - 1,
        "both_strands": chosen.contents.both_strands if chosen else False,
        "estimates": chosen.contents.method_name if chosen and chosen.contents.method != ISM else None,
        "model": model_section(run, members, network, info),
        "metrics": metrics_section(metrics, info.targets, target=target, parts=parts),
        "compare": comparison_section(compare, metrics, run, info),
        "predicted": predicted_section(predictions, metrics, target, parts, noun=noun),
        "curves": curves_section(run, members, parts),
        "sizes": training_size_section(run, target, parts, noun=noun),
        "leaks": leakage_section(run, parts),
        "motifs": motifs_section(motifs, parts),
        "agreement": agreement_section(chosen, attributions, members, parts),
        "search": search_section(search, parts),
    }
    views = view_genes(chosen, read_hits(motifs, chosen.contents.genes), assembly) if chosen else []
    page["genes"] = [view.page for view in views]
    for view in views:
        name = f"{scored_noun}_{re.sub(r'[^A-Za-z0-9._-]+', '_', view.page['id'])[:80]}"
        while name in parts.figures:  # two ids may give the same file name
            name += "_"
        parts.figures[name] = view.draw
    if chosen is None:
        rows = f"{noun.capitalize()}s"
        parts.left_out.append(f"{rows} base by base: score some with ism, give their folder as `scores`")
    shown = [view.page["id"] for view in views]
    return Report(_render(page, parts), shown, parts.left_out, partial(_write_figures, parts), noun)


def _write_figures(parts: PageParts, folder: AnyPath) -> list[str]:
    for name, chart in parts.charts.items():
        charts.write_chart(folder, name, chart)
    for name, draw in parts.figures.items():
        plots.write_figure(folder, name, draw())
    return [*parts.charts, *parts.figures]


def _render(page: dict[str, Any], parts: PageParts) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown(value) if type(value) is str else value,  # not of Markup, which is ours
    )
    environment.filters |= {"number": _number, "interval": _interval, "embedded": _embedded}
    scripts = [_script(charts.javascript()), _script((_TEMPLATES / "report.js").read_text())]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    drawn = {name: charts.packed(chart) for name, chart in parts.charts.items()}
    return environment.get_template("report.html").render(
        page,
        charts=drawn,
        base_colours=json.dumps({**BASE_COLOURS, "N": UNKNOWN_BASE_COLOUR}),
        left_out=parts.left_out,
        style=Markup((_TEMPLATES / "report.css").read_text()),  # noqa: S704 # our own file
        scripts=[Markup(script) for script in scripts],  # noqa: S704 # our own file, and Vega
        hashes=hashes,
    )


def _script(text: str) -> str:
    """Escape what could end the script element; in JavaScript these texts occur in strings only."""
    return text.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _embedded(value: Any) -> Markup:
    """Return a value as JSON for a script element, without <, > and &, which could end it."""
    text = json.dumps(charts.visible(value), separators=(",", ":"), allow_nan=False)
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
    """Replace the hyphen of a number by a minus sign, which is as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")
