from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from promoter import plots
from promoter.ism import actual_contributions, hypothetical_contributions
from promoter.palette import BASE_COLOURS
from promoter.sequence import BASES, encode, one_hot

TRIALS = pd.DataFrame(
    {
        "trial": [1, 2, 3, 4],
        "status": ["finished", "stopped", "failed", "finished"],
        "score": [0.2, 0.1, np.nan, 0.4],
        "training.learning_rate": [1e-3, 1e-4, 1.0, 1e-2],
        "model.kernel_sizes.0": pd.Series([7, 15, 7, 15], dtype=object),
        "model.crop": pd.Series([None, 500, None, 250], dtype=object),
    }
)
SETTINGS = ["training.learning_rate", "model.kernel_sizes.0", "model.crop"]


def drawn(figure: Figure, panel: int) -> np.ndarray:
    """Return the points of a panel, (points, 2)."""
    return np.concatenate([np.asarray(one.get_offsets()) for one in figure.axes[panel].collections])


def test_the_plot_of_progress_shows_each_scored_trial_and_the_best_so_far() -> None:
    for larger, best in ((True, [0.2, 0.2, 0.4]), (False, [0.2, 0.1, 0.1])):
        figure = plots.search_progress(TRIALS.sample(frac=1, random_state=0), "r", larger)
        points = drawn(figure, 0)
        assert sorted(map(tuple, points)) == [(1, 0.2), (2, 0.1), (4, 0.4)]
        assert figure.axes[0].lines[0].get_ydata() == pytest.approx(best)


def test_the_plot_of_settings_has_a_panel_a_setting_with_the_trials_that_have_it() -> None:
    figure = plots.score_by_setting(TRIALS, SETTINGS, {"training.learning_rate": True}, "r")
    rate, kernel, crop = (drawn(figure, panel) for panel in range(3))
    assert sorted(map(tuple, rate)) == [(1e-4, 0.1), (1e-3, 0.2), (1e-2, 0.4)]
    assert figure.axes[0].get_xscale() == "log"
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["7", "15"]  # by number
    assert {(round(x), y) for x, y in kernel} == {(0, 0.2), (1, 0.1), (1, 0.4)}
    assert {(round(x), y) for x, y in crop} == {(1, 0.1), (0, 0.4)}  # 250, 500; None has no crop


def test_figures_of_a_search_are_written_as_svg_and_png(tmp_path: Path) -> None:
    plots.write_figure(tmp_path, "progress", plots.search_progress(TRIALS, "r", True))
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "progress.svg").read_text()


SEQUENCE = "TATAAAANGCTAGCTTACGATCGGATNNCA"
START = 1_000_000


def some_scores(sequence: str, seed: int = 0) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(size=(4, len(sequence)))
    for position, letter in enumerate(sequence):
        if letter != "N":
            scores[BASES.index(letter), position] = 0
    return scores


def contributions_of(sequence: str) -> np.ndarray:
    return actual_contributions(some_scores(sequence)[None, None], encode([sequence]))[0, 0]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize(("strand", "tss"), [("+", START + 25), ("-", START + 25), ("-", START - 3), ("+", None)])
def test_each_letter_is_as_high_as_its_contribution_and_stands_at_its_distance(
    strand: str, tss: int | None
) -> None:
    contributions = contributions_of(SEQUENCE)
    axes = plots.logo(contributions, start=START, strand=strand, tss=tss)
    letters = {round(one.get_path().get_extents().get_points()[:, 0].mean()): one for one in axes.patches}
    for position, letter in enumerate(SEQUENCE):
        on_genome = START + position if strand == "+" else START + len(SEQUENCE) - 1 - position
        x = position
        if tss is not None:
            x = on_genome - tss if strand == "+" else tss - on_genome
        if letter == "N":
            assert x not in letters
            continue
        height = contributions[BASES.index(letter), position]
        drawn_letter = letters.pop(x)
        (left, low), (right, high) = drawn_letter.get_path().get_extents().get_points()
        assert x - 0.5 <= left < right <= x + 0.5
        assert (low, high) == pytest.approx((min(height, 0), max(height, 0)))
        assert to_hex(drawn_letter.get_facecolor()) == BASE_COLOURS[letter]
    assert not letters
    low, high = axes.get_ylim()
    assert low < contributions.min()
    assert high > contributions.max()


@pytest.mark.parametrize("draw", ["logo", "mutation_map"])
@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("tss", [START + 11, START - 70, None])
def test_both_axes_of_a_mutation_map_name_the_base_at_a_position(draw: str, strand: str, tss: int | None) -> None:
    """Each tick's label, above and below, against the base whose place it is drawn at."""
    axes = (
        plots.logo(contributions_of(SEQUENCE), start=START, strand=strand, tss=tss, chrom="chr3")
        if draw == "logo"
        else plots.mutation_map(some_scores(SEQUENCE), SEQUENCE, start=START, strand=strand, tss=tss, chrom="chr3")
    )
    axes.figure.canvas.draw()
    place = axes.get_window_extent()
    upper = next(one for one in axes.child_axes if isinstance(one, SecondaryAxis))
    seen = {"upper": [], "lower": []}
    for name, axis in (("upper", upper.xaxis), ("lower", axes.xaxis)):
        for tick in axis.get_major_ticks():
            across = tick.tick1line.get_transform().transform((tick.get_loc(), 0))[0]
            position = (across - place.x0) / place.width * len(SEQUENCE) - 0.5  # of the base whose middle is here
            if not -0.5 <= position <= len(SEQUENCE) - 0.5:
                continue  # matplotlib keeps ticks beyond the ends, unseen
            text = (tick.label2 if name == "upper" else tick.label1).get_text()
            text = text.replace(",", "").replace("\N{MINUS SIGN}", "-")
            on_genome = START + position if strand == "+" else START + len(SEQUENCE) - 1 - position
            along = position if tss is None else (on_genome - tss if strand == "+" else tss - on_genome)
            assert float(text) == pytest.approx(on_genome if name == "upper" else along, abs=1e-3)
            seen[name].append(across)
    assert min(len(seen["upper"]), len(seen["lower"])) >= 3
    assert upper.get_xlabel() == f"chr3 ({strand}), 0-based"
    assert axes.get_xlabel() == ("position (5'→3')" if tss is None else "distance to the TSS (bases)")
    assert bool([line for line in axes.lines if np.array_equal(line.get_xdata(), [0, 0])]) == (tss == START + 11)


