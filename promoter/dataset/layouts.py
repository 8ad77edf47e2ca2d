"""Know the tables that tools write by their header or shape: where the ids are, and which columns are samples.

A new layout is an entry in `LAYOUTS` and its name in `config.Layout`. Imports no pandas.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Literal, get_args

from upath import UPath

from promoter import storage
from promoter.dataset.config import Layout
from promoter.errors import InputError, note
from promoter.storage import AnyPath

if TYPE_CHECKING:
    from promoter.dataset.tables import RawTable

Unit = Literal["counts", "TPM", "log2 fold change"]


@dataclass(frozen=True)
class TableLayout:
    """Describe the table that a tool writes.

    Attributes:
        tool: name of the tool, for messages.
        header: columns that every such table has, in lower case.
        fits: test of the shape, for tables that the header does not tell; None for those that it does.
        needs: description of what `fits` looks for, for messages.
        value: pattern of the columns that are targets; None takes every column of numbers that is a sample.
        unit: unit of the values; None if the layout does not say.
        ids: columns that hold the ids, in order of preference, in lower case; otherwise the first column does.
        rows: what a row stands for: a gene, a transcript (or a gene: the tool writes both), or a part of a gene.
        columns: names of the columns of a table that has no header.
        files: usual file names, genes before transcripts; a folder is searched for them.
    """

    tool: str
    header: frozenset[str] = frozenset()
    fits: Callable[[RawTable], bool] | None = None
    needs: str = ""
    value: str | None = None
    unit: Unit | None = None
    ids: tuple[str, ...] = ()
    rows: Literal["gene", "transcript", "part"] = "gene"
    columns: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def is_one_sample(self) -> bool:
        """Return whether a file holds one sample, whose name is the file's."""
        return self.value is not None and self.unit != "log2 fold change"


_HTSEQ_SUMMARY = frozenset({"no_feature", "ambiguous", "too_low_aQual", "not_aligned", "alignment_not_unique"})
SUMMARY_ROW = re.compile(
    rf"__\w+|{'|'.join(sorted(_HTSEQ_SUMMARY))}|N_(unmapped|multimapping|noFeature|ambiguous)|(grand )?total",
    re.IGNORECASE,
)


def find_unit(entry: TableLayout, columns: Sequence[str]) -> Unit | None:
    """Return the unit of columns of a layout, which may be others than those that it takes."""
    if entry.value is None or all(re.fullmatch(entry.value, name, re.IGNORECASE) for name in columns):
        return entry.unit
    is_counts = all(re.fullmatch("numreads|est_counts|expected_count", name, re.IGNORECASE) for name in columns)
    return "counts" if is_counts else None


def is_summary_row(row_id: str) -> bool:
    """Return whether a row counts reads without a gene, or is a total: `__no_feature`, `N_unmapped`, `Total`."""
    return SUMMARY_ROW.fullmatch(row_id) is not None


def _is_htseq(table: RawTable) -> bool:
    ids = {row[0].strip() for row in table.rows}
    return any(name.startswith("__") for name in ids) or len(ids & _HTSEQ_SUMMARY) > 2


def _is_star(table: RawTable) -> bool:
    named_so = "readspergene" in table.path.name.lower()
    has_summary = any(row[0].startswith("N_") and is_summary_row(row[0]) for row in table.rows)
    return not table.has_header and len(table.columns) == 4 and (named_so or has_summary)


