"""Save and load model directories: `model.safetensors` (weights) and `model.yaml` (everything else). Never pickle.

If the split does not follow from the chromosomes, `split.tsv` lists it gene by gene.
"""

from __future__ import annotations

import hashlib
import io
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
from promoter.models.build import Network
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.config import ARCHITECTURES, PretrainedConfig
from promoter.models.pretrained import empty_model
from promoter.splits.config import SPLITS
from promoter.splits.split import assign, places
from promoter.storage import AnyPath
from promoter.storage.records import require_seal, seal

FORMAT = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.yaml"
GENES = "split.tsv"
KEPT_BASELINES = "baselines.safetensors"  # written and read by `promoter.baselines`; not of the serialized model
_ARCHITECTURE = "promoter_cnn"
_RANK = SPLITS.index


@dataclass(frozen=True)
class ModelInfo:
    """Describe a model: what `model.yaml` holds besides the architecture.

    Attributes:
        targets: names of the targets, in the order of the model's outputs.
        window: `upstream`, `downstream` and `length` in bases; the first two are None if unknown.
        standardisation: per target the `mean` and `sd` of the training set; the saved weights already return
            original units.
        transform: name of the transform of the expression values, as in `promoter.dataset.prepare`.
        split: `train`, `val`, `test` -> chromosomes, so that the model tells which genes were held out.
        split_of_gene: gene id -> (place, split), for genes that are not in the split of their chromosome; the
            place is what `promoter.splits.split.places` returns, the split None for a gene that was left out.
        data: `sha256` of the training data.
        training: the training configuration and `best_epoch`.
        versions: software name -> version that trained the model.
    """

    targets: list[str]
    window: dict[str, int | None]
    standardisation: dict[str, list[float]] = field(default_factory=dict)
    transform: str | None = None
    split: dict[str, list[str]] = field(default_factory=dict)
    split_of_gene: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def split_of_chrom(self) -> dict[str, str]:
        """Map chromosomes to splits."""
        return {chrom: name for name, chroms in self.split.items() for chrom in chroms}

    @property
    def located(self) -> bool:
        """Tell whether the model was trained on windows of a genome, and not on a library of sequences."""
        return self.window.get("upstream") is not None

    def get_split(self, genes: pd.DataFrame) -> pd.Series:
        """Look up the split that each gene was in when the model was trained; None for a gene in no split.

        What a model of a library knows is looked up by its bases, as an id may mean another sequence elsewhere.

        Args:
            genes: genes of any data set: columns `gene_id`, `chrom`, and for a model of a library `sequence`.
        """
        where = genes["chrom"] if self.located else places(genes.assign(chrom=None))
        return self.split_at(genes["gene_id"], where)

    def split_at(self, gene_ids: pd.Series, where: pd.Series) -> pd.Series:
        """Look up splits as `get_split` does, given the place of each gene as `split_of_gene` has it."""
        if not self.located:
            of_place: dict[str, str | None] = {}
            for place, name in self.split_of_gene.values():
                both = (name, of_place.get(place))
                of_place[place] = min((one for one in both if one is not None), key=_RANK, default=None)
            of_id = {(gene, place): name for gene, (place, name) in self.split_of_gene.items()}
            pairs = zip(gene_ids, where, strict=True)
            found = [of_id.get(pair, of_place.get(pair[1])) for pair in pairs]
            return pd.Series(found, index=gene_ids.index, dtype="object")
        split = assign(where, self.split_of_chrom).astype("object")
        if self.split_of_gene:
            listed = gene_ids.isin(self.split_of_gene.keys())
            named = [self.split_of_gene[gene][1] for gene in gene_ids[listed]]
            split[listed] = pd.Series(named, index=split.index[listed], dtype="object")
        return split.where(split.notna(), None)