def test_a_long_region_is_drawn_as_bars_of_the_same_heights() -> None:
    sequence = SEQUENCE * 12
    contributions = contributions_of(sequence)
    axes = plots.logo(contributions, start=START, strand="-", tss=START + 10)
    assert len(axes.containers) == 4
    for base, bars in zip(BASES, axes.containers, strict=True):
        expected = {
            START + 10 - (START + len(sequence) - 1 - position): contributions[BASES.index(base), position]
            for position, letter in enumerate(sequence)
            if letter == base
        }
        assert {round(bar.get_x() + 0.5): bar.get_height() for bar in bars} == expected
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(BASES)


def test_the_mutation_map_shows_each_score_white_at_zero_and_marks_the_reference() -> None:
    scores = some_scores(SEQUENCE)
    figure = Figure()
    axes = plots.mutation_map(scores, SEQUENCE, axes=figure.subplots())
    assert axes.figure is figure
    image = axes.images[0]
    shown = image.get_array()
    assert shown is not None
    left, right, bottom, top = image.get_extent()
    cell = (right - left) / len(SEQUENCE), (bottom - top) / 4
    for base, position in np.ndindex(4, len(SEQUENCE)):
        column, row = int((position - left) / cell[0]), int((base - top) / cell[1])
        assert shown[row, column] == scores[base, position]
    colours = np.asarray(image.cmap(image.norm(np.array([-np.abs(scores).max(), 0, np.abs(scores).max()]))))
    assert colours[1][:3].min() > 0.95
    assert colours[0][2] > 2 * colours[0][0]  # blue
    assert colours[2][0] > 2 * colours[2][2]  # red
    marks = {(int(x), BASES[int(y)]) for x, y in np.asarray(axes.collections[0].get_offsets())}
    assert marks == {(position, letter) for position, letter in enumerate(SEQUENCE) if letter != "N"}
    assert [label.get_text() for label in axes.get_yticklabels()] == list(BASES)


def test_a_plot_of_no_scores_is_drawn_without_a_warning() -> None:
    assert len(plots.logo(np.zeros((4, 20)), start=START, tss=START).patches) == 0
    assert plots.mutation_map(np.zeros((4, 20)), "N" * 20).images[0].get_clim() == (-1, 1)


def test_a_region_that_cannot_be_plotted_is_refused() -> None:
    scores = some_scores(SEQUENCE)
    with pytest.raises(ValueError, match="several bases at a position: give actual ones"):
        plots.logo(hypothetical_contributions(scores))
    with pytest.raises(ValueError, match=r"shape \(1, 4, 30\); give \(4, length\)"):
        plots.logo(scores[None])
    with pytest.raises(ValueError, match="tss 5 without start"):
        plots.mutation_map(scores, SEQUENCE, tss=5)
    with pytest.raises(ValueError, match="29 bases, scores has 30"):
        plots.mutation_map(scores, SEQUENCE[1:])
    with pytest.raises(ValueError, match=r"strand '\.' must be"):
        plots.mutation_map(scores, SEQUENCE, start=START, strand=".")


@pytest.mark.parametrize("first", [0, 7])
def test_without_coordinates_positions_count_from_the_first_base_of_the_sequence(first: int) -> None:
    sequence = "ACGTTGCAAC"
    values = np.eye(4)[:, encode(sequence)]
    figure = plots.new_figure(6, 4)
    upper, lower = figure.subplots(2, 1)
    plots.logo(values, first=first, axes=upper)
    plots.mutation_map(values, sequence, first=first, axes=lower)
    for axes in (upper, lower):
        assert axes.get_xlabel() == "position in the sequence (5'→3', from 0)"
        assert axes.get_xlim() == (first - 0.5, first + 9.5)
    dots = np.asarray(lower.collections[0].get_offsets())
    assert {int(x): BASES[int(y)] for x, y in dots} == {first + at: base for at, base in enumerate(sequence)}


def test_equal_figures_are_equal_files_wherever_their_objects_lie_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 60))
    sequence = "".join("ACGT"[base] for base in rng.integers(0, 4, 60))
    kept: list[object] = []
    for number in range(6):
        figure = plots.new_figure(11, 7)
        upper, middle, lower = figure.subplots(3, 1, height_ratios=(1, 1.2, 0.8))
        for axes in (upper, middle):
            plots.logo(values * one_hot(encode(sequence)[None])[0].numpy(), axes=axes)
        plots.mutation_map(values, sequence, axes=lower)
        figure.suptitle("a gene")
        plots.write_figure(tmp_path / str(number), "gene", figure)
        kept += [figure, [object() for _ in range(7919 * number)]]  # so that the next one lies elsewhere
    for kind in ("svg", "png"):
        assert len({(tmp_path / str(number) / f"gene.{kind}").read_bytes() for number in range(6)}) == 1
