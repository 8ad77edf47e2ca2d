"""Save and load model directories: `model.safetensors` (weights) and `model.yaml` (everything else). Never pickle.

If the split does not follow from the chromosomes, `split.tsv` lists it gene by gene.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from safetensors import SafetensorError
from upath import UPath

import promoter
from promoter import storage
from promoter.errors import InputError
from promoter.model_info import (
    DESCRIPTION,
    FORMAT,
    GENES,
    RANK,
    ModelInfo,
    describe_info,
    genes_to_bytes,
    read_description,
    to_plain,
)
from promoter.models.build import Network
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.config import ARCHITECTURES, PretrainedConfig
from promoter.models.external import ExternalModel, rebuild_external
from promoter.models.pretrained import empty_model
from promoter.storage import AnyPath
from promoter.storage.parsing import to_yaml
from promoter.storage.records import seal
from promoter.storage.schema import checked

WEIGHTS = "model.safetensors"
KEPT_BASELINES = "baselines.safetensors"  # written and read by `promoter.baselines`; not of the serialized model
_ARCHITECTURE = "promoter_cnn"
EXTERNAL = "external"  # architecture of a network of other code
_SHA256_OF_NOTHING = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class SerializedModel:
    """Hold a model directory as byte strings, which can be sent to another process.

    Attributes:
        description: content of `model.yaml`.
        weights: content of `model.safetensors`.
        source: path of the directory, for messages.
        genes: content of `split.tsv`; empty if there is no such file.
        trusted: whether the user lets the code run that a model of kind external brings.
    """

    description: bytes
    weights: bytes
    source: str
    genes: bytes = b""
    trusted: bool = False

    @property
    def checksum(self) -> str:
        """Compute the SHA-256 of the description (which holds that of `split.tsv`) and the weights."""
        return hashlib.sha256(hashlib.sha256(self.description).digest() + self.weights).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that its numbers depend on."""
    return {
        "promoter": promoter.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pandas": pd.__version__,
    }


def save_model(folder: AnyPath, model: Network, info: ModelInfo) -> None:
    """Write a model directory.

    The description is written last and holds the checksum of the weights: a directory left by a crash in between
    does not load.

    Args:
        folder: path of the directory, local or remote; created if needed.
        model: network that returns original units.
        info: description of the model; `targets` must name each output.
    """
    where = storage.resolve(folder)
    _write(where, pack_model(model, info, str(where)))


