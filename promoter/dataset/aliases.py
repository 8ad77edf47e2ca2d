"""Read which names are names of one chromosome: from tables, GFF3 and the headers of FASTA."""

from __future__ import annotations

import re
from collections.abc import Mapping

from promoter import storage
from promoter.dataset.gff import open_annotation
from promoter.errors import InputError
from promoter.storage import AnyPath

_NO_NAME = {"", "na", "n/a", ".", "-", "none"}
_SOURCES = {"ensembl", "refseq", "genbank", "ucsc", "ncbi", "assembly", "gencode", "flybase", "wormbase", "sgd"}
_IN_NAME = re.compile(r"\b(?:ref|gb|emb|dbj|lcl)\|([^|]+)")
_IN_DESCRIPTION = re.compile(r"\bchromosome:? ([\w-]+)(?:,|$)")


def read_chrom_names(path: AnyPath) -> list[set[str]]:
    """Read a table of names of chromosomes.

    Args:
        path: two columns; or more, a row a sequence, as UCSC's `chromAlias.txt` and NCBI's assembly reports are.
            Columns are separated by tabs, or else by commas or spaces; lines that begin with `#` are comments.

    Returns:
        The names of each sequence.

    Raises:
        InputError: the file is missing, or a line has one column.
    """
    where = storage.require_file(path, "table of chromosome names")
    rows: list[list[str]] = []
    with storage.open_text(where) as file:
        for number, line in enumerate(file, start=1):
            if line.startswith("#") or not line.strip():
                continue
            cells = line.split("\t") if "\t" in line else re.split(r"[,\s]+", line.strip())
            if len(cells) < 2:
                raise InputError(
                    f"{where}: line {number} has one column ('{line.strip()[:40]}'); two or more are needed"
                )
            rows.append([cell.strip() for cell in cells])
    if not rows:
        raise InputError(f"{where}: holds no names; was it written to the end?")
    return _merged([{cell for cell in row if cell.lower() not in _NO_NAME} for row in _columns_of_names(rows)])


def aliases_of_gff(path: AnyPath) -> list[set[str]]:
    """Return the names that a GFF3 gives its sequences, in `region` (RefSeq) or `chromosome` lines (Ensembl)."""
    found = []
    with open_annotation(path) as file:
        for line in file.lines({"region", "chromosome"}.__contains__) if file.format == "gff3" else ():
            others = set(line.attributes.get("Alias", "").split(","))
            if line.attributes.get("genome") in {"chromosome", "mitochondrion", "chloroplast", "plastid"}:
                others |= {line.attributes.get("Name", ""), line.attributes.get("chromosome", "")}
            others -= {"", "ANONYMOUS", "Unknown"}
            found += [{line.chrom, *others}] if line.chrom and others else []
    return _merged(found)


def aliases_of_descriptions(descriptions: Mapping[str, str]) -> list[set[str]]:
    """Return the names that headers of NCBI's and ENA's FASTA give: `chromosome I, …`, `ref|NC_001133.9|`.

    Args:
        descriptions: name of a record -> the rest of its header, as `Genome.descriptions` returns them.
    """
    found = []
    for name, text in descriptions.items():
        organelle = next((word for word in ("mitochondrion", "chloroplast") if f"{word}, complete" in text), None)
        match = _IN_DESCRIPTION.search(text)
        names = {*_IN_NAME.findall(name), *([organelle] if organelle else [match[1]] if match else [])}
        if names:
            found.append({name, *names})
    return found


def _columns_of_names(rows: list[list[str]]) -> list[list[str]]:
    """Leave out the columns that hold no names: the source of an alias, the role of a sequence, ..."""
    width = max(map(len, rows))
    if width == 2:
        return rows
    rows = [row + [""] * (width - len(row)) for row in rows]
    if width == 3 and all(set(re.split(r"[,\s]+", row[2].lower())) <= _SOURCES for row in rows):
        return [row[:2] for row in rows]  # UCSC's alias, chrom, source
    columns = zip(*rows, strict=True)
    kept = [
        column for column in columns if _is_distinct([cell for cell in column if cell.lower() not in _NO_NAME])
    ]
    return [list(row) for row in zip(*kept, strict=True)]


def _is_distinct(cells: list[str]) -> bool:
    return len(set(cells)) == len(cells)


def _merged(groups: list[set[str]]) -> list[set[str]]:
    """Join the groups that have a name in common."""
    group_of: dict[str, set[str]] = {}
    for group in groups:
        joined = set(group).union(*(group_of[name] for name in group if name in group_of))
        group_of |= dict.fromkeys(joined, joined)
    return list({id(group): group for group in group_of.values()}.values())
