"""Configurations of the networks, with what validation needs to know of each architecture.

This module imports neither PyTorch nor anything that reads files: a job validates its flags before it loads those.
A network is added here first: its configuration in `NetworkConfig`, or its name in `PretrainedName` and its facts
in `ARCHITECTURES`. Then pyright names every `match` that must handle it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from promoter.errors import InputError
from promoter.limits import require_limits

INSTALL = "pip install -c constraints.txt -e '.[pretrained]'"
PretrainedName: TypeAlias = Literal["enformer", "borzoi"]


@dataclass(frozen=True)
class CNNConfig:
    """Architecture of `PromoterCNN`; the defaults are the published design.

    Args:
        channels: number of filters in each convolution block.
        kernel_sizes: filter width of each block, in positions; odd.
        pool_sizes: width of the max pooling after each block but the last, which is averaged over all positions.
        hidden: number of units in the hidden layer of the head.
        dropout: probability of dropping a hidden unit during training.
        crop: number of bases that the network sees, counted from the end of the window, which lies nearest to the
            TSS; null, or more than the window has, for the whole window.
        bins: maximum number of position bins of equal length that are averaged separately, so that the head can
            use the position of a motif: where the pools leave fewer positions, each is a bin. 1 averages over all
            positions.
        both_strands: read the reverse complement too, with the same filters, and average the two strands in each
            bin; use it with training.reverse_complement 0, since a reverse-complemented promoter has its bins in
            reverse order.
        keep_strands: give the head the bins of each strand in place of their average, so that it can tell on which
            strand a motif stands; needs both_strands.
        n_targets: number of outputs. Training takes it from the data: 1 counts as not given, and any other
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
    keep_strands: bool = False
    n_targets: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for a combination that makes no network."""
        require_limits(vars(self), "CNNConfig")
        blocks = len(self.channels)
        if blocks == 0 or len(self.kernel_sizes) != blocks or len(self.pool_sizes) != blocks - 1:
            raise InputError(
                f"wants {blocks} `CNNConfig.kernel_sizes` and {max(blocks - 1, 0)} `CNNConfig.pool_sizes`, and at "
                "least one block",
                setting="CNNConfig.channels",
                value=list(self.channels),
                fix=f"given are {list(self.kernel_sizes)} and {list(self.pool_sizes)}",
            )
        even = [kernel for kernel in self.kernel_sizes if kernel % 2 == 0]
        if even:
            problem = f"{even} are not odd; same padding needs odd ones"
            raise InputError(problem, setting="CNNConfig.kernel_sizes", value=list(self.kernel_sizes))
        if self.keep_strands and not self.both_strands:
            problem = "needs `CNNConfig.both_strands=True`: there is one strand to keep"
            raise InputError(problem, setting="CNNConfig.keep_strands", value=True)
        if self.crop is not None and self.crop < math.prod(self.pool_sizes):
            raise InputError(
                f"is too short for pool_sizes {list(self.pool_sizes)}, which need at least "
                f"{math.prod(self.pool_sizes)}",
                setting="CNNConfig.crop",
                value=self.crop,
                fix="crop less, or pool less by `CNNConfig.pool_sizes`",
            )

    @property
    def min_length(self) -> int:
        """The shortest window in bases that leaves a position for each bin after all pools."""
        return math.prod(self.pool_sizes) * self.bins

    @property
    def n_features(self) -> int:
        """The number of inputs of the head: each filter of the last block in each bin, of one strand or two."""
        return self.channels[-1] * (2 if self.keep_strands else 1) * self.bins

    @property
    def pools(self) -> str:
        """The pools and bins, for messages."""
        return f"pool_sizes {list(self.pool_sizes)}" + f" and {self.bins} bins" * (self.bins > 1)

    @property
    def n_blocks(self) -> int:
        """The number of convolution blocks, for each of which the lists of settings have an entry."""
        return len(self.channels)

    @property
    def incremental(self) -> CNNConfig | None:
        """The configuration by which `promoter.ism.incremental` scores the network: this one."""
        return self

    @property
    def pretrained(self) -> PretrainedConfig | None:
        """The configuration by which pretrained weights are fetched: none, the network has none."""
        return None

    def outside(self, length: int) -> int:
        """Return the number of bases at the start of a window that the network does not see."""
        return 0 if self.crop is None else max(0, length - self.crop)

    def for_window(self, length: int, window: Mapping[str, Any] | None = None) -> CNNConfig:
        """Return the network for windows of this length, with the crop and the number of bins that they allow.

        Args:
            length: length of the window in bases.
            window: unused here; a pretrained network needs the TSS in the middle.

        Raises:
            InputError: the window is shorter than the pools need.
        """
        crop = self.crop if self.crop is None or self.crop <= length else None
        positions = (crop or length) // math.prod(self.pool_sizes)
        fitted = replace(self, crop=crop, bins=max(1, min(self.bins, positions)))
        fitted.require_length(length)
        return fitted

    def require_length(self, length: int, window: Mapping[str, Any] | None = None) -> None:
        """Raise InputError if a window is shorter than the pools, the bins or the crop need.

        Args:
            length: length of the window in bases.
            window: unused here; a pretrained network needs the TSS in the middle.
        """
        if self.crop is not None and length < self.crop:
            problem = f"is more than the window has, {length} bases"
            raise InputError(problem, setting="CNNConfig.crop", value=self.crop, fix="crop to fewer")
        if length < self.min_length:
            raise InputError(
                f"a window of {length} bases is too short for {self.pools}, which need at least "
                f"{self.min_length}; prepare a wider window, or pool less by `CNNConfig.pool_sizes`"
            )

    def require_augmentation(self, reverse_complement: float, jitter: int) -> None:
        """Raise InputError for augmentation that the network cannot learn from.

        Args:
            reverse_complement: probability that a promoter is shown as its reverse complement.
            jitter: largest shift of a window, in bases.
        """
        if self.keep_strands and reverse_complement > 0:
            raise InputError(
                f"`CNNConfig.keep_strands=True` with `TrainingConfig.reverse_complement={reverse_complement:g}`: "
                "a promoter turned round has its strands exchanged; give `TrainingConfig.reverse_complement=0` "
                "or `CNNConfig.keep_strands=False`"
            )
        if self.bins > 1 and reverse_complement > 0:
            raise InputError(
                f"`CNNConfig.bins={self.bins}` with `TrainingConfig.reverse_complement={reverse_complement:g}`: a "
                "promoter turned round has its bins in reverse; give `TrainingConfig.reverse_complement=0`, and "
                "`CNNConfig.both_strands=True` instead"
            )


class _NoPromoterCNN:
    """What configurations of all networks but `PromoterCNN` have in common."""

    @property
    def n_blocks(self) -> int:
        """The number of blocks that settings are given for: none."""
        return 0

    @property
    def incremental(self) -> CNNConfig | None:
        """The configuration for the incremental engine: none, each mutant needs a forward pass."""
        return None

    def outside(self, length: int) -> int:
        """Return the number of bases at the start of a window that the network does not see: none."""
        return 0


class Architecture(NamedTuple):
    """Facts about a pretrained network that are needed before it is loaded.

    Attributes:
        library: (module, class) of the network; the class has a `config_class` and `from_pretrained`.
        hub: name of its weights on the Hugging Face hub.
        context: length in bases of the sequences that it was trained on.
        bin_width: number of bases in a bin of its output.
        trunk_prefixes: prefixes of the names of the trunk's weights in the library's class.
        attention: names of the linear maps to which LoRA adds its matrices.
        step: number of bases that divides a window: two of the coarsest cells, so that the TSS is between two.
    """

    library: tuple[str, str]
    hub: str
    context: int
    bin_width: int
    trunk_prefixes: tuple[str, ...]
    attention: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out", "Wqkv", "out_proj")  # the last two: flash
    step: int = 256


ARCHITECTURES: dict[str, Architecture] = {
    "enformer": Architecture(
        library=("enformer_pytorch", "Enformer"),
        hub="EleutherAI/enformer-official-rough",
        context=196_608,
        bin_width=128,
        trunk_prefixes=("stem.", "conv_tower.", "transformer.", "final_pointwise."),
    ),
    "borzoi": Architecture(
        library=("borzoi_pytorch", "Borzoi"),
        hub="johahi/borzoi-replicate-0",
        context=524_288,
        bin_width=32,
        trunk_prefixes=(
            "conv_dna.",
            "res_tower.",
            "unet1.",
            "transformer.",
            "horizontal",
            "upsampling",
            "separable",
            "final_joined",
        ),
    ),
}


@dataclass(frozen=True)
class PretrainedConfig(_NoPromoterCNN):
    """A pretrained network and how it is fine-tuned.

    Args:
        name: enformer or borzoi.
        weights: name on the Hugging Face hub, or a folder in its layout (config.json and the weights); by default
            the weights that the network's authors or their port published.
        revision: commit, tag or branch on the hub; by default its main branch.
        adapt: fine-tuning mode. head trains the head alone, on embeddings that are computed once; lora adds
            low-rank matrices to the attention; full trains all weights.
        tss_bins: number of output bins around the TSS whose mean is the embedding; a bin is 128 bases in Enformer,
            32 in Borzoi.
        head: linear, or mlp with a hidden layer.
        hidden: number of units in the hidden layer of an mlp head.
        dropout: probability of dropping, during training, an input of a linear head or a hidden unit of an mlp.
        lora_rank: rank of the matrices that lora adds.
        layer_decay: factor by which the learning rate falls from each block to the one below it, with adapt full;
            the head has the full rate.
        n_targets: number of outputs. Training takes it from the data: 1 counts as not given, and any other
            number must be that of the data.
    """

    name: PretrainedName = "enformer"
    weights: str | None = None
    revision: str | None = None
    adapt: Literal["head", "lora", "full"] = "head"
    tss_bins: int = 4
    head: Literal["linear", "mlp"] = "linear"
    hidden: int = 32
    dropout: float = 0.3
    lora_rank: int = 8
    layer_decay: float = 0.9
    n_targets: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for values that make no network."""
        require_limits(vars(self), "PretrainedConfig")
        choices = {"name": tuple(ARCHITECTURES), "adapt": ("head", "lora", "full"), "head": ("linear", "mlp")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                problem = f"must be one of {', '.join(known)}"
                raise InputError(problem, setting=f"PretrainedConfig.{name}", value=getattr(self, name))

    @property
    def architecture(self) -> Architecture:
        """The facts about the network of this name."""
        return ARCHITECTURES[self.name]

    @property
    def source(self) -> str:
        """The hub name or folder of the weights."""
        return self.weights or self.architecture.hub

    @property
    def pretrained(self) -> PretrainedConfig | None:
        """The configuration by which pretrained weights are fetched: this one."""
        return self

    def for_window(self, length: int, window: Mapping[str, Any] | None = None) -> PretrainedConfig:
        """Return the network for windows of this length: this one, or the error of `require_length`."""
        self.require_length(length, window)
        return self

    def require_length(self, length: int, window: Mapping[str, Any] | None = None) -> None:
        """Raise InputError if the network cannot take a window, or if the TSS is not in its middle.

        Args:
            length: length of the window in bases.
            window: its `upstream` and `downstream` in bases; None, or None in it, where they are unknown.

        Raises:
            InputError: the message has the settings with which prepare makes a window that fits.
        """
        known = self.architecture
        make = f"`window={self.name!r}`"
        if length % known.step or not 0 < length <= known.context:
            fitting = min(known.context, max(known.step, round(length / known.step) * known.step))
            raise InputError(
                f"{self.name} takes {known.context:,} bases, or fewer in steps of {known.step}, not a window of "
                f"{length:,}; prepare the data with {make} or with {make} `context={fitting}`"
            )
        if length < self.tss_bins * known.bin_width:
            raise InputError(
                f"as many bins of {known.bin_width} bases are more than the window's {length:,}",
                setting="PretrainedConfig.tss_bins",
                value=self.tss_bins,
                fix="take fewer, or prepare a wider window",
            )
        if window and window.get("upstream") is not None and window["upstream"] != window["downstream"]:
            raise InputError(
                f"{self.name} wants the TSS in the middle of the window, which has {window['upstream']:,} "
                f"bases upstream and {window['downstream']:,} downstream of it; prepare the data with "
                f"{make} `context={length}`"
            )

    def require_augmentation(self, reverse_complement: float, jitter: int) -> None:
        """Raise InputError for augmentation that the network cannot learn from.

        Args:
            reverse_complement: probability that a promoter is shown as its reverse complement; any is possible.
            jitter: largest shift of a window, in bases.
        """
        if self.adapt == "head" and jitter:
            raise InputError(
                f"`TrainingConfig.jitter={jitter}` with `PretrainedConfig.adapt='head'`: embeddings are computed "
                "once, of sequences as they are",
                fix="give `TrainingConfig.jitter=0`, or `PretrainedConfig.adapt='lora'`",
            )


@dataclass(frozen=True)
class ExternalConfig(_NoPromoterCNN):
    """A network that a function outside this package returns, for training.

    Args:
        name: external.
        factory: package.module:function, the function that returns the network: an nn.Module from one-hot (batch,
            4, length) to (batch, n_targets). It is called with length and n_targets.
        n_targets: number of outputs. Training takes it from the data: 1 counts as not given, and any other
            number must be that of the data.
    """

    name: Literal["external"] = "external"
    factory: str | None = None  # None, the default of the flag, is refused
    n_targets: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for values that make no network."""
        require_limits(vars(self), "ExternalConfig")
        if self.factory is None:
            raise InputError(
                "`ExternalConfig.factory` is missing; name the function that returns the network, as "
                "package.module:function"
            )

    @property
    def pretrained(self) -> PretrainedConfig | None:
        """The configuration by which pretrained weights are fetched: none."""
        return None

    def for_window(self, length: int, window: Mapping[str, Any] | None = None) -> ExternalConfig:
        """Return the network for windows of this length: this one, whose function is told the length."""
        return self

    def require_length(self, length: int, window: Mapping[str, Any] | None = None) -> None:
        """Accept any length: the network is run on sequences of it before it is trained."""

    def require_augmentation(self, reverse_complement: float, jitter: int) -> None:
        """Accept any augmentation: what the network can learn from is not known."""


NetworkConfig: TypeAlias = CNNConfig | PretrainedConfig | ExternalConfig
