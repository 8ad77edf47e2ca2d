"""Pretrained weights: from a folder or the Hugging Face hub into a trunk, and as bytes to other processes."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from torch import Tensor, nn

from promoter.errors import InputError
from promoter.models import borzoi, enformer
from promoter.models.config import INSTALL, Architecture, PretrainedConfig
from promoter.models.trunk import Trunk

_WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them


@dataclass(frozen=True, eq=False)
class SerializedTrunk:
    """The weights of a trunk, to be sent to another process.

    Attributes:
        config: settings of the library's class.
        weights: the weights in the format of safetensors.
        source: hub name or folder.
        revision: commit on the hub; None for a folder.
        sha256: checksum of the file that the weights were read from.
    """

    config: dict[str, Any]
    weights: bytes
    source: str
    revision: str | None
    sha256: str

    def __eq__(self, other: object) -> bool:
        """Tell whether both come from the same file."""
        return isinstance(other, SerializedTrunk) and self.sha256 == other.sha256 and self.config == other.config

    def __hash__(self) -> int:
        """Return a hash that does not read the weights."""
        return hash(self.sha256)

    @property
    def origin(self) -> dict[str, Any]:
        """The trunk's entry in `model.yaml`."""
        return {name: getattr(self, name) for name in ("source", "revision", "sha256", "config")}

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of configuration and weights."""
        text = json.dumps(self.config, sort_keys=True).encode()
        return hashlib.sha256(hashlib.sha256(text).digest() + self.weights).hexdigest()


def build_trunk(config: PretrainedConfig, settings: Mapping[str, Any], length: int, bins: int) -> Trunk:
    """Build the trunk of a pretrained network, its weights still to be loaded.

    Args:
        config: the network.
        settings: settings of the library's class.
        length: length of the window in bases.
        bins: number of output bins to keep around the TSS.

    Raises:
        InputError: the library is not installed.
    """
    cls = _library_class(config.architecture)
    match config.name:
        case "enformer":
            return enformer.build_trunk(cls, settings, length, bins)
        case "borzoi":
            return borzoi.build_trunk(cls, settings, length, bins)
        case _:
            assert_never(config.name)


def fetch_trunk(config: PretrainedConfig) -> SerializedTrunk:
    """Read the weights from a folder, or from the hub through its cache.

    Args:
        config: the network, with the source of its weights.

    Raises:
        InputError: the weights are not there, and how to bring them; or they are not those of this architecture.
    """
    import safetensors.torch  # noqa: PLC0415 # needed where there are weights to load

    from promoter import storage  # noqa: PLC0415 # what reads files brings packages that a network does not need

    facts = config.architecture
    cls = _library_class(facts)
    folder, revision = _locate_files(config)
    file = next((folder / name for name in _WEIGHTS_FILES if (folder / name).is_file()), None)
    if file is None or not (folder / "config.json").is_file():
        raise _unusable(
            config,
            f"{folder} must hold config.json and {' or '.join(_WEIGHTS_FILES)}",
            f"'{_download_command(facts.hub)}' makes such a folder",
        )
    hub_config = storage.read_json(folder / "config.json")
    kind = hub_config.get("model_type", config.name)
    if kind != config.name:
        raise _unusable(config, f"holds {kind}, not {config.name}", f"give `PretrainedConfig.name={kind!r}`")
    inferred = enformer.infer_missing_config(hub_config, config.source, folder) if kind == "enformer" else {}
    try:
        network, info = cls.from_pretrained(str(folder), output_loading_info=True)
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise _unusable(config, f"cannot be read ({reason})", "fetch it again") from error
    wrong = sorted(name for key in ("missing_keys", "mismatched_keys") for name in map(str, info[key]))
    missing = [name for name in wrong if name.startswith(facts.trunk_prefixes)]
    if missing:
        raise _unusable(config, f"lacks weights of {config.name} ({', '.join(missing[:3])})", "fetch it again")
    settings = _trunk_settings(network.config) | inferred
    shortest = facts.step * -(-config.tss_bins * facts.bin_width // facts.step)
    state = _trunk_state(network, build_trunk(config, settings, shortest, 1).module)
    weights = safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})
    return SerializedTrunk(settings, weights, config.source, revision, storage.sha256(file))


def _library_class(architecture: Architecture) -> Any:
    """Import the library's class; raise InputError if the library is not installed."""
    module, name = architecture.library
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InputError(
            f"{module} cannot be imported ({error}); pretrained networks need an extra: {INSTALL}"
        ) from error


def _unusable(config: PretrainedConfig, problem: str, fix: str) -> InputError:
    return InputError(problem, setting="PretrainedConfig.weights", value=config.source, fix=fix)


def _download_command(name: str) -> str:
    return f"hf download {name} --local-dir {name.rsplit('/', 1)[-1]}"


def _locate_files(config: PretrainedConfig) -> tuple[Path, str | None]:
    """Return the folder of the weights and, if it is the hub's, the commit."""
    from promoter import storage  # noqa: PLC0415 # as above

    storage.resolve(config.source)  # refuses what no file system takes
    folder = Path(config.source)
    if folder.is_dir():
        return folder, None
    if config.weights is not None and (folder.is_absolute() or config.weights.count("/") != 1):
        fix = f"give a folder as '{_download_command(config.architecture.hub)}' makes it"
        raise _unusable(config, "is neither a local folder nor a name on the hub", fix)
    hub = importlib.import_module("huggingface_hub")
    try:
        snapshot = hub.snapshot_download(
            config.source, revision=config.revision, allow_patterns=["config.json", *_WEIGHTS_FILES]
        )
    except Exception as error:  # network, proxy, hub or cache: each library has errors of its own
        reason = " ".join(str(error).split())[:160]
        local = config.source.rsplit("/", 1)[-1]
        raise _unusable(
            config,
            f"cannot be fetched ({type(error).__name__}: {reason})",
            f"with a network run '{_download_command(config.source)}', bring the folder here and give "
            f"`PretrainedConfig.weights={local!r}`",
        ) from error
    return Path(snapshot), Path(snapshot).name


def _trunk_settings(library_config: Any) -> dict[str, Any]:
    """Return the settings of the library's configuration that its class names, without those of its outputs."""
    defaults = type(library_config)()
    names = set(vars(defaults)) - set(vars(importlib.import_module("transformers").PretrainedConfig()))
    outputs = {"output_heads", "target_length", "use_checkpointing", "enable_mouse_head", "bins_to_return"}
    outputs |= {"return_center_bins_only", "enable_human_head"}
    kept = sorted((names | {"flashed"}) - outputs)
    return {name: getattr(library_config, name) for name in kept if hasattr(library_config, name)}


def _trunk_state(network: nn.Module, trunk: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the library's network by their names in the trunk."""
    library_state = network.state_dict()
    state = {}
    for name in trunk.state_dict():
        for prefix, other in (("", "_trunk."), ("network.", "")):
            if name.startswith(prefix) and (key := other + name.removeprefix(prefix)) in library_state:
                state[name] = library_state[key]
    return state
