"""The command line of a job: its function's arguments as flags, and one way to end.

A flag overrides the file given with `--config`, in whatever order they stand. Exit codes: 0 done,
1 failed at run time, 2 wrong input (one line on standard error), 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import signal
import sys
import threading
import traceback
from argparse import Action
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter
from rich.console import Console

from promoter import storage
from promoter.errors import InputError, StorageError

PROVENANCE = "provenance"  # key of config.yaml that records versions and checksums; ignored when read back
# No markup, since gene names may hold [brackets]. A pipe or file has no width: take one that fits tables.
console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)
_TOO_LONG = 400
_TERMINATED = 128 + signal.SIGTERM
_GO_ON = "interrupted; run the same command again to go on"
_ABSENT = object()


def run(job: Callable[..., None], argv: Sequence[str] | None = None) -> NoReturn:
    """Parse the command line into the arguments of `job`, call it, and exit with its code.

    Args:
        job: a function whose docstring describes each argument; dataclass arguments become groups of
            flags (`--model.channels`).
        argv: the command line without the program's name; `sys.argv` when None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, terminate)
    call: dict[str, Any] = {}
    try:
        call = _parse(job, arguments)
        job(**call)
    except InputError as error:
        _end(error, 2, debug)
    except KeyboardInterrupt as error:
        _end(error, 130, debug, _GO_ON)
    except SystemExit as error:
        if error.code == _TERMINATED:
            _end(error, _TERMINATED, debug, _GO_ON)
        raise
    except Exception as error:  # the last line of defence: whatever it is, say it in one line
        _end(error, 1, debug, _of_store(error, call))
    sys.exit(0)


def terminate(*_: object) -> NoReturn:
    """Handle SIGTERM: unwind, so that outputs are tidied and `run` says how to go on."""
    sys.exit(_TERMINATED)


def _end(error: BaseException, code: int, debug: bool, message: str | None = None) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    text = message or one_line(error)
    if code == 1 and not debug and not isinstance(error, StorageError):
        text += " (--debug shows where)"
    print(f"error: {text}", file=sys.stderr, flush=True)
    # A thread of a library may still wait for something; the exit code is decided, so flush and go.
    sys.stdout.flush()
    sys.exit(code)


def _of_store(error: Exception, call: dict[str, Any]) -> str | None:
    """Name the addresses and the mend where a store failed in the hands of a library, such as Ray's."""
    addresses = [value for value in call.values() if isinstance(value, str) and "://" in value]
    if not addresses or isinstance(error, StorageError) or not storage.is_of_store(error):
        return None
    return f"{', '.join(addresses)}: storage failed, {one_line(error)}; {storage.mend(error)}"


def plural(amount: float, unit: str) -> str:
    """Return `1 gene`, `6,164 genes`, `0.5 GPUs`."""
    return f"{amount:,.10g} {unit}{'s' * (amount != 1)}"


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line, with its type where the message alone says too little."""
    text = " ".join(str(error).split())
    if not type(error).__module__.startswith("promoter."):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _TOO_LONG or isinstance(error, InputError) else text[:_TOO_LONG] + " …"


def _parse(job: Callable[..., None], arguments: list[str]) -> dict[str, Any]:
    parser = ArgumentParser(
        prog=f"python -m {job.__module__ if job.__module__ != '__main__' else _module_name()}",
        description=(job.__doc__ or "").split("\n\n")[0],
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,  # a shortened flag is a misspelt one
    )
    parser.add_argument(
        "--config", action="config", help="YAML file with any of these settings; flags override it"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks and the logs of Ray")
    parser.add_function_arguments(job, as_group=False)
    _describe_lists(parser)
    try:
        list_flags = _list_flags(parser)
        groups = {action.dest.split(".")[0] for action in parser._actions if "." in action.dest}
        words = _config_first(_lists_joined(arguments, list_flags), list_flags, groups)
        config = parser.parse_args(words)
        call = vars(parser.instantiate(config))
    except InputError:  # raised by a dataclass that refuses its values
        raise
    except (ArgumentError, argparse.ArgumentError, ValueError, TypeError) as error:
        raise InputError(_explain(error, parser, arguments)) from error
    if call.pop("debug"):
        os.environ["PROMOTER_DEBUG"] = "1"
    call.pop("config", None)
    return call


class _Help(DefaultHelpFormatter):
    """Says of a list how it is written, instead of its Python type."""

    def _get_type_str(self, action: Action) -> str | None:
        return (
            f"list: {action.metavar} or {_spaced(action)}" if _is_list(action) else super()._get_type_str(action)
        )


def _spaced(action: Action) -> str:
    return str(action.metavar).replace(",", " ")


def _describe_lists(parser: ArgumentParser) -> None:
    """Show lists as they are written, and not the parser's `--flag+`, which appends."""
    for action in parser._actions:  # argparse has no public way to list its options
        if _is_list(action):
            action.metavar = "A,B" if _holds_text(action) else "1,2"
            action.option_strings = [flag for flag in action.option_strings if not flag.endswith("+")]


