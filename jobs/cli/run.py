"""The command line of a job: its function's arguments as flags, and one way to end.

A flag overrides the file given with `--config`, in whatever order they stand. Exit codes: 0 done,
1 failed at run time, 2 wrong input (one line on standard error), 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import errno
import inspect
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from argparse import Action
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from jobs.cli.config_file import TRUST_CODE
from jobs.cli.console import one_line, with_relative_paths
from jobs.cli.explain import Setting, explain, given_flags, given_in_file, written_as
from jobs.cli.lists import as_written, holds_text, is_list, join_lists, take_lists
from jobs.cli.notes import printed_notes
from promoter import storage
from promoter.errors import InputError, StorageError
from promoter.labels import shown
from promoter.limits import require_limits
from promoter.storage.records import PROVENANCE

_TERMINATED = 128 + signal.SIGTERM
_RESUME = "interrupted; run the same command again to resume"
_OUTPUTS = ("out", "figures", "embeddings")  # arguments of jobs that name what they write
_given: ContextVar[Sequence[Setting]] = ContextVar("_given", default=())


def run(job: Callable[..., None], argv: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Parse the command line into the arguments of `job`, call it, and exit with its code.

    Args:
        job: function whose docstring describes each argument; dataclass arguments become groups of
            flags (`--model.channels`), positional-only ones words without a flag.
        argv: command line without the program's name; `sys.argv` by default.
        prog: how the user started the job, for the usage; `python -m jobs.NAME` by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, terminate)
    call: dict[str, Any] = {}
    positional = _positional(job)
    try:
        call, given = _parse(job, arguments, prog or f"python -m jobs.{job.__name__}")
        require_limits(call)  # those of a dataclass it has checked itself
        with printed_notes(), _exposed(given):
            job(*(call[name] for name in positional), **{k: v for k, v in call.items() if k not in positional})
    except InputError as error:
        _end(error, 2, debug)
    except KeyboardInterrupt as error:
        _end(error, 130, debug, _RESUME)
    except SystemExit as error:
        if error.code == _TERMINATED:
            _end(error, _TERMINATED, debug, _RESUME)
        raise
    except BaseException as error:  # the last line of defence, of a panic in Rust, too: say it in one line
        _end(error, 1, debug, _describe_disk_error(error, call) or _describe_store_error(error, call))
    sys.exit(0)


def given_settings() -> Sequence[Setting]:
    """Return the settings that the user gave to the job that is running, those of `--config` files before flags.

    A job needs them where a setting means something else when it is given by hand than when it is the default.
    None where Python code calls the job.
    """
    return _given.get()


@contextmanager
def _exposed(given: Sequence[Setting]) -> Iterator[None]:
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)


def terminate(*_: object) -> NoReturn:
    """Handle SIGTERM: unwind, so that outputs are tidied and `run` says how to resume."""
    sys.exit(_TERMINATED)


def _end(error: BaseException, code: int, debug: bool, message: str | None = None) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    text = with_relative_paths(message or one_line(error))
    if code == 1 and not debug and not isinstance(error, StorageError):
        text += " (--debug shows where)"
    print(f"error: {shown(text)}", file=sys.stderr, flush=True)
    # A thread of a library may still wait for something; the exit code is decided, so flush and go.
    sys.stdout.flush()
    sys.exit(code)


def _describe_disk_error(error: BaseException, call: Mapping[str, Any]) -> str | None:
    """Name the folders and the fix where a disk was full or failed in the hands of a library, such as Ray's."""
    if isinstance(error, StorageError):
        return None
    outputs = [storage.resolve(call[name]) for name in _OUTPUTS if call.get(name)]
    folders = [*(Path(str(path)) for path in outputs if storage.is_local(path)), Path(tempfile.gettempdir())]
    full = storage.full_folders(folders)
    found = storage.find_disk_error(error)
    instead = "another output folder, or another temporary folder in TMPDIR"
    if found is not None:
        return str(storage.disk_error(found.filename or ", ".join(map(str, full or folders)), found, instead))
    if full:  # Ray, for one, then waits for files that its processes cannot write
        fix = storage.fix_of_disk(errno.ENOSPC, instead)
        return f"{one_line(error)}; next to no space is left in {', '.join(map(str, full))}: {fix}"
    return None


def _describe_store_error(error: BaseException, call: Mapping[str, Any]) -> str | None:
    """Name the addresses and the fix where a store failed in the hands of a library, such as Ray's."""
    addresses = [value for value in call.values() if isinstance(value, str) and "://" in value]
    if not addresses or isinstance(error, StorageError) or not storage.is_store_error(error):
        return None
    return f"{', '.join(addresses)}: storage failed, {one_line(error)}; {storage.fix_hint(error)}"


