"""What training asks of any network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


def device_of(model: nn.Module, device: str | torch.device | None = None) -> torch.device:
    """Return a device as given, or that of a network's weights; the CPU for one without."""
    weights = chain(model.parameters(), model.buffers())
    return torch.device(device) if device else next((one.device for one in weights), torch.device("cpu"))


def dtype_of(model: nn.Module, default: torch.dtype = torch.float32) -> torch.dtype:
    """Return the number type of a network's weights; `default` for one without."""
    weights = chain(model.parameters(), model.buffers())
    return next((one.dtype for one in weights if one.is_floating_point()), default)


class TrainableNetwork(nn.Module):
    """A network as training sees it; the defaults suit one whose weights are all trained, each batch in one pass.

    Attributes:
        trains_batch_norms: whether the network may have batch norms whose statistics come from the training genes.
    """

    trains_batch_norms: ClassVar[bool] = False

    def begin_adapting(self) -> None:
        """Prepare for training; until `end_adapting` the names of the weights may differ."""

    def end_adapting(self) -> None:
        """Undo `begin_adapting`, keeping what was learned."""

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the parameters to train, in groups with a learning rate each."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def genes_per_pass(self, length: int, batch_size: int) -> int:
        """Return how many sequences of a batch go through the network in one pass.

        Args:
            length: length of a sequence in bases.
            batch_size: number of sequences in the batch, the most that is returned.
        """
        return batch_size

    def output_layer(self) -> nn.Linear:
        """Return the last layer, whose outputs are the targets."""
        raise NotImplementedError

    @torch.no_grad()
    def rescale_output(self, mean: Sequence[float] | Tensor, sd: Sequence[float] | Tensor) -> None:
        """Fold `output * sd + mean`, per target, into the last layer: from standardised to original units."""
        last = self.output_layer()
        scale, shift = (torch.as_tensor(v, dtype=last.bias.dtype, device=last.bias.device) for v in (sd, mean))
        last.weight.mul_(scale[:, None])
        last.bias.mul_(scale).add_(shift)