def _module_name() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else "jobs"


def _config_first(arguments: list[str], list_flags: dict[str, bool], groups: set[str]) -> list[str]:
    """Put the contents of `--config` files before all flags, so that flags override them."""
    files, rest = _config_files(arguments)
    contents = []
    for file in files:
        settings = storage.read_yaml(file)
        settings.pop(PROVENANCE, None)
        for group in groups & settings.keys():
            if not isinstance(settings[group], dict):
                wrong = f"{storage.resolve(file)}: {group} {settings[group]}"
                raise InputError(f"{wrong}: must hold settings of its own; see --help")
        as_written = _as_written(storage.resolve(file).read_text())
        for flag, is_text in list_flags.items():
            _take_list(settings, as_written, flag[2:].split("."), is_text)
        # as JSON, which keeps text apart from numbers; YAML's dialects differ on 1e1
        contents.append(f"--config={json.dumps(settings, default=str)}")
    return contents + rest


def _as_written(text: str) -> Any:
    """Read YAML with each value as the text that stands there: chromosomes 1 and 01 differ."""
    return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 # it makes nothing but text


def _take_list(settings: dict[str, Any], as_written: dict[str, Any], keys: list[str], is_text: bool) -> None:
    """Take a list as a flag would: a lone value is a list of one, and text is what stands there."""
    for key in keys[:-1]:
        settings, as_written = settings.get(key, {}), as_written.get(key, {})
        if not isinstance(settings, dict):
            return
    value, written = settings.get(keys[-1]), as_written.get(keys[-1])
    if isinstance(value, (str, int, float)):
        items = [item.strip() for item in str(written).split(",") if item.strip()]
        settings[keys[-1]] = items
    elif is_text and isinstance(value, list) and isinstance(written, list):
        settings[keys[-1]] = written