def _parse(job: Callable[..., None], arguments: list[str], prog: str) -> tuple[dict[str, Any], Sequence[Setting]]:
    """Return the values of the job's arguments, and which of them were given."""
    parser = _make_parser(job, prog)
    hints = {action.dest: hint for action in parser._actions if (hint := _type_of(action)) is not None}
    lists = {name: holds_text(hint) for name, hint in hints.items() if is_list(hint)}
    groups = {name.split(".")[0] for name in hints if "." in name}
    files, flags = _config_files(arguments)
    _require_bounded(flags, groups)
    words = join_lists(flags, lists)
    contents = [_read_config(file, groups, lists) for file in files]
    given = [
        *(setting for source, content in contents for setting in given_in_file(source, content, groups)),
        *given_flags(words),
    ]
    try:
        # As JSON, which keeps text apart from numbers; YAML's dialects differ on 1e1. Before all flags, which
        # override what the parser has read before.
        configs = [f"--config={json.dumps(content, default=str)}" for _, content in contents]
        call = vars(parser.instantiate(parser.parse_args([*configs, *words])))
    except InputError:  # raised by a dataclass that refuses its values
        raise
    except (ArgumentError, argparse.ArgumentError, ValueError, TypeError) as error:
        raise InputError(explain(error, parser, hints, given)) from error
    if call.pop("debug"):
        os.environ["PROMOTER_DEBUG"] = "1"
    call.pop("config", None)
    return call, [inner for setting in given for inner in _of_group(setting, groups)]


def _require_bounded(words: Sequence[str], groups: set[str]) -> None:
    """Refuse YAML in a flag, or in the file that a group of settings names, that the parser would never finish."""
    flag = ""
    for word in words:
        value = word
        if word.startswith("--"):
            flag, _, value = word.partition("=")
        try:
            content = as_written(value)
        except InputError as error:
            raise InputError(f"{flag}: {error}; write it out") from error
        names_file = isinstance(content, str) and os.path.isfile(content)  # noqa: PTH113 # raises nothing
        if flag.removeprefix("--") in groups and names_file:
            storage.read_yaml(content)


def _of_group(setting: Setting, groups: set[str]) -> list[Setting]:
    """Return the settings in `--model '{"crop": 200}'` or `--model FILE`; of any other flag or file itself."""
    if setting.name not in groups or not isinstance(setting.value, str):
        return [setting]
    content = as_written(setting.value)
    if not isinstance(content, dict):
        content = storage.read_yaml(setting.value)
    return given_in_file(setting.source, {setting.name: content}, groups)


def _make_parser(job: Callable[..., None], prog: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=prog,
        description=(job.__doc__ or "").split("\n\n")[0],
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,  # a shortened flag is a misspelt one
    )
    parser.add_argument(
        "--config", action="config", help="YAML file with any of these settings; flags override it"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks and the logs of Ray")
    # evaluated here, since the parser would import what a job imports for type checkers alone
    job.__annotations__ = get_type_hints(job)
    parser.add_function_arguments(job, as_group=False, as_positional=bool(_positional(job)))
    for action in parser._actions:  # argparse has no public way to list its options
        if is_list(hint := _type_of(action)):
            action.metavar = written_as(hint)[0]
            # without the parser's `--flag+`, which appends
            action.option_strings = [flag for flag in action.option_strings if not flag.endswith("+")]
    return parser


def _positional(job: Callable[..., None]) -> list[str]:
    """Return the parameters that are words without a flag on the command line: the positional-only ones."""
    parameters = inspect.signature(job).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]


class _Help(DefaultHelpFormatter):
    """Says of a list how it is written, instead of its Python type."""

    def _get_type_str(self, action: Action) -> str | None:
        hint = _type_of(action)
        return f"list: {' or '.join(written_as(hint))}" if is_list(hint) else super()._get_type_str(action)


def _type_of(action: Action) -> Any:
    """Return the annotation that an option was made from; None for one such as --help."""
    return getattr(action, "_typehint", None)


def _config_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the `--config` files, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    try:
        named, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(f"{str(error).removeprefix('argument ')}; see --help") from error
    return named.config, others


def _read_config(file: str, groups: set[str], lists: Mapping[str, bool]) -> tuple[str, dict[str, Any]]:
    """Return `FILE: ` for messages, and the settings in the file."""
    settings = storage.read_yaml(file)
    path = storage.resolve(file)  # of a pipe, the copy that was read
    settings.pop(PROVENANCE, None)
    if settings.pop(TRUST_CODE, False):  # files are passed on
        raise InputError(
            f"{path}: {TRUST_CODE}: a file cannot give it; give --{TRUST_CODE} true, if you trust the code"
        )
    for group in groups & settings.keys():
        if not isinstance(settings[group], dict):
            raise InputError(f"{path}: {group} {settings[group]}: must hold settings of its own; see --help")
    take_lists(settings, path.read_text(), lists)
    return f"{path}: ", settings
