"""Read variants of a library's sequences from a table, and find the bases that each replaces.

The rules, in one place:

- A row names a sequence by `id`, and then either `position`, `ref` and `alt` as a VCF has them, or `alternative`,
  the complete changed sequence. `position` counts from 1, from the first base of the sequence as the library's
  table had it: N that aligned it with the others do not count.
- There is no genome beside a sequence, so nothing known moves in where bases are deleted. The changed sequence is
  laid into the window as the unchanged one was: its first base stays where it is, N follow its last, and what is
  longer than the window is cut off at the end. In a library aligned right its last base stays where it is, and the
  same holds for the beginning; in one aligned in the center, half of the change goes to either side.
- So each allele comes to a replacement of some bases of the window by as many others, which is predicted like an
  allele of a VCF.
- U is T. REF and ALT hold ACGT; in a complete sequence other IUPAC letters are N, as in the library itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from promoter import storage
from promoter.dataset.promoters import Promoters
from promoter.dataset.tables import read_table
from promoter.errors import InputError, counted, doubt, note
from promoter.sequence import decode, encode
from promoter.storage import AnyPath
from promoter.variants.windows import GeneVariants, TrimmedVariant, TssWindow, WindowVariants, trim_alleles

LIBRARY_REASONS = {
    "unknown_id": "the data has no such sequence",
    "no_alt": "no alternative allele",
    "symbolic": "symbolic allele, breakend or *",
    "non_acgt": "letters other than ACGT",
    "past_end": "the sequence ends before it",
    "ref_mismatch": "REF is not what the sequence has there",
    "same": "it changes nothing",
    "outside_window": "the window stays as it is",
    "duplicate": "the same allele again",
}
_VCF_BEGINNINGS = (b"BCF", b"##fileformat", b"#CHROM")
_COLUMNS = {"id": "id", "gene_id": "id", "position": "position", "pos": "position"} | {
    name: name for name in ("ref", "alt", "alternative")
}
_ALLELES, _COMPLETE = {"id", "position", "ref", "alt"}, {"id", "alternative"}  # columns of the two kinds of table
FORMS = "id, position, ref and alt, or id and alternative (the complete sequence)"
_SYMBOLIC = re.compile(r"[<>\[\]*]")
_ACGT, _IUPAC = re.compile(r"[ACGT]+"), re.compile(r"[ACGTNRYSWKMBDHV]+")
_POSITION = re.compile(r"0*([1-9]\d{0,17})(\.0*)?")  # a column with empty cells may have been written as 12.0
_SHARE = {"left": 0.0, "center": 0.5, "right": 1.0}  # of the N that fill a window, those before the sequence


class SequenceVariant(NamedTuple):
    """One row of a table of variants; upper case, T for U.

    Attributes:
        sequence_id: id of the sequence, as in the table.
        position: position of the first base of REF, 1-based; None in a row that gives the complete sequence.
        ref: reference allele; None in a row that gives the complete sequence.
        alts: alternative alleles, or the complete changed sequence; empty if the row has none.
    """

    sequence_id: str
    position: int | None
    ref: str | None
    alts: list[str]


def is_vcf(path: AnyPath) -> bool:
    """Tell whether a file, compressed or not, begins like a VCF or BCF."""
    return storage.first_bytes(path, max(map(len, _VCF_BEGINNINGS))).startswith(_VCF_BEGINNINGS)


def read_sequence_variants(path: AnyPath) -> Iterator[SequenceVariant]:
    """Read a table of variants: Parquet, or text with any separator, compressed or not.

    Raises:
        InputError: the file is missing, a VCF or no table, lacks a column, has both kinds of columns or no rows,
            or a position is no whole number from 1.
    """
    source = storage.require_file(path, "table of variants")
    if is_vcf(source):
        problem = f"{source}: is a VCF, but the sequences of the data have no coordinates"
        raise InputError(problem, fix=f"give a table of {FORMS}")
    table = read_table(source, "table of variants", header=True)
    frame = table.read(table.columns).fillna("")
    named = {column: _COLUMNS[column.lower()] for column in table.columns if column.lower() in _COLUMNS}
    kinds = [kind for kind in (_ALLELES, _COMPLETE) if kind <= set(named.values())]
    if len(kinds) != 1 or len(set(named.values())) < len(named):
        found = ", ".join(table.columns)
        raise InputError(f"{source}: has the columns {found}; name the columns of one kind: {FORMS}")
    if frame.empty:
        raise InputError(f"{source}: holds no variants; was it written to the end?")
    frame = frame[list(named)].rename(columns=named).apply(lambda column: column.astype(str).str.strip())
    if kinds[0] is _COMPLETE:
        for name, alternative in frame[["id", "alternative"]].itertuples(index=False):
            yield SequenceVariant(name, None, None, [_as_dna(alternative)] if alternative else [])
        return
    rows = frame[["id", "position", "ref", "alt"]].itertuples(index=False)
    for row, (name, position, ref, alt) in enumerate(rows):
        number = _POSITION.fullmatch(position)
        if number is None:
            raise InputError(
                f"{source}: {table.line(row)} has the position '{position[:40]}'; positions are whole numbers, "
                "and the first base is 1"
            )
        alts = [] if alt in ("", ".") else _as_dna(alt).split(",")
        yield SequenceVariant(name, int(number[1]), _as_dna(ref), alts)


def find_sequence_alleles(
    source: AnyPath,
    promoters: Promoters,
    *,
    rows: Sequence[int],
    skip: Callable[[SequenceVariant, str, str], None] = lambda variant, alt, reason: None,
) -> WindowVariants:
    """Find what each allele of a table replaces in the window of its sequence.

    Args:
        source: path of the table.
        promoters: library of sequences; its `metadata` says by which side they were aligned, if they were.
        rows: row numbers, in `promoters`, of the sequences to consider; alleles of others are `outside`.
        skip: function called with each allele that is left out: the variant, the ALT and a key of
            `LIBRARY_REASONS`; by default nothing is called.

    Returns:
        The alleles, as those of a VCF: `pos`, `ref` and `alt` as in the table; `pos` and `ref` are missing where
        the table gives complete sequences. `counts` has `variants` (rows of the table), `alleles`, `in_windows`,
        `rows`, `outside`, and per reason in `LIBRARY_REASONS` how many were skipped.

    Raises:
        InputError: the table cannot be read, or all alleles are skipped.
    """
    layout = _Layout(promoters)
    row_of = {name: row for row, name in enumerate(promoters.genes["gene_id"])}
    chosen = set(rows)
    counts = Counter(dict.fromkeys(["variants", "alleles", "in_windows", "rows", "outside", *LIBRARY_REASONS], 0))
    seen: set[tuple[int, int | None, str | None, str]] = set()
    alleles: list[tuple[int, int | None, str | None, str, int, int, str]] = []
    longer = 0
    for variant in read_sequence_variants(source):
        counts["variants"] += 1
        row = row_of.get(variant.sequence_id)
        for alt in variant.alts or ["."]:
            counts["alleles"] += bool(variant.alts)
            reason, changed = "unknown_id", ""
            if row is not None:
                reason, changed = layout.change(row, variant, alt)
            key = (row if row is not None else -1, variant.position, variant.ref, alt)
            reason = "duplicate" if reason is None and key in seen else reason
            if reason is not None:
                counts[reason] += 1
                skip(variant, alt, reason)
                continue
            seen.add(key)
            if row not in chosen:
                counts["outside"] += 1
                continue
            counts["in_windows"] += 1
            longer += len(changed) > promoters.length
            start, end, new = trim_alleles(0, layout.window(key[0]), layout.lay(key[0], changed))
            alleles.append((*key, start, end, new))
    counts["rows"] = len(alleles)
    _require_usable(source, promoters, counts)
    if longer:
        note(
            f"{source}: {counted(longer, 'changed sequence')} longer than the window, {promoters.length} bases: "
            f"what is past {layout.far_end} is cut off"
        )
    columns = pd.Index(["gene", "pos", "ref", "alt", "start", "end", "new"])
    table = pd.DataFrame(alleles, columns=columns).astype({"pos": "Int64", "ref": "str", "gene": int})
    table = table.sort_values(["gene", "pos", "ref", "alt"], kind="stable", ignore_index=True)
    return WindowVariants(table, dict(counts))


def group_by_sequence(alleles: pd.DataFrame, promoters: Promoters) -> list[GeneVariants]:
    """Collect the variants of each sequence, in the data's order.

    Args:
        alleles: some rows of `WindowVariants.alleles`, all rows of each sequence in them.
        promoters: library that `gene` in `alleles` counts rows of.
    """
    window = TssWindow(promoters.length, "+", promoters.length, 0)  # replacements move nothing, wherever it ends
    grouped = []
    for _, of_sequence in alleles.groupby("gene"):
        tokens = promoters.tokens[of_sequence["gene"].iloc[0]]
        variants = list(map(TrimmedVariant, of_sequence["start"], of_sequence["end"], of_sequence["new"]))
        grouped.append(GeneVariants(tokens, window, tokens, 0, variants))
    return grouped


class _Layout:
    """How the sequences of a library lie in their windows, between the N that align them."""

    def __init__(self, promoters: Promoters) -> None:
        align = promoters.metadata.get("align")
        self.promoters, self.length = promoters, promoters.length
        self.share = _SHARE[align or "left"]
        self.far_end = {0.0: "its end", 0.5: "either end", 1.0: "its beginning"}[self.share]
        # where all sequences were as long as the window, N at their ends are their own
        self.filled = {None: "", "left": ">", "right": "<", "center": "<>"}[align]

    def window(self, row: int) -> str:
        """Return the sequence of a row with the N around it, in ACGTN."""
        return decode(self.promoters.tokens[row : row + 1])[0]

    def sequence(self, row: int) -> tuple[int, str]:
        """Return where a row's sequence begins in its window, and the sequence as the table had it."""
        window = self.window(row)
        start = len(window) - len(window.lstrip("N")) if "<" in self.filled else 0
        return start, (window.rstrip("N") if ">" in self.filled else window)[start:]

    def lay(self, row: int, changed: str) -> str:
        """Return the window of a row with a changed sequence in it."""
        start, sequence = self.sequence(row)
        start += self._before(changed) - self._before(sequence)
        laid = "N" * start + changed[max(-start, 0) :]
        return laid[: self.length].ljust(self.length, "N")

    def _before(self, sequence: str) -> int:
        """Return how many N `prepare` puts before a sequence; negative for bases that are cut off."""
        return int((self.length - len(sequence)) * self.share // 1)

    def change(self, row: int, variant: SequenceVariant, alt: str) -> tuple[str | None, str]:
        """Return why an allele cannot be used, a key of `LIBRARY_REASONS` or None, and the changed sequence."""
        _, sequence = self.sequence(row)
        if variant.position is None or variant.ref is None:
            first, last, letters, reason = 0, len(sequence), _IUPAC, None
        else:
            first, last, letters = variant.position - 1, variant.position - 1 + len(variant.ref), _ACGT
            reason = "past_end" if first >= len(sequence) else "ref_mismatch"
            reason = reason if sequence[first:last] != variant.ref else None
        if not variant.alts:
            reason = "no_alt"
        elif _SYMBOLIC.search(alt):
            reason = "symbolic"
        elif not letters.fullmatch(alt) or not letters.fullmatch(variant.ref or alt):
            reason = "non_acgt"
        changed = sequence[:first] + decode(encode([alt]))[0] + sequence[last:]
        if reason is None and changed == sequence:
            reason = "same"
        elif reason is None and self.lay(row, changed) == self.window(row):
            reason = "outside_window"
        return reason, changed


def _require_usable(source: AnyPath, promoters: Promoters, counts: Mapping[str, int]) -> None:
    """Raise InputError if all alleles of a table are skipped, and warn if REF of most differs."""
    used = counts["in_windows"] + counts["outside"]
    hint = "do positions count from 1, in the sequences that the data was prepared from?"
    if not used:
        skipped = {reason: counts[reason] for reason in LIBRARY_REASONS if counts[reason]}
        reasons = ", ".join(f"{count:,}: {LIBRARY_REASONS[reason]}" for reason, count in skipped.items())
        fixes = {
            "unknown_id": f"the data has ids like {', '.join(promoters.genes['gene_id'][:3])}",
            "ref_mismatch": hint,
            "past_end": hint,
        }
        most = max(skipped, key=lambda reason: skipped[reason])
        raise InputError(
            f"{source}: no allele can be used ({reasons})", fix=fixes.get(most, "is it the right file?")
        )
    if 2 * counts["ref_mismatch"] > used + counts["ref_mismatch"]:
        compared = used + counts["ref_mismatch"]
        doubt(
            f"{source}: REF of {counts['ref_mismatch']:,} of {compared:,} alleles is not what the sequence has; "
            f"{hint}"
        )
    if not counts["in_windows"]:
        doubt(f"{source}: none of {counts['outside']:,} alleles is of the sequences that were chosen")


def _as_dna(letters: str) -> str:
    return letters.upper().replace("U", "T")
