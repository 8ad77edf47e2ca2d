"""The network: a 1-D CNN from one-hot sequence to expression."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promoter.errors import InputError
from promoter.sequence import BASES


@dataclass(frozen=True)
class CNNConfig:
    """Architecture of `PromoterCNN`; the defaults are the published design.

    Args:
        channels: filters of each convolution block.
        kernel_sizes: width of each block's filters in positions, odd.
        pool_sizes: max pooling after each block but the last, which is averaged over all positions.
        hidden: units of the hidden layer of the head.
        dropout: probability that a hidden unit is left out in training.
        crop: how many bases of the window the network sees: the last, which lie nearest to the TSS; null for all.
        bins: stretches of equal length that are averaged each by itself, so that the head can tell where a motif
            stands; 1 for the global average.
        both_strands: read the reverse complement too with the same filters, and average the two in each bin; goes
            with training.reverse_complement 0, since a promoter turned round would leave the bins without meaning.
        n_targets: outputs. jobs.train takes their number from the data: 1 counts as not given, and any other
            number must be that of the data.
    """

    channels: tuple[int, ...] = (256, 128, 64)
    kernel_sizes: tuple[int, ...] = (15, 5, 3)
    pool_sizes: tuple[int, ...] = (4, 4)
    hidden: int = 32
    dropout: float = 0.3
    crop: int | None = None
    bins: int = 1
    both_strands: bool = False
    n_targets: int = 1

    def __post_init__(self) -> None:
        """Refuse combinations that make no network."""
        blocks = len(self.channels)
        if blocks == 0 or len(self.kernel_sizes) != blocks or len(self.pool_sizes) != blocks - 1:
            raise InputError(
                f"model: {blocks} channels {list(self.channels)} need {blocks} kernel_sizes and "
                f"{max(blocks - 1, 0)} pool_sizes, at least one block; "
                f"given are {list(self.kernel_sizes)} and {list(self.pool_sizes)}"
            )
        even = [kernel for kernel in self.kernel_sizes if kernel < 1 or kernel % 2 == 0]
        if even:
            raise InputError(f"model: kernel_sizes {even} are not odd and positive; same padding needs odd ones")
        for name in ("channels", "pool_sizes"):
            if any(value < 1 for value in getattr(self, name)):
                raise InputError(f"model: {name} {list(getattr(self, name))} must all be at least 1")
        for name in ("hidden", "bins", "n_targets"):
            if getattr(self, name) < 1:
                raise InputError(f"model: {name} {getattr(self, name)} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"model: dropout {self.dropout} must be at least 0 and below 1")
        if self.crop is not None and self.crop < self.min_length:
            raise InputError(
                f"model: crop {self.crop} is too short for {self.pools}, which need at least {self.min_length}; "
                "crop less or pool less"
            )

    @property
    def min_length(self) -> int:
        """The shortest window in bases that leaves a position for each bin after all pools."""
        return math.prod(self.pool_sizes) * self.bins

    @property
    def pools(self) -> str:
        """The pools and bins, for messages."""
        return f"pool_sizes {list(self.pool_sizes)}" + f" and {self.bins} bins" * (self.bins > 1)

    def outside(self, length: int) -> int:
        """Return how many of a window's first bases the network does not see."""
        return 0 if self.crop is None else max(0, length - self.crop)


