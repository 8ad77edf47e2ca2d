"""`--model.*`: the settings of every network in one group of flags; `--model.name` chooses the network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_type_hints

import docstring_parser

from promoter.errors import InputError
from promoter.models.config import CNNConfig, ExternalConfig, NetworkConfig, PretrainedConfig

# what `--model.name` says -> the configuration of that network
_CONFIGS: dict[str, type[NetworkConfig]] = {
    "promoter_cnn": CNNConfig,
    "enformer": PretrainedConfig,
    "borzoi": PretrainedConfig,
    "external": ExternalConfig,
}
_CNN = "promoter_cnn"
_Class = TypeVar("_Class", bound=type)


def _with_all_settings(cls: _Class) -> _Class:
    """Make a dataclass with the fields of all configurations, documented by their docs.

    It is none of them, so that none of their functions takes it for one. A setting that several have gets the type
    and the default of the first.
    """
    types: dict[str, Any] = {}
    for config in dict.fromkeys(_CONFIGS.values()):
        hints = get_type_hints(config)
        for field in fields(config):
            if field.name not in types:
                types[field.name] = hints[field.name]
                if field.name not in vars(cls):
                    setattr(cls, field.name, field.default)
    cls.__annotations__ = types | cls.__annotations__  # the class's own replace those of a configuration
    docs = {name: _help(name) for name in types} | _documented(cls)
    summary = str(cls.__doc__).split("\n", 1)[0]
    cls.__doc__ = "\n".join([summary, "", "Args:", *(f"    {name}: {docs[name]}" for name in types)])
    return dataclass(frozen=True)(cls)


def _help(name: str) -> str:
    """Return the help of a setting, which says of what networks it is unless it is of all."""
    owners: dict[str, list[type[NetworkConfig]]] = {}
    for config in dict.fromkeys(_CONFIGS.values()):
        if name in (documented := _documented(config)):
            owners.setdefault(documented[name], []).append(config)
    if list(map(len, owners.values())) == [len(set(_CONFIGS.values()))]:
        return next(iter(owners))
    first, *others = [(_names(*configs), text) for text, configs in owners.items()]
    if not others:
        return f"{first[0]} only: {first[1]}"
    return "; ".join([first[1].rstrip("."), *(f"for {names}: {text}" for names, text in others)])


def _names(*configs: type[NetworkConfig]) -> str:
    """Return the names of the networks of these configurations."""
    return " and ".join(name for name, config in _CONFIGS.items() if config in configs)


def _documented(cls: type) -> dict[str, str]:
    """Return what the docstring of a class says of each argument, on one line each."""
    params = docstring_parser.parse(cls.__doc__ or "").params
    return {param.arg_name: " ".join((param.description or "").split()) for param in params}


@_with_all_settings
class ModelFlags:
    """Settings of the network. Those of another network than --model.name are refused.

    Args:
        name: promoter_cnn, trained from scratch; enformer or borzoi, pretrained (docs/pretrained.md); external, a
            network of your own (docs/your-model.md), which needs --model.factory and --trust_code true.
    """

    name: Literal["promoter_cnn", "enformer", "borzoi", "external"] = _CNN

    if TYPE_CHECKING:

        def __init__(self, **settings: Any) -> None: ...

    def __post_init__(self) -> None:
        """Raise InputError for settings that do not go together."""
        _ = self.config

    @property
    def config(self) -> NetworkConfig:
        """The settings of the network that was chosen.

        Raises:
            InputError: a setting of another network was given, or values that make no network.
        """
        config = _CONFIGS[self.name]
        settings = {field.name: getattr(self, field.name) for field in fields(config)}
        for other in _CONFIGS.values():
            for field in fields(other):
                value = getattr(self, field.name)
                if field.name not in settings and field.name != "name" and value != field.default:
                    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
                    raise InputError(
                        f"--model.{field.name} {shown}: is a setting of {_names(other)}, not of {self.name}; "
                        "leave it out, or choose another --model.name"
                    )
        return config(**settings)


# what jobs take: from the command line the flags, from Python a network's own settings too
if TYPE_CHECKING:
    Model: TypeAlias = NetworkConfig | ModelFlags
else:
    Model = ModelFlags


def resolve_model(model: Model) -> NetworkConfig:
    """Return the settings of the network that `--model.name` chose, or those that Python code gave."""
    return model.config if isinstance(model, ModelFlags) else model
