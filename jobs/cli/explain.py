"""One line for what a parser refuses: the file or flag, the value, and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from jobs.cli.lists import as_written, holds_text, is_list

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Setting(NamedTuple):
    """A setting that the user gave.

    Attributes:
        source: `FILE: ` of a `--config` file; empty for a flag.
        name: name with dots, such as `split.val`.
        value: text of a flag, or value in the file; None where a flag stands alone.
    """

    source: str
    name: str
    value: Any


def given_flags(words: Sequence[str]) -> list[Setting]:
    """Return the settings that a command line gives."""
    settings = []
    for word, following in pairwise([*words, "--"]):
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name:
            settings.append(
                Setting("", name, value if equals else None if following.startswith("--") else following)
            )
    return settings


def given_in_file(source: str, content: Mapping[str, Any], groups: set[str], prefix: str = "") -> list[Setting]:
    """Return the settings that a `--config` file gives, those of groups by their names with dots."""
    settings = []
    for key, value in content.items():
        if not prefix and key in groups and isinstance(value, Mapping):
            settings += given_in_file(source, value, groups, f"{key}.")
        else:
            settings.append(Setting(source, f"{prefix}{key}", value))
    return settings


def explain(error: Exception, parser: ArgumentParser, hints: Mapping[str, Any], given: Sequence[Setting]) -> str:
    """Return one line about what the parser refused.

    Args:
        error: exception that the parser raised; its text is used only where nothing better is known.
        parser: parser that raised it.
        hints: name of each setting -> its type.
        given: settings that the user gave, in the order of the parser.
    """
    names = [flag[2:] for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    for setting in given:
        if setting.name.removesuffix("+") not in names:
            hint = did_you_mean(setting.name, names) or "; see --help"
            return f"{setting.source}there is no setting '{setting.name}'{hint}"
    for setting in given:
        hint = hints.get(setting.name)
        if hint is not None and not _is_valid(parser, setting.name, setting.value):
            wrong = _wrong_item(parser, setting) if is_list(hint) else setting.value
            fix = ""
            if setting.source and str in (hint, *get_args(hint)):
                fix = "; put text that looks like a number in quotes"
            return f"{setting.source or '--'}{setting.name} {wrong}: must be {describe(hint)}{fix}; see --help"
    return f"{re.sub(r'^(argument|Parser key) ', '', ' '.join(str(error).split()))}; see --help"


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean 'NAME'?` with the candidate that is nearest; nothing where none is near."""
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def written_as(hint: Any) -> tuple[str, str]:
    """Return the two ways to write a list of this type: `A,B` and `A B`, or `1,2` and `1 2`."""
    return ("A,B", "A B") if holds_text(hint) else ("1,2", "1 2")


def describe(hint: Any) -> str:
    """Say what a setting of this type may be: `a whole number or null`."""
    if is_list(hint):
        what = "names" if holds_text(hint) else "whole numbers"
        return f"a list of {what}, {' or '.join(written_as(hint))}"
    parts = (hint,) if get_origin(hint) is Literal or not get_args(hint) else get_args(hint)
    kinds: list[str] = []
    for part in parts:
        if get_origin(part) is Literal:
            kinds += map(str, get_args(part))
        elif part is not NoneType:
            kinds.append(_KINDS.get(part, str(part)))
    if NoneType in parts:
        kinds.append("null")
    return " or ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)


def _is_valid(parser: ArgumentParser, name: str, value: Any) -> bool:
    setting = Namespace()
    setting[name] = value
    try:
        parser.validate(setting, skip_required=True)
    except (TypeError, ValueError, KeyError):
        return False
    return True


def _wrong_item(parser: ArgumentParser, setting: Setting) -> Any:
    """Return the item of a list that is refused; the whole value where each by itself is right."""
    items = as_written(setting.value) if isinstance(setting.value, str) else setting.value
    for item in items if isinstance(items, list) else []:
        if not _is_valid(parser, setting.name, [item]):
            return item
    return setting.value
