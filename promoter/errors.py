"""Exceptions of the library; the message of each is one line that says what is wrong and how to fix it.

    ValueError
    └── InputError                what the user gave cannot be used: exit code 2
        └── NoValidSettingsError  a search space holds no valid combination: exit code 2
    OSError
    └── StorageError              a store refused or failed: exit code 1
    ArithmeticError
    └── FloatingPointError
        └── TrainingDivergedError the loss is no longer a number: exit code 1

Exit code 2 means that the input must change, 1 that the job failed at run time. This package raises the
exceptions; the command line turns each into one line on stderr and the exit code. In a search of settings a
diverged training ends its trial, not the job.
"""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line with the file, the value and the fix."""


class NoValidSettingsError(InputError):
    """A search space holds no combination of settings that makes a network for the data."""


class StorageError(OSError):
    """A store refused or failed; the message is one line with the address, the reason and the fix."""


class TrainingDivergedError(FloatingPointError):
    """The training loss is NaN or infinite; the message is one line with the epoch and the setting to change."""
