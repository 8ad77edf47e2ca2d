"""How far off a prediction may be, gene by gene: conformal intervals from genes that were held out.

The half-width of a gene's interval is q * sqrt(a + b * s²): s is the spread of an ensemble's members, a and b
turn it into the error that such a spread has had, and q is the quantile of |error| / sqrt(a + b * s²) that covers
what is wanted. All three are taken from other held-out genes than those that get the interval (Vovk 2015,
doi:10.1007/s10472-013-9368-4: cross-conformal predictors; Lei et al. 2018, doi:10.1080/01621459.2017.1307116:
locally weighted).

`Calibration` keeps what a run has learned so for its ensemble, for genes that come later. With several folds, the
errors are those of each fold's networks alone, which see less than the mean over all folds does: the intervals of
new genes are then rather too wide than too narrow (Barber et al. 2021, doi:10.1214/20-AOS1965: CV+).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from promoter import storage
from promoter.storage import AnyPath

LEVEL = 0.95
INTERVALS = "intervals.json"  # of an ensemble, in the folder that holds its models


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
        error, spread, usable = _errors(table, target, folds)
        half = np.full(len(table), np.nan)
        for one in np.unique(fold):
            mine = fold == one
            learned = usable & (~mine if folds > 1 else True)
            half[mine] = fit_scale(error[learned], spread[learned]).half_width(spread[mine])
        table[f"{target}_low"] = table[f"{target}_predicted"] - half
        table[f"{target}_high"] = table[f"{target}_predicted"] + half
    return table


@dataclass(frozen=True)
class Calibration:
    """What makes intervals of an ensemble's predictions.

    Attributes:
        folds: the ensemble's models by their checksums, those of a fold together.
        scales: by target.
    """

    folds: Sequence[Sequence[str]]
    scales: Mapping[str, Scale]

    def is_of(self, checksums: Sequence[str]) -> bool:
        """Tell whether the models with these checksums are the ensemble."""
        return sorted(checksums) == sorted(one for fold in self.folds for one in fold)

    def half_width(
        self, predicted_MNT: np.ndarray, checksums: Sequence[str], targets: Sequence[str]
    ) -> np.ndarray:
        """Return half-widths of the intervals around the ensemble's means.

        Args:
            predicted_MNT: of each model, shape (models, genes, targets).
            checksums: of the models, in their order.
            targets: names, in their order.

        Returns:
            Shape (genes, targets); infinite where too few genes were there to learn from.
        """
        row = {checksum: index for index, checksum in enumerate(checksums)}
        members = [predicted_MNT[[row[one] for one in fold]] for fold in self.folds]
        # as it was learned: the spread of one fold's networks
        variance_NT = np.mean([one.var(axis=0, ddof=1) if len(one) > 1 else 0 * one[0] for one in members], axis=0)
        widths = [self.scales[one].half_width(np.sqrt(variance_NT[:, i])) for i, one in enumerate(targets)]
        return np.stack(widths, axis=1)


def calibrate(predictions: pd.DataFrame, targets: Sequence[str], folds: Sequence[Sequence[str]]) -> Calibration:
    """Learn the intervals of genes that come later.

    Args:
        predictions: as for `add_intervals`.
        targets: names.
        folds: checksums of the models, those of a fold together.
    """
    scales = {}
    for target in targets:
        error, spread, usable = _errors(predictions, target, len(folds))
        scales[target] = fit_scale(error[usable], spread[usable])
    return Calibration(folds, scales)


def write_calibration(folder: AnyPath, calibration: Calibration) -> None:
    """Write `intervals.json` into the folder that holds the ensemble's models."""
    scales = {
        target: {name: value if np.isfinite(value) else None for name, value in scale._asdict().items()}
        for target, scale in calibration.scales.items()
    }
    written: dict[str, Any] = {"level": LEVEL, "scales": scales, "folds": [list(one) for one in calibration.folds]}
    storage.write_json(storage.resolve(folder) / INTERVALS, written)


def read_calibration(folder: AnyPath) -> Calibration | None:
    """Read what `write_calibration` wrote; None where there is nothing.

    Args:
        folder: that of the models, or one whose `folds` it is.
    """
    where = storage.resolve(folder)
    for path in (where / INTERVALS, where / "folds" / INTERVALS):
        if path.exists():
            found = storage.read_json(path)
            scales = {
                target: Scale(**{name: np.inf if value is None else value for name, value in one.items()})
                for target, one in found["scales"].items()
            }
            return Calibration(found["folds"], scales)
    return None


def coverage(predictions: pd.DataFrame, target: str) -> float | None:
    """Return the share of genes whose observed value lies within its interval; None without observed values."""
    known = predictions[predictions[target].notna()]
    if known.empty:
        return None
    return float(known[target].between(known[f"{target}_low"], known[f"{target}_high"]).mean())


def _errors(table: pd.DataFrame, target: str, folds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each gene's error, its ensemble's spread, and whether a scale may be learned from it."""
    error = (table[target] - table[f"{target}_predicted"]).to_numpy(np.float64)
    spread = table.get(f"{target}_predicted_sd", pd.Series(0.0, table.index)).to_numpy(np.float64)
    return error, spread, np.isfinite(error) & ((table["split"] == "val").to_numpy() if folds == 1 else True)
