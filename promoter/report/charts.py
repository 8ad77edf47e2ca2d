"""Draw the charts of the report: functions that take tables and return Vega-Lite charts, made with Altair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from promoter import storage
from promoter.dataset.gene_names import gene_labels
from promoter.labels import shown
from promoter.metrics import MIN_GENES_FOR_R
from promoter.palette import AXIS_COLOUR, GRID_COLOUR, SPLIT_COLOURS
from promoter.splits.config import SPLITS
from promoter.storage import AnyPath

_Altair: TypeAlias = "alt.Chart | alt.LayerChart | alt.FacetChart"
_MAX_POINTS = 40_000  # a gene takes some 50 bytes of the page
_MAX_CHROMOSOMES = 60
_FIGURE_WIDTH = 520  # pixels of a chart that is written as a file
_SVG_POINTS = 1_500  # more are drawn on a canvas, since each would be an element of the page
_QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
_VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


@dataclass(frozen=True)
class Chart:
    """Hold a chart apart from its data: Altair would check each row, and the page stores columns.

    Attributes:
        spec: Vega-Lite specification, which refers to its data by name.
        data: name -> table.
    """

    spec: dict[str, Any]
    data: dict[str, pd.DataFrame]


def predicted_against_observed(predictions: pd.DataFrame, target: str, noun: str = "gene") -> Chart:
    """Draw one point per gene; buttons choose the split, and the pointer shows a gene's id and name.

    Args:
        predictions: columns `gene_id`, `gene_name`, `chrom`, `split`, `TARGET`, `TARGET_predicted`, and for an
            ensemble `TARGET_low` and `TARGET_high`. Genes without an observed value are left out; beyond 40,000
            genes, some training genes drawn at random are left out too.
        target: name of the target.
        noun: what a row is called: gene (default), or sequence, which has no chromosome.
    """
    names = {"gene_id": "gene", "chrom": "chrom", "split": "split", target: "observed"}
    if noun == "sequence":
        del names["chrom"]
    names |= {f"{target}_{name}": name for name in ("predicted", "low", "high")}
    known = predictions[predictions[target].notna() & predictions["split"].isin(SPLITS)]
    known = known.assign(gene_id=gene_labels(known))
    table = known[[name for name in names if name in known]].rename(columns=names)
    if len(table) > _MAX_POINTS:
        held_out, rest = table[table["split"] != "train"], table[table["split"] == "train"]
        room = max(_MAX_POINTS - len(held_out), 0)
        table = pd.concat([held_out, rest.sample(min(room, len(rest)), random_state=0)])
    values = table[["observed", "predicted"]].to_numpy(float)
    low, high = float(values.min()), float(values.max())
    scale = alt.Scale(domain=[low - 0.03 * (high - low), high + 0.03 * (high - low)], nice=False)
    splits = [name for name in reversed(SPLITS) if (table["split"] == name).any()]
    radio = alt.binding_radio(options=splits, name=f"{noun}s ")
    shown = alt.param(name="shown", value=splits[0], bind=radio)
    tips = [alt.Tooltip("gene:N", title=noun)]
    tips += [alt.Tooltip("chrom:N", title="chromosome")] if "chrom" in names else []
    numbers = [name for name in ("observed", "predicted", "low", "high") if name in table]
    titles = {"low": "95% interval from", "high": "to"}
    tips += [alt.Tooltip(f"{name}:Q", format=".3f", title=titles.get(name, name)) for name in numbers]
    points = (
        _chart("genes")
        .transform_filter("datum.split === shown")
        .mark_circle(size=22, opacity=0.45)
        .encode(
            alt.X("observed:Q", scale=scale, title=_title(f"observed {target}")),
            alt.Y("predicted:Q", scale=scale, title=_title(f"predicted {target}")),
            _colour(splits, None),
            tips,
        )
        .add_params(shown)
    )
    ends = pd.DataFrame({"observed": [low, high], "predicted": [low, high]})
    diagonal = (
        _chart("ends")
        .mark_line(color=AXIS_COLOUR, strokeDash=[4, 4], strokeWidth=1)
        .encode(alt.X("observed:Q", scale=scale), alt.Y("predicted:Q", scale=scale))
    )
    return _finished(
        diagonal + points,
        {"genes": table, "ends": ends},
        380,
        f"Predicted against observed {target}, a point a {noun}.",
    )


def error_by_chromosome(errors: pd.DataFrame, target: str) -> Chart:
    """Draw the spread of predicted - observed on each chromosome, from the table of `chromosome_errors`.

    The 60 chromosomes with the most genes are drawn.
    """
    order = list(errors["chrom"])
    shown = errors.nlargest(_MAX_CHROMOSOMES, "genes", keep="first")
    y = alt.Y("chrom:N", sort=order, title=None)
    tips = [
        alt.Tooltip("chrom:N", title="chromosome"),
        *(alt.Tooltip(f"{name}:N") for name in ("split", "genes")),
        *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("bias", "rmse", "pearson")),
    ]
    base = _chart("chromosomes")
    whiskers = base.mark_rule(color=AXIS_COLOUR).encode(
        alt.X("q05:Q", title=_title(f"predicted \N{MINUS SIGN} observed {target}")),
        alt.X2("q95:Q"),
        y,
        tooltip=tips,
    )
    boxes = base.mark_bar(size=9).encode(
        alt.X("q25:Q"),
        alt.X2("q75:Q"),
        y,
        _colour(shown["split"], alt.Legend(orient="top", title=None)),
        tooltip=tips,
    )
    medians = base.mark_tick(color="black", thickness=2, size=9).encode(alt.X("median:Q"), y, tooltip=tips)
    zero = _chart("zero").mark_rule(color=AXIS_COLOUR, strokeDash=[4, 4])
    layers = zero.encode(alt.X("x:Q")) + whiskers + boxes + medians
    return _finished(
        layers,
        {"chromosomes": shown, "zero": pd.DataFrame({"x": [0.0]})},
        max(18 * len(shown), 60),
        f"Error of the predicted {target} by chromosome.",
    )


def chromosome_errors(predictions: pd.DataFrame, target: str) -> pd.DataFrame:
    """Summarise predicted - observed by chromosome.

    Returns:
        One row per chromosome, in the order of the predictions: `chrom`, `split`, `genes`, `bias` (mean), `rmse`,
        `pearson` (NaN for fewer than `MIN_GENES_FOR_R` genes), and the quantiles `q05`, `q25`, `median`, `q75`,
        `q95`. If the split divides chromosomes, only the test genes count; without any that has a value the table
        is empty.
    """
    split = predictions[predictions["split"].isin(SPLITS)]
    known = split[split[target].notna()]
    if split.groupby("chrom")["split"].nunique().gt(1).any():
        known = known[known["split"] == "test"]
    rows = []
    for chrom, genes in known.groupby("chrom", sort=False):
        observed = genes[target].to_numpy(float)
        predicted = genes[f"{target}_predicted"].to_numpy(float)
        error = predicted - observed
        varies = len(genes) >= MIN_GENES_FOR_R and observed.std() > 0 and predicted.std() > 0
        rows.append(
            {
                "chrom": chrom,
                "split": genes["split"].iloc[0],
                "genes": len(genes),
                "bias": error.mean(),
                "rmse": np.sqrt((error**2).mean()),
                "pearson": np.corrcoef(observed, predicted)[0, 1] if varies else np.nan,
                **{name: np.quantile(error, share) for name, share in _QUANTILES.items()},
            }
        )
    return pd.DataFrame(rows)


def beside_baselines(table: pd.DataFrame) -> Chart:
    """Draw Pearson's r of the network and of each baseline, with intervals.

    The table has columns `model`, `pearson`, `low`, `high`; the network comes first, and bounds may be NaN.
    """
    y = alt.Y("model:N", sort=list(table["model"]), title=None)
    tips = [alt.Tooltip("model:N"), *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("pearson", "low", "high"))]
    kinds = ["network", *["baseline"] * (len(table) - 1)]
    base = _chart("models")
    colours = alt.Scale(domain=["network", "baseline"], range=[SPLIT_COLOURS["test"], AXIS_COLOUR])
    colour = alt.Color("kind:N", scale=colours, legend=None)
    title = "Pearson r"
    ranges = base.mark_rule(strokeWidth=2).encode(alt.X("low:Q", title=title), alt.X2("high:Q"), y, colour)
    points = base.mark_circle(size=90, opacity=1).encode(alt.X("pearson:Q"), y, colour, tooltip=tips)
    return _finished(
        ranges + points,
        {"models": table.assign(kind=kinds)},
        26 * len(table),
        "Pearson r of the network beside baselines.",
    )


def agreement(table: pd.DataFrame) -> Chart:
    """Draw how far contributions agree, a tick a gene and the median: columns `method`, `gene_id`, `pearson`."""
    methods = list(table["method"].unique())
    y = alt.Y("method:N", sort=methods, title=None)
    x = alt.X("pearson:Q", title="Pearson r over the bases of a sequence", scale=alt.Scale(zero=False))
    tips = [alt.Tooltip("gene_id:N", title="sequence"), alt.Tooltip("pearson:Q", format=".3f")]
    ticks = _chart("sequences").mark_tick(opacity=0.35, color=AXIS_COLOUR).encode(x, y, tooltip=tips)
    medians = table.groupby("method", sort=False, as_index=False)["pearson"].median()
    middle = _chart("medians").mark_tick(thickness=3, size=24, color=SPLIT_COLOURS["test"]).encode(x, y)
    data = {"sequences": table, "medians": medians}
    return _finished(ticks + middle, data, 36 * len(methods), "Agreement with the scores drawn, by method.")


def learning_curve(history: pd.DataFrame, columns: dict[str, str], label: str) -> Chart:
    """Draw a metric by epoch.

    Args:
        history: columns `network`, `epoch`, `best` (the network's best epoch) and the metrics; one row per network
            and epoch.
        columns: name of a metric's column -> the split it was computed on.
        label: name of the metric, for the axis.
    """
    long = history.melt(["network", "epoch", "best"], list(columns), "split", "value")
    long["split"] = long["split"].map(columns)
    y = alt.Y("value:Q", title=label, scale=alt.Scale(zero=False))
    x = alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1))
    tips = [alt.Tooltip(f"{name}:N") for name in ("network", "epoch", "split")]
    tips.append(alt.Tooltip("value:Q", format=".4g", title=label))
    lines = (
        _chart("epochs")
        .mark_line(point=alt.OverlayMarkDef(size=14), strokeWidth=1.5)
        .encode(
            x,
            y,
            _colour(columns.values(), alt.Legend(orient="top", title=None)),
            alt.Detail("network:N"),
            tips,
        )
    )
    best = pd.DataFrame({"epoch": history["best"].unique()})
    rules = _chart("best").mark_rule(color=AXIS_COLOUR, strokeDash=[4, 4]).encode(x)
    return _finished(
        rules + lines, {"epochs": long, "best": best}, 220, f"{label} by epoch; dashed: the best epoch."
    )


def r_by_training_size(curve: pd.DataFrame, noun: str = "gene") -> Chart:
    """Draw Pearson's r by the number of training sequences, with 95% intervals as bands.

    The table has columns `sequences`, `model` (`network`, and a baseline), `pearson`, `low`, `high`.
    """
    models = list(curve["model"].unique())
    colours = alt.Scale(domain=models, range=[SPLIT_COLOURS["test"], *[AXIS_COLOUR] * (len(models) - 1)])
    colour = alt.Color("model:N", scale=colours, legend=alt.Legend(orient="top", title=None, symbolOpacity=1))
    sizes = sorted(curve["sequences"].unique().tolist())
    x = alt.X(
        "sequences:Q",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(values=sizes, format=",", grid=False),
        title=f"training {noun}s",
    )
    tips = [alt.Tooltip("model:N"), alt.Tooltip("sequences:Q", format=",")]
    tips += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("pearson", "low", "high")]
    base = _chart("curve")
    bands = base.mark_area(opacity=0.18).encode(
        x, alt.Y("low:Q", title="Pearson r", scale=alt.Scale(zero=False)), alt.Y2("high:Q"), colour
    )
    points = alt.OverlayMarkDef(size=50, filled=True)
    lines = base.mark_line(point=points, strokeWidth=2).encode(x, alt.Y("pearson:Q"), colour, tooltip=tips)
    text = f"Pearson r of the test {noun}s by the number of training {noun}s."
    return _finished(bands + lines, {"curve": curve}, 260, text)


def packed(chart: Chart) -> dict[str, Any]:
    """Return a chart for the page: `spec`, as wide as its container; `data`, by column; `renderer`."""
    columns = {name: _plain(table).to_dict("list") for name, table in chart.data.items()}
    points = max(len(table) for table in chart.data.values())
    renderer = "canvas" if points > _SVG_POINTS else "svg"
    return {"spec": {**chart.spec, "width": "container"}, "data": columns, "renderer": renderer}


def visible(value: Any) -> Any:
    """Return plain values, as JSON has them, with each text as `shown`."""
    if isinstance(value, dict):
        return {key: visible(item) for key, item in value.items()}
    if isinstance(value, list):
        return [visible(item) for item in value]
    return shown(value) if isinstance(value, str) else value


def javascript() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script, which defines `vegaEmbed` on the page."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", _VEGA_LITE)


def write_chart(folder: AnyPath, name: str, chart: Chart) -> None:
    """Write NAME.svg and NAME.png into a folder, local or remote."""
    rows = {name: _plain(table).to_dict("records") for name, table in chart.data.items()}
    spec = visible({**chart.spec, "width": _FIGURE_WIDTH, "datasets": rows})
    where = storage.resolve(folder)
    storage.write_text(where / f"{name}.svg", vl_convert.vegalite_to_svg(spec, _VEGA_LITE))
    with storage.open_atomic(where / f"{name}.png") as file:
        file.write(vl_convert.vegalite_to_png(spec, _VEGA_LITE, scale=2))


def _chart(data: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=data))


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Prepare a table for JSON: round numbers to four digits, replace NaN by None."""
    return pd.DataFrame(
        {name: [_rounded(value) for value in column.tolist()] for name, column in table.items()}, dtype=object
    )


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _colour(splits: Iterable[str], legend: alt.Legend | None) -> alt.Color:
    """Colour by split; only the splits that occur, so that the legend lists no others."""
    known = [name for name in SPLITS if name in set(splits)]
    scale = alt.Scale(domain=known, range=[SPLIT_COLOURS[name] for name in known])
    return alt.Color("split:N", scale=scale, legend=legend)


def _title(text: str) -> str:
    r"""Return a title with names from files; Vega-Lite reads `\x1b` in one as an escape letter."""
    return text.replace("\\", "\N{REVERSE SOLIDUS OPERATOR}")


def _finished(chart: _Altair, data: dict[str, pd.DataFrame], height: int, description: str) -> Chart:
    font = "system-ui, DejaVu Sans, sans-serif"
    styled = (
        chart.properties(height=height, description=_title(description))
        .configure(
            font=font, background="transparent", autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
        )
        .configure_view(stroke=None)
        .configure_axis(
            gridColor=GRID_COLOUR,
            domainColor=AXIS_COLOUR,
            tickColor=AXIS_COLOUR,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            labelLimit=130,
        )
        .configure_legend(labelFontSize=12)
    )
    return Chart(styled.to_dict(), data)
