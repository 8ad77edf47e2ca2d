"""BPNet and ChromBPNet of bpnet-lite (pip install bpnet-lite): counts and profile from 2,114 bases."""

from typing import Any

import torch
from bpnetlite import BPNet, ChromBPNet
from bpnetlite.bpnet import ControlWrapper
from torch import Tensor

from promoter.models.external import ExternalModel, select_head

LENGTH = 2114


def profile_score(outputs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the shape of the profile as a number: the mean of its centred logits, by their softmax.

    That is bpnet-lite's `ProfileWrapper`. Positions where the profile is high weigh most, the total cancels out.
    """
    logits = outputs[0].flatten(1)
    logits = logits - logits.mean(1, keepdim=True)
    return (logits * logits.softmax(1)).sum(1)


def counts_and_profile(outputs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the logarithm of the counts and the score of the profile, (batch, 2)."""
    return torch.cat([outputs[1], profile_score(outputs)[:, None]], dim=1)


def bpnet(filters: int = 64, layers: int = 8, length: int = LENGTH) -> ExternalModel:
    """Return the counts of BPNet; its control tracks are zeros."""
    module = ControlWrapper(BPNet(filters, layers, verbose=False))
    return ExternalModel(module, length=length, targets=["log_counts"], output=select_head(1))


def bpnet_profile(filters: int = 64, layers: int = 8, length: int = LENGTH) -> ExternalModel:
    """Return counts and profile of the same network, which takes the same weights."""
    module = bpnet(filters, layers, length).module
    return ExternalModel(module, length=length, targets=["log_counts", "profile"], output=counts_and_profile)


def chrombpnet(
    filters: int = 512, layers: int = 8, *, bias_filters: int = 128, bias_layers: int = 4, length: int = LENGTH
) -> ExternalModel:
    """Return the counts of ChromBPNet, those of the enzyme's bias included."""
    options: dict[str, Any] = {"n_outputs": 1, "n_control_tracks": 0, "verbose": False}
    accessibility = BPNet(filters, layers, **options)
    bias = BPNet(bias_filters, bias_layers, trimming=accessibility.trimming, **options)
    module = ChromBPNet(bias, accessibility)
    return ExternalModel(module, length=length, targets=["log_counts"], output=select_head(1))
