"""What a configuration of either kind makes: the CNN, or a pretrained network with a head of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.pretrained import (
    PackedTrunk,
    PretrainedConfig,
    PretrainedHead,
    PretrainedModel,
    build_model,
    require_window,
)

NetworkConfig = CNNConfig | PretrainedConfig
Network = PromoterCNN | PretrainedModel
Learner = PromoterCNN | PretrainedModel | PretrainedHead  # what is trained: of a frozen trunk's network the head


def require_length(config: NetworkConfig, length: int, window: Mapping[str, Any] | None = None) -> None:
    """Refuse windows that do not suit the network.

    Args:
        config: the network.
        length: of the window, in bases.
        window: `upstream` and `downstream`, where they are known.

    Raises:
        InputError: names the numbers and the mend.
    """
    if isinstance(config, PretrainedConfig):
        require_window(config, length, window)
    else:
        with torch.device("meta"):  # nothing is computed with it
            PromoterCNN(config, length)


def new_learner(config: NetworkConfig, width: int, trunk: PackedTrunk | None = None) -> Learner:
    """Build what is to be trained, with new weights by torch's global generator.

    Args:
        config: the network.
        width: of its input: bases of the window, or entries of an embedding where a head is trained on those.
        trunk: the pretrained weights; not needed for a head.
    """
    if isinstance(config, CNNConfig):
        return PromoterCNN(config, length=width)
    if trunk is None:
        return PretrainedHead(config, width)
    return build_model(config, width, trunk)


def whole_network(learner: Learner, length: int, trunk: PackedTrunk | None) -> Network:
    """Return the network that maps sequences to predictions: a head is given its trunk."""
    if not isinstance(learner, PretrainedHead):
        return learner
    if trunk is None:
        raise ValueError("a head alone is no network; give its trunk")
    whole = build_model(learner.config, length, trunk)
    whole.head.load_state_dict(learner.state_dict())
    return whole.eval()
