"""Figures: functions that take tables and return matplotlib figures, for notebooks and for the jobs."""

from __future__ import annotations

import io
import logging

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from promoter import storage
from promoter.storage import AnyPath

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # warns that its first run takes a moment
_COLOURS = {"finished": "#0b6e99", "stopped": "#9aa5b1", "best": "#c8442d"}  # told apart by the colour-blind, too
_PANEL_WIDTH, _PANEL_HEIGHT, _COLUMNS = 3.2, 2.6, 4


def search_progress(trials: pd.DataFrame, label: str, larger_is_better: bool) -> Figure:
    """Draw each trial's score in the order of trials, and the best so far.

    Args:
        trials: `trial`, `status` (`finished`, `stopped`, …) and `score`, a row a trial.
        label: of the score.
        larger_is_better: else smaller.
    """
    shown = trials[np.isfinite(trials["score"].astype(float))].sort_values("trial")
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    _points(axes, shown, shown["trial"])
    best = shown["score"].cummax() if larger_is_better else shown["score"].cummin()
    axes.step(shown["trial"], best, where="post", color=_COLOURS["best"], label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="lower right" if larger_is_better else "upper right")
    return figure


def score_by_setting(trials: pd.DataFrame, settings: list[str], ranges: dict[str, bool], label: str) -> Figure:
    """Draw the score against each setting, a panel each.

    Args:
        trials: `status`, `score` and a column a setting; a trial without a setting is left out of its panel.
        settings: names of the columns, in the order of the panels.
        ranges: settings that take any number in a range -> whether on a logarithmic scale; others take few values.
        label: of the score.
    """
    rows = -(-len(settings) // _COLUMNS)
    columns = min(len(settings), _COLUMNS)
    figure = _figure(_PANEL_WIDTH * columns, _PANEL_HEIGHT * rows)
    panels = np.ravel(figure.subplots(rows, columns, sharey=True, squeeze=False))
    scored = trials[np.isfinite(trials["score"].astype(float))]
    for panel, setting in zip(panels, settings, strict=False):
        shown = scored[scored[setting].notna()]
        values = shown[setting].astype(str)
        if setting in ranges:
            _points(panel, shown, shown[setting].astype(float))
            if ranges[setting]:
                panel.set_xscale("log")
        else:  # a few values: side by side, and jittered, since points at one place hide each other
            order = sorted(values.unique(), key=_as_number)
            place = values.map(order.index).astype(float)
            spread = np.random.default_rng(0).uniform(-0.15, 0.15, len(place))
            _points(panel, shown, place + spread)
            panel.set_xticks(range(len(order)), order)
            panel.set_xlim(-0.5, len(order) - 0.5)
            if sum(map(len, order)) > 24:
                panel.tick_params(axis="x", labelrotation=30)
        panel.set_xlabel(setting)
    handles, labels = max((panel.get_legend_handles_labels() for panel in panels), key=lambda found: len(found[1]))
    figure.legend(handles, labels, frameon=False, loc="outside upper right", ncols=2)
    for panel in panels[: len(settings) : columns]:
        panel.set_ylabel(label)
    for panel in panels[len(settings) :]:
        panel.set_visible(False)
    return figure


def write_figure(folder: AnyPath, name: str, figure: Figure) -> None:
    """Write NAME.svg and NAME.png into a folder, local or remote."""
    for kind in ("svg", "png"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150)
        with storage.open_whole(storage.resolve(folder) / f"{name}.{kind}") as file:
            file.write(buffer.getvalue())


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no display, and no state shared with a notebook's pyplot
    return figure


def _points(axes: Axes, shown: pd.DataFrame, x: pd.Series) -> None:
    for status in ("stopped", "finished"):
        some = (shown["status"] == status).to_numpy()
        if some.any():
            axes.scatter(
                x[some], shown["score"][some], s=18, color=_COLOURS[status], label=status, alpha=0.8, linewidths=0
            )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return np.inf, text