def _config_files(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the `--config` files, and the other arguments."""
    files, rest = [], []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--config" and position + 1 < len(arguments):
            files.append(arguments[position + 1])
            position += 2
        elif word.startswith("--config="):
            files.append(word.split("=", 1)[1])
            position += 1
        else:
            rest.append(word)
            position += 1
    return files, rest


def _list_flags(parser: ArgumentParser) -> dict[str, bool]:
    """Return the flags whose value is a list or a tuple, and whether it holds text."""
    return {
        flag: _holds_text(action)
        for action in parser._actions
        for flag in action.option_strings
        if _is_list(action)
    }


def _is_list(action: Action) -> bool:
    return re.search(r"\b(list|tuple|Sequence)\[", str(getattr(action, "_typehint", ""))) is not None


def _holds_text(action: Action) -> bool:
    return "[str" in str(getattr(action, "_typehint", ""))


def _lists_joined(arguments: list[str], list_flags: dict[str, bool]) -> list[str]:
    """Accept lists as people write them: `--genes A B`, `--genes A,B` and `--genes '[A, B]'`."""
    joined: list[str] = []
    position = 0
    while position < len(arguments):
        flag, equals, first = arguments[position].partition("=")
        position += 1
        if flag not in list_flags:
            joined.append(arguments[position - 1])
            continue
        values = [first] if equals else []
        while position < len(arguments) and not arguments[position].startswith("--"):
            values.append(arguments[position])
            position += 1
        if len(values) == 1 and (values[0].startswith("[") or values[0] == "null"):
            joined.append(f"{flag}={_text_quoted(values[0]) if list_flags[flag] else values[0]}")
        else:
            items = [item.strip() for value in values for item in value.split(",") if item.strip()]
            quoted = map(json.dumps, items) if list_flags[flag] else items  # chromosome 1 is text
            joined.append(f"{flag}=[{', '.join(quoted)}]")
    return joined


def _text_quoted(value: str) -> str:
    """Quote the items of `[1, chrX]`, so that each stays the text it is."""
    try:
        items = _as_written(value)
    except yaml.YAMLError:  # the parser says what is wrong
        return value
    return json.dumps(items) if isinstance(items, list) else value


def _explain(error: Exception, parser: ArgumentParser, arguments: list[str]) -> str:
    """Turn a parser's complaint into one line that names the file or flag, the value and the mend."""
    text = " ".join(str(error).split())
    text = re.sub(r"^(argument|Parser key) ", "", text)
    text = re.sub(r"Does not validate against any of the Union subtypes.*?Errors:", "", text)
    text = re.sub(r"<class '(\w+)'>|typing\.", lambda m: m.group(1) or "", text)
    known = [flag[2:] for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    unknown = re.search(
        r"Group '(?P<group>[\w.]+)' does not accept option '(?P<in_group>[\w.]+)'"
        r"|Option '(?P<option>[\w.]+)' is not accepted|unrecognized arguments: --(?P<flag>[\w.]+)",
        text,
    )
    if unknown:
        group, in_group = unknown["group"], unknown["in_group"]
        name = f"{group}.{in_group}" if group else unknown["option"] or unknown["flag"]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        mend = f"; did you mean '{near[0]}'?" if near else "; see --help"
        return f"{_place(name, arguments)}there is no setting '{name}'{mend}"
    wrong = re.match(r'"(?P<name>[\w.]+)": .*?Expected .*(Given value:|Got value:) (?P<value>.*)$', text)
    action = next((one for one in parser._actions if wrong and one.dest == wrong["name"]), None)
    if wrong is None or action is None or not hasattr(action, "_typehint"):
        return f"{text}; see --help"
    place = _place(wrong["name"], arguments)
    quotes = "; put text that looks like a number in quotes" if place and _holds(action, str) else ""
    setting = f"{place}{wrong['name']}" if place else f"--{wrong['name']}"
    return f"{setting} {wrong['value']}: must be {_kinds(action)}{quotes}; see --help"


def _holds(action: Action, kind: type) -> bool:
    hint = getattr(action, "_typehint", None)
    return kind in (hint, *get_args(hint))


def _kinds(action: Action) -> str:
    """Say what a setting may be: `a whole number or null`."""
    hint = getattr(action, "_typehint", None)
    if _is_list(action):
        what = "names" if _holds_text(action) else "whole numbers"
        kinds = [f"a list of {what}, {action.metavar} or {_spaced(action)}"]
    elif get_origin(hint) is Literal or not get_args(hint):
        kinds = _kinds_of(hint)
    else:
        kinds = [kind for one in get_args(hint) if one is not NoneType for kind in _kinds_of(one)]
    if NoneType in get_args(hint) and not _is_list(action):
        kinds.append("null")
    return " or ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)


def _kinds_of(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return [named.get(hint, str(hint))]


def _place(setting: str, arguments: list[str]) -> str:
    """Return `FILE: ` for a setting of a `--config` file, nothing for a flag."""
    files, flags = _config_files(arguments)
    if any(flag.partition("=")[0] == f"--{setting}" for flag in flags):
        return ""
    for file in files:
        value: Any = storage.read_yaml(file)
        for key in setting.split("."):
            value = value.get(key, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            return f"{storage.resolve(file)}: "
    return ""
