"""Model directories: `model.safetensors` (weights) and `model.yaml` (everything else). Never pickle."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError
from upath import UPath

import promoter
from promoter import storage
from promoter.errors import InputError
from promoter.model import CNNConfig, PromoterCNN
from promoter.splits import SPLITS
from promoter.storage import AnyPath

FORMAT = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.yaml"
_ARCHITECTURE = "promoter_cnn"


@dataclass(frozen=True)
class ModelInfo:
    """What `model.yaml` says besides the architecture.

    Attributes:
        targets: names, in the order of the model's outputs.
        window: `upstream`, `downstream` and `length` in bases; the first two are None when unknown.
        standardisation: per target the training split's `mean` and `sd`; the saved weights already
            return original units.
        transform: of the expression values, by its name in `jobs.prepare`.
        split: `train`, `val`, `test` -> chromosomes, so that what was held out can be told from the model.
        data: `sha256` of the data set trained on.
        training: the training configuration and `best_epoch`.
        versions: of the software that trained it.
    """

    targets: list[str]
    window: dict[str, int | None]
    standardisation: dict[str, list[float]] = field(default_factory=dict)
    transform: str | None = None
    split: dict[str, list[str]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def split_of_chrom(self) -> dict[str, str]:
        """Chromosome -> split."""
        return {chrom: name for name, chroms in self.split.items() for chrom in chroms}


@dataclass(frozen=True)
class PackedModel:
    """A model directory as two byte strings, to be sent to another process.

    Attributes:
        description: content of `model.yaml`.
        weights: content of `model.safetensors`.
        source: where it was read, for messages.
    """

    description: bytes
    weights: bytes
    source: str

    @property
    def checksum(self) -> str:
        """SHA-256 of description and weights."""
        return hashlib.sha256(hashlib.sha256(self.description).digest() + self.weights).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of this package and of what its numbers depend on."""
    return {
        "promoter": promoter.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pandas": pd.__version__,
    }


def save_model(folder: AnyPath, model: PromoterCNN, info: ModelInfo) -> None:
    """Write a model directory.

    The description is written last and holds the checksum of the weights: a directory left by a
    crash in between does not load.

    Args:
        folder: made if needed; local or remote.
        model: its outputs in original units.
        info: `targets` must name each output.
    """
    if len(info.targets) != model.config.n_targets:
        raise ValueError(f"{len(info.targets)} target names for {model.config.n_targets} outputs: {info.targets}")
    where = storage.resolve(folder)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights = safetensors.torch.save(state)
    description = {
        "format": FORMAT,
        "architecture": {"name": _ARCHITECTURE, **_plain(asdict(model.config))},
        **_plain(asdict(info)),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = yaml.safe_dump(description, sort_keys=False).encode()
    _write(where, PackedModel(text, weights, str(where)))


def copy_model(source: AnyPath, target: AnyPath) -> None:
    """Copy a model directory, from or to remote storage too."""
    _write(storage.resolve(target), pack_model(source))


def pack_model(folder: AnyPath) -> PackedModel:
    """Read a model directory as it is.

    Raises:
        InputError: the directory or one of its files is missing.
    """
    where = storage.resolve(folder)
    if not where.is_dir():
        raise InputError(f"{where}: no such model directory; give the 'model' folder that jobs.train wrote")
    for name in (DESCRIPTION, WEIGHTS):
        if not (where / name).exists():
            raise InputError(f"{where}: holds no {name}; give the 'model' folder that jobs.train wrote")
    return PackedModel((where / DESCRIPTION).read_bytes(), (where / WEIGHTS).read_bytes(), str(where))


def unpack_model(packed: PackedModel, device: str | torch.device = "cpu") -> tuple[PromoterCNN, ModelInfo]:
    """Build the model, in evaluation mode on `device`, and its description.

    Raises:
        InputError: another format version, or files that do not belong together.
    """
    description = _read_description(packed)
    if hashlib.sha256(packed.weights).hexdigest() != description.get("weights_sha256"):
        raise InputError(
            f"{packed.source}: {WEIGHTS} is not the file that {DESCRIPTION} describes (SHA-256 differs); "
            "copy the whole directory again"
        )
    try:
        known = {one.name for one in fields(ModelInfo)}
        info = ModelInfo(**{key: value for key, value in description.items() if key in known})
        architecture: dict[str, Any] = dict(description["architecture"])
        name = architecture.pop("name")
        length = info.window["length"]
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in architecture.items()}
        model = PromoterCNN(CNNConfig(**values), length=length) if name == _ARCHITECTURE else None
        if model is not None and len(info.targets) != model.config.n_targets:
            raise ValueError(f"{len(info.targets)} targets for {model.config.n_targets} outputs")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{packed.source}: {DESCRIPTION} lacks an entry or has one that is not known here ({error}); "
            "copy the directory again"
        ) from error
    if model is None:
        raise InputError(
            f"{packed.source}: architecture {name} is not known here; use the version of promoter that wrote it"
        )
    try:
        model.load_state_dict(safetensors.torch.load(packed.weights))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{packed.source}: {WEIGHTS} does not fit its description ({reason})") from error
    return model.to(device).eval(), info


def unpack_ensemble(members: Sequence[PackedModel]) -> tuple[PromoterCNN, ModelInfo]:
    """Build the first of some models, and the description that holds for all of them together.

    Its split says what the ensemble knows of a chromosome: `train` where any member learned from it, else `val`
    where any chose its epoch by it.

    Raises:
        InputError: as for `unpack_model`, or the models differ in targets or window.
    """
    model, info = unpack_model(members[0])
    together = dict(info.split_of_chrom)
    for other in members[1:]:
        _, theirs = unpack_model(other)
        for name in ("targets", "window"):
            if getattr(theirs, name) != getattr(info, name):
                raise InputError(
                    f"--ensemble {other.source}: has {name} {getattr(theirs, name)}, {members[0].source} has "
                    f"{getattr(info, name)}; give models that were trained on the same data"
                )
        for chrom, name in theirs.split_of_chrom.items():
            together[chrom] = min(name, together.get(chrom, name), key=SPLITS.index)
    split = {name: [chrom for chrom, found in together.items() if found == name] for name in info.split}
    return model, replace(info, split=split)


def load_model(folder: AnyPath, device: str | torch.device = "cpu") -> PromoterCNN:
    """Load a model that `save_model` wrote.

    Args:
        folder: the model directory, local or remote.
        device: to put it on.

    Returns:
        The model in evaluation mode: one-hot (batch, 4, length) -> predictions (batch, targets) in
        original units.

    Raises:
        InputError: missing, damaged, or of another format version.
    """
    return unpack_model(pack_model(folder), device)[0]


def load_info(folder: AnyPath) -> ModelInfo:
    """Read the description of a model directory; errors as for `load_model`."""
    return unpack_model(pack_model(folder))[1]


def _write(where: UPath, packed: PackedModel) -> None:
    for name, content in ((WEIGHTS, packed.weights), (DESCRIPTION, packed.description)):
        with storage.open_whole(where / name) as file:
            file.write(content)


def _read_description(packed: PackedModel) -> dict[str, Any]:
    try:
        description = yaml.safe_load(packed.description)
    except yaml.YAMLError as error:
        raise InputError(f"{packed.source}: {DESCRIPTION} is not YAML; copy the directory again") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{packed.source}: has model format {found}, promoter {promoter.__version__} reads {FORMAT}; "
            "use the version of promoter that wrote it, or train again"
        )
    return description


def _plain(value: Any) -> Any:
    """Return `value` with tuples as lists, which is all that safe YAML knows."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
