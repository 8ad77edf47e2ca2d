"""Lists as people write them, in flags and in `--config` files: `A,B`, `A B`, `[A, B]`, or a lone `A`.

The parser takes one word a flag, in YAML; here lists become that. Text stays what is written: chromosomes 1 and
01 differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

import yaml

from promoter.storage.parsing import parse_yaml_text

_CONTAINERS = (list, tuple, Sequence)


def is_list(hint: Any) -> bool:
    """Tell whether a setting of this type is a list or a tuple, or one of these and null."""
    return any(get_origin(kind) in _CONTAINERS for kind in (hint, *get_args(hint)))


def holds_text(hint: Any) -> bool:
    """Tell whether the items of such a setting are text."""
    return any(str in get_args(kind) for kind in (hint, *get_args(hint)) if get_origin(kind) in _CONTAINERS)


def as_written(text: str) -> Any:
    """Read YAML with each value as the text that is written; return the text itself if it is no YAML.

    Raises:
        InputError: it is nested too deep, or repeats itself too often.
    """
    try:
        return parse_yaml_text(text)
    except yaml.YAMLError:  # the parser says what is wrong
        return text


def join_lists(words: Sequence[str], lists: Mapping[str, bool]) -> list[str]:
    """Return a command line in which each list is one word that the parser takes.

    Args:
        words: command line without the program's name.
        lists: setting that is a list -> whether it holds text.
    """
    joined: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, first = word.partition("=")
        name = flag.removeprefix("--")
        if name == flag or name not in lists:
            joined.append(word)
            continue
        values = [first] if equals else []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        joined.append(f"{flag}={_as_yaml(values, lists[name])}")
    return joined


def take_lists(settings: dict[str, Any], text: str, lists: Mapping[str, bool]) -> None:
    """Take the lists of a `--config` file as a flag would take them.

    Args:
        settings: content of the file; changed in place.
        text: same content as it is written.
        lists: setting that is a list -> whether it holds text.
    """
    written = as_written(text)
    for setting, is_text in lists.items():
        *groups, name = setting.split(".")
        group, words = settings, written
        for key in groups:
            group, words = group.get(key, {}), words.get(key, {})
        value = group.get(name)
        if isinstance(value, (str, int, float)):
            group[name] = _split([str(words[name])])
        elif is_text and isinstance(value, list):
            group[name] = words[name]


def _as_yaml(values: list[str], is_text: bool) -> str:
    if len(values) == 1 and (values[0].startswith("[") or values[0] == "null"):
        return _quoted(values[0]) if is_text else values[0]
    return f"[{', '.join(json.dumps(item) if is_text else item for item in _split(values))}]"


def _split(values: list[str]) -> list[str]:
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def _quoted(value: str) -> str:
    """Quote the items of `[1, chrX]`, so that each stays the text it is."""
    items = as_written(value)
    return json.dumps(items) if isinstance(items, list) else value
