"""Compute conformal prediction intervals, gene by gene, from held-out genes.

The half-width of a gene's interval is q * sqrt(a + b * s²): s is the spread of an ensemble's members, a and b
translate it into the error that genes with such a spread have had, and q is the quantile of
|error| / sqrt(a + b * s²) at the wanted level. All three are computed on other held-out genes than those that get
the interval (Vovk 2015, doi:10.1007/s10472-013-9368-4: cross-conformal predictors; Lei et al. 2018,
doi:10.1080/01621459.2017.1307116: locally weighted).

`Calibration` stores these numbers with an ensemble, for the intervals of new genes. With several folds, the errors
are those of each fold's networks alone, which are larger than those of the mean over all folds: the intervals of
new genes are then rather too wide than too narrow (Barber et al. 2021, doi:10.1214/20-AOS1965: CV+).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeFloat
from typing_extensions import TypedDict

from promoter import storage
from promoter.errors import InputError
from promoter.storage import AnyPath
from promoter.storage.records import require_seal, seal
from promoter.storage.schema import checked

LEVEL = 0.95  # share of genes whose observed value lies within its interval
INTERVALS = "intervals.json"  # in the folder that holds an ensemble's models


class Scale(NamedTuple):
    """Translate the spread of an ensemble into the half-width of an interval, q * sqrt(a + b * spread²)."""

    a: float
    b: float
    q: float

    def half_width(self, spread: np.ndarray) -> np.ndarray:
        """Compute the half-width for each spread, same shape."""
        return self.q * np.sqrt(self.a + self.b * spread**2)


def fit_scale(error: np.ndarray, spread: np.ndarray) -> Scale:
    """Fit the half-width of 95% intervals to the errors of held-out genes.

    Args:
        error: observed minus predicted, shape (genes,).
        spread: standard deviation over the ensemble's members, same shape; zeros for one member.

    Returns:
        The scale. Its q is infinite with fewer than the 19 genes that 95% needs.
    """
    if not len(error):
        return Scale(1.0, 0.0, np.inf)
    spread = np.asarray(spread, np.float64)
    mean_square = float(np.mean(spread**2)) or 1.0
    size = np.abs(error, dtype=np.float64)
    unit = float(np.mean(size**2)) or 1.0
    relative = spread**2 / mean_square

    def misfit(logs: np.ndarray) -> float:
        """Compute the negative log likelihood under a Laplace distribution, robust to a few large errors."""
        scale = np.sqrt(unit * (np.exp(logs[0]) + np.exp(logs[1]) * relative))
        return float(np.mean(np.log(scale) + np.sqrt(2) * size / scale))

    from scipy.optimize import minimize  # noqa: PLC0415 # takes a second, and workers only read what it found

    logs = minimize(misfit, np.log([0.5, 0.5]), bounds=[(-9, 3), (-9, 3)], method="L-BFGS-B").x
    a, b = unit * np.exp(logs) / (1.0, mean_square)
    ratios = np.sort(size / np.sqrt(a + b * spread**2))
    rank = int(np.ceil((len(error) + 1) * LEVEL))  # rank of the conformal quantile, from 1
    return Scale(float(a), float(b), float(ratios[rank - 1]) if rank <= len(error) else np.inf)


def add_intervals(predictions: pd.DataFrame, targets: list[str], folds: int) -> pd.DataFrame:
    """Add to each prediction the bounds of its 95% interval.

    Args:
        predictions: columns `fold`, `split`, and per target `TARGET`, `TARGET_predicted`, and for an ensemble
            `TARGET_predicted_sd`.
        targets: names of the targets.
        folds: number of folds. With several, each gene was held out once, and the genes of a fold get the scale
            fitted to the other folds; with one, all genes get the scale fitted to the validation set.

    Returns:
        The table with `TARGET_low` and `TARGET_high`.
    """
    table, bounds = predictions, {}
    fold = table["fold"].to_numpy()
    for target in targets:
        error, spread, usable = _errors(table, target, folds)
        half = np.full(len(table), np.nan)
        for number in np.unique(fold):
            in_fold = fold == number
            calibrating = usable & (~in_fold if folds > 1 else True)
            half[in_fold] = fit_scale(error[calibrating], spread[calibrating]).half_width(spread[in_fold])
        bounds[f"{target}_low"] = table[f"{target}_predicted"] - half
        bounds[f"{target}_high"] = table[f"{target}_predicted"] + half
    return pd.concat([table, pd.DataFrame(bounds)], axis=1)


@dataclass(frozen=True)
class Calibration:
    """Hold the numbers that turn an ensemble's predictions into intervals.

    Attributes:
        folds: checksums of the ensemble's models, one list per fold.
        scales: target -> scale.
    """

    folds: Sequence[Sequence[str]]
    scales: Mapping[str, Scale]

    def matches(self, checksums: Sequence[str]) -> bool:
        """Return whether the models with these checksums are the ensemble."""
        return sorted(checksums) == sorted(checksum for fold in self.folds for checksum in fold)

    def half_width(
        self, predicted_MNT: np.ndarray, checksums: Sequence[str], targets: Sequence[str]
    ) -> np.ndarray:
        """Compute the half-widths of the intervals around the ensemble's mean predictions.

        Args:
            predicted_MNT: predictions of each model, shape (models, genes, targets).
            checksums: checksum of each model, in the same order.
            targets: name of each target, in the same order.

        Returns:
            Half-widths, shape (genes, targets); infinite if too few genes were held out to fit the scale.
        """
        if missing := [name for name in targets if name not in self.scales]:
            raise InputError(f"{INTERVALS} of the ensemble lacks scales.{missing[0]}; train the ensemble again")
        row = {checksum: index for index, checksum in enumerate(checksums)}
        members = [predicted_MNT[[row[checksum] for checksum in fold]] for fold in self.folds]
        # the spread of one fold's networks, as the scale was fitted
        variance_NT = np.mean(
            [of_fold.var(axis=0, ddof=1) if len(of_fold) > 1 else 0 * of_fold[0] for of_fold in members], axis=0
        )
        widths = [self.scales[name].half_width(np.sqrt(variance_NT[:, i])) for i, name in enumerate(targets)]
        return np.stack(widths, axis=1)


def calibrate(predictions: pd.DataFrame, targets: Sequence[str], folds: Sequence[Sequence[str]]) -> Calibration:
    """Fit the scales for intervals of new genes to a table as `add_intervals` takes it.

    `folds` has the checksums of the models, one list per fold.
    """
    scales = {}
    for target in targets:
        error, spread, usable = _errors(predictions, target, len(folds))
        scales[target] = fit_scale(error[usable], spread[usable])
    return Calibration(folds, scales)


class _WrittenScale(TypedDict):
    a: NonNegativeFloat
    b: NonNegativeFloat
    q: NonNegativeFloat | None


class _Written(TypedDict):
    """What is read of `intervals.json`."""

    scales: dict[str, _WrittenScale]
    folds: list[Annotated[list[str], Field(min_length=1)]]


def write_calibration(folder: AnyPath, calibration: Calibration) -> None:
    """Write `intervals.json` into the folder that holds the ensemble's models."""
    scales = {
        target: {name: value if np.isfinite(value) else None for name, value in scale._asdict().items()}
        for target, scale in calibration.scales.items()
    }
    folds = [list(fold) for fold in calibration.folds]
    written = {"level": LEVEL, "scales": scales, "folds": folds}
    storage.write_json(storage.resolve(folder) / INTERVALS, seal(written))


