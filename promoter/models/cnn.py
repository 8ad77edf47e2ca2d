"""The network: a 1-D CNN from one-hot sequence to expression."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import zip_longest
from typing import Any, ClassVar, Literal, TypeAlias, assert_never, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promoter.models.config import CNNConfig
from promoter.models.trainable import TrainableNetwork
from promoter.sequence import BASES

# Kinds of pooling in a block. `promoter.ism.incremental` computes the same for the mutants of a sequence and
# matches on this type: after adding a pooling here, pyright names the places there that must handle it.
Pooling: TypeAlias = Literal["max"]


class PromoterCNN(TrainableNetwork):
    """Map one-hot sequence to targets: convolution blocks, average over position bins, two-layer head.

    Args:
        config: the architecture; by default the published one.
        length: length of the window in bases, to which crop and bins are fitted by `CNNConfig.for_window`; None
            (the default) leaves the architecture as it is.

    Raises:
        InputError: the window is shorter than the pools need.
    """

    trains_batch_norms: ClassVar[bool] = True

    def __init__(self, config: CNNConfig | None = None, length: int | None = None) -> None:
        super().__init__()
        self.config = config or CNNConfig()
        if length is not None:
            self.config = self.config.for_window(length)
        inputs = (len(BASES), *self.config.channels[:-1])
        self.blocks = nn.ModuleList(
            _Block(before, after, kernel=kernel, pool=pool)
            for before, after, kernel, pool in zip_longest(
                inputs, self.config.channels, self.config.kernel_sizes, self.config.pool_sizes, fillvalue=1
            )
        )
        self.head = nn.Sequential(
            nn.Linear(self.config.n_features, self.config.hidden),
            nn.ReLU(),
            nn.Dropout(self.config.dropout),
            nn.Linear(self.config.hidden, self.config.n_targets),
        )

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Map one-hot (batch, 4, length) to predictions (batch, targets); a sequence is cropped at most once."""
        length = x_BCL.shape[-1]
        self.config.require_length(length)
        x_BCL = x_BCL[..., self.config.outside(length) :]
        if not self.config.both_strands:
            return self.head(self._features(x_BCL).flatten(1))
        strands = (x_BCL, x_BCL.flip(1, 2))
        if self.training:  # batch norms take their statistics from both
            forward_BCN, reverse_BCN = self._features(torch.cat(strands)).chunk(2)
        else:  # DeepLIFT compares the halves of a batch in each layer, which one batch of both would mix
            forward_BCN, reverse_BCN = map(self._features, strands)
        return self.head(join_strands([forward_BCN, reverse_BCN], keep=self.config.keep_strands).flatten(1))

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

    def convolution_blocks(self) -> list[_Block]:
        """Return the convolution blocks in order."""
        return cast("list[_Block]", list(self.blocks))

    def output_layer(self) -> nn.Linear:
        """Return the last layer of the head, whose outputs are the targets."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)  # noqa: S101 # for the type checker: it is built so above
        return last

    def copy_head(self, targets: Sequence[int] | None) -> nn.Sequential:
        """Return a copy of the head with the outputs of these numbers alone; None: with all."""
        head = copy.deepcopy(self.head)
        if targets is not None:
            last = head[-1]
            assert isinstance(last, nn.Linear)  # noqa: S101 # likewise
            last.weight, last.bias = (nn.Parameter(part[list(targets)]) for part in (last.weight, last.bias))
        return head

    def describe(self) -> dict[str, Any]:
        """Return the architecture's entry in `model.yaml`."""
        return {"name": "promoter_cnn", **asdict(self.config)}


def join_strands(strands: Sequence[Tensor], *, keep: bool) -> Tensor:
    """Put together what the strands give, the bins of the second, which come last, read from its end.

    Args:
        strands: features (..., channels, bins) of the forward strand, and of the reverse complement if read.
        keep: whether the channels of the second follow those of the first; else the two are averaged.
    """
    if len(strands) == 1:
        return strands[0]
    forward, reverse = strands[0], strands[1].flip(-1)
    return torch.cat([forward, reverse], dim=-2) if keep else (forward + reverse) / 2


def is_unmodified(model: nn.Module) -> bool:
    """Tell whether a network is a `PromoterCNN` whose parts are those of this file: none replaced, none hooked.

    A subclass may compute anything. So may a forward hook (pruning works by one), a layer of another class, or a
    `forward` set on an instance.
    """
    if type(model) is not PromoterCNN:
        return False
    for block in model.blocks:
        if type(block) is not _Block:
            return False
        parts = (nn.Conv1d, nn.BatchNorm2d, nn.MaxPool2d if block.pool > 1 else nn.Identity, nn.ReLU)
        if (type(block.conv), type(block.norm), type(block.pool_layer), type(block.relu)) != parts:
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
    """Apply convolution, batch norm, pooling and ReLU to tensors (batch, channel, 1, length).

    The same function as the usual order and layout, and about twice as fast on CPUs
    (`benchmarks/train.py`): ReLU comes after the pooling, since the maximum of the ReLUs is the ReLU of
    the maximum; the convolution has no bias, which the batch norm would subtract again; one dimension
    of size 1 makes the memory format channels_last available. `promoter.ism.incremental` computes the same for the
    mutants of a sequence: what changes here changes there. A pooling of width 1 is none.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, pool: int, pooling: Pooling = "max") -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, bias=False)  # weight (outputs, inputs, kernel)
        self.norm = nn.BatchNorm2d(outputs)
        self.pool = pool
        self.pooling: Pooling = pooling
        # modules, though they have no weights: DeepLIFT has rules for modules and none for functions
        match pooling:
            case "max":
                self.pool_layer = nn.MaxPool2d((1, pool)) if pool > 1 else nn.Identity()
            case _:
                assert_never(pooling)
        self.relu = nn.ReLU()

    def forward(self, x_BC1L: Tensor) -> Tensor:
        weight = self.conv.weight
        x_BC1L = self.norm(F.conv2d(x_BC1L, weight.unsqueeze(2), padding=(0, weight.shape[-1] // 2)))
        return self.relu(self.pool_layer(x_BC1L))
