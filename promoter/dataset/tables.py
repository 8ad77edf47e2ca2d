"""Read tables as they come: separator, quotes, comments and header are known by content, not by name."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
import pyarrow as pa
from upath import UPath

from promoter import storage
from promoter.errors import InputError, counted, doubt, note
from promoter.storage import AnyPath

NO_VALUE = frozenset({"", "na", "n/a", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na"})  # in lower case
_SPELLINGS = sorted({spelt for word in NO_VALUE for spelt in (word, word.upper(), word.title(), "NaN", "-NaN")})
_SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "spaces"}  # in order of preference
_NUMBER = re.compile(r"[+-]?(\d[\d.,]*|[.,]\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_ID_NAME = re.compile(
    r"((ensembl|entrez)[ ._-]?)?(gene|locus|transcript|target|feature|probe)s?([ ._-]?(id|name|symbol|tag)s?)?"
    r"|(tx|row|u)?[ ._-]?(id|name)s?|symbol|y?orf",
    re.IGNORECASE,
)
_HEAD, _TAIL = 50, 10  # rows by which a table is known: summaries stand at the end


@dataclass(frozen=True)
class RawTable:
    """Hold a table whose values have not been read.

    Attributes:
        path: path of the file.
        columns: names of the columns; they differ, and one without a name is `column_N`, counted from 1.
        rows: first and last rows, as text.
        read: function from the names of columns that stay text to the table; others become numbers where every
            cell is one or is missing, and text otherwise.
        line: function from the number of a row, from 0, to what messages call it.
        separator: separator of the cells; empty for Parquet.
        has_header: whether the names of the columns come from the file.
        nameless: columns without a name in the file.
        is_gct: whether the file begins with the lines of GCT.
        annotation: columns that GCT says are no samples.
    """

    path: UPath
    columns: list[str]
    rows: list[list[str]]
    read: Callable[[Collection[str]], pd.DataFrame]
    line: Callable[[int], str]
    separator: str = ""
    has_header: bool = True
    nameless: frozenset[str] = frozenset()
    is_gct: bool = False
    annotation: frozenset[str] = frozenset()


HeaderTest = Callable[[list[str], list[list[str]]], bool]


def read_table(
    path: AnyPath, what: str = "expression table", *, header: bool | HeaderTest | None = None
) -> RawTable:
    """Open a table: Parquet if its name ends so, else text with any separator.

    Args:
        path: local or remote; text may be gzip.
        what: name of the file's kind, for messages (default `expression table`).
        header: whether the first row names the columns, or a function that tells it from the cells of that row and
            of the next ones; None (default) tells by whether it looks like the others.

    Raises:
        InputError: the file is no table; the message names the line.
    """
    resolved = storage.require_file(path, what)
    if resolved.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(resolved, what)
    with storage.open_text(resolved) as file:
        text = file.read()
    if text.lstrip().startswith("<"):
        raise InputError(f"{resolved}: is HTML or XML, not a table; download it again")
    return _read_text(resolved, text, header)


def is_missing(cell: str) -> bool:
    """Return whether a cell says that there is no value."""
    return cell.strip().lower() in NO_VALUE


def is_id_name(name: str) -> bool:
    """Return whether a column's name says that it holds the ids of genes or transcripts."""
    return _ID_NAME.fullmatch(name.strip()) is not None