def read_calibration(folder: AnyPath) -> Calibration | None:
    """Read what `write_calibration` wrote; None if there is no such file.

    Args:
        folder: folder that holds the ensemble's models, or the folder of a run that holds it as `folds`.
    """
    where = storage.resolve(folder)
    for path in (where / INTERVALS, where / "folds" / INTERVALS):
        if path.exists():
            fix = "copy the folder again, or train the ensemble again"
            written = checked(storage.read_json(path, fix), dict[str, Any], path, fix)
            require_seal(written, path, fix)
            content = checked(written, _Written, path, fix)
            scales = {
                target: Scale(scale["a"], scale["b"], np.inf if scale["q"] is None else scale["q"])
                for target, scale in content["scales"].items()
            }
            return Calibration(content["folds"], scales)
    return None


def coverage(predictions: pd.DataFrame, target: str) -> float | None:
    """Compute the share of genes whose observed value lies in its interval; None without observed values."""
    known = predictions[predictions[target].notna()]
    if known.empty:
        return None
    return float(known[target].between(known[f"{target}_low"], known[f"{target}_high"]).mean())


def _errors(table: pd.DataFrame, target: str, folds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each gene's error, its ensemble's spread, and whether a scale may be fitted to it."""
    error = (table[target] - table[f"{target}_predicted"]).to_numpy(np.float64)
    spread = table.get(f"{target}_predicted_sd", pd.Series(0.0, table.index)).to_numpy(np.float64)
    return error, spread, np.isfinite(error) & ((table["split"] == "val").to_numpy() if folds == 1 else True)
