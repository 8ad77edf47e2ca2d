"""Evaluate a run: its metrics, beside those of baselines, and without genes that have homologs in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from promoter.metrics import OF_NO_GENES, compare_predictions, evaluate_predictions

NEW = "new"  # rows of other data, which were in no set of the model
HELD_OUT = ("val", "test", NEW)  # the sets that no network was fitted to


def evaluate(
    predictions: pd.DataFrame,
    targets: list[str],
    *,
    leaking: np.ndarray | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
    weights: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute the metrics of a model's predictions by split and target.

    Args:
        predictions: table of predictions, as `promoter.evaluation.predictions.predictions_table` returns it.
        targets: names of the targets.
        leaking: bool, shape (genes,): held-out genes that share sequence with training genes; None (default) if
            that is not known.
        baselines: name -> predictions of a baseline: shape (genes, targets); None (default) compares with none.
        weights: weights of the genes, shape (genes,); None (default): there are none.
        seed: random seed of the bootstrap (default 0).

    Returns:
        The metrics, as `promoter.metrics.evaluate_predictions` returns them. For `HELD_OUT` also
        `baselines`, as `promoter.metrics.compare_predictions` returns them, and `without_homologs` if genes leak
        that have a value of the target.
    """
    metrics = evaluate_predictions(predictions, targets, seed, weights=weights)
    held_out = [name for name in HELD_OUT if name in metrics]
    if leaking is not None and leaking.any():
        of_clean_genes = None if weights is None else weights[~leaking]
        clean = evaluate_predictions(predictions[~leaking], targets, seed, weights=of_clean_genes)
        for split in held_out:
            for target in targets:
                known = (predictions["split"] == split) & predictions[target].notna()
                if (leaking & known.to_numpy()).any():
                    of_clean = clean.get(split, {}).get(target)
                    metrics[split][target]["without_homologs"] = of_clean or dict(OF_NO_GENES)
    if baselines:
        compared = compare_predictions(predictions, baselines, targets, splits=held_out, seed=seed)
        for split in held_out:
            for target in targets:
                metrics[split][target]["baselines"] = compared[split][target]
    return metrics
