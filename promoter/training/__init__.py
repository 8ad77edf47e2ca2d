"""Training: settings, losses, batches, the loop, predictions, cross-validation and the search space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promoter.errors import TrainingDivergedError
from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.training.batches import (
        Examples,
        augment,
        batch_bounds,
        require_enough_genes,
        require_orientation,
    )
    from promoter.training.config import TrainingConfig
    from promoter.training.inference import Evaluation, evaluate, predict
    from promoter.training.loop import TrainingState, fit, restore_best_weights, train_epochs
    from promoter.training.losses import LOSSES, Loss, SquaredError, standardisation

__all__ = [
    "LOSSES",
    "Evaluation",
    "Examples",
    "Loss",
    "SquaredError",
    "TrainingConfig",
    "TrainingDivergedError",
    "TrainingState",
    "augment",
    "batch_bounds",
    "evaluate",
    "fit",
    "predict",
    "require_enough_genes",
    "require_orientation",
    "restore_best_weights",
    "standardisation",
    "train_epochs",
]
__getattr__ = lazy_names(
    __name__,
    {
        "batches": ["Examples", "augment", "batch_bounds", "require_enough_genes", "require_orientation"],
        "config": ["TrainingConfig"],
        "inference": ["Evaluation", "evaluate", "predict"],
        "loop": ["TrainingState", "fit", "restore_best_weights", "train_epochs"],
        "losses": ["LOSSES", "Loss", "SquaredError", "standardisation"],
    },
)
