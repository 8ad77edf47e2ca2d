"""Match the gene ids of an annotation with those of an expression table, and rename ids by a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable

import pandas as pd

from promoter import storage
from promoter.dataset.gff import without_prefix
from promoter.errors import InputError, doubt, note
from promoter.storage import AnyPath

_VERSION = re.compile(r"\.\d+(?=$|_PAR_Y$)")  # GENCODE writes ENSG00000182378.15_PAR_Y


def match_ids(
    annotated: pd.Series, measured: pd.Index, *, names: pd.Series | None = None, ignore_version: bool = False
) -> pd.Series:
    """Return the annotation's gene ids as the expression table writes them.

    Equal ids match. The others are compared without prefixes (`gene-`, `gene:`), then without versions if asked
    for, then by gene name, and if nothing has matched so far, in any case. A prefix or version is dropped in one
    table or in both, but never where two ids of that table become equal: SPAC1002.01 and SPAC1002.02 are two
    genes. What matched only so is told as a note.

    Args:
        annotated: gene ids of the annotation; one may occur twice.
        measured: gene ids of the expression table.
        names: gene names of the annotation, aligned with its ids, None where unknown; None (default) for none.
        ignore_version: whether `ENSG01.5` and `ENSG01` are the same gene (default False).

    Returns:
        The table's id of each gene, or the annotation's where the table has none, with the index of `annotated`.

    Raises:
        InputError: no id is in the table; the message shows ids of both and says what would help.
    """
    matcher = _Matcher(annotated, measured)
    matcher.match("without their prefix", without_prefix)
    versions, collisions = matcher.pairs(_without_version)
    if ignore_version:
        matcher.add("without their version", versions)
        if collisions and matcher.unmatched():
            doubt(f"`ignore_version=True`: without their numbers {collisions}, so that these are kept")
    if names is not None:
        matcher.match_names(annotated, names)
    if not matcher.matched and not versions:
        matcher.match(
            "in another case (are both of one species?)", lambda name: without_prefix(name).casefold(), doubt
        )
    if not matcher.matched:
        problem = (
            f"no gene of the annotation (ids like {', '.join(annotated[:3])}) is in the expression table "
            f"(ids like {', '.join(map(str, measured[:3]))})"
        )
        if versions:
            fix = f"{len(versions):,} match without their versions: set `ignore_version=True`"
        else:
            fix = "use the same ids in both: see `attribute`, `gene_map` and `gene_column`"
            if collisions and {*map(_without_version, matcher.ids)} & {*map(_without_version, matcher.table)}:
                problem += f"; without the number at their end {collisions}: are they transcripts?"
        raise InputError(problem, fix=fix)
    still = {gene_id: found for gene_id, found in versions.items() if gene_id not in matcher.matched}
    if still and not ignore_version:
        doubt(
            f"{len(still):,} more genes are in the expression table if versions do not count, such as "
            f"{_example(still)}; set `ignore_version=True` if these are the same"
        )
    return _renamed(annotated, matcher.matched)


def apply_gene_map(annotated: pd.Series, path: AnyPath) -> pd.Series:
    """Rename gene ids by a table of two columns: the annotation's id, and the id to use.

    Ids that are not in the table stay as they are and are counted in a note. A header does no harm.

    Args:
        annotated: gene ids of the annotation.
        path: the table, tab-separated or comma-separated, plain or gzip.

    Returns:
        The new ids, with the index of `annotated`.

    Raises:
        InputError: the file is missing or no table of two columns, gives an id two names, or has none of the ids.
    """
    where = storage.require_file(path, "gene map")
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    with storage.open_text(where) as file:
        for number, cells in _rows(where, file):
            if names.setdefault(cells[0], cells[1]) != cells[1]:
                raise InputError(
                    f"{where}: line {number} maps '{cells[0]}' to '{cells[1]}', line {lines[cells[0]]} to "
                    f"'{names[cells[0]]}'",
                    fix="delete one",
                )
            lines.setdefault(cells[0], number)
    matcher = _Matcher(annotated, names)
    matcher.match("without their prefix", without_prefix)
    if not matcher.matched:
        turned = set(annotated) & set(names.values())
        raise InputError(
            f"{where}: has none of the annotation's gene ids ({_some(annotated)}) in its first column",
            fix="swap its columns"
            if turned
            else "give the annotation's ids in the first, those to use in the second",
        )
    renamed = _renamed(annotated, {gene_id: names[key] for gene_id, key in matcher.matched.items()})
    unmatched = matcher.unmatched()
    if unmatched:
        total = len(unmatched) + len(matcher.matched)
        note(f"{where}: {len(unmatched):,} of {total:,} gene ids are not in it and are kept: {_some(unmatched)}")
    sources = annotated.groupby(renamed, sort=False).nunique()
    if (sources > 1).any():
        shared = sources.index[sources > 1]
        doubt(f"{where}: {len(shared):,} ids are those of several genes of the annotation: {_some(shared)}")
    return renamed


class _Matcher:
    """Match the ids of an annotation with those of a table, rule by rule; what has matched is left alone.

    Attributes:
        matched: the annotation's id -> the table's.
    """

    def __init__(self, annotated: Iterable[str], measured: Iterable[str]) -> None:
        self.ids, self.table = list(dict.fromkeys(annotated)), list(dict.fromkeys(measured))
        in_table = set(self.table)
        self.matched: dict[str, str] = {gene_id: gene_id for gene_id in self.ids if gene_id in in_table}

    def unmatched(self) -> list[str]:
        """Return the annotation's ids that have not matched."""
        return [gene_id for gene_id in self.ids if gene_id not in self.matched]

    def pairs(self, change: Callable[[str], str]) -> tuple[dict[str, str], str]:
        """Return what matches once ids are changed, and a description of the changes that would make ids equal."""
        taken = set(self.matched.values())
        changed = {"annotation": _changed(self.ids, change), "table": _changed(self.table, change)}
        collisions = [
            f"{first} and {second} of the {side} would be equal"
            for side, (_, equal) in changed.items()
            for first, second in ([equal] if equal else [])
        ]
        index = {new: old for old, new in changed["table"][0].items() if old not in taken}
        found: dict[str, str] = {}
        for key in (lambda gene_id: gene_id, changed["annotation"][0].__getitem__):
            for gene_id in self.unmatched():
                old = index.get(key(gene_id))
                if gene_id not in found and old is not None and old not in taken:
                    found[gene_id] = old
                    taken.add(old)
        return found, " and ".join(collisions)

    def add(self, how: str, found: dict[str, str], tell: Callable[[str], None] = note) -> None:
        """Take what has matched by a rule, and tell it."""
        if found:
            self.matched |= found
            tell(f"{len(found):,} gene ids match those of the expression table {how}, such as {_example(found)}")

    def match(self, how: str, change: Callable[[str], str], tell: Callable[[str], None] = note) -> None:
        """Match ids that are equal once they are changed."""
        self.add(how, self.pairs(change)[0], tell)

    def match_names(self, annotated: pd.Series, names: pd.Series) -> None:
        """Match the names of genes whose ids have not matched, if no other gene has the name."""
        ids_of: dict[str, set[str]] = {}
        for gene_id, name in zip(annotated, names, strict=True):
            if isinstance(name, str):
                ids_of.setdefault(name, set()).add(gene_id)
        free = set(self.table) - set(self.matched.values())
        candidates = {name: ids - self.matched.keys() for name, ids in ids_of.items() if name in free}
        found = {ids.copy().pop(): name for name, ids in candidates.items() if len(ids) == len(ids_of[name]) == 1}
        shared = [name for name in candidates if len(ids_of[name]) > 1]
        self.add("by their gene name", found)
        if shared:
            doubt(
                f"{len(shared):,} names of the expression table are those of several genes, and not matched: "
                f"{_some(shared)}"
            )


