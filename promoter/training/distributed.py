"""This process among those of `torch.distributed`.

Genes are dealt out so that the sum over the workers is what one worker would compute: each global
batch is shared by all workers, and each gene is predicted by exactly one.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class DistributedContext:
    """Hold this process's rank and the number of processes: 0 and 1 where no process group is initialised.

    Attributes:
        rank: index of this process, from 0.
        size: number of processes.
    """

    def __init__(self) -> None:
        initialised = dist.is_available() and dist.is_initialized()
        self.rank: int = dist.get_rank() if initialised else 0
        self.size: int = dist.get_world_size() if initialised else 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensor of each process, stacked in the order of their ranks; all have one shape."""
        if self.size == 1:
            return tensor.unsqueeze(0)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts)

    def average_buffers(self, model: nn.Module) -> None:
        """Give every process the same batch-norm statistics: the mean of what each has seen.

        Sums are float64, so that a buffer that is the same everywhere stays as it is.
        """
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if self.size == 1 or not buffers:
            return
        flat = self.sum(torch.cat([buffer.flatten().double() for buffer in buffers])) / self.size
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))
