"""Refuse configurations of a search space that do not suit the data."""

from __future__ import annotations

from dataclasses import dataclass

from promoter.models.build import NetworkConfig
from promoter.training.batches import require_enough_genes, require_orientation
from promoter.training.config import TrainingConfig


@dataclass(frozen=True)
class SpaceValidator:
    """Checks a configuration against the window and the number of genes.

    Attributes:
        length: length of the window in bases.
        genes: number of genes in all folds.
        genes_of_fold: number of genes that each fold validates on.
    """

    length: int
    genes: int
    genes_of_fold: list[int]

    def __call__(self, model: NetworkConfig, training: TrainingConfig) -> None:
        """Raise InputError if the network or the recipe does not suit the data."""
        model.require_length(self.length)
        require_orientation(model, training)
        for validated in self.genes_of_fold:
            require_enough_genes(self.genes - validated, validated, training, workers=1)