def _changed(ids: list[str], change: Callable[[str], str]) -> tuple[dict[str, str], tuple[str, str] | None]:
    """Return id -> changed id, and the first two ids that become equal, for which all stay as they are."""
    first: dict[str, str] = {}
    for old in ids:
        if first.setdefault(change(old), old) != old:
            return {old: old for old in ids}, (first[change(old)], old)
    return {old: new for new, old in first.items()}, None


def _renamed(ids: pd.Series, names: dict[str, str]) -> pd.Series:
    return pd.Series([names.get(str(gene_id), gene_id) for gene_id in ids], ids.index, name=ids.name)


def _without_version(gene_id: str) -> str:
    return _VERSION.sub("", without_prefix(gene_id))


def _rows(where: object, lines: Iterable[str]) -> Iterable[tuple[int, list[str]]]:
    """Yield the line number and the two cells of each row that has both."""
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split("\t") if "\t" in line else next(csv.reader([line]))
        cells = [cell.strip().strip('"') for cell in cells]
        if len(cells) != 2:
            raise InputError(
                f"{where}: line {number} has {len(cells)} columns, a gene map has two: the annotation's id and "
                "the id to use, separated by a tab or a comma"
            )
        if all(cells):
            yield number, cells


def _example(found: dict[str, str]) -> str:
    gene_id, other = next(iter(found.items()))
    return f"{gene_id} = {other}"


def _some(ids: Iterable[str]) -> str:
    ids = list(ids)
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
