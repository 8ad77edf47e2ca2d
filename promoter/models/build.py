"""Build a network from its configuration: the CNN, a pretrained trunk with a new head, or other code's network."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from promoter.models.cnn import PromoterCNN
from promoter.models.code import ModelCode
from promoter.models.config import CNNConfig, ExternalConfig, NetworkConfig, PretrainedConfig
from promoter.models.external import ExternalModel, build_external
from promoter.models.pretrained import PretrainedHead, PretrainedModel, build_model
from promoter.models.weights import SerializedTrunk

Network: TypeAlias = PromoterCNN | PretrainedModel | ExternalModel
Learner: TypeAlias = Network | PretrainedHead  # with a frozen trunk the head alone is trained


def build_learner(
    config: NetworkConfig, width: int, trunk: SerializedTrunk | None = None, code: ModelCode | None = None
) -> Learner:
    """Build the network or head to be trained, with new weights drawn from torch's global generator.

    Args:
        config: the network.
        width: length of its input: bases of the window, or entries of an embedding for a head that is trained on
            those.
        trunk: the pretrained weights; None builds a pretrained network's head alone.
        code: the code of an external network; None (default) for any other.
    """
    match config:
        case CNNConfig():
            return PromoterCNN(config, length=width)
        case PretrainedConfig():
            return PretrainedHead(config, width) if trunk is None else build_model(config, width, trunk)
        case ExternalConfig():
            if code is None:
                raise ValueError("an external network without code")
            model = build_external(code, length=width, n_targets=config.n_targets)
            model.config = config
            return model
        case _:
            assert_never(config)


def network_with_trunk(learner: Learner, length: int, trunk: SerializedTrunk | None) -> Network:
    """Return the network that maps sequences to predictions.

    Args:
        learner: what was trained; anything but a head is returned as it is.
        length: length of the window in bases.
        trunk: the pretrained weights, which a head needs.

    Raises:
        ValueError: a head without a trunk.
    """
    match learner:
        case PretrainedHead():
            if trunk is None:
                raise ValueError("a head alone is no network; give its trunk")
            network = build_model(learner.config, length, trunk)
            network.head.load_state_dict(learner.state_dict())
            return network.eval()
        case _:
            return learner
