from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from promoter import plots

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


def test_progress_shows_each_scored_trial_and_the_best_so_far() -> None:
    for larger, best in ((True, [0.2, 0.2, 0.4]), (False, [0.2, 0.1, 0.1])):
        figure = plots.search_progress(TRIALS.sample(frac=1, random_state=0), "r", larger)
        points = drawn(figure, 0)
        assert sorted(map(tuple, points)) == [(1, 0.2), (2, 0.1), (4, 0.4)]
        assert figure.axes[0].lines[0].get_ydata() == pytest.approx(best)


def test_each_setting_has_a_panel_with_the_trials_that_have_it() -> None:
    figure = plots.score_by_setting(TRIALS, SETTINGS, {"training.learning_rate": True}, "r")
    rate, kernel, crop = (drawn(figure, panel) for panel in range(3))
    assert sorted(map(tuple, rate)) == [(1e-4, 0.1), (1e-3, 0.2), (1e-2, 0.4)]
    assert figure.axes[0].get_xscale() == "log"
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["7", "15"]  # by number
    assert {(round(x), y) for x, y in kernel} == {(0, 0.2), (1, 0.1), (1, 0.4)}
    assert {(round(x), y) for x, y in crop} == {(1, 0.1), (0, 0.4)}  # 250, 500; None has no crop


def test_figures_are_written_as_svg_and_png(tmp_path: Path) -> None:
    plots.write_figure(tmp_path, "progress", plots.search_progress(TRIALS, "r", True))
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "progress.svg").read_text()
