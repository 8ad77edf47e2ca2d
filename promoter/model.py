"""The network, by the name that scripts import it by: `promoter.models.cnn`."""

from __future__ import annotations

from promoter.models.cnn import PromoterCNN, evaluating
from promoter.models.config import CNNConfig

__all__ = ["CNNConfig", "PromoterCNN", "evaluating"]
