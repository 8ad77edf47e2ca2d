"""The models that a user names: directories, folders of several, or `external:package.module:function`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from promoter import storage
from promoter.checkpoint import SerializedModel, pack_model, serialize_models
from promoter.errors import InputError, listed, note
from promoter.model_info import ModelInfo
from promoter.models.code import ModelCode, find_code
from promoter.models.external import ExternalModel, build_external, examine, require_complete
from promoter.sequence import BASES
from promoter.storage import AnyPath

BY_CODE = "external:"  # begins the name of a network that is given by its code
_SEQUENCES = 4  # that a network is tried on
_ANY_LENGTH = 1_000  # bases, for a network of any length where there are no sequences to tell


def open_models(
    names: Sequence[AnyPath],
    *,
    weights: Sequence[str] | None = None,
    trust_code: bool = False,
    length: int | None = None,
) -> list[SerializedModel]:
    """Read the models of an ensemble.

    Args:
        names: model directories and folders as `serialize_models` takes them, and
            `external:package.module:function` for networks of other code.
        weights: files in the format of safetensors for the first name, each of which makes a member of the
            ensemble; None (the default): an external network has the weights with which its function returns it.
        trust_code: True runs the code that an external network brings; False, the default, refuses it.
        length: length in bases of the sequences that the models are for; None (the default) if there are none.

    Raises:
        InputError: a model is missing or damaged; code is not trusted, cannot be imported, or makes no network; or
            the weights do not fit.
    """
    models = []
    for place, name in enumerate(names):
        files = list(weights or []) if place == 0 else []
        if not str(name).startswith(BY_CODE):
            if files:
                raise InputError(
                    f"{name} has weights of its own",
                    setting="model_weights",
                    value=files,
                    fix="leave it out, or give `model='external:package.module:function'`",
                )
            models += serialize_models([name], trust_code=trust_code)
            continue
        if not trust_code:
            raise InputError(
                "is code that would run here and on all nodes; if you trust it, give `trust_code=True`",
                setting="model" if place == 0 else "ensemble",
                value=str(name),
            )
        models += _open_external(find_code(str(name).removeprefix(BY_CODE)), files, length)
    return models


def _open_external(code: ModelCode, files: Sequence[str], length: int | None) -> list[SerializedModel]:
    """Build a network of other code with each of the weights, try it, and serialize it."""
    models = []
    for file in files or [None]:
        model = build_external(code)
        source = f"{BY_CODE}{code.factory}"
        if file is not None:
            load_weights(model.module, file)
            source += f" with {file}"
        else:
            _require_weights(model, build_external(code))
        if length is not None and model.length not in (None, length):
            raise InputError(
                f"{code.factory}: takes sequences of {model.length:,} bases, the data has windows of {length:,}; "
                "prepare it anew"
            )
        names = _names(model, length)
        model.name_outputs(names)
        # no versions of libraries, by which the same code and weights would be another model after an upgrade
        info = ModelInfo(names, {"upstream": None, "downstream": None, "length": model.length})
        models.append(replace(pack_model(model, info, source), trusted=True))
    announce_code(
        code, f"weights of {', '.join(files)}" if files else "the weights with which it returns the network"
    )
    return models


def load_weights(module: nn.Module, file: str) -> None:
    """Load weights in the format of safetensors into a user's module.

    Args:
        module: the user's network.
        file: path of the weights, local or remote.

    Raises:
        InputError: the file is missing, is of another format, or does not fit.
    """
    path = storage.require_file(file, "model_weights")
    try:
        state = safetensors.torch.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise InputError(
            f"is not in the format of safetensors ({error})",
            setting="model_weights",
            value=file,
            fix="write it by safetensors.torch.save_model(network, file)",
        ) from error
    own = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    missing = [name for name in own if name not in state and not _is_tied(name, own, state)]
    unknown = [name for name in state if name not in own]
    shapes = [name for name in state if name in own and state[name].shape != own[name].shape]
    fix = "give the weights of the network that the function returns"
    prefix = next(
        (name.removesuffix(one) for name in unknown for one in missing if name.endswith(f".{one}")), None
    )
    if prefix is not None:  # of a network saved as part of another, as Lightning's and DataParallel's are
        fix = f"take {prefix!r} off the names of the weights"
    for names, problem in (
        (missing, "lacks"),
        (unknown, "has what the network lacks:"),
        (shapes, "has other shapes of"),
    ):
        if names:
            also = f", and has {listed(unknown, 3)} instead" if problem == "lacks" and unknown else ""
            raise InputError(f"{problem} {listed(names, 3)}{also}", setting="model_weights", value=file, fix=fix)
    module.load_state_dict(state, strict=False)


def _is_tied(name: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """Tell whether a weight shares its memory with one that is given: files hold such once."""
    return any(own[other].data_ptr() == own[name].data_ptr() for other in state if other in own)


def _require_weights(first: ExternalModel, second: ExternalModel) -> None:
    """Raise InputError if a function returns other weights each time: they are drawn at random."""
    again = second.state_dict()
    for name, tensor in first.state_dict().items():
        if isinstance(tensor, Tensor) and not (name in again and torch.equal(tensor, again[name])):
            raise InputError(
                f"{first.config.factory}: returns other weights each time ({name.removeprefix('module.')}), drawn "
                "at random; give those of a trained network by `model_weights`"
            )


def _names(model: ExternalModel, length: int | None) -> list[str]:
    """Try the network on sequences drawn at random, and return the names of its outputs."""
    generator = torch.Generator().manual_seed(0)
    size = (_SEQUENCES, model.length or length or _ANY_LENGTH)
    tokens = torch.randint(len(BASES), size, generator=generator, dtype=torch.uint8)
    outputs = examine(model, tokens)
    require_complete(model, tokens)
    if model.targets is None:
        note(
            f"{model.config.factory}: its {outputs} outputs have no names; ExternalModel(targets=[...]) gives them"
        )
        return [f"output_{number}" for number in range(1, outputs + 1)]
    if len(model.targets) != outputs:
        raise InputError(
            f"{model.config.factory}: has {outputs} outputs for {len(model.targets)} targets "
            f"({listed(model.targets)})"
        )
    return model.targets


def announce_code(code: ModelCode, weights: str) -> None:
    """Say in a note which modules will run on all nodes, and with what weights."""
    modules = f"{listed(list(code.sources), 4)}, sent to all nodes" if code.sources else "an installed package"
    packages = [f"{name} {version}" for name, version in code.packages.items()]
    needed = f", which needs {listed(packages, 4)} there" if packages else ""
    note(f"{code.factory}: code of {modules} (SHA-256 {code.sha256[:8]}…){needed}; {weights}")
