"""What a run is worth: its metrics, beside plain models, and without the genes that homology gives away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from promoter.metrics import OF_NO_GENES, compare_predictions, evaluate_predictions

HELD_OUT = ("val", "test")


def evaluate(
    predictions: pd.DataFrame,
    targets: list[str],
    leaking: np.ndarray,
    baselines: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Judge the predictions of a model by split and target.

    Args:
        predictions: as `promoter.predictions.predictions_table` returns them.
        targets: names.
        leaking: bool, shape (genes,): held-out genes that share sequence with genes of another split.
        baselines: name -> predictions of other models, shape (genes, targets), to compare with.
        seed: of the bootstrap.

    Returns:
        What `promoter.metrics.evaluate_predictions` returns. For `val` and `test` also `baselines`, as
        `promoter.metrics.compare_predictions` returns them, and, where genes leak, the metrics
        `without_homologs`.
    """
    metrics = evaluate_predictions(predictions, targets, seed)
    held_out = [name for name in HELD_OUT if name in metrics]
    if leaking.any():
        clean = evaluate_predictions(predictions[~leaking], targets, seed)
        for split in held_out:
            if (leaking & (predictions["split"] == split).to_numpy()).any():
                for target in targets:
                    found = clean.get(split, {}).get(target)
                    metrics[split][target]["without_homologs"] = found or dict(OF_NO_GENES)
    if baselines:
        compared = compare_predictions(predictions, baselines, targets, held_out, seed)
        for split in held_out:
            for target in targets:
                metrics[split][target]["baselines"] = compared[split][target]
    return metrics