def _read_text(path: UPath, text: str, header: bool | HeaderTest | None) -> RawTable:
    # not str.splitlines, which breaks lines at form feeds and other marks that occur in descriptions; lines that
    # begin with '!' are GEO's
    numbered = [
        (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip() and line[0] != "!"
    ]
    lines, numbers = [line for _, line in numbered], [number for number, _ in numbered]
    is_gct = bool(lines) and re.fullmatch(r"#1\.[23]\s*", lines[0]) is not None
    sizes = [int(size) for size in lines[1].split() if size.isdecimal()] if is_gct and len(lines) > 1 else []
    skipped = 2 if is_gct else next((at for at, line in enumerate(lines) if line[0] != "#"), len(lines))
    if skipped and not is_gct and _is_header_in_comment(lines[skipped - 1 : skipped + 2]):
        skipped, header = skipped - 1, True
        lines[skipped] = lines[skipped].lstrip("# ")
    lines, numbers = lines[skipped:], numbers[skipped:]
    if not lines:
        raise InputError(f"{path}: holds no table; is it the right file?")
    separator = _find_separator(lines[:_HEAD])
    expected = {".csv": ",", ".tsv": "\t"}.get(UPath(path.name.lower().removesuffix(".gz")).suffix, separator)
    if separator != expected:
        note(f"{path}: is separated by {_SEPARATORS[separator]}, though its name says {_SEPARATORS[expected]}")
    starts, widths, quoted = _find_rows(path, lines, numbers, separator)
    first, head = (_cells(lines[0], separator), [_cells(lines[at], separator) for at in starts[1 : _HEAD + 1]])
    rows = head + [_cells(lines[at], separator) for at in starts[max(_HEAD + 1, len(starts) - _TAIL) :]]
    if header is None:
        header = is_gct or _has_header(path, numbers[0], first, head)
    elif callable(header):
        header = header(first, head)
    elif not header:  # a header that is one short, as R writes, is one all the same
        header = bool(head) and len(first) + 1 == min(map(len, head))
    skip = int(header) + (sizes[3] if is_gct and len(sizes) == 4 else 0)
    row_numbers, row_widths = [numbers[at] for at in starts[skip:]], widths[skip:]
    is_numbered = bool(head) and all(row[0].strip().isdecimal() for row in head)
    names = _name_columns(path, first if header else [], row_numbers, row_widths, is_numbered=is_numbered)
    _warn_of_short_rows(path, len(names), row_numbers, row_widths, complete=text.endswith("\n"))
    if is_gct and sizes and sizes[0] != len(row_numbers):
        raise InputError(
            f"{path}: line 2 says {counted(sizes[0], 'row')}, there are {len(row_numbers):,}; was the file "
            "written to the end?"
        )
    columns = [name or f"column_{number}" for number, name in enumerate(names, start=1)]
    _require_distinct(path, columns)

    def read(text_columns: Collection[str]) -> pd.DataFrame:
        body = lines[starts[skip] :] if row_numbers else []
        spare = [f"\0{extra}" for extra in range(max((raw for raw, _ in row_widths), default=0) - len(columns))]
        frame = pd.read_csv(
            io.StringIO("\n".join(body)),
            sep=r"\s+" if separator == " " else separator,
            header=None,
            names=[*columns, *spare],
            usecols=range(len(columns)),
            dtype=dict.fromkeys(text_columns, str),
            keep_default_na=False,
            na_values={name: _SPELLINGS for name in columns if name not in text_columns},
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            low_memory=False,  # one type a column
        )
        if len(frame) != len(row_numbers):
            raise InputError(f"{path}: {len(frame)} of {len(row_numbers)} rows can be read; remove its quotes")
        return frame.apply(_as_text, unquote=not quoted and '"' in text)

    return RawTable(
        path,
        columns,
        rows if header else [first, *rows],
        read,
        lambda row: f"line {row_numbers[row]}",
        separator=separator,
        has_header=header,
        nameless=frozenset(column for column, name in zip(columns, names, strict=True) if not name)
        if header
        else frozenset(),
        is_gct=is_gct,
        annotation=_gct_annotation(columns, sizes) if is_gct else frozenset(),
    )


def _gct_annotation(columns: Sequence[str], sizes: Sequence[int]) -> frozenset[str]:
    """Return the columns of GCT that describe the genes: in version 1.2 one, which GTEx writes after two ids."""
    if len(sizes) == 4:
        return frozenset(columns[1 : 1 + sizes[2]])
    return frozenset(name for name in columns if name.lower() == "description") or frozenset(columns[1:2])


def _cells(line: str, separator: str) -> list[str]:
    if '"' in line:
        try:
            return next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=separator == " "))
        except csv.Error:  # a quote that stands alone
            pass
    return line.split() if separator == " " else line.split(separator)


