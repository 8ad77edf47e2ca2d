"""Borzoi (Linder et al. 2025, doi:10.1038/s41588-024-02053-6) by borzoi-pytorch: ACGT, N zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from promoter.models.trunk import CentralBins, Trunk, central_distances

_BASES_PER_CELL = 128  # of the attention, which sees a quarter of the bins


def build_trunk(cls: Any, settings: Mapping[str, Any], length: int, bins: int) -> Trunk:
    """Build Borzoi's trunk, its weights still to be loaded.

    The library fixes the distances of its attention for the whole context; of these the middle is taken.

    Args:
        cls: the library's class.
        settings: settings of the class's configuration.
        length: length of the window in bases.
        bins: number of output bins to keep around the TSS.
    """
    network = cls(cls.config_class(**settings, enable_human_head=False, enable_mouse_head=False))
    cells = length // _BASES_PER_CELL
    for module in network.modules():
        if isinstance(getattr(module, "positions", None), Tensor):
            # in eager mode or not, transformers leaves buffers that are not saved without values: made here
            module.positions = central_distances(module.positions, cells).clone()
    network.crop = CentralBins(bins)
    blocks = [
        network.conv_dna,
        *(block for block in network.res_tower if any(True for _ in block.parameters())),
        network.unet1,
        *network.transformer,
        network.horizontal_conv1,
        network.upsampling_unet1,
        network.separable1,
        network.horizontal_conv0,
        network.upsampling_unet0,
        network.separable0,
        network.final_joined_convs,
    ]
    return Trunk(_BorzoiTrunk(network), blocks, network.final_joined_convs[0].conv_layer.out_channels)


class _BorzoiTrunk(nn.Module):
    """The library's network up to its outputs, bins before channels."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCL: Tensor) -> Tensor:
        x_BDN = self.network.get_embs_after_crop(x_BCL)
        return self.network.final_joined_convs(x_BDN).transpose(1, 2)
