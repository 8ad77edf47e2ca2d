"""Tell what the columns of a table of sequences hold: sequences, ids, sets, groups, weights, measured values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from upath import UPath

from promoter import storage
from promoter.dataset.cells import read_numbers
from promoter.dataset.tables import RawTable, is_missing, read_table
from promoter.dataset.targets import unlikely_targets
from promoter.errors import InputError, counted, listed, note
from promoter.storage import AnyPath

IUPAC = "RYSWKMBDHV"  # stand for several bases, and are read as N
_SEQUENCE = re.compile(rf"\s*[\"']?[ACGTUN{IUPAC}]{{8,}}[\"']?\s*", re.IGNORECASE)  # no word has so many of them
_BASE = re.compile("[ACGTUN]", re.IGNORECASE)
_MIN_SHARE = 0.8  # of the cells of a column of sequences; others may be controls without one, or wrong

# as _word() writes them, in order of preference
_SEQUENCE_NAMES = (
    *("sequence", "seq", "dnasequence", "dnaseq", "promotersequence", "oligosequence", "insertsequence", "dna"),
    *("sequences", "seqs"),
)
_ID_NAMES = re.compile(
    r"(?:seq(?:uence)?|oligo|construct|element|tile|variant|probe|promoter|gene|locus|library|insert)?"
    r"(?:ids?|names?|tags?)|oligo|construct|element|tile|variant|probe|promoter|gene"
)
_INDEX_NAMES = {"unnamed0", "index", "rownames", "rowname", "row"}
_NAME_NAMES = ("genename", "name", "gene", "symbol", "genesymbol")
_SET_NAMES = {"set", "subset", "partition", "dataset", "splits", "datasplit", "traintest", "traintestsplit"}

# beside what no table of expression has for a target
_UNLIKELY = {
    "a prediction": r"(.* )?pred(s|icted|ictions?)?( .*)?",
    "a number of barcodes": r"(.* )?(barcodes?|bcs?|umis?)( .*)?",
    "an amount of DNA": r"(?!.*rna)(.* )?([gp]?dna|plasmid)"
    r"( (sum|mean|avg|average|count|read|umi|exp|rep|total)s?| ?\d+)*",
    "a fold or a replicate": r"(cv )?(fold|round|generation|iteration|split|set|batch|rep(licate)?)s?( number)?",
}


@dataclass(frozen=True)
class LibraryColumns:
    """Hold the names of a table's columns by what they hold; None for what the table lacks.

    Attributes:
        sequence: sequences.
        id: ids, named by the user or called `id`.
        other_ids: columns that may hold ids, taken only if all cells of one differ; in order of preference.
        name: names of genes beside the ids.
        split: set of each sequence.
        group: group of each sequence.
        weight: weight of each sequence's loss.
        sequences: all columns that hold sequences by their content.
    """

    sequence: str
    id: str | None
    other_ids: tuple[str, ...]
    name: str | None
    split: str | None
    group: str | None
    weight: str | None
    sequences: tuple[str, ...]

    @property
    def texts(self) -> set[str]:
        """Return the columns that are read as text, even where they hold numbers."""
        roles = (self.sequence, self.id, self.name, self.split, self.group)
        return {name for name in (*roles, *self.other_ids, *self.sequences) if name is not None}


def open_library(path: AnyPath) -> RawTable:
    """Open a table of sequences, which may lack a header.

    The first row is a header unless it holds a sequence itself, or numbers where the other rows have them.

    Raises:
        InputError: the file is no table, or holds sequences without values.
    """
    resolved = storage.require_file(path, "table of sequences")
    table = read_table(resolved, "table of sequences", header=partial(_has_header, resolved))
    if not table.rows:
        raise InputError(f"{resolved}: has a header but no rows; is it the right file?")
    return table


def find_columns(table: RawTable, given: Mapping[str, str | None]) -> LibraryColumns:
    """Find the column of the sequences and those that say something about them.

    A column that the user names for one purpose serves no other.

    Args:
        table: the opened table.
        given: setting (`id_column`, `sequence_column`, `split_column`, `group_column`, `weight_column`) -> name of
            the column, or None to go by names and content.

    Raises:
        InputError: a named column is not there, or it cannot be told which holds the sequences.
    """
    named = {
        setting: None if name is None else find_column(table, setting, name) for setting, name in given.items()
    }
    taken = {name for name in named.values() if name is not None}
    free = [name for name in table.columns if name not in taken]
    words = {_word(name): name for name in reversed(free)} if table.has_header else {}
    by_content = _sequence_columns(table)
    sequence = named["sequence_column"] or _find_sequence(table, by_content)
    words = {word: name for word, name in words.items() if name != sequence}
    split, group, weight = (named[f"{name}_column"] or words.get(name) for name in ("split", "group", "weight"))
    others = [name for name in free if name not in (sequence, split, group, weight, *by_content)]
    id_column = named["id_column"] or words.get("id")
    return LibraryColumns(
        sequence,
        id_column,
        () if id_column else tuple(_id_candidates(table, others)),
        next((words[word] for word in _NAME_NAMES if words.get(word) not in (None, id_column)), None),
        split,
        group,
        weight,
        tuple(by_content),
    )


def find_column(table: RawTable, setting: str, name: str) -> str:
    """Return the column that a user names, by its number from 1 in a table without a header.

    Raises:
        InputError: there is no such column.
    """
    numbered = f"column_{name}"
    if name not in table.columns and not table.has_header and numbered in table.columns:
        return numbered
    if name not in table.columns:
        raise InputError(
            f"{table.path}: has no such column",
            setting=setting,
            value=name,
            fix=f"it has {listed(table.columns, 12)}",
        )
    return name


def read_values(
    table: RawTable, frame: pd.DataFrame, columns: LibraryColumns, targets: Sequence[str] | None
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Read the columns of measured values.

    Args:
        table: the opened table.
        frame: its content.
        columns: what the other columns hold.
        targets: columns to take; None takes all numbers but those that are no measurements by their names.

    Returns:
        The values, float64, NaN where one is missing; the columns of text, those of ids and sequences among them;
        the columns of numbers that are no targets.

    Raises:
        InputError: a column is not there or holds text, or there is none to take.
    """
    if targets is not None:
        if not targets:
            raise InputError("names no column", setting="targets", value=targets, fix="leave it out to take all")
        chosen = list(dict.fromkeys(find_column(table, "targets", name) for name in targets))
        return read_numbers(table, frame, chosen, required=True)[0], [], []
    taken = {*columns.texts, columns.weight}
    candidates = [name for name in table.columns if name not in taken]
    unlikely = _unlikely(table, frame, candidates)
    values, texts = read_numbers(table, frame, [n for n in candidates if n not in unlikely], required=False)
    empty = [str(name) for name in values if values[name].isna().all()]
    unlikely |= dict.fromkeys(empty, "a column without values")
    values = values.drop(columns=empty)
    _require_values(
        table, values, unlikely, [name for name in table.columns if name not in (*values, columns.sequence)]
    )
    if unlikely:
        found = listed([f"{name} ({kind})" for name, kind in unlikely.items()])
        note(f"{table.path}: not taken as targets: {found}; name in `targets` what is meant")
    return values, [*columns.sequences, *columns.other_ids, *texts], list(unlikely)


