"""Values in the unit in which a network with the Poisson loss predicts: ln(1 + value)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from promoter.dataset.promoters import Promoters
from promoter.errors import InputError, doubt, listed, note

_LOG = "log1p"
_SETTING = "TrainingConfig.loss"
_MAX_LOG = 30  # e^30 is more than any count or TPM


def counts_in_log_units(promoters: Promoters, source: str) -> Promoters:
    """Return a data set to train with the Poisson loss, its values as ln(1 + value); says so in a note.

    Values that `prepare` has given the transform log1p are in this unit already.

    Args:
        promoters: the data set.
        source: path of it, for messages.

    Raises:
        InputError: the values have another transform, or one is negative.
    """
    transform = promoters.metadata.get("transform") or "none"
    if transform not in ("none", _LOG):
        raise InputError(
            f"{source} has values with the transform {transform}, and the loss takes counts, TPM or the like",
            setting=_SETTING,
            value="poisson",
            fix="prepare the data with `transform='none'`, or take `TrainingConfig.loss='mse'`",
        )
    negative = np.argwhere(promoters.targets < 0)
    if len(negative):
        row, column = negative[0]
        raise InputError(
            f"{source}: {promoters.noun} {promoters.genes['gene_id'].iloc[row]} has the value "
            f"{promoters.targets[row, column]:g} of target {promoters.target_names[column]}, one of "
            f"{len(negative):,} that are negative, and the loss takes counts, TPM or the like",
            setting=_SETTING,
            value="poisson",
            fix="prepare the data without that target (`targets`), or take `TrainingConfig.loss='mse'`",
        )
    if transform == "none":
        _doubt_logarithms(promoters, source, "take `TrainingConfig.loss='mse'`")
    note(
        "`TrainingConfig.loss='poisson'`: the network predicts ln(1 + expected value); predictions, scores, "
        "baselines and all metrics, those of the epochs too, are in this unit"
    )
    return promoters if transform == _LOG else _in_log_units(promoters)


def observed_in_log_units(promoters: Promoters) -> Promoters:
    """Return a data set for a model that was trained by the Poisson loss, its values in the model's unit.

    Only what can be such values is changed: they have no transform, and none is negative.
    """
    note("the model was trained by the Poisson loss: its predictions and scores are in units of ln(1 + value)")
    transform = promoters.metadata.get("transform") or "none"
    if transform != "none" or (promoters.targets < 0).any():
        return promoters
    _doubt_logarithms(promoters, "the data", f"prepare the data with `transform={_LOG!r}`, or in their own unit")
    return _in_log_units(promoters)


def _in_log_units(promoters: Promoters) -> Promoters:
    metadata = {**promoters.metadata, "transform": _LOG}
    return replace(promoters, targets=np.log1p(promoters.targets), metadata=metadata)


def _doubt_logarithms(promoters: Promoters, source: str, fix: str) -> None:
    """Warn of values that could be logarithms (`fix` tells what then), or so small that the 1 outweighs them."""
    names = [
        name
        for name, values in zip(promoters.target_names, promoters.targets.T, strict=True)
        if (known := values[~np.isnan(values)]).size
        and (known % 1).any()
        and (known.max() < _MAX_LOG or known.mean() < 1)
    ]
    if names:
        doubt(
            f"{source}: the values of {listed(names, 5)} look like logarithms or ratios; the loss poisson takes "
            f"counts, TPM or the like, and adds 1 to each: if they are logarithms, {fix}; if most are far below "
            "1, take larger units"
        )
