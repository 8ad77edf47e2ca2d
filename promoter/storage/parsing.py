"""Parse JSON and YAML of any origin; what is nested too deep, or repeated too often by aliases, is refused."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser

from promoter.errors import InputError

_MAX_DEPTH = 50  # levels; what people and this package write has less than ten
_MAX_REPEATED = 10_000  # values that aliases stand for; a bomb of six lines has a million
_LETTERS = 100  # that count as another value in a long text


def parse_json(content: bytes | str, source: object, fix: str = "write it again") -> Any:
    """Parse JSON.

    Args:
        content: the text, in UTF-8.
        source: name of its file, for the message.
        fix: how to make the file anew, for the message.

    Raises:
        InputError: it is not JSON, or nested deeper than 200 levels.
    """
    from pydantic_core import from_json  # noqa: PLC0415 # a command line without JSON does without it

    try:
        return from_json(content)
    except ValueError as error:
        raise InputError(f"{source}: is not JSON ({error}); {fix}") from error


def parse_yaml(content: bytes | str, source: object, fix: str = "fix it or write it again") -> Any:
    """Parse YAML into plain values; tags that would make Python objects are refused.

    Args:
        content: the text, in UTF-8.
        source: name of its file, for the message.
        fix: how to repair the file, for the message.

    Raises:
        InputError: it is not YAML, or exceeds the bounds of `parse_yaml_text`.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 # a safe loader
    except InputError as error:
        raise InputError(f"{source}: {error}; {fix}") from error
    # beside its own errors, PyYAML lets through those of int(), date() and its tables, as for `!!bool x`
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        raise InputError(f"{source}: is not YAML ({' '.join(str(error).split())}); {fix}") from error


def parse_yaml_text(text: str) -> Any:
    """Parse YAML with each value as the text that is written.

    Raises:
        InputError: it is nested deeper than 50 levels, or its aliases stand for more than 10,000 values.
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_TextLoader)  # noqa: S506 # it makes nothing but text


def to_yaml(value: Any) -> str:
    """Write plain values as YAML without aliases; mappings keep their order of keys, and text its lines."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


class _BoundedComposer(Parser, Composer):
    """Counts levels, and the values that aliases stand for, while a document is read."""

    def compose_document(self) -> Any:
        """Compose a document."""
        self.depth = self.values = self.repeated = 0
        self.sizes: dict[str, int] = {}  # anchor -> number of values in its node, those of aliases included
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, or refuse it before it is read to its end."""
        event = self.peek_event()
        line = event.start_mark.line + 1
        if self.check_event(yaml.AliasEvent):
            endless = event.anchor in self.anchors and event.anchor not in self.sizes  # within its own anchor
            self.repeated += _MAX_REPEATED + 1 if endless else self.sizes.get(event.anchor, 0)
            if self.repeated > _MAX_REPEATED:
                raise InputError(f"line {line} repeats more than {_MAX_REPEATED:,} values by its aliases (*name)")
        if self.depth == _MAX_DEPTH:
            raise InputError(f"line {line} is nested deeper than {_MAX_DEPTH} levels")
        before = self.values + self.repeated
        self.values += 1 + len(event.value) // _LETTERS if isinstance(event, yaml.ScalarEvent) else 1
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if event.anchor:
            self.sizes.setdefault(event.anchor, self.values + self.repeated - before)
        return node


class _PlainLoader(_BoundedComposer, yaml.SafeLoader):
    """Makes plain values."""


class _TextLoader(_BoundedComposer, yaml.BaseLoader):
    """Makes text."""


class _Dumper(yaml.SafeDumper):
    """Writes each value out."""

    def ignore_aliases(self, data: Any) -> bool:
        """Tell that a value is written again wherever it occurs."""
        return True

    def represent_scalar(self, tag: str, value: Any, style: str | None = None) -> yaml.ScalarNode:
        """Write text of several lines line by line, where YAML can."""
        several = style is None and isinstance(value, str) and "\n" in value.strip()
        return super().represent_scalar(tag, value, "|" if several else style)