LAYOUTS: dict[Layout, TableLayout] = {
    "gct": TableLayout(
        "GCT", fits=lambda table: table.is_gct, needs="'#1.2' or '#1.3' as its first line", ids=("name",)
    ),
    "star": TableLayout(
        "STAR",
        fits=_is_star,
        needs="four columns without a header",
        value="unstranded|forward|reverse",  # which of them, `expression` decides
        unit="counts",
        columns=("gene_id", "unstranded", "forward", "reverse"),
        files=("*ReadsPerGene.out.tab",),
    ),
    "htseq": TableLayout(
        "htseq-count",
        fits=_is_htseq,
        needs="rows such as __no_feature",
        unit="counts",
        files=("*.htseq", "*.htseq.*", "*htseq_counts*", "*htseq-count*"),
    ),
    "featurecounts": TableLayout(
        "featureCounts",
        header=frozenset({"geneid", "chr", "start", "end", "strand", "length"}),
        unit="counts",
        ids=("geneid",),
    ),
    "salmon": TableLayout(
        "Salmon",
        header=frozenset({"name", "length", "tpm", "numreads"}),
        value="tpm",
        unit="TPM",
        ids=("name",),
        rows="transcript",
        files=("quant.genes.sf", "*.genes.sf", "quant.sf", "*.sf"),
    ),
    "kallisto": TableLayout(
        "kallisto",
        header=frozenset({"target_id", "eff_length", "est_counts", "tpm"}),
        value="tpm",
        unit="TPM",
        ids=("target_id",),
        rows="transcript",
        files=("abundance.tsv", "*abundance.tsv"),
    ),
    "rsem": TableLayout(
        "RSEM",
        header=frozenset({"gene_id", "effective_length", "expected_count", "tpm"}),
        value="tpm",
        unit="TPM",
        ids=("transcript_id", "gene_id"),
        rows="transcript",
        files=("*.genes.results", "*.isoforms.results"),
    ),
    "stringtie": TableLayout(
        "StringTie",
        header=frozenset({"gene id", "reference", "coverage", "fpkm", "tpm"}),
        value="tpm",
        unit="TPM",
        ids=("gene id",),
        rows="part",  # a gene with several loci has a row for each
        files=("*gene_abund*",),
    ),
    "deseq2": TableLayout(
        "DESeq2",
        header=frozenset({"basemean", "log2foldchange"}),
        value="log2foldchange",
        unit="log2 fold change",
        ids=("row",),
    ),
    "edger": TableLayout(
        "edgeR", header=frozenset({"logcpm", "pvalue"}), value=r"logfc(\..+)?", unit="log2 fold change"
    ),
    "limma": TableLayout(
        "limma", header=frozenset({"logfc", "aveexpr"}), value="logfc", unit="log2 fold change", ids=("id",)
    ),
    "plain": TableLayout("plain"),
}


def recognise(table: RawTable, layout: Layout | None = None) -> Layout:
    """Return the layout of a table.

    Args:
        table: shape of the table.
        layout: layout that the user names; None (default) goes by header and shape.

    Raises:
        InputError: the layout is unknown, or the table cannot have it.
    """
    if layout is None:
        return next(name for name, entry in LAYOUTS.items() if name == "plain" or not _lacks(table, entry))
    if layout not in LAYOUTS:
        raise InputError(
            "unknown", setting="layout", value=layout, fix=f"choose one of {', '.join(get_args(Layout))}"
        )
    entry = LAYOUTS[layout]
    by_hand = layout == "htseq" or (layout == "star" and not table.has_header and len(table.columns) == 4)
    if (lack := _lacks(table, entry)) and layout != "plain" and not by_hand:
        raise InputError(f"{table.path}: `layout={layout!r}`: the table lacks {lack}; leave `layout` out")
    return layout


def _lacks(table: RawTable, entry: TableLayout) -> str:
    """Name what a table lacks for a layout; empty if it has all."""
    if entry.fits is not None:
        return "" if entry.fits(table) else entry.needs
    absent = entry.header - {name.lower() for name in table.columns}
    return f"the columns {', '.join(sorted(absent))}" if absent or not table.has_header else ""


_ALIGNMENT = re.compile(r"\.(bam|sam|cram)$", re.IGNORECASE)
_ALIGNMENT_STEP = re.compile(
    r"([._-]?Aligned([._]sortedByCoord|[._]toTranscriptome)?([._]out)?|(^|[._-])(sortedByCoord|sort(ed)?|dedup(ed)?|"
    r"rmdup|mark_?dup(licate)?s?|accepted_hits))$",
    re.IGNORECASE,
)
_TABLE_ENDING = re.compile(r"(\.(gz|bgz|txt|tsv|csv|tab|sf|out|results|parquet|pq|gct))+$", re.IGNORECASE)
_OUTPUT = re.compile(
    r"([._-]?ReadsPerGene|(^|[._-])(quant(\.genes)?|abundance|gene_?abund(ances?)?|htseq([._-]counts?)?|"
    r"featureCounts|genes|isoforms|counts?|salmon|kallisto|rsem|stringtie))$",
    re.IGNORECASE,
)

_FIXED_NAME = re.compile(
    r"quant(\.genes)?|abundance|ReadsPerGene|gene_?abund(ances?)?|(Aligned|accepted_hits).*", re.IGNORECASE
)


def is_alignment(name: str) -> bool:
    """Return whether a name is that of a BAM, SAM or CRAM file."""
    return _ALIGNMENT.search(name) is not None