@dataclass(frozen=True)
class SerializedModel:
    """Hold a model directory as byte strings, which can be sent to another process.

    Attributes:
        description: content of `model.yaml`.
        weights: content of `model.safetensors`.
        source: path of the directory, for messages.
        genes: content of `split.tsv`; empty if there is no such file.
    """

    description: bytes
    weights: bytes
    source: str
    genes: bytes = b""

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
    if len(info.targets) != model.config.n_targets:
        raise ValueError(f"{len(info.targets)} target names for {model.config.n_targets} outputs: {info.targets}")
    where = storage.resolve(folder)
    model.end_adapting()  # merges adapters into the weights
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights = safetensors.torch.save(state)
    genes = _genes_to_bytes(info)
    described = _plain(asdict(replace(info, split_of_gene={})))
    del described["split_of_gene"]
    description = {
        "format": FORMAT,
        "architecture": _plain(model.describe()),
        **described,
        **({"genes_sha256": hashlib.sha256(genes).hexdigest()} if genes else {}),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = yaml.safe_dump(seal(description), sort_keys=False).encode()
    _write(where, SerializedModel(text, weights, str(where), genes))


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


def serialize_model(folder: AnyPath) -> SerializedModel:
    """Read a model directory into byte strings, without building the model.

    Args:
        folder: path of the model directory.

    Raises:
        InputError: the directory or one of its files is missing.
    """
    where = storage.resolve(folder)
    with storage.wrap_store_errors(where, "read"):
        if not where.is_dir():
            raise InputError(f"{where}: no such model directory; give the 'model' folder that train wrote")
        for name in (DESCRIPTION, WEIGHTS):
            if not (where / name).exists():
                raise InputError(f"{where}: holds no {name}; give the 'model' folder that train wrote")
        genes = (where / GENES).read_bytes() if (where / GENES).exists() else b""
        return SerializedModel(
            (where / DESCRIPTION).read_bytes(), (where / WEIGHTS).read_bytes(), str(where), genes
        )


def serialize_models(folders: Sequence[AnyPath]) -> list[SerializedModel]:
    """Read the models of an ensemble.

    Args:
        folders: paths of model directories, or of folders that hold several: runs, each with its `model`, or a run
            with `folds`, as train and tune write them.

    Raises:
        InputError: a folder holds no model.
    """
    return [serialize_model(where) for folder in folders for where in _model_folders(storage.resolve(folder))]


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
        InputError: the format has another version, or the files do not belong together.
    """
    description = _read_description(packed)
    for name, content, expected in (
        (WEIGHTS, packed.weights, description.get("weights_sha256")),
        (GENES, packed.genes, description.get("genes_sha256", hashlib.sha256().hexdigest())),
    ):
        if hashlib.sha256(content).hexdigest() != expected:
            raise InputError(
                f"{packed.source}: {name} is not the file that {DESCRIPTION} describes (SHA-256 differs); "
                "copy the whole directory again"
            )
    try:
        names = {entry.name for entry in fields(ModelInfo)} - {"split_of_gene"}
        info = ModelInfo(**{key: value for key, value in description.items() if key in names})
        info = replace(info, split_of_gene=_genes_from_bytes(packed.genes))
        architecture: dict[str, Any] = dict(description["architecture"])
        name = architecture.pop("name")
        length = info.window["length"]
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in architecture.items()}
        model: Network | None = None
        if name == _ARCHITECTURE:
            model = PromoterCNN(CNNConfig(**values))
            if length is not None:  # what was saved was fitted to it
                model.config.require_length(length)
        elif name in ARCHITECTURES:
            trunk = values.pop("trunk")
            model = empty_model(PretrainedConfig(name=name, **values), length or 0, trunk)
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
            of_chrom[chrom] = min(name, of_chrom.get(chrom, name), key=_RANK)
    listed = {gene: place for member in infos for gene, (place, _) in member.split_of_gene.items()}
    ids, where = (pd.Series(list(values), dtype="object") for values in (listed, listed.values()))
    splits = zip(*(member.split_at(ids, where) for member in infos), strict=True)
    of_gene = {
        gene: (place, min((name for name in names if name is not None), key=_RANK, default=None))
        for (gene, place), names in zip(listed.items(), splits, strict=True)
    }
    split = {name: [chrom for chrom, assigned in of_chrom.items() if assigned == name] for name in info.split}
    return model, replace(info, split=split, split_of_gene=of_gene)


def load_model(folder: AnyPath, device: str | torch.device = "cpu") -> Network:
    """Load a model that `save_model` wrote.

    Args:
        folder: path of the model directory, local or remote.
        device: device to put the model on (default `cpu`).

    Returns:
        The model in evaluation mode: one-hot (batch, 4, length) -> predictions (batch, targets) in original units.

    Raises:
        InputError: the directory is missing, damaged, or of another format version.
    """
    return deserialize_model(serialize_model(folder), device)[0]


def load_info(folder: AnyPath) -> ModelInfo:
    """Read the description of a model directory; errors as for `load_model`."""
    return deserialize_model(serialize_model(folder))[1]


def _write(where: UPath, packed: SerializedModel) -> None:
    if (where / KEPT_BASELINES).exists():  # of the model that is replaced
        (where / KEPT_BASELINES).unlink()
    for name, content in ((WEIGHTS, packed.weights), (GENES, packed.genes), (DESCRIPTION, packed.description)):
        if content:
            with storage.open_atomic(where / name) as file:
                file.write(content)


def _genes_to_bytes(info: ModelInfo) -> bytes:
    if not info.split_of_gene:
        return b""
    rows = [(gene, place, split) for gene, (place, split) in info.split_of_gene.items()]
    table = pd.DataFrame(rows, columns=["gene_id", "chrom" if info.located else "sequence_checksum", "split"])
    return table.to_csv(sep="\t", index=False).encode()


def _genes_from_bytes(content: bytes) -> dict[str, tuple[str, str | None]]:
    if not content:
        return {}
    table = pd.read_csv(io.BytesIO(content), sep="\t", dtype=str, keep_default_na=False)  # a gene may be called NA
    return {gene: (place, split or None) for gene, place, split in table.itertuples(index=False, name=None)}


def _read_description(packed: SerializedModel) -> dict[str, Any]:
    try:
        description = yaml.safe_load(packed.description)
    except yaml.YAMLError as error:
        raise InputError(f"{packed.source}: {DESCRIPTION} is not YAML; copy the directory again") from error
    version = description.get("format") if isinstance(description, dict) else None
    if version != FORMAT:
        raise InputError(
            f"{packed.source}: has model format {version}, promoter {promoter.__version__} reads {FORMAT}; "
            "use the version of promoter that wrote it, or train again"
        )
    require_seal(description, f"{packed.source}: {DESCRIPTION}", "copy the directory again, or train again")
    return description


def _plain(value: Any) -> Any:
    """Convert tuples to lists, since safe YAML has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
