"""Show a search as a table: in trials.csv, and on the terminal while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray.tune
from ray.tune.experiment import Trial
from rich.live import Live
from rich.table import Table

from jobs.cli.console import as_clock, console, new_table

_SHOWN = 5  # of the best trials, in the table on the terminal


def trials_table(trials: Sequence[Trial], larger_is_better: bool, ended: Trial | None = None) -> pd.DataFrame:
    """Return a row for each trial with its settings and scores, the best first.

    Args:
        trials: trials of the search, in any order.
        larger_is_better: true if the best trial is the one with the largest score.
        ended: trial that has just ended but that Ray still lists as running; None: there is none.

    Returns:
        Columns `trial` (1, 2, … in the order of their start), `status` (`finished`; `stopped` early by ASHA;
        `failed` with a `reason`; `running`), `score`, `fold_1` …, `epochs`, `seconds`, and the settings.
    """
    rows = []
    for trial in trials:
        last = trial.last_result or {}
        reason = last.get("reason")
        if trial.status == Trial.ERROR or (trial is ended and not last):
            reason = reason or error_of(trial)
        if reason:
            status = "failed"
        elif trial.status == Trial.TERMINATED or trial is ended:
            status = "finished" if last.get("complete") else "stopped"
        else:
            status = "running"
        rows.append(
            {
                "trial": number_of(trial),
                "status": status,
                "score": float("nan") if reason else last.get("score", float("nan")),
                **{name: value for name, value in sorted(last.items()) if name.startswith("fold_")},
                "epochs": last.get("epoch", 0),
                "seconds": round(float(last.get("time_total_s", 0.0)), 3),
                "reason": reason or "",
            }
        )
    # object: a whole number stays one beside trials that lack the setting; null is a value
    configs = [
        {name: "null" if value is None else value for name, value in trial.config.items()} for trial in trials
    ]
    drawn = pd.DataFrame(configs, dtype=object).sort_index(axis=1)
    table = pd.concat([pd.DataFrame(rows), drawn], axis=1)
    order = table.sort_values("score", ascending=not larger_is_better, kind="stable", na_position="last")
    leading = ["trial", "status", "score", *(c for c in table if str(c).startswith("fold_")), "epochs", "seconds"]
    return order[[*leading, "reason", *(c for c in table if c not in (*leading, "reason"))]].reset_index(drop=True)


def number_of(trial: Trial) -> int:
    """Return the trial's number in the order of the draws; a restored search lists trials in another order."""
    return int(str(trial.experiment_tag).split("_", maxsplit=1)[0])


def error_of(trial: Trial) -> str:
    """Return the last line of what a trial's worker raised; at first only this machine has the file."""
    local = Path(trial.error_file) if trial.error_file else None
    text = local.read_text() if local is not None and local.exists() else str(trial.get_error() or "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "its worker was lost")[:300]


class SearchScreen(ray.tune.Callback):
    """Shows a search: one table that is updated on a terminal, a line for each finished trial elsewhere.

    Args:
        count: number of trials of the search.
        metric: name of the score, `pearson` or `mse`.
    """

    def __init__(self, count: int, metric: str) -> None:
        self.count, self.metric = count, metric
        self._live: Live | None = None
        self._began: float | None = None
        self._earlier = 0  # trials finished before this process

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Start the clock and the table with the first trial."""
        if self._began is None:
            self._began = time.monotonic()
            self._earlier = sum(other.is_finished() for other in trials)
            if console.is_terminal:
                self._live = Live(console=console, refresh_per_second=2)
                self._live.start()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Show the score so far."""
        if self._live is not None:
            self._live.update(self._table(trials))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show the score of a trial that has ended, or why it failed."""
        if self._live is not None:
            self._live.update(self._table(trials))
            return
        table = trials_table(trials, self.metric == "pearson", trial)
        row = table[table["trial"] == number_of(trial)].iloc[0]
        done = sum(other.is_finished() or other is trial for other in trials)
        best = table["score"].dropna()
        failed = not np.isfinite(row["score"])
        shown = f"{self.metric} {'–' if failed else format(row['score'], '.4f')}"
        console.print(
            f"{done:>4}/{self.count} trial {row['trial']:<4} {shown:<16} after {row['epochs']:>3} epochs, "
            f"{row['status']:<9} best {f'{best.iloc[0]:.4f}' if len(best) else '–'}  left {self._left(done)}"
        )
        if failed:
            console.print(f"       {row['reason']}", style="dim")

    on_trial_error = on_trial_complete

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Show the trials as they ended: the last one counted as running when it completed."""
        if self._live is not None:
            self._live.update(self._table(trials))

    def close(self) -> None:
        """Stop updating the table, which stays on the terminal."""
        if self._live is not None:
            self._live.stop()

    def _left(self, finished: int) -> str:
        done = finished - self._earlier
        if not done or self._began is None:
            return "?"
        return as_clock((time.monotonic() - self._began) / done * (self.count - finished))

    def _table(self, trials: list[Trial]) -> Table:
        done = sum(trial.is_finished() for trial in trials)
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        rows = trials_table(trials, self.metric == "pearson")
        counts = rows["status"].value_counts()
        title = (
            f"{done} of {self.count} trials: {counts.get('finished', 0)} finished, "
            f"{counts.get('stopped', 0)} stopped early, {counts.get('failed', 0)} failed"
        )
        if running:
            title += f", {running} running; left {self._left(done)}"
        columns = ("trial", self.metric, "epochs", "status", "settings")
        table = new_table(*columns, right=columns[:3], title=title, title_justify="left")
        by_number = {number_of(trial): trial for trial in trials}
        for row in rows.head(_SHOWN).itertuples():
            drawn = by_number[int(str(row.trial))].config
            values = ", ".join(f"{name.split('.', 1)[1]} {format_value(value)}" for name, value in drawn.items())
            table.add_row(str(row.trial), f"{row.score:.4f}", str(row.epochs), str(row.status), values)
        return table


def format_value(value: Any) -> str:
    """Return the value of a setting as the terminal shows it."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)