class PromoterCNN(nn.Module):
    """Convolution blocks (convolution, batch norm, ReLU, max pooling), average over bins, two-layer head.

    Args:
        config: the architecture.
        length: window in bases, only to check that the pools leave something of it.

    Raises:
        InputError: the window is shorter than the pools or the crop need.
    """

    def __init__(self, config: CNNConfig | None = None, length: int | None = None) -> None:
        super().__init__()
        self.config = config or CNNConfig()
        if length is not None:
            self.require_length(length)
        inputs = (len(BASES), *self.config.channels[:-1])
        self.blocks = nn.ModuleList(
            _Block(*sizes)
            for sizes in zip_longest(
                inputs, self.config.channels, self.config.kernel_sizes, self.config.pool_sizes, fillvalue=1
            )
        )
        self.head = nn.Sequential(
            nn.Linear(self.config.channels[-1] * self.config.bins, self.config.hidden),
            nn.ReLU(),
            nn.Dropout(self.config.dropout),
            nn.Linear(self.config.hidden, self.config.n_targets),
        )

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Map one-hot (batch, 4, length) to predictions (batch, targets); a sequence cropped already stays it."""
        length = x_BCL.shape[-1]
        self.require_length(length)
        x_BCL = x_BCL[..., self.config.outside(length) :]
        if not self.config.both_strands:
            return self.head(self._features(x_BCL).flatten(1))
        forward_BCN, reverse_BCN = self._features(torch.cat([x_BCL, x_BCL.flip(1, 2)])).chunk(2)
        return self.head(((forward_BCN + reverse_BCN.flip(2)) / 2).flatten(1))

    def _features(self, x_BCL: Tensor) -> Tensor:
        """Return the mean of each filter of the last block in each bin: (batch, channels, bins)."""
        x_BC1L = x_BCL.unsqueeze(2)
        if x_BC1L.device.type == "cpu":  # oneDNN convolves and pools this layout much faster
            x_BC1L = x_BC1L.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x_BC1L = block(x_BC1L)
        if self.config.bins == 1:
            return x_BC1L.mean(dim=3)
        return F.adaptive_avg_pool2d(x_BC1L, (1, self.config.bins)).squeeze(2)

    @torch.no_grad()
    def rescale_output(self, mean: Sequence[float] | Tensor, sd: Sequence[float] | Tensor) -> None:
        """Fold `output * sd + mean`, per target, into the last layer: from standardised to original units."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)  # noqa: S101 # for the type checker: it is built so above
        scale, shift = (torch.as_tensor(v, dtype=last.bias.dtype, device=last.bias.device) for v in (sd, mean))
        last.weight.mul_(scale[:, None])
        last.bias.mul_(scale).add_(shift)

    def require_length(self, length: int) -> None:
        """Raise InputError when a window is shorter than the pools or the crop need."""
        if self.config.crop is not None and length < self.config.crop:
            raise InputError(
                f"model: crop {self.config.crop} is more than the window has, {length} bases; crop to fewer"
            )
        if length < self.config.min_length:
            raise InputError(
                f"model: a window of {length} bases is too short for {self.config.pools}, which need at least "
                f"{self.config.min_length}; widen the window or pool less"
            )


def is_built_as_written(model: nn.Module) -> bool:
    """Tell whether a network is a `PromoterCNN` whose parts are those of this file: none replaced, none hooked.

    A subclass may compute anything. So may a forward hook (pruning works by one), a layer of another class, or a
    `forward` set on an instance.
    """
    if type(model) is not PromoterCNN:
        return False
    for block in model.blocks:
        if type(block) is not _Block or (type(block.conv), type(block.norm)) != (nn.Conv1d, nn.BatchNorm2d):
            return False
    hooks = ("_forward_hooks", "_forward_pre_hooks")  # PyTorch has no public way to ask for them
    return not any("forward" in vars(part) or any(vars(part)[kind] for kind in hooks) for part in model.modules())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` in evaluation mode, and each of its modules back in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:  # not model.train(): a part may be frozen in evaluation mode
            module.training = training


class _Block(nn.Module):
    """Convolution, batch norm, max pooling, ReLU, on tensors (batch, channel, 1, length).

    The same function as the usual order and layout, and about twice as fast on CPUs
    (`benchmarks/train.py`): ReLU comes after the pooling, since the maximum of the ReLUs is the ReLU of
    the maximum; the convolution has no bias, which the batch norm would subtract again; one dimension
    of size 1 makes the memory format channels_last available. `promoter.ism.incremental` computes the same for the
    mutants of a sequence: what changes here changes there.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, pool: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, bias=False)  # weight (outputs, inputs, kernel)
        self.norm = nn.BatchNorm2d(outputs)
        self.pool = pool

    def forward(self, x_BC1L: Tensor) -> Tensor:
        weight = self.conv.weight
        x_BC1L = self.norm(F.conv2d(x_BC1L, weight.unsqueeze(2), padding=(0, weight.shape[-1] // 2)))
        if self.pool > 1:
            x_BC1L = F.max_pool2d(x_BC1L, (1, self.pool))
        return F.relu(x_BC1L)
