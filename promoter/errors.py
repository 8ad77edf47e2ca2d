"""The one exception that means: the input is wrong, and here is how to mend it."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line with the file, the value and the mend."""
