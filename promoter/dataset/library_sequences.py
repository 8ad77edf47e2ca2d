"""Clean and align the sequences of a library, and look for what they have in common."""

from __future__ import annotations

from os.path import commonprefix

import pandas as pd

from promoter.dataset.config import Align
from promoter.dataset.library_columns import IUPAC
from promoter.dataset.tables import NO_VALUE, RawTable
from promoter.errors import InputError, counted, doubt, note
from promoter.sequence import reverse_complement

_FLANK = 8  # bases: by chance, two sequences begin with the same ones once in 65,536 times
_TO_BASES = str.maketrans({"U": "T"} | dict.fromkeys(IUPAC, "N"))


def clean_sequences(table: RawTable, column: pd.Series) -> pd.Series:
    """Return sequences in upper case, of the letters A, C, G, T and N; missing where a cell is empty.

    Args:
        table: table that the column is of, for messages.
        column: sequences as they are written; its index counts the rows of the table.

    Raises:
        InputError: a letter is no base; the message names row and letter.
    """
    cells = column.astype("object").where(column.notna(), "").astype(str).str.strip().str.strip("\"'").str.strip()
    sequences = cells[~cells.str.lower().isin(NO_VALUE)].str.upper()
    wrong = ~sequences.str.fullmatch(f"[ACGTUN{IUPAC}]+")
    if wrong.any():
        row = int(sequences.index[wrong][0])
        letter = next(letter for letter in sequences[row] if letter not in f"ACGTUN{IUPAC}")
        shown = cells[row] if len(cells[row]) <= 30 else f"{cells[row][:30]}…"
        raise InputError(
            f"{table.path}: {table.line(row)}, column '{column.name}': '{shown}' has '{letter}', which is no base "
            f"({counted(int(wrong.sum()), 'such row')}); fix it (N is an unknown base), or name the column of the "
            "sequences in `sequence_column`"
        )
    of_rna = int(sequences.str.contains("U", regex=False).sum())
    if of_rna:
        note(f"{table.path}: U is read as T in {counted(of_rna, 'sequence')}")
    codes = sequences.str.count(f"[{IUPAC}]")
    if codes.any():
        n = f"{codes.sum():,} in {counted(int((codes > 0).sum()), 'sequence')}"
        note(f"{table.path}: letters for several bases ({', '.join(IUPAC[:3])}, …) are read as N: {n}")
    return sequences.str.translate(_TO_BASES).reindex(column.index)


def align_sequences(table: RawTable, sequences: pd.Series, align: Align | None) -> pd.Series:
    """Pad shorter sequences with N to the length of the longest.

    Args:
        table: table that the sequences are of, for messages.
        sequences: sequences, upper case.
        align: end that the sequences have in common: `right` puts the N before, `left` after, `center` on both
            sides; None refuses sequences of several lengths.

    Raises:
        InputError: the lengths differ and `align` is None; the message counts them.
    """
    lengths = sequences.str.len()
    longest = int(lengths.max())
    if lengths.min() == longest:
        return sequences
    if align is None:
        counts = lengths.value_counts()
        usual, others = int(counts.index[0]), lengths[lengths != counts.index[0]]
        least, most = int(others.min()), int(others.max())
        span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        raise InputError(
            f"{table.path}: {counted(int(counts.iloc[0]), 'sequence')} of {usual:,} bases and {len(others):,} of "
            f"{span}; all need one length: pad the shorter ones with N by `align='right'` (their ends line up), "
            "left or center, or leave them out"
        )
    before = {"right": longest - lengths, "left": 0 * lengths, "center": (longest - lengths) // 2}[align]
    padded = ["N" * n + sequence for n, sequence in zip(before, sequences, strict=True)]
    return pd.Series(padded, sequences.index).str.pad(longest, side="right", fillchar="N")


def note_flanks(table: RawTable, sequences: pd.Series) -> None:
    """Say what bases all sequences begin or end with, and warn of those that look reverse-complemented.

    Args:
        table: table that the sequences are of, for messages.
        sequences: sequences before they are aligned, upper case.
    """
    bare = sequences.str.strip("N")
    bare = bare[bare != ""]
    if bare.nunique() < 2:
        return
    start, end = _common_flanks(bare)
    ends = [f"{verb} with {flank}" for verb, flank in (("begin", start), ("end", end)) if len(flank) >= _FLANK]
    if ends:
        note(
            f"{table.path}: all sequences {' and '.join(ends)}, as primers or the vector do; these bases tell no "
            "sequence from another"
        )
        return
    head, tail = bare.str[:_FLANK], bare.str[-_FLANK:]
    first, last = (flank.value_counts() for flank in (head, tail))
    if first.iloc[0] >= last.iloc[0]:
        _doubt_strands(table, str(first.index[0]), head, tail, verbs=("begin", "end"))
    else:
        _doubt_strands(table, str(last.index[0]), tail, head, verbs=("end", "begin"))


def _doubt_strands(
    table: RawTable, flank: str, near: pd.Series, far: pd.Series, *, verbs: tuple[str, str]
) -> None:
    """Warn where most sequences without a flank at one end have its reverse complement at the other."""
    turned_flank = str(reverse_complement(flank))
    has, turned = near == flank, (near != flank) & (far == turned_flank)
    if has.sum() >= max(10, len(near) / 10) and 2 * turned.sum() > (~has).sum():
        row = table.line(int(near.index[turned][0]))
        doubt(
            f"{table.path}: sequences that {verbs[1]} with {turned_flank}: {turned.sum():,}, the first on {row}; "
            f"that is the reverse complement of {flank}, with which {has.sum():,} others {verbs[0]}: they look as "
            "if they stood on the other strand; turn them in the table"
        )


def count_repeats(sequences: pd.Series) -> tuple[int, int]:
    """Return how many different sequences stand more than once, and the number of their rows.

    A sequence and its reverse complement count as one.
    """
    counts = either_strand(sequences).value_counts()
    return int((counts > 1).sum()), int(counts[counts > 1].sum())


def either_strand(sequences: pd.Series) -> pd.Series:
    """Return of each sequence and its reverse complement the one that comes first in the alphabet."""
    other = sequences.str[::-1].str.translate(str.maketrans("ACGT", "TGCA"))
    return sequences.where(sequences <= other, other)


def find_shared(sequences: pd.Series, label: pd.Series) -> pd.Series:
    """Return the labels of each sequence that stands under several, as `train and test`, counted.

    Args:
        sequences: sequences, upper case; a reverse complement counts as the same.
        label: set or group of each sequence, in the order of the alphabet or of its categories; missing ones do
            not count.

    Returns:
        Labels -> number of different sequences, the largest number first.
    """
    table = pd.DataFrame({"sequence": either_strand(sequences), "label": label}).dropna().drop_duplicates()
    table = table[table["sequence"].duplicated(keep=False)]
    labels = table.sort_values("label").astype(str).groupby("sequence")["label"].agg(" and ".join)
    return labels.value_counts()


def _common_flanks(sequences: pd.Series) -> tuple[str, str]:
    """Return the bases that all sequences begin with, and those that all end with."""
    distinct = sequences.unique().tolist()
    backwards = [text[::-1] for text in distinct]
    # letter by letter is meant: these are no paths
    return commonprefix(distinct), commonprefix(backwards)[::-1]  # noqa: RUF071