def looks_like_sets(table: RawTable, words: Mapping[str, str]) -> str | None:
    """Return the column of a table without `split` that holds nothing but names of sets; None if there is none.

    Args:
        table: the opened table.
        words: names of sets, in lower case -> the sets; a column with one set alone must be called like a set.
    """
    for at, name in enumerate(table.columns):
        cells = {row[at].strip().lower() for row in table.rows if at < len(row)}
        sets = {words.get(cell) for cell in cells}
        if None not in sets and (len(sets) > 1 or _word(name) in _SET_NAMES):
            return name
    return None


def _word(name: str) -> str:
    """Return a name as one lower-case word: `Seq_ID` is `seqid`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_sequence(cell: str) -> bool:
    return _SEQUENCE.fullmatch(cell) is not None and 2 * len(_BASE.findall(cell)) > len(cell)


def _has_header(path: UPath, first: list[str], rows: list[list[str]]) -> bool:
    """Tell whether the first row names the columns."""
    if first[0].startswith((">", "@")) and len(rows) > 0 and len(rows[0]) == 1 and rows[0][0][:1] != first[0][0]:
        raise InputError(
            f"{path}: is a {'FASTA' if first[0][0] == '>' else 'FASTQ'}, which holds no measured values; give a "
            "table with a column of sequences and one of values, or a FASTA as `data` to jobs that need no values"
        )
    if any(map(_is_sequence, first)):
        return False
    if any(_word(cell) in _SEQUENCE_NAMES for cell in first):
        return True
    # the first sequence may be missing or wrong, which makes no header of its row
    columns = zip(first, *(row + [""] * (len(first) - len(row)) for row in rows[:5]), strict=False)
    return not any(all(map(_is_number, column)) for column in columns)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return not is_missing(cell)


def _sequence_columns(table: RawTable) -> list[str]:
    """Return the columns that hold sequences by their content."""
    found = []
    for at, name in enumerate(table.columns):
        cells = [row[at] for row in table.rows if at < len(row) and not is_missing(row[at])]
        if cells and sum(map(_is_sequence, cells)) >= _MIN_SHARE * len(cells):
            found.append(name)
    return found


def _find_sequence(table: RawTable, by_content: Sequence[str]) -> str:
    words = {_word(name): name for name in reversed(table.columns)} if table.has_header else {}
    named = [words[word] for word in _SEQUENCE_NAMES if word in words]
    for name in named:  # one that holds something else, such as accessions, counts only where no other does
        if name in by_content:
            return name
    if len(by_content) == 1:
        return by_content[0]
    if by_content:
        raise InputError(
            f"{table.path}: {len(by_content)} columns hold sequences ({listed(by_content)}); name the one to "
            "learn from in `sequence_column`"
        )
    if named:  # its letters say what is wrong
        return named[0]
    raise InputError(
        f"{table.path}: no column holds sequences (there are {listed(table.columns)}); join them to the table, or "
        "name the column in `sequence_column`"
    )


def _id_candidates(table: RawTable, columns: Sequence[str]) -> list[str]:
    def cells(name: str) -> list[str]:
        at = table.columns.index(name)
        return [row[at].strip() for row in table.rows if at < len(row)]

    if not table.has_header:
        return [name for name in columns if not any(_is_number(cell) or is_missing(cell) for cell in cells(name))]
    by_name = [
        name
        for name in columns
        if _ID_NAMES.fullmatch(_word(name))
        and name not in table.nameless
        and not any(_is_number(cell) and not cell.isdecimal() for cell in cells(name))  # a measurement
    ]
    by_name.sort(key=lambda name: not _word(name).endswith("id"))
    first = [name for name in columns if name == table.columns[0]]
    return [*by_name, *(name for name in first if name in table.nameless or _word(name) in _INDEX_NAMES)]


def _unlikely(table: RawTable, frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Return the columns of numbers that are no measurements by their names, and what they are."""
    kinds = unlikely_targets(columns)
    for name in columns:
        words = re.sub(r"[^a-z0-9]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()).strip()
        kind = next((kind for kind, pattern in _UNLIKELY.items() if re.fullmatch(pattern, words)), None)
        kinds |= {name: kind} if kind else {}
        kinds |= {name: "a column without a name"} if name in table.nameless else {}
    return {
        name: kind for name, kind in kinds.items() if pd.to_numeric(frame[name], errors="coerce").notna().any()
    }


def _require_values(
    table: RawTable, values: pd.DataFrame, unlikely: Mapping[str, str], others: Sequence[str]
) -> None:
    if values.empty and unlikely:
        found = listed([f"{name} ({kind})" for name, kind in unlikely.items()])
        raise InputError(
            f"{table.path}: no column looks like measured values: {found}; if one is meant, name it in `targets`"
        )
    if values.empty:
        raise InputError(
            f"{table.path}: no column of numbers beside the sequences (other columns: "
            f"{listed(others) or 'none'}); join the measured values to this table"
        )
    if not table.has_header and len(values.columns) > 1:
        shown = listed([f"{name}: {values[name].dropna().iloc[0]:g}, …" for name in values])
        raise InputError(
            f"{table.path}: has no header, and {counted(len(values.columns), 'column')} of numbers ({shown}); "
            "name the measured ones in `targets`, or add a header"
        )
