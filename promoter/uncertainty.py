"""How far off a prediction may be, gene by gene: conformal intervals from genes that were held out.

The half-width of a gene's interval is q * sqrt(a + b * s²): s is the spread of an ensemble's members, a and b
turn it into the error that such a spread has had, and q is the quantile of |error| / sqrt(a + b * s²) that covers
what is wanted. All three are taken from other held-out genes than those that get the interval (Vovk 2015,
doi:10.1007/s10472-013-9368-4: cross-conformal predictors; Lei et al. 2018, doi:10.1080/01621459.2017.1307116:
locally weighted).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize

LEVEL = 0.95


class Scale(NamedTuple):
    """Turns the spread of an ensemble into the half-width of an interval; see the module."""

    a: float
    b: float
    q: float

    def half_width(self, spread: np.ndarray) -> np.ndarray:
        """Return the half-width for each spread, same shape."""
        return self.q * np.sqrt(self.a + self.b * spread**2)


def fit_scale(error: np.ndarray, spread: np.ndarray, level: float = LEVEL) -> Scale:
    """Learn the half-width of intervals from genes that the ensemble has not learned from.

    Args:
        error: observed - predicted, shape (genes,).
        spread: standard deviation over the ensemble's members, same shape; zeros where there is one member.
        level: share of genes that the intervals are to hold.

    Returns:
        The scale. With fewer genes than the level needs, 19 for 95%, its q is infinite.
    """
    spread = np.asarray(spread, np.float64)
    size = np.abs(error, dtype=np.float64)
    unit = float(np.mean(size**2)) or 1.0
    relative = spread**2 / (float(np.mean(spread**2)) or 1.0)

    def misfit(logs: np.ndarray) -> float:
        """Negative log likelihood of errors with Laplace's tails, so that a few large ones do not rule."""
        scale = np.sqrt(unit * (np.exp(logs[0]) + np.exp(logs[1]) * relative))
        return float(np.mean(np.log(scale) + np.sqrt(2) * size / scale))

    logs = minimize(misfit, np.log([0.5, 0.5]), bounds=[(-9, 3), (-9, 3)], method="L-BFGS-B").x
    a, b = unit * np.exp(logs) / (1.0, float(np.mean(spread**2)) or 1.0)
    ratios = np.sort(size / np.sqrt(a + b * spread**2))
    rank = int(np.ceil((len(error) + 1) * level))  # of the conformal quantile, from 1
    return Scale(float(a), float(b), float(ratios[rank - 1]) if rank <= len(error) else np.inf)


def add_intervals(predictions: pd.DataFrame, targets: list[str], folds: int) -> pd.DataFrame:
    """Add to each prediction the bounds within which 95% of the genes are to lie.

    Args:
        predictions: `fold`, `split`, and per target `TARGET`, `TARGET_predicted`, with an ensemble
            `TARGET_predicted_sd`.
        targets: names.
        folds: with several, all genes are held out, and those of a fold get the scale of the others; with one the
            scale is that of the genes of the split `val`.

    Returns:
        The table with `TARGET_low` and `TARGET_high`.
    """
    table = predictions.copy()
    fold = table["fold"].to_numpy()
    for target in targets:
        error = (table[target] - table[f"{target}_predicted"]).to_numpy(np.float64)
        spread = table.get(f"{target}_predicted_sd", pd.Series(0.0, table.index)).to_numpy(np.float64)
        usable = np.isfinite(error) & ((table["split"] == "val").to_numpy() if folds == 1 else True)
        half = np.full(len(table), np.nan)
        for one in np.unique(fold):
            mine = fold == one
            learned = usable & (~mine if folds > 1 else True)
            half[mine] = fit_scale(error[learned], spread[learned]).half_width(spread[mine])
        table[f"{target}_low"] = table[f"{target}_predicted"] - half
        table[f"{target}_high"] = table[f"{target}_predicted"] + half
    return table


def coverage(predictions: pd.DataFrame, target: str) -> float | None:
    """Return the share of genes whose observed value lies within its interval; None without observed values."""
    known = predictions[predictions[target].notna()]
    if known.empty:
        return None
    return float(known[target].between(known[f"{target}_low"], known[f"{target}_high"]).mean())