def column_names(columns: Sequence[str]) -> list[str]:
    """Return the names of samples for columns: a file loses its path, ending and steps of the alignment."""
    files = [
        name
        for name in columns
        if is_alignment(name) or (("/" in name or name.endswith(".results")) and _TABLE_ENDING.search(name))
    ]
    short = dict(zip(files, sample_names(files), strict=True))
    names = [short.get(name, name) for name in columns]
    return names if len(set(names)) == len(names) else list(columns)


def sample_names(files: Sequence[str]) -> list[str]:
    """Return the names of samples for files: without folder, ending and what says the tool, where they differ so.

    Args:
        files: paths.

    Returns:
        The name of each file, or of the nearest folder if all files are called `quant.sf`, say; else the paths.
    """
    parts = [[part for part in re.split(r"[/\\]", path) if part] or [path] for path in files]
    for depth in (1, 2, 3):
        names = [_cut(part[-depth]) if len(part) >= depth else "" for part in parts]
        if all(names) and len(set(names)) == len(names):
            return names
    names = [part[-1] for part in parts]
    return names if len(set(names)) == len(names) else list(files)


def _cut(name: str) -> str:
    """Cut the name of a file or folder; nothing is left of one that the tool gives to every sample."""
    ending, step = (_ALIGNMENT, _ALIGNMENT_STEP) if is_alignment(name) else (_TABLE_ENDING, _OUTPUT)
    name = ending.sub("", name)
    if _FIXED_NAME.fullmatch(name):
        return ""
    while (cut := step.sub("", name)) != name and cut:
        name = cut
    return name


def _find_in_folder(folder: UPath) -> list[UPath]:
    """Return the tables in a folder: those that a quantifier wrote, wherever they lie, or else all tables in it.

    Args:
        folder: resolved path.

    Raises:
        InputError: the folder holds no table, or outputs of several tools.
    """
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=str
    )  # a store may list in any order
    written: dict[Layout, list[UPath]] = {}
    for layout, entry in LAYOUTS.items():
        for pattern in entry.files:
            found = [path for path in files if fnmatch(path.name.removesuffix(".gz"), pattern)]
            if found:
                written[layout] = found
                break
    if len(written) > 1:
        tools = " and ".join(LAYOUTS[layout].tool for layout in written)
        raise InputError(f"{folder}: holds files of {tools}; name those to read, as in '{folder}/*/quant.sf'")
    endings = (".tsv", ".txt", ".csv", ".tab", ".count", ".counts", ".gct", ".parquet", ".pq")
    tables = [
        path
        for path in files
        if path.parent == folder
        and path.name.lower().removesuffix(".gz").endswith(endings)
        and path.name[0] != "."
    ]
    result = next(iter(written.values()), tables)
    if not result:
        raise InputError(f"{folder}: holds no table; name the file, or files as in '{folder}/*/quant.sf'")
    if len(result) > 1 or result[0].parent != folder:
        names = [str(path)[len(str(folder)) + 1 :] for path in result[:3]]
        more = ", …" if len(result) > 3 else ""
        note(f"{folder}: tables read from it: {len(result)}, {', '.join(names)}{more}")
    return result


def find_tables(path: AnyPath | Sequence[AnyPath]) -> list[UPath]:
    """Return the files of tables that a user names.

    Args:
        path: a file; a folder, for the tables in it; a pattern with `*` or `?`; or several of these.

    Raises:
        InputError: there is no such file, or one is named twice.
    """
    if isinstance(path, (str, os.PathLike, UPath)):
        return _find(path)
    files = [file for item in path for file in _find(item)]
    if not files:
        raise InputError("names no file", setting="expression", value=list(path))
    twice = next((file for at, file in enumerate(files) if file in files[:at]), None)
    if twice is not None:
        raise InputError(f"{twice}: is named twice; name each table once")
    return files


def _find(path: AnyPath) -> list[UPath]:
    resolved = storage.resolve(path)
    with storage.wrap_store_errors(resolved, "read"):
        return _find_resolved(resolved)


def _find_resolved(resolved: UPath) -> list[UPath]:
    if resolved.is_dir():
        return _find_in_folder(resolved)
    wild = [parent for parent in (resolved, *resolved.parents) if re.search(r"[*?[]", parent.name)]
    if not wild or resolved.exists():
        return [storage.require_file(resolved, "expression table")]
    root = wild[-1].parent
    pattern = str(resolved)[len(str(root)) :].lstrip("/")
    files = sorted((file for file in root.glob(pattern) if file.is_file()), key=str)
    if not files:
        raise InputError(f"{resolved}: no file has such a name; check the path")
    return files
