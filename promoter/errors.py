"""Exceptions of the library; the message of each is one line that says what is wrong and how to fix it.

    ValueError
    └── InputError                what the user gave cannot be used: exit code 2
        └── NoValidSettingsError  a search space holds no valid combination: exit code 2
    OSError
    └── StorageError              a store refused or failed: exit code 1
    ArithmeticError
    └── FloatingPointError
        └── TrainingDivergedError the loss is no longer a number: exit code 1
    RuntimeError
    └── NetworkError              the code of a user's network failed: exit code 1
    UserWarning
    └── InputNote                 what was taken for granted about an input; the job goes on
        └── InputWarning          what looks wrong in an input, but may be meant; the job goes on

Exit code 2 means that the input must change, 1 that the job failed at run time. This package raises the
exceptions; the command line turns each into one line on stderr and the exit code, and prints the warnings. In a
search of settings a diverged training, or a network that fails, ends its trial, not the job.

Messages name a setting between backticks, as Python has it: a parameter as `positions`, a field of a configuration
as `SplitConfig.val_fraction`, either with its value as `adapt='lora'`. The command line shows its flag instead.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line with the setting or file, the value and the fix.

    Args:
        problem: what is wrong; begins with the file, and the row, where the message is about one.
        setting: name of the setting that the message is about, without backticks; None (default) for a file.
        value: value of the setting; left out (default) where it is not given or says nothing.
        fix: how to fix it; None (default) where `problem` says that too.
    """

    def __init__(
        self, problem: str, *, setting: str | None = None, value: object = ..., fix: str | None = None
    ) -> None:
        self.problem, self.setting, self.fix = problem, setting, fix
        self.value = os.fspath(value) if isinstance(value, os.PathLike) else value
        given = "" if value is ... else f"={self.value!r}"
        head = "" if setting is None else f"`{setting}{given}`: "
        # args hold the finished message: an exception is copied to other processes by its args and attributes
        super().__init__(head + problem + ("" if fix is None else f"; {fix}"))


class NoValidSettingsError(InputError):
    """A search space holds no combination of settings that makes a network for the data."""


class StorageError(OSError):
    """A store refused or failed; the message is one line with the address, the reason and the fix."""


class TrainingDivergedError(FloatingPointError):
    """The training loss is NaN or infinite; the message is one line with the epoch and the setting to change."""


class NetworkError(RuntimeError):
    """The code of a user's network failed; the message is one line with network, function and error."""


class InputNote(UserWarning):
    """What the program takes for granted about an input, in one line: a layout, an encoding, an id it changed."""


class InputWarning(InputNote):
    """What looks wrong in an input but may be meant, in one line with what to do if it is not."""


def note(text: str) -> None:
    """Tell the user what is taken for granted about an input, as an `InputNote`; a job prints and records it."""
    warnings.warn(InputNote(text), stacklevel=2)


def doubt(text: str) -> None:
    """Tell the user what looks wrong in an input, as an `InputWarning`; a job prints and records it."""
    warnings.warn(InputWarning(text), stacklevel=2)


def counted(number: int, noun: str) -> str:
    """Write a number of things: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str], most: int = 6) -> str:
    """Write the first items of a list, and the number of the others: `I, II and 14 more`."""
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")