def _find_separator(lines: Sequence[str]) -> str:
    """Return the separator by which all rows have cells, best as many as the first has."""

    def fit(separator: str) -> int:
        rows = [_cells(line, separator) for line in lines]
        if min(map(len, rows[1:] or rows)) < 2:
            return 0
        widths = [len(_strip_end(row)) for row in rows]
        widest = max(widths[1:] or widths)
        return 3 if widths[0] == widest else 2 if widths[0] + 1 == widest else 1

    return max(_SEPARATORS, key=fit)  # the first of equal ones


def _strip_end(cells: list[str]) -> list[str]:
    while len(cells) > 1 and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _find_rows(
    path: UPath, lines: Sequence[str], numbers: Sequence[int], separator: str
) -> tuple[list[int], list[tuple[int, int]], bool]:
    """Return the first line of each row, its widths with and without empty cells at the end; whether it is quoted.

    A quote counts as a letter where each line has its cells without that, for then no separator is quoted.
    """

    def measure(cells: list[str]) -> tuple[int, int]:
        return len(cells), len(_strip_end(cells))

    plain = [measure(line.split() if separator == " " else line.split(separator)) for line in lines]
    starts = list(range(len(lines)))
    if not any('"' in line for line in lines):
        return starts, plain, False
    options = {"delimiter": separator, "strict": True, "skipinitialspace": separator == " "}
    try:
        return starts, [measure(next(csv.reader([line], **options))) for line in lines], True
    except csv.Error:
        if len({width for _, width in plain[1:]}) < 2:
            return starts, plain, False
    reader = csv.reader((line + "\n" for line in lines), **options)
    starts, widths = [], []
    at = 0
    try:
        while True:
            at = reader.line_num
            widths.append(measure(next(reader)))
            starts.append(at)
    except StopIteration:
        return starts, widths, True
    except csv.Error as error:
        raise InputError(f"{path}: line {numbers[at]}: a quote is not closed ({error}); remove it") from error


def _is_header_in_comment(lines: Sequence[str]) -> bool:
    """Tell whether the first of these lines, a comment, names the columns of the second, which is no header."""
    if len(lines) < 2:
        return False
    separator = _find_separator(lines[1:])
    comment, *rows = (_cells(line, separator) for line in (lines[0].lstrip("# "), *lines[1:]))
    return len(comment) == len(rows[0]) > 1 and _differs(comment, rows) and not _differs(rows[0], rows[1:] or rows)


def _numeric_columns(rows: Sequence[list[str]]) -> list[int]:
    def is_numeric(column: int) -> bool:
        cells = [row[column].strip() for row in rows if column < len(row)]
        return all(is_missing(cell) or _NUMBER.fullmatch(cell) for cell in cells) and not all(
            map(is_missing, cells)
        )

    return [column for column in range(1, max(map(len, rows), default=0)) if is_numeric(column)]


def _differs(first: list[str], rows: Sequence[list[str]]) -> bool:
    """Tell whether a row has text where others have numbers."""
    cells = [first[column].strip() for column in _numeric_columns(rows) if column < len(first)]
    return not all(is_missing(cell) or _NUMBER.fullmatch(cell) for cell in cells) or all(map(is_missing, cells))


def _has_header(path: UPath, line: int, first: list[str], rows: Sequence[list[str]]) -> bool:
    if not rows or len(first) < len(_strip_end(rows[0])) or not first[0].strip() or is_id_name(first[0]):
        return True
    if _differs(first, rows):
        return True
    numbers = [first[column].strip() for column in _numeric_columns(rows)]
    if (
        len(numbers) > 2
        and all(map(str.isdecimal, numbers))
        and all(int(a) < int(b) for a, b in pairwise(numbers))
    ):
        raise InputError(
            f"{path}: line {line}: '{' '.join(first[:4])}' may be a gene, or hours or doses that name the "
            "columns; if it is the header write 'gene' as its first cell, else add a header"
        )
    return False


