"""A network like LegNet (Penzar et al. 2023, doi:10.1093/bioinformatics/btad457): expression of promoters."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from promoter.models.external import ExternalModel


def convolution(inputs: int, outputs: int, width: int, groups: int = 1) -> nn.Sequential:
    """Return a convolution with batch norm and SiLU."""
    conv = nn.Conv1d(inputs, outputs, width, padding="same", groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(outputs), nn.SiLU())


class SqueezeExcitation(nn.Module):
    """Multiply each channel by a factor between 0 and 1 that depends on the means of all channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        layers = (nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels), nn.Sigmoid())
        self.factors = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels."""
        return x * self.factors(x.mean(2))[:, :, None]


class Block(nn.Module):
    """Widen fourfold, convolve in groups of two channels, scale, narrow; stack that on the input and convolve."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.inverted = nn.Sequential(
            convolution(inputs, wide, 1),
            convolution(wide, wide, 5, groups=wide // 2),
            SqueezeExcitation(wide, inputs // 4),
            convolution(wide, inputs, 1),
        )
        self.resize = convolution(2 * inputs, outputs, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, length) to (batch, outputs, length)."""
        return self.resize(torch.cat([x, self.inverted(x)], dim=1))


class LegNet(nn.Module):
    """A stem, six blocks, and the expected one of 18 bins: one-hot (batch, 4, any length) -> (batch,).

    Args:
        channels: number of channels of the stem and after each block.
    """

    def __init__(self, channels: tuple[int, ...] = (256, 128, 128, 64, 64, 64, 64)) -> None:
        super().__init__()
        blocks = [Block(inputs, outputs) for inputs, outputs in pairwise(channels)]
        self.trunk = nn.Sequential(convolution(4, channels[0], 5), *blocks)
        self.head = nn.Conv1d(channels[-1], 18, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the mean of the bins, weighted by their probabilities."""
        bins = self.head(self.trunk(x)).mean(2).softmax(1)
        return bins @ torch.arange(18, dtype=bins.dtype, device=bins.device)


def network() -> ExternalModel:
    """Return the network for one value a sequence."""
    return ExternalModel(LegNet(), targets=["Measured Expression"])  # as the table calls it
