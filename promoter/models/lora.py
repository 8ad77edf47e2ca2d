"""Fine-tune a trunk with little memory: LoRA, and activations that are computed again in backward."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from promoter.errors import InputError
from promoter.models.config import INSTALL, PretrainedConfig


def add_lora(trunk: nn.Module, config: PretrainedConfig) -> nn.Module:
    """Add low-rank matrices to the projections of a trunk's attention (Hu et al. 2021, arXiv:2106.09685).

    Args:
        trunk: the trunk, whose modules are changed in place.
        config: the network, with the rank of the matrices.

    Returns:
        The trunk as peft wraps it.

    Raises:
        InputError: peft is not installed.
    """
    try:
        peft = importlib.import_module("peft")
    except ImportError as error:
        problem = f"peft cannot be imported ({error})"
        raise InputError(problem, setting="PretrainedConfig.adapt", value="lora", fix=INSTALL) from error
    lora_config = peft.LoraConfig(
        r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules=list(config.architecture.attention)
    )
    return peft.get_peft_model(trunk, lora_config)


def recompute_activations(block: nn.Module) -> None:
    """Let a block forget its activations, and compute them once more in backward: memory for time."""
    plain = block.forward

    def forward(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*inputs)
        return checkpoint(plain, *inputs, use_reentrant=False)

    block.forward = forward


def keep_activations(block: nn.Module) -> None:
    """Undo `recompute_activations`."""
    block.__dict__.pop("forward", None)
