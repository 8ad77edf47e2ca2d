"""`--model.*`: the settings of every network in one group of flags; `--model.name` chooses those that count."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from promoter.errors import InputError
from promoter.models.build import NetworkConfig
from promoter.models.cnn import CNNConfig
from promoter.models.pretrained import PretrainedConfig

_CNN = "promoter_cnn"
Config = TypeVar("Config", CNNConfig, PretrainedConfig)


@dataclass(frozen=True)
class ModelFlags(PretrainedConfig, CNNConfig):
    """Settings of the network. Those of another network than --model.name are refused.

    Args:
        name: promoter_cnn, trained from scratch; enformer or borzoi, pretrained (docs/pretrained.md).
        channels: of promoter_cnn: filters of each convolution block.
        kernel_sizes: of promoter_cnn: width of each block's filters in positions, odd.
        pool_sizes: of promoter_cnn: max pooling after each block but the last, which is averaged over all
            positions.
        crop: of promoter_cnn: how many of the window's last bases it sees, those nearest to the TSS; null for all.
        bins: of promoter_cnn: stretches that are averaged each by itself, so that it can tell where a motif
            stands; 1 for the global average.
        both_strands: of promoter_cnn: read the reverse complement too with the same filters, and average the two;
            goes with training.reverse_complement 0 where there are bins.
        hidden: units of the hidden layer of the head; of a pretrained network that of an mlp.
        dropout: probability that a hidden unit of the head, or an input of a linear one, is left out in training.
        weights: of a pretrained network: name on the Hugging Face hub, or folder in its layout; by default the
            library's own.
        revision: of the hub's files: a commit, a tag or a branch.
        adapt: of a pretrained network: head trains the head alone, on embeddings that are computed once; lora adds
            low-rank matrices to the attention; full trains all weights.
        tss_bins: of a pretrained network: bins of its output around the TSS, 128 bases each of enformer, 32 of
            borzoi.
        head: of a pretrained network: linear, or mlp with a hidden layer.
        lora_rank: rank of the matrices of lora.
        layer_decay: with adapt full, factor by which the learning rate falls from each block to the one below it.
        n_targets: outputs. The data tells their number: 1 counts as not given, any other must be that of the data.
    """

    name: Literal["promoter_cnn", "enformer", "borzoi"] = _CNN  # type: ignore[assignment] # one more than its parent

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        _ = self.config

    @property
    def config(self) -> NetworkConfig:
        """The settings of the network that was chosen.

        Raises:
            InputError: a setting of another one, or values that make no network.
        """
        if self.name == _CNN:
            return self._as(CNNConfig, PretrainedConfig)
        return self._as(PretrainedConfig, CNNConfig)

    def _as(self, kind: type[Config], other: type[CNNConfig] | type[PretrainedConfig]) -> Config:
        ours = {one.name: getattr(self, one.name) for one in fields(kind)}
        for one in fields(other):
            if one.name not in ours and one.name != "name" and getattr(self, one.name) != one.default:
                owner = _CNN if other is CNNConfig else "enformer and borzoi"
                raise InputError(
                    f"--model.{one.name} {_shown(getattr(self, one.name))}: is a setting of {owner}, not of "
                    f"{self.name}; leave it out, or choose another --model.name"
                )
        return kind(**ours)


# what jobs take: from the command line the flags, from Python a network's own settings too
if TYPE_CHECKING:
    Model = NetworkConfig
else:
    Model = ModelFlags


def chosen(model: NetworkConfig) -> NetworkConfig:
    """Return the settings of the network that was chosen."""
    return model.config if isinstance(model, ModelFlags) else model


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
