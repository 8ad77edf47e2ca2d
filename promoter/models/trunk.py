"""What the trunks of the pretrained networks share: their interface, and the bins around the TSS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Trunk(NamedTuple):
    """A library's network without its outputs.

    Attributes:
        module: maps one-hot (batch, 4, length) to (batch, tss_bins, dim).
        blocks: its parts in order, which together hold all of its parameters.
        dim: number of entries of an embedding.
    """

    module: nn.Module
    blocks: Sequence[nn.Module]
    dim: int


class CentralBins(nn.Module):
    """Keep the bins in the middle of (batch, bins, dim): those around the TSS, which begins the second half."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return the bins in the middle."""
        first = x_BND.shape[1] // 2 - self.bins // 2
        return x_BND[:, first : first + self.bins]


def central_distances(features_RF: Tensor, cells: int) -> Tensor:
    """Cut features of the distances -n+1 to n-1 to those of -cells+1 to cells-1."""
    middle = features_RF.shape[0] // 2
    return features_RF[middle - cells + 1 : middle + cells]
