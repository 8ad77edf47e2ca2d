"""Exceptions whose message is one line with the mend: the input is wrong, or a store failed."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line with the file, the value and the mend."""


class StorageError(OSError):
    """A store refused or failed; the message is one line with the address, the reason and the mend."""
