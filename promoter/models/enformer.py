"""Enformer (Avsec et al. 2021, doi:10.1038/s41592-021-01252-x) by enformer-pytorch: ACGT, N zeros."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promoter.errors import InputError
from promoter.models.config import ARCHITECTURES
from promoter.models.trunk import CentralBins, Trunk, central_distances

_FACTS = ARCHITECTURES["enformer"]


def build_trunk(cls: Any, settings: Mapping[str, Any], length: int, bins: int) -> Trunk:
    """Build Enformer's trunk, its weights still to be loaded.

    The library encodes distances by the length of its input; here they are encoded as over the context that the
    weights were trained on, whatever the window, since the weights know no other.

    Args:
        cls: the library's class.
        settings: settings of the class's configuration, and `use_tf_gamma`.
        length: length of the window in bases.
        bins: number of output bins to keep around the TSS.
    """
    library = importlib.import_module("enformer_pytorch.modeling_enformer")
    settings = dict(settings)
    tf_gamma = settings.pop("use_tf_gamma", False)
    network = cls(cls.config_class(**settings, output_heads={}, use_tf_gamma=False, target_length=-1))
    _unshare_batch_norms(network)
    trained = _FACTS.context // _FACTS.bin_width
    cells = length // _FACTS.bin_width
    for module in network.modules():
        if isinstance(module, library.Attention):
            features = library.get_positional_embed(
                trained, module.num_rel_pos_features, torch.device("cpu"), use_tf_gamma=tf_gamma
            )
            module.to_rel_k = RelativePositionKeys(module.to_rel_k, features, cells, module.pos_dropout.p)
    _, stem, tower, back, transformer, _, pointwise = network.trunk
    # the library's first step transposes (batch, length, 4), which ours is already; the indices keep their numbers
    module = nn.Sequential(nn.Identity(), stem, tower, back, transformer, CentralBins(bins), pointwise)
    return Trunk(module, [stem, *tower, *transformer, pointwise], 2 * network.dim)


def infer_missing_config(hub_config: Mapping[str, Any], source: str, folder: Path) -> dict[str, Any]:
    """Tell whether the weights are those of TensorFlow, which want the positions of TensorFlow.

    The library goes by the hub's name. A folder of that name is a copy; another must say so in its config.json,
    where the network is as large as those that are published: with the wrong positions it would run, and predict
    wrong values.

    Args:
        hub_config: contents of config.json.
        source: hub name or folder, as the user gave it.
        folder: local folder of the files.

    Returns:
        `use_tf_gamma`, which config.json may lack.

    Raises:
        InputError: config.json does not tell, and the network is as large as the published one.
    """
    official = _FACTS.hub
    if source == official or folder.name == official.rsplit("/", 1)[-1]:
        return {"use_tf_gamma": True}
    published = (hub_config.get("dim"), hub_config.get("depth")) == (1536, 11)
    if published and "use_tf_gamma" not in hub_config and Path(source).is_dir():
        raise InputError(
            f'its config.json must say "use_tf_gamma": true if these are the weights of {official} (or name the '
            f"folder {official.rsplit('/', 1)[-1]}), false if others",
            setting="PretrainedConfig.weights",
            value=source,
        )
    return {"use_tf_gamma": bool(hub_config.get("use_tf_gamma", False))}


class RelativePositionKeys(nn.Linear):
    """The keys of relative positions, from features that do not depend on the length of the input."""

    def __init__(self, linear: nn.Linear, features_RF: Tensor, cells: int, dropout: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight = linear.weight
        self.dropout = dropout
        self.features: Tensor
        self.register_buffer("features", central_distances(features_RF, cells).clone(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:  # named as in nn.Linear
        """Return the keys of all distances; `input`, the library's own features, is not read."""
        return super().forward(F.dropout(self.features, self.dropout, self.training))


def _unshare_batch_norms(network: nn.Module) -> None:
    """Replace batch norms that the library lets several processes share by plain ones: they are not trained.

    DDP refuses the shared ones on CPUs, and on GPUs they would communicate for nothing.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SyncBatchNorm):
                plain = nn.BatchNorm1d(child.num_features, child.eps, child.momentum)
                plain.load_state_dict(child.state_dict())
                setattr(parent, name, plain)
