"""Pretrained networks (Enformer, Borzoi) with a new head, and how they are fine-tuned.

The trunk is the library's own (`enformer`, `borzoi`); of its output the bins around the middle of the window,
where the TSS is, are averaged into an embedding. The libraries come with the extra `promoter[pretrained]` and are
imported when needed.

Three fine-tuning modes: `head` leaves the trunk as it is, `lora` adds low-rank matrices to the projections of its
attention, which are merged into them at the end, `full` trains all weights. In all three the batch norms keep the
statistics that they were pretrained with: a few sequences are too few to estimate new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from promoter.errors import InputError
from promoter.models.cnn import evaluating
from promoter.models.config import PretrainedConfig
from promoter.models.lora import add_lora, keep_activations, recompute_activations
from promoter.models.precision import full_float32
from promoter.models.trainable import TrainableNetwork
from promoter.models.trunk import Trunk
from promoter.models.weights import SerializedTrunk, build_trunk
from promoter.sequence import one_hot, reverse_complement

_BASES_PER_PASS = 1 << 18  # of the trunk: at the full context one sequence, which keeps a GPU busy by itself
_GENES_PER_EMBEDDING_PASS = 32


class PretrainedHead(TrainableNetwork):
    """Map embeddings (batch, dim) to predictions (batch, targets).

    Args:
        config: the network that the head belongs to.
        dim: number of entries of an embedding.
    """

    def __init__(self, config: PretrainedConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(dim)  # brings entries to order 1, whatever their scale in the trunk
        if config.head == "linear":
            layers: list[nn.Module] = [nn.Dropout(config.dropout)]
            last = nn.Linear(dim, config.n_targets)
        else:
            layers = [nn.Linear(dim, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            last = nn.Linear(config.hidden, config.n_targets)
        self.layers = nn.Sequential(*layers)
        self.last = last

    def forward(self, embeddings_BD: Tensor) -> Tensor:
        """Map embeddings to predictions."""
        return self.last(self.layers(self.norm(embeddings_BD)))

    def output_layer(self) -> nn.Linear:
        """Return the last layer, whose outputs are the targets."""
        return self.last


class PretrainedModel(TrainableNetwork):
    """A pretrained trunk and a head: one-hot (batch, 4, length) -> predictions (batch, targets).

    Args:
        config: the network and its fine-tuning mode.
        trunk: the trunk with its weights.
        origin: source, revision and checksum of these, for `model.yaml`.
    """

    def __init__(self, config: PretrainedConfig, trunk: Trunk, origin: Mapping[str, Any]) -> None:
        super().__init__()
        self.config, self.origin = config, dict(origin)
        self.trunk, self.head = trunk.module, PretrainedHead(config, trunk.dim)
        self.blocks = tuple(trunk.blocks)  # a tuple: registered already, as parts of the trunk
        self.adapting = False

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Map one-hot (batch, 4, length) to predictions (batch, targets)."""
        return self.head(self.embed(x_BCL))

    def embed(self, x_BCL: Tensor) -> Tensor:
        """Map one-hot (batch, 4, length) to embeddings (batch, dim): the mean over the bins at the TSS."""
        self.config.require_length(x_BCL.shape[-1])
        return self.trunk(x_BCL).float().mean(dim=1)

    def output_layer(self) -> nn.Linear:
        """Return the last layer of the head, whose outputs are the targets."""
        return self.head.output_layer()

    def describe(self) -> dict[str, Any]:
        """Return the architecture's entry in `model.yaml`: the configuration, and the origin of the trunk."""
        return {**asdict(self.config), "trunk": self.origin}

    def train(self, mode: bool = True) -> PretrainedModel:
        """Set the mode; the batch norms stay in evaluation mode, as does a trunk that is not trained."""
        super().train(mode)
        if self.config.adapt == "full":
            for module in self.trunk.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        else:
            self.trunk.eval()
        return self

    def begin_adapting(self) -> None:
        """Prepare for training: freeze what stays, add the matrices of LoRA, forget activations until backward.

        Until `end_adapting` the names of the weights may differ.
        """
        if self.adapting:
            return
        self.adapting = True
        if self.config.adapt != "full":
            self.trunk.requires_grad_(False)
        if self.config.adapt == "lora":
            self.trunk = add_lora(self.trunk, self.config)
        if self.config.adapt != "head":
            for block in self.blocks:
                recompute_activations(block)

    def end_adapting(self) -> None:
        """Undo `begin_adapting`; the matrices of LoRA are added to the weights beside which they stood."""
        if not self.adapting:
            return
        self.adapting = False
        for block in self.blocks:
            keep_activations(block)
        if self.config.adapt == "lora":
            self.trunk = self.trunk.merge_and_unload(safe_merge=True)  # type: ignore[operator] # of a PeftModel
        self.requires_grad_(True)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the parameters to train, in groups with a learning rate each; the head comes first.

        Args:
            learning_rate: rate of the head.
        """
        groups = [{"params": list(self.head.parameters()), "lr": learning_rate}]
        if self.config.adapt != "full":
            trained = [parameter for parameter in self.trunk.parameters() if parameter.requires_grad]
            return groups + ([{"params": trained, "lr": learning_rate}] if trained else [])
        rate = learning_rate
        for block in reversed(self.blocks):
            rate *= self.config.layer_decay
            groups.append({"params": list(block.parameters()), "lr": rate})
        return groups

    def genes_per_pass(self, length: int, batch_size: int) -> int:
        """Return how many sequences of a batch go through the trunk in one pass, as the function of this name."""
        return genes_per_pass(length, batch_size)


def genes_per_pass(length: int, most: int) -> int:
    """Return how many sequences go through the trunk together: a power of two.

    Args:
        length: length of a sequence in bases.
        most: the most that is returned.
    """
    return max(1, min(most, 1 << max(0, (_BASES_PER_PASS // max(length, 1)).bit_length() - 1)))


def build_model(config: PretrainedConfig, length: int, packed: SerializedTrunk) -> PretrainedModel:
    """Build the network with the pretrained weights in its trunk, and a new head.

    Args:
        config: the network.
        length: length of the window in bases.
        packed: the pretrained weights.

    Raises:
        InputError: a library is missing, or the window or the weights do not fit.
    """
    import safetensors.torch  # noqa: PLC0415 # needed where there are weights to load

    model = empty_model(config, length, packed.origin)
    try:
        model.trunk.load_state_dict(safetensors.torch.load(packed.weights))
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{packed.source}: the weights are not those of {config.name} ({reason})") from error
    return model


def empty_model(config: PretrainedConfig, length: int, origin: Mapping[str, Any]) -> PretrainedModel:
    """Build the network as `build_model` does, its weights still to be loaded.

    Args:
        config: the network.
        length: length of the window in bases.
        origin: `config` of the library's class, and the source of the weights.
    """
    config.require_length(length)
    return PretrainedModel(config, build_trunk(config, origin["config"], length, config.tss_bins), origin)


@torch.inference_mode()
def embed(
    model: PretrainedModel,
    tokens: np.ndarray,
    *,
    device: str | torch.device,
    precision: Literal["fp32", "bf16"] = "fp32",
    both_strands: bool = False,
) -> np.ndarray:
    """Compute the embedding of each sequence.

    Args:
        model: the network, on `device`.
        tokens: uint8, shape (N, length).
        device: the device to compute on.
        precision: precision of the trunk: fp32 (the default) or bf16.
        both_strands: embed the reverse complements too; false by default.

    Returns:
        float32, shape (N, 1 or 2, dim): the embedding of the sequence, then that of its reverse complement.
    """
    kind = torch.device(device).type
    size = genes_per_pass(tokens.shape[1], _GENES_PER_EMBEDDING_PASS)
    embeddings = []
    # full float32 as for predictions: a head must be trained on the embeddings that it will be used on
    with (
        evaluating(model),
        full_float32(),
        torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"),
    ):
        for start in range(0, len(tokens), size):
            batch = torch.tensor(tokens[start : start + size], device=device)
            strands = [batch, reverse_complement(batch)] if both_strands else [batch]
            embeddings.append(
                torch.stack([model.embed(one_hot(torch.as_tensor(strand))).float() for strand in strands], 1).cpu()
            )
    return torch.cat(embeddings).numpy()