def pack_model(model: Network, info: ModelInfo, source: str) -> SerializedModel:
    """Return a model as the byte strings of its directory.

    Args:
        model: network that returns original units.
        info: description of the model; `targets` must name each output.
        source: name of the model for messages.
    """
    if len(info.targets) != model.config.n_targets:
        raise ValueError(f"{len(info.targets)} target names for {model.config.n_targets} outputs: {info.targets}")
    model.end_adapting()  # merges adapters into the weights
    # each a copy of its own: safetensors refuses weights that share memory, as tied layers do
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    weights = safetensors.torch.save(state)
    genes = genes_to_bytes(info)
    description = {
        "format": FORMAT,
        "architecture": to_plain(model.describe()),
        **describe_info(info),
        **({"genes_sha256": hashlib.sha256(genes).hexdigest()} if genes else {}),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    return SerializedModel(to_yaml(seal(description)).encode(), weights, source, genes)


def copy_model(source: AnyPath, target: AnyPath) -> None:
    """Copy a model directory with the baselines that it keeps; both may be remote.

    Args:
        source: path of the model directory.
        target: path of the copy.
    """
    _write(storage.resolve(target), serialize_model(source))
    kept = storage.resolve(source) / KEPT_BASELINES
    if kept.exists():
        storage.copy_file(kept, storage.resolve(target) / KEPT_BASELINES)


def serialize_model(folder: AnyPath, *, trust_code: bool = False) -> SerializedModel:
    """Read a model directory into byte strings, without building the model.

    Args:
        folder: path of the model directory.
        trust_code: True lets code run that a model of kind external brings; False is the default.

    Raises:
        InputError: the directory or one of its files is missing.
    """
    where = storage.resolve(folder)
    with storage.wrap_store_errors(where, "read"):
        if not where.is_dir():
            raise InputError(f"{where}: no such model directory; give the 'model' folder that train wrote")
        for name in (DESCRIPTION, WEIGHTS):
            if not (where / name).is_file():
                raise InputError(f"{where}: holds no {name}; give the 'model' folder that train wrote")
        genes = (where / GENES).read_bytes() if (where / GENES).is_file() else b""
        description, weights = (where / DESCRIPTION).read_bytes(), (where / WEIGHTS).read_bytes()
        return SerializedModel(description, weights, str(where), genes, trust_code)


def serialize_models(folders: Sequence[AnyPath], *, trust_code: bool = False) -> list[SerializedModel]:
    """Read the models of an ensemble.

    Args:
        folders: paths of model directories, or of folders that hold several: runs, each with its `model`, or a run
            with `folds`, as train and tune write them.
        trust_code: True lets code run that a model of kind external brings; False is the default.

    Raises:
        InputError: a folder holds no model.
    """
    return [
        serialize_model(where, trust_code=trust_code)
        for folder in folders
        for where in _model_folders(storage.resolve(folder))
    ]


def _model_folders(where: UPath) -> list[UPath]:
    if (where / DESCRIPTION).exists() or not where.is_dir():
        return [where]
    folds = where / "folds" if (where / "folds").is_dir() else where
    inside = [path / "model" if (path / "model").is_dir() else path for path in sorted(folds.iterdir(), key=str)]
    return [path for path in inside if (path / DESCRIPTION).exists()] or [where]


def deserialize_model(packed: SerializedModel, device: str | torch.device = "cpu") -> tuple[Network, ModelInfo]:
    """Build a model and its description.

    Args:
        packed: the model directory as byte strings.
        device: device to put the model on (default `cpu`).

    Returns:
        The model in evaluation mode, and its description.

    Raises:
        InputError: the format has another version, the files do not belong together, or the model brings code that
            is not `trusted`.
    """
    description, info = read_description(packed.description, packed.genes, packed.source)
    for name, content, expected in (
        (WEIGHTS, packed.weights, description["weights_sha256"]),
        (GENES, packed.genes, description.get("genes_sha256", _SHA256_OF_NOTHING)),
    ):
        if hashlib.sha256(content).hexdigest() != expected:
            raise InputError(
                f"{packed.source}: {name} is not the file that {DESCRIPTION} describes (SHA-256 differs); "
                "copy the whole directory again"
            )
    if description["architecture"].get("name") == EXTERNAL and not packed.trusted:
        raise InputError(
            f"{packed.source}: is a network of other code, which would run here; if you trust the code, give "
            "`trust_code=True`"
        )
    try:
        model = _empty_network(description["architecture"], info)
        if len(info.targets) != model.config.n_targets:
            raise InputError(f"{len(info.targets)} targets for {model.config.n_targets} outputs")
    except InputError as error:
        raise InputError(f"{packed.source}: {DESCRIPTION}: {error}; copy the directory again") from error
    try:
        # an external network keeps its number types, and ties between its weights
        assign = not isinstance(model, ExternalModel)
        model.load_state_dict(safetensors.torch.load(packed.weights), assign=assign)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{packed.source}: {WEIGHTS} does not fit its description ({reason})") from error
    return model.to(device).eval(), info


def _empty_network(architecture: dict[str, Any], info: ModelInfo) -> Network:
    """Build the network of a description, its weights still to be loaded.

    Raises:
        InputError: a setting is missing, or none that this version knows, or one that makes no network.
    """
    values = dict(architecture)
    name = values.pop("name", None)
    length = info.window["length"]
    if name == EXTERNAL:
        return rebuild_external(values, info.targets)
    if name == _ARCHITECTURE:
        config = checked(values, CNNConfig, "architecture", "train again")
        if length is not None:  # what was saved was fitted to it
            config.require_length(length)
        with torch.device("meta"):  # the weights that are loaded take the place of these
            return PromoterCNN(config)
    if name not in list(ARCHITECTURES):
        raise InputError(f"architecture {name!r} is not known here; use the version of promoter that wrote it")
    trunk = values.pop("trunk", None)
    config = checked({"name": name, **values}, PretrainedConfig, "architecture", "train again")
    try:
        return empty_model(config, length or 0, trunk)
    except InputError:
        raise
    except Exception as error:  # whatever the network's library makes of its settings
        raise InputError(f"architecture.trunk makes no network ({' '.join(str(error).split())[:200]})") from error


def deserialize_ensemble(members: Sequence[SerializedModel]) -> tuple[Network, ModelInfo]:
    """Build the first model of an ensemble, and the description of the ensemble.

    The description's split of a chromosome or gene is `train` if any member had it in its training set, else `val`
    if any member chose its epoch by it.

    Args:
        members: the model directories as byte strings.

    Returns:
        The first model in evaluation mode, and the description.

    Raises:
        InputError: as for `deserialize_model`, or the models differ in targets or window.
    """
    model, info = deserialize_model(members[0])
    infos = [info]
    for other in members[1:]:
        _, other_info = deserialize_model(other)
        infos.append(other_info)
        for name in ("targets", "window"):
            if getattr(other_info, name) != getattr(info, name):
                raise InputError(
                    f"has {name} {getattr(other_info, name)}, {members[0].source} has {getattr(info, name)}",
                    setting="ensemble",
                    value=other.source,
                    fix="give models that were trained on the same data",
                )
    of_chrom: dict[str, str] = {}
    for member in infos:
        for chrom, name in member.split_of_chrom.items():
            of_chrom[chrom] = min(name, of_chrom.get(chrom, name), key=RANK)
    listed = {gene: place for member in infos for gene, (place, _) in member.split_of_gene.items()}
    ids, where = (pd.Series(list(values), dtype="object") for values in (listed, listed.values()))
    splits = zip(*(member.split_at(ids, where) for member in infos), strict=True)
    of_gene = {
        gene: (place, min((name for name in names if name is not None), key=RANK, default=None))
        for (gene, place), names in zip(listed.items(), splits, strict=True)
    }
    split = {name: [chrom for chrom, assigned in of_chrom.items() if assigned == name] for name in info.split}
    return model, replace(info, split=split, split_of_gene=of_gene)


def load_model(folder: AnyPath, device: str | torch.device = "cpu", *, trust_code: bool = False) -> Network:
    """Load a model that `save_model` wrote.

    Args:
        folder: path of the model directory, local or remote.
        device: device to put the model on (default `cpu`).
        trust_code: True runs the code that a model of kind external brings; False, the default, refuses it.

    Returns:
        The model in evaluation mode: one-hot (batch, 4, length) -> predictions (batch, targets) in original units.

    Raises:
        InputError: the directory is missing, damaged, or of another format version.
    """
    return deserialize_model(serialize_model(folder, trust_code=trust_code), device)[0]


def load_info(folder: AnyPath) -> ModelInfo:
    """Read the description of a model directory; errors as for `load_model`, but no code of a network runs."""
    packed = serialize_model(folder)
    description, info = read_description(packed.description, packed.genes, packed.source)
    external = description["architecture"].get("name") == EXTERNAL
    return info if external else deserialize_model(packed)[1]


def _write(where: UPath, packed: SerializedModel) -> None:
    if (where / KEPT_BASELINES).exists():  # of the model that is replaced
        (where / KEPT_BASELINES).unlink()
    for name, content in ((WEIGHTS, packed.weights), (GENES, packed.genes), (DESCRIPTION, packed.description)):
        if content:
            with storage.open_atomic(where / name) as file:
                file.write(content)
