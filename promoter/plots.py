"""Draw figures: functions that take tables or arrays and return figures or axes, for notebooks and jobs."""

from __future__ import annotations

import io
import logging

import logomaker
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from promoter import storage
from promoter.labels import shown
from promoter.palette import BASE_COLOURS, TRIAL_COLOURS
from promoter.sequence import BASES, encode
from promoter.storage import AnyPath

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # warns that its first run takes a moment
_MAX_LETTERS = 300  # more are too narrow to read, and logomaker takes some 4 ms for each
_PANEL_WIDTH, _PANEL_HEIGHT, _COLUMNS = 3.2, 2.6, 4


def search_progress(trials: pd.DataFrame, label: str, larger_is_better: bool) -> Figure:
    """Draw each trial's score in the order of trials, and the best so far.

    Args:
        trials: one row per trial, columns `trial`, `status` (`finished`, `stopped`, …) and `score`.
        label: name of the score, for the axis.
        larger_is_better: whether a larger score is better.
    """
    shown = trials[np.isfinite(trials["score"].astype(float))].sort_values("trial")
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    _points(axes, shown, shown["trial"])
    best = shown["score"].cummax() if larger_is_better else shown["score"].cummin()
    axes.step(shown["trial"], best, where="post", color=TRIAL_COLOURS["best"], label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(frameon=False, loc="outside upper right", ncols=3)  # within the axes it may hide a trial
    return figure


def score_by_setting(trials: pd.DataFrame, settings: list[str], ranges: dict[str, bool], label: str) -> Figure:
    """Draw the score against each setting, a panel each.

    Args:
        trials: columns `status`, `score` and one per setting; a trial without a setting is left out of its panel.
        settings: names of the columns, in the order of the panels.
        ranges: setting that takes any number in a range -> whether its scale is logarithmic; other settings take a
            few values.
        label: name of the score, for the axis.
    """
    rows = -(-len(settings) // _COLUMNS)
    columns = min(len(settings), _COLUMNS)
    figure = new_figure(_PANEL_WIDTH * columns, _PANEL_HEIGHT * rows)
    panels = np.ravel(figure.subplots(rows, columns, sharey=True, squeeze=False))
    scored = trials[np.isfinite(trials["score"].astype(float))]
    for panel, setting in zip(panels, settings, strict=False):
        shown = scored[scored[setting].notna()]
        values = shown[setting].astype(str)
        if setting in ranges:
            _points(panel, shown, shown[setting].astype(float))
            if ranges[setting]:
                panel.set_xscale("log")
                drawn = shown[setting].astype(float)
                decades = np.log10(drawn.max() / drawn.min())
                steps = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 2.5 else (1,)  # labels have room
                panel.xaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
                panel.xaxis.set_major_formatter("{x:g}")
                panel.xaxis.set_minor_formatter(NullFormatter())
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


def logo(
    contributions: np.ndarray,
    *,
    start: int | None = None,
    strand: str = "+",
    tss: int | None = None,
    chrom: str | None = None,
    first: int = 0,
    axes: Axes | None = None,
) -> Axes:
    """Draw a region's actual contributions as letters: upwards if they raise the prediction, else downwards.

    Above 300 bases each letter becomes a bar of its base's colour, since letters would be too narrow to read.

    Args:
        contributions: actual ones (`promoter.ism.actual_contributions` of a gene and target, or some columns of
            it), shape (4, length), ACGT, 5'→3' along the gene; an N is four zeros.
        start: start of the region on the chromosome, `[start, start + length)` on either strand; None (default)
            draws no genomic axis.
        strand: strand of the gene (default `+`); on `-` the genomic coordinates on the upper axis descend.
        tss: position of the TSS; the lower axis then shows the distance to it, else (None, the default) the
            position in the sequence.
        chrom: name of the chromosome, for the upper axis.
        first: position of the region's first base in its sequence, 0-based (default 0), for the lower axis where
            there is no `start`.
        axes: axes to draw into; None (default) makes a new pyplot figure.

    Returns:
        The axes; the letter at distance d is at x = d, one wide.

    Raises:
        ValueError: another shape, more than one base with a contribution at a position, or tss without start.
    """
    length = _require_bases(contributions, "contributions")
    if (np.count_nonzero(contributions, axis=0) > 1).any():
        raise ValueError(
            "contributions has several bases at a position: give actual ones, hypothetical ones times one-hot"
        )
    axes = axes if axes is not None else _new_axes(length, 2.4)
    x = _label_positions(axes, length, start=start, strand=strand, tss=tss, chrom=chrom, first=first)
    if length <= _MAX_LETTERS and contributions.any():
        table = pd.DataFrame(contributions.T, index=x, columns=list(BASES))
        logomaker.Logo(table, ax=axes, color_scheme=BASE_COLOURS, baseline_width=0, font_weight="bold")
    elif contributions.any():
        for base, heights in zip(BASES, contributions, strict=True):
            shown = heights != 0
            axes.bar(x[shown], heights[shown], width=1, color=BASE_COLOURS[base], label=base)
        axes.legend(frameon=False, ncols=len(BASES), loc="upper left", handlelength=0.8, columnspacing=1)
    axes.set_xlim(x[0] - 0.5, x[-1] + 0.5)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.margins(y=0.05)
    axes.autoscale(axis="y")
    axes.set_ylabel("contribution")
    axes.spines["right"].set_visible(False)
    return axes


def mutation_map(
    scores: np.ndarray,
    sequence: str,
    *,
    start: int | None = None,
    strand: str = "+",
    tss: int | None = None,
    chrom: str | None = None,
    first: int = 0,
    axes: Axes | None = None,
) -> Axes:
    """Draw the effect of each substitution on the prediction: one row per base, red up, blue down, white none.

    Args:
        scores: differences of predictions (ISM scores of a gene and target), shape (4, length), ACGT.
        sequence: the reference sequence, 5'→3' along the gene; each base is marked by a dot, an N by none. Above
            300 bases there is no room for dots.
        start: start of the region on the chromosome; None (default) draws no genomic axis.
        strand: strand of the gene (default `+`).
        tss: position of the TSS; the lower axis then shows the distance to it.
        chrom: name of the chromosome, for the upper axis.
        first: position of the region's first base in its sequence, 0-based (default 0), where there is no `start`.
        axes: axes to draw into; None (default) makes a new pyplot figure.

    Raises:
        ValueError: another shape, a sequence of another length, or tss without start.
    """
    length = _require_bases(scores, "scores")
    if len(sequence) != length:
        raise ValueError(f"sequence has {len(sequence)} bases, scores has {length}")
    axes = axes if axes is not None else _new_axes(length, 1.8)
    x = _label_positions(axes, length, start=start, strand=strand, tss=tss, chrom=chrom, first=first)
    largest = float(np.abs(scores).max()) or 1.0
    image = axes.imshow(
        scores,
        cmap="RdBu_r",  # told apart by the colour-blind, too
        vmin=-largest,
        vmax=largest,
        aspect="auto",
        interpolation="nearest",
        extent=(x[0] - 0.5, x[-1] + 0.5, len(BASES) - 0.5, -0.5),
    )
    if length <= _MAX_LETTERS:
        tokens = encode(sequence)
        known = tokens < len(BASES)
        axes.scatter(x[known], tokens[known], s=9 if length <= 150 else 3, color="black", linewidths=0)
    axes.set_yticks(range(len(BASES)), list(BASES))
    axes.tick_params(axis="y", length=0)
    # beside the axes, and not a part of their width, so that panels above and below stay aligned
    beside = axes.inset_axes((1.01, 0, 0.012, 1))
    axes.figure.colorbar(image, cax=beside, label="change of\nprediction")
    return axes


def motif_logo(folder: AnyPath, name: str, frequencies_AL: np.ndarray, contributions_AL: np.ndarray) -> None:
    """Draw a motif by its mean contributions and by the information of its bases, as NAME.svg and NAME.png.

    Args:
        folder: output folder, local or remote.
        name: name of the files, without suffix.
        frequencies_AL: frequencies of the bases, shape (4, width); columns sum to 1.
        contributions_AL: mean actual contributions in target units, same shape.
    """
    width = _require_bases(frequencies_AL, "frequencies")
    figure = new_figure(max(width * 0.3, 3), 3.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    logs = np.log2(np.maximum(frequencies_AL, 1e-9))
    bits_AL = frequencies_AL * (np.log2(len(BASES)) + (frequencies_AL * logs).sum(axis=0))
    for axes, values_AL, label in ((upper, contributions_AL, "contribution"), (lower, bits_AL, "bits")):
        table = pd.DataFrame(values_AL.T, columns=list(BASES))
        logomaker.Logo(table, ax=axes, color_scheme=BASE_COLOURS, baseline_width=0.5, font_weight="bold")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    lower.set_ylim(0, 2)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    write_figure(folder, name, figure)


def write_figure(folder: AnyPath, name: str, figure: Figure) -> None:
    """Write NAME.svg and NAME.png into a folder, local or remote; equal figures give equal files."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:  # the last digits of a layout depend on where its objects lie in memory
        axes.set_position(Bbox(axes.get_position().get_points().round(6)))
    for kind, metadata in (("svg", {"Date": None}), ("png", {})):
        buffer = io.BytesIO()
        with plt.rc_context({"svg.hashsalt": name}):  # ids in an SVG are random otherwise
            figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
        with storage.open_atomic(storage.resolve(folder) / f"{name}.{kind}") as file:
            file.write(buffer.getvalue())


def figure_label(name: str) -> str:
    """Return a name from a file for a text of a figure: visible, and not as a formula, which two $ would begin."""
    return shown(name).replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, which neither needs a display nor shows in a notebook."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _new_axes(length: int, height: float) -> Axes:
    """Return axes of a pyplot figure, which a notebook shows, wide enough for letters as far as a page is."""
    _, axes = plt.subplots(figsize=(min(max(length * 0.12, 4), 14), height), layout="constrained")
    return axes


def _require_bases(values: np.ndarray, name: str) -> int:
    if values.ndim != 2 or values.shape[0] != len(BASES) or values.shape[1] == 0:
        raise ValueError(f"{name} has shape {values.shape}; give (4, length), of one gene and one target")
    return values.shape[1]


def _label_positions(
    axes: Axes, length: int, *, start: int | None, strand: str, tss: int | None, chrom: str | None, first: int
) -> np.ndarray:
    """Label the lower axis along the gene and the upper one along the chromosome; return each base's x."""
    if start is None and tss is not None:
        raise ValueError(f"tss {tss} without start: where the window begins must be known, too")
    if strand not in ("+", "-"):
        raise ValueError(f"strand {strand!r} must be + or -")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if start is None:
        axes.set_xlabel("position in the sequence (5'→3', from 0)")
        return np.arange(first, first + length)
    step = 1 if strand == "+" else -1
    five_prime = start if strand == "+" else start + length - 1  # the genomic position of the 5' end
    x0 = 0 if tss is None else (five_prime - tss) * step
    axes.set_xlabel("position (5'→3')" if tss is None else "distance to the TSS (bases)")

    def on_genome(x: ArrayLike) -> np.ndarray:
        return five_prime + (np.asarray(x) - x0) * step

    def along_gene(position: ArrayLike) -> np.ndarray:
        return x0 + (np.asarray(position) - five_prime) * step

    upper = axes.secondary_xaxis("top", functions=(on_genome, along_gene))
    upper.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    upper.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    upper.set_xlabel(f"{figure_label(chrom or 'chromosome')} ({strand}), 0-based")
    if x0 <= 0 <= x0 + length - 1 and tss is not None:
        axes.axvline(0, color="grey", linewidth=0.8, linestyle=":", zorder=0)
    return np.arange(x0, x0 + length)


def _points(axes: Axes, shown: pd.DataFrame, x: pd.Series) -> None:
    for status in ("stopped", "finished"):
        some = (shown["status"] == status).to_numpy()
        if some.any():
            axes.scatter(
                x[some], shown["score"][some], s=18, color=TRIAL_COLOURS[status], label=status, alpha=0.8, lw=0
            )
    axes.spines[["top", "right"]].set_visible(False)


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return np.inf, text
