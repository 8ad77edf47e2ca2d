"""Training: settings, losses, batches, the loop, predictions, cross-validation and the search space."""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.training.batches import Examples
    from promoter.training.config import TrainingConfig
    from promoter.training.inference import evaluate, predict
    from promoter.training.loop import fit
    from promoter.training.state import TrainingState

__getattr__ = lazy_names(__name__, __file__)
