"""Folders in the layout of the Hugging Face hub, with small networks of the real classes and random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn


def enformer(folder: Path, seed: int = 0) -> Path:
    """Write a small Enformer as the hub has the official one: `pytorch_model.bin` and `config.json`."""
    from enformer_pytorch import Enformer, EnformerConfig  # noqa: PLC0415 # seconds, which other tests need not wait for

    torch.manual_seed(seed)
    config = EnformerConfig(
        dim=48,
        depth=2,
        heads=4,
        attn_dim_key=8,
        num_downsamples=7,
        dim_divisible_by=4,
        output_heads={"human": 5, "mouse": 3},
        target_length=896,
    )
    network = _roused(Enformer(config))
    # the library's weights stand under two names each, which safetensors refuses
    network.save_pretrained(folder, safe_serialization=False)
    return folder


def borzoi(folder: Path, seed: int = 0) -> Path:
    """Write a Borzoi as small as its class allows, 19 million weights: `model.safetensors` and `config.json`."""
    from borzoi_pytorch import Borzoi  # noqa: PLC0415 # as above
    from borzoi_pytorch.config_borzoi import BorzoiConfig  # noqa: PLC0415 # as above

    torch.manual_seed(seed)
    config = BorzoiConfig(
        dim=16, depth=1, heads=2, attn_dim_key=8, attn_dim_value=8, enable_human_head=False, bins_to_return=8
    )
    _roused(Borzoi(config)).save_pretrained(folder)
    return folder


def _roused(network: Any) -> Any:
    """Let nothing be as drawn where that would hide mistakes: attention that adds 0, statistics of 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Conv1d):
            # as drawn by the libraries, a sequence hardly matters to what comes out
            fan_in = module.weight.shape[1] * module.weight.shape[2]
            nn.init.normal_(module.weight, std=1.3 / fan_in**0.5)
        last = getattr(module, "to_out", None)
        if isinstance(last, nn.Linear):
            nn.init.normal_(last.weight, std=0.2)
            nn.init.normal_(last.bias, std=0.2)
    return network.eval()