def _name_columns(
    path: UPath, header: list[str], numbers: Sequence[int], widths: Sequence[tuple[int, int]], *, is_numbered: bool
) -> list[str]:
    """Return the names of the columns; empty for one without."""
    names = [name.strip().strip('"').strip() for name in header]
    widest = max((used for _, used in widths), default=0)
    if not header:
        return [""] * widest
    while len(names) > max(widest, 1) and not names[-1]:
        names.pop()
    if widest <= len(names):
        return names
    is_one_short = widest == len(names) + 1 and min(raw for raw, _ in widths) == widest
    if is_one_short and (is_numbered or not is_id_name(names[0])):
        return ["", *names]  # as R's write.table, which names no column for the row names
    number = next(number for number, (_, used) in zip(numbers, widths, strict=True) if used > len(names))
    raise InputError(
        f"{path}: line {number} has more columns than its header, {widest} for {len(names)}; name each"
    )


def _warn_of_short_rows(
    path: UPath, width: int, numbers: Sequence[int], widths: Sequence[tuple[int, int]], *, complete: bool
) -> None:
    short = [number for number, (raw, _) in zip(numbers, widths, strict=True) if raw < width]
    if short == numbers[-1:] and short and not complete:
        raise InputError(f"{path}: line {short[0]}, the last, ends early; fetch or write the file again")
    if short:
        doubt(
            f"{path}: fewer cells than the header: {counted(len(short), 'row')}, the first on line {short[0]}; "
            "the values at the end are taken as missing; if others are lost, write the file again"
        )


def _require_distinct(path: UPath, names: Sequence[str]) -> None:
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise InputError(f"{path}: two columns are named '{twice}'; rename one")


def _as_text(column: pd.Series, *, unquote: bool) -> pd.Series:
    """Return cells that are not numbers as text, without the quotes around them if asked."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column
    text = column.where(column.isna(), column.astype(str)).astype("object" if column.isna().all() else str)
    if not unquote:
        return text
    return text.str.replace(r'^\s*"(.*)"\s*$', r"\1", regex=True)


def _read_parquet(path: UPath, what: str) -> RawTable:
    with storage.open_table(path, what) as file:
        table = file.read()
    index = [
        name for name in (table.schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)
    ]
    table = table.select([*index, *(name for name in table.column_names if name not in index)])
    names = ["" if re.fullmatch(r"__index_level_\d+__", name) else name.strip() for name in table.column_names]
    columns = [name or f"column_{number}" for number, name in enumerate(names, start=1)]
    _require_distinct(path, columns)
    table = table.rename_columns(columns)

    def read(text_columns: Collection[str]) -> pd.DataFrame:
        return pd.DataFrame({name: _from_arrow(table[name], text=name in text_columns) for name in columns})

    head = pa.concat_tables([table.slice(0, _HEAD), table.slice(max(_HEAD, len(table) - _TAIL))])
    as_text = [_from_arrow(head[name], text=True).fillna("") for name in columns]
    rows = [list(row) for row in zip(*as_text, strict=True)]
    nameless = frozenset(column for column, name in zip(columns, names, strict=True) if not name)
    return RawTable(path, columns, rows, read, lambda row: f"row {row + 1}", nameless=nameless)


def _from_arrow(column: pa.ChunkedArray, *, text: bool) -> pd.Series:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if (is_number or pa.types.is_null(kind)) and not text:
        return column.cast(pa.float64(), safe=False).to_pandas()  # 64-bit integers beyond 2^53 are rounded
    if pa.types.is_nested(kind) or pa.types.is_duration(kind):
        cells = [None if value is None else repr(value) for value in column.to_pylist()]
        return pd.Series(cells, dtype="str")
    return column.cast(pa.string()).to_pandas().astype("str" if len(column) else "object")
