"""Read genes and their transcription start sites (TSS) from BED, GTF or GFF3.

Coordinates are 0-based and half-open. `tss` is the position of the first transcribed base: the start on `+`, the
end minus one on `-`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pybedtools
from upath import UPath

from promoter import storage
from promoter.errors import InputError
from promoter.storage import AnyPath

GENE_COLUMNS = ["gene_id", "chrom", "start", "end", "strand", "tss"]
Format = Literal["bed", "gtf", "gff3"]
_FORMAT_OF_SUFFIX: dict[str, Format] = {".bed": "bed", ".gtf": "gtf", ".gff": "gff3", ".gff3": "gff3"}
_DEFAULT_ATTRIBUTES = {"gtf": ("gene_id",), "gff3": ("gene_id", "ID", "Name")}
_GFF_FIELDS = 9
_GTF_ATTRIBUTE = re.compile(r'\s*([^\s;]+)\s+(?:"([^"]*)"|([^;]*))[^;]*(?:;|$)')  # a quoted value may hold ';'


def read_genes(path: AnyPath, attribute: str | None = None, feature: str = "gene") -> pd.DataFrame:
    """Read the genes of an annotation, in file order.

    The format is taken from the name (`.bed`, `.gtf`, `.gff`, `.gff3`, each also with `.gz` or `.bgz`), or from
    the content if the name has no such suffix. BED needs its first six columns: a promoter lies on one side of its
    gene, so the strand (column 6) is required, and the gene id is column 4.

    Args:
        path: the annotation, plain, gzip or bgzip, local or remote.
        attribute: GTF/GFF3 attribute that holds the gene id; None (default) means `gene_id`, then for GFF3 `ID`
            (without a leading `gene:`) and `Name`.
        feature: GTF/GFF3 feature type to read (default `gene`).

    Returns:
        Columns `gene_id`, `chrom`, `start`, `end`, `strand`, `tss`; a gene id may occur twice.

    Raises:
        InputError: the file is missing, in none of these formats, or has a malformed line (named in the message).
    """
    where = storage.require_file(path, "gene annotation")
    file_format = _format_of(where)
    rows = []
    for number, line in _data_lines(where):
        fields = line.split("\t")
        if file_format != "bed":
            if len(fields) != _GFF_FIELDS:
                raise InputError(
                    f"{where}: line {number} has {len(fields)} tab-separated columns, "
                    f"{file_format.upper()} has {_GFF_FIELDS}; is it the right file?"
                )
            if fields[2] != feature:
                continue
        interval = _interval(where, number, fields)
        gene_id = (
            interval.name
            if file_format == "bed"
            else _gene_id(where, number, fields[8], file_format=file_format, attribute=attribute)
        )
        if interval.strand not in ("+", "-"):
            raise InputError(
                f"{where}: line {number} ({gene_id}) has no strand '+' or '-'"
                + (" in column 6; a promoter needs one: add the strand" if file_format == "bed" else "")
            )
        if gene_id in ("", "."):
            source = "column 4" if file_format == "bed" else "its attributes"
            raise InputError(f"{where}: line {number} has no gene id in {source}; add one")
        rows.append((gene_id, interval.chrom, interval.start, interval.end, interval.strand))
    if not rows:
        wanted = "lines" if file_format == "bed" else f"lines of feature type '{feature}'"
        raise InputError(f"{where}: has no {wanted}; is it the right file?")
    genes = pd.DataFrame(rows, columns=pd.Index(GENE_COLUMNS[:-1])).astype({"start": "int64", "end": "int64"})
    genes["tss"] = np.where(genes["strand"] == "+", genes["start"], genes["end"] - 1)
    return genes


def _format_of(where: UPath) -> Format:
    name = str(where).lower()
    for suffix in (".gz", ".bgz"):
        name = name.removesuffix(suffix)
    by_name = _FORMAT_OF_SUFFIX.get(os.path.splitext(name)[1])  # noqa: PTH122 # may be a remote address
    if by_name is not None:
        return by_name
    for _, line in _data_lines(where):
        fields = line.split("\t")
        if len(fields) == _GFF_FIELDS and fields[3].isdigit() and fields[4].isdigit():
            return "gtf" if ' "' in fields[8] else "gff3"
        if len(fields) >= 3 and fields[1].isdigit() and fields[2].isdigit():
            return "bed"
        break
    raise InputError(f"{where}: is not BED, GTF or GFF3; name it .bed, .gtf or .gff3 if it is one")


def _data_lines(where: UPath) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line), without comments, headers and blank lines."""
    with storage.open_text(where) as file:
        for number, raw in enumerate(file, start=1):
            line = raw.rstrip("\r\n")
            if line.startswith("##FASTA"):  # GFF3 may carry the sequence after its features
                return
            if not line.strip() or line.startswith(("#", "track ", "track\t", "browser ")):
                continue
            if line.lstrip().startswith("<"):
                raise InputError(f"{where}: line {number} is HTML or XML, not an annotation; download it again")
            yield number, line


def _interval(where: UPath, number: int, fields: list[str]) -> pybedtools.Interval:
    if len(fields) < 3:
        raise InputError(
            f"{where}: line {number} has {len(fields)} tab-separated columns, at least 3 are needed; "
            "are they separated by spaces?"
        )
    try:
        interval = pybedtools.create_interval_from_list(fields)
    except (ValueError, IndexError, OverflowError, pybedtools.cbedtools.MalformedBedLineError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: line {number} is malformed ({reason}): {fields[:6]}; fix the line") from error
    if interval.end <= interval.start:
        raise InputError(
            f"{where}: line {number} ends at {interval.end}, not after its start {interval.start} "
            "(0-based, half-open); fix the line"
        )
    return interval


def _gene_id(where: UPath, number: int, text: str, *, file_format: Format, attribute: str | None) -> str:
    attributes = _attributes(text, file_format)
    names = (attribute,) if attribute else _DEFAULT_ATTRIBUTES[file_format]
    for name in names:
        if name in attributes:
            value = attributes[name]
            if file_format == "gff3":  # reserved letters are percent-encoded in GFF3
                value = unquote(value)
            return value.removeprefix("gene:") if name == "ID" else value
    raise InputError(
        f"{where}: line {number} has no attribute {' or '.join(map(repr, names))}; "
        f"it has {sorted(attributes)}: choose one with `attribute`"
    )


def _attributes(text: str, file_format: Format) -> dict[str, str]:
    """Parse the attributes of column 9; pybedtools stops at a ';' within quotes, and at a lone '.'."""
    if file_format == "gtf":
        return {key: quoted or bare.strip() for key, quoted, bare in _GTF_ATTRIBUTE.findall(text)}
    pairs = (item.partition("=") for item in text.split(";"))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}
