"""Read our own files with their shape checked: what is damaged is an InputError with file, field, value and fix.

The shape of a file is a dataclass or a TypedDict beside the code that writes the file. What a TypedDict does
not name is left out of what is returned, so that files of later versions can be read too; a dataclass holds
settings, and one that it does not have is refused. Of tables, the columns that are needed are checked, and their
types.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from typing_extensions import get_type_hints, is_typeddict

import promoter
from promoter.errors import InputError, listed
from promoter.storage.checks import require_file
from promoter.storage.formats import read_json, read_yaml
from promoter.storage.paths import AnyPath, resolve
from promoter.storage.text import open_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")
_SHOWN = 60  # letters of a damaged value in a message
ColumnKind = Literal["text", "integers", "numbers", "lists of numbers"]


def checked(value: Any, kind: type[T], source: object, fix: str) -> T:
    """Check plain values against a type, strictly: text is no number, and a number no truth value.

    Args:
        value: plain values, as JSON and YAML hold them.
        kind: type that they must have: a dataclass, a TypedDict (of `typing_extensions`), `dict[str, int]`, ...
        source: name of their file, for the message.
        fix: how to make the file anew, for the message.

    Returns:
        The value as that type; tuples and dataclasses are made of lists and mappings.

    Raises:
        InputError: a field is missing, or has another type.
    """
    from pydantic import ValidationError  # noqa: PLC0415 # a command line without such files does without it
    from pydantic_core import PydanticSerializationError, to_json  # noqa: PLC0415

    try:
        # by way of JSON, where a mapping may be a dataclass; `fallback` for what YAML has beyond JSON
        result = _adapter(kind).validate_json(to_json(value, inf_nan_mode="constants", fallback=repr), strict=True)
    except PydanticSerializationError as error:  # half of a pair of surrogates, which YAML lets through
        raise InputError(f"{source}: holds text that is not Unicode ({error}); {fix}") from error
    except ValidationError as error:
        raise InputError(f"{source}: {_describe(error.errors()[0])}; {fix}") from error
    for name in _unknown_settings(value, kind):
        raise InputError(
            f"{source}: {name} is not known here; use the version of promoter that wrote it, or {fix}"
        )
    return result


def read_json_as(path: AnyPath, kind: type[T], fix: str) -> T:
    """Read a JSON file of a known shape; arguments and errors are those of `checked`."""
    return checked(read_json(path, fix), kind, resolve(path), fix)


def read_yaml_as(path: AnyPath, kind: type[T], fix: str) -> T:
    """Read a YAML file of a known shape; arguments and errors are those of `checked`."""
    return checked(read_yaml(path, fix), kind, resolve(path), fix)


def require_format(content: Mapping[str, Any], expected: int, what: str, *, source: object, fix: str) -> None:
    """Check the number of a file's format.

    Args:
        content: what the file holds, with the number as `format`.
        expected: number that this version reads.
        what: name of the format for the message, such as `model`.
        source: name of the file, for the message.
        fix: how to make the file anew, for the message.

    Raises:
        InputError: there is no such number, or it is another.
    """
    found = content.get("format")
    if type(found) is not int or found != expected:  # True and 1.0 equal 1, too
        raise InputError(
            f"{source}: has {what} format {found!r}, promoter {promoter.__version__} reads {expected}; use the "
            f"version of promoter that wrote it, or {fix}"
        )


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415 # see above

    return TypeAdapter(kind)


def _unknown_settings(value: Any, kind: Any, place: str = "") -> Iterator[str]:
    """Name the entries of settings, which are dataclasses, that these do not have: they would mean something."""
    if is_dataclass(kind):
        known = {field.name for field in fields(kind)}
        yield from (f"{place}{name}" for name in value if name not in known)
    elif is_typeddict(kind):
        for name, inner in get_type_hints(kind).items():
            if isinstance(value.get(name), dict):
                yield from _unknown_settings(value[name], inner, f"{place}{name}.")


def _describe(error: ErrorDetails) -> str:
    place = ".".join(str(step) for step in error["loc"])
    if error["type"] == "missing":
        return f"lacks {place}"
    problem = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
    found = repr(error["input"])
    found = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."
    return f"{place or 'what it holds'}: {found} {problem}"


def require_columns(
    schema: pa.Schema, columns: Mapping[str, ColumnKind], source: object, fix: str, *, exact: bool = False
) -> None:
    """Check that a Parquet file has columns of these kinds.

    Args:
        schema: schema of the file.
        columns: name -> what the column must hold.
        source: name of the file, for the message.
        fix: how to make the file anew, for the message.
        exact: whether there may be no other columns (default false).

    Raises:
        InputError: a column is missing, there twice, or holds something else.
    """
    names = Counter(schema.names)
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(f"{source}: lacks the columns {listed(missing)}; {fix}")
    for name in schema.names if exact else columns:
        if name not in columns:
            raise InputError(f"{source}: has a column {name} too many; {fix}")
        if names[name] > 1:
            raise InputError(f"{source}: has {names[name]} columns {name}; {fix}")
        if not _holds(schema.field(name).type, columns[name]):
            raise InputError(
                f"{source}: column {name} holds {schema.field(name).type}, not {columns[name]}; {fix}"
            )


def _holds(kind: pa.DataType, wanted: ColumnKind) -> bool:
    import pyarrow.types as types  # noqa: PLC0415, PLR0402 # the command line does without PyArrow

    match wanted:
        case "text":
            return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        case "integers":
            return types.is_integer(kind)
        case "numbers":
            return types.is_integer(kind) or types.is_floating(kind)
        case "lists of numbers":
            return types.is_fixed_size_list(kind) and types.is_floating(kind.value_type)


def require_filled(table: pa.Table, columns: Sequence[str], source: object, fix: str) -> None:
    """Raise InputError if one of these columns of a table lacks a value, or holds text that is not UTF-8."""
    chosen = table.select(list(columns))
    try:
        chosen.validate(full=True)
    except ValueError as error:
        raise InputError(f"{source}: is damaged ({error}); {fix}") from error
    for name in columns:
        if chosen[name].null_count:
            row = chosen[name].is_null().index(True).as_py()
            raise InputError(f"{source}: row {row + 1} has no {name}; {fix}")


def read_csv(
    path: AnyPath, fix: str, *, text: Sequence[str] = (), numbers: Sequence[str] = (), sep: str = ","
) -> pd.DataFrame:
    """Read a table of text of ours.

    Args:
        path: local or remote.
        fix: how to make the file anew, for the message.
        text: columns that must be there, and stay text even if a cell says NA or 1; those that end in `?` may be
            missing.
        numbers: columns that must be there and hold numbers, empty where unknown; those that end in `?` may be
            missing.
        sep: separator of the cells.

    Returns:
        The table; other columns hold what pandas takes them for. A file without a header gives an empty table with
        the columns that must be there.

    Raises:
        InputError: the file is missing or no table, or lacks a column, or a cell is no number.
    """
    resolved = require_file(path, "table")
    with open_text(resolved) as file:
        return parse_csv(file, resolved, fix, text=text, numbers=numbers, sep=sep)


def parse_csv(
    file: IO[str],
    source: object,
    fix: str,
    *,
    text: Sequence[str] = (),
    numbers: Sequence[str] = (),
    sep: str = ",",
) -> pd.DataFrame:
    """Read a table from an open file, which can be rewound, as `read_csv` does."""
    import pandas as pd  # noqa: PLC0415 # the command line does without it

    known = {name.removesuffix("?") for name in (*text, *numbers)}
    needed = [name for name in (*text, *numbers) if not name.endswith("?")]
    try:
        # of a row with too many cells pandas would take the first for its name
        options: dict[str, Any] = {"sep": sep, "keep_default_na": False, "index_col": False}
        with (
            warnings.catch_warnings(action="error", category=pd.errors.ParserWarning),
        ):
            header = pd.read_csv(file, nrows=0, **options).columns
            file.seek(0)
            missing = {name: ["", "nan", "NaN", "NA"] for name in header if name not in known}
            dtype = {name: str for name in header if name in known}
            table = pd.read_csv(file, dtype=dtype, na_values=missing, **options)
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=needed)
    except (ValueError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{source}: is not a table ({reason}); {fix}") from error
    if lacking := [name for name in needed if name not in table]:
        raise InputError(f"{source}: lacks the columns {listed(lacking)}; {fix}")
    for name in filter(known.__contains__, table):
        cells = table[name]
        wrong = cells.isna()  # a row with too few cells
        if name in numbers or f"{name}?" in numbers:
            table[name] = pd.to_numeric(cells.where(cells != ""), errors="coerce")
            wrong |= table[name].isna() & ~cells.str.lower().isin(["", "nan"])
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            found = "is cut off" if pd.isna(cells[row]) else f"has the {name} {cells[row]!r}, which is no number"
            raise InputError(f"{source}: row {row + 1} {found}; {fix}")
    return table
