"""Parse the lines of BED, GTF and GFF3 files, whose format is known by content before name.

A file is read once, from front to back; lines of feature types that nobody asks for are skipped before they are
parsed, since a human GTF has millions.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, islice
from typing import IO, Literal, NamedTuple
from urllib.parse import unquote

import pybedtools
from upath import UPath

from promoter import storage
from promoter.errors import InputError, counted, listed, note
from promoter.storage import AnyPath

Format = Literal["bed", "gtf", "gff3"]
_FORMATS: dict[str, Format] = {".bed": "bed", ".gtf": "gtf", ".gff": "gff3", ".gff3": "gff3"}
_FIELDS = 9  # columns of GTF and GFF3
_HEAD = 100  # lines by which the format is known: BRAKER's first ones have a bare id in column 9
_BED_COLUMNS = ("gene_id", "score", "strand", "thickStart", "thickEnd")  # the fourth and those after it
_STRANDS = ("+", "-", ".", "?")
_GTF_ATTRIBUTE = re.compile(r'\s*([^\s;]+)\s+(?:"([^"]*)"|([^;]*))[^;]*(?:;|$)')  # a quoted value may hold ';'
_GFF3_START = re.compile(r'[^\s=;"]+\s*=')
_GTF_START = re.compile(r'[^\s=;"]+\s+[^\s=]')
_LISTS = ("tag", "db_xref", "Dbxref")  # attributes that a GTF repeats, a value each
_AUGUSTUS_TRANSCRIPT = re.compile(r"\.t\d+$")  # AUGUSTUS and BRAKER name the transcripts of g1 g1.t1, g1.t2, …
_PREFIX = re.compile(r"^(?:(?:gene|rna|cds)-|(?:gene|pseudogene|transcript|mrna|cds):)", re.IGNORECASE)


class Line(NamedTuple):
    """Hold a parsed line.

    Attributes:
        number: line number, from 1.
        kind: feature type; empty in BED.
        chrom: chromosome; empty if the line is malformed.
        start: first base, 0-based.
        end: base after the last one.
        strand: `+`, `-`, or whatever else stands there.
        attributes: column 9 by name; in BED `gene_id` (column 4), `score`, `thickStart` and `thickEnd`.
        bases: number of bases, in BED12 those of its blocks.
        problem: what is wrong with the line; None if nothing is.
    """

    number: int
    kind: str
    chrom: str
    start: int
    end: int
    strand: str
    attributes: dict[str, str]
    bases: int
    problem: str | None = None


class Problem(NamedTuple):
    """Describe a line that cannot be used.

    Attributes:
        number: line number, from 1.
        gene_id: gene that the line belongs to; None where unknown.
        text: what is wrong.
    """

    number: int
    gene_id: str | None
    text: str


def require_valid(where: UPath, problems: Sequence[Problem], *, skip_invalid: bool) -> set[str]:
    """Check that there are no invalid lines, or tell how many are skipped.

    Args:
        where: address of the file, for messages.
        problems: the invalid lines, in file order.
        skip_invalid: whether to skip them.

    Returns:
        The ids of their genes.

    Raises:
        InputError: there are some and they are not to be skipped; the message names the first.
    """
    if not problems:
        return set()
    lines = [
        f"line {problem.number}{f' ({problem.gene_id})' if problem.gene_id else ''} {problem.text}"
        for problem in problems[:3]
    ]
    if not skip_invalid:
        others = f" (and {counted(len(problems) - 1, 'more such line')})" if len(problems) > 1 else ""
        fix = "fix the line, or leave out what has such lines with `skip_invalid=True`"
        raise InputError(f"{where}: {lines[0]}{others}", fix=fix)
    bad = {problem.gene_id for problem in problems if problem.gene_id is not None}
    genes = f" and {counted(len(bad), 'gene')} with them" if bad else ""
    more = ", …" if len(problems) > len(lines) else ""
    note(f"{where}: left out {counted(len(problems), 'invalid line')}{genes}: {'; '.join(lines)}{more}")
    return bad


@dataclass
class AnnotationFile:
    """Read the lines of an open annotation.

    Attributes:
        where: address of the file, for messages.
        format: `bed`, `gtf` or `gff3`.
        kinds: feature type -> number of lines read so far; empty for BED.
    """

    where: UPath
    format: Format
    _lines: Iterator[tuple[int, str]]
    kinds: Counter[str] = field(default_factory=Counter)

    def lines(self, wanted: Callable[[str], bool]) -> Iterator[Line]:
        """Yield the lines of the feature types wanted, and those that have no type; of BED, all.

        Args:
            wanted: function of a feature type, asked anew for each line.
        """
        for number, text in self._lines:
            if self.format == "bed":
                yield _parse_bed(number, text)
                continue
            head = text.split("\t", 3)
            kind = head[2] if len(head) > 3 else ""
            self.kinds[kind] += bool(kind)
            if not kind or wanted(kind):
                yield _parse_gff(number, text, kind, self.format)

    def kinds_where(self, matches: Callable[[str], bool]) -> Counter[str]:
        """Return the feature types that a function accepts, with the number of their lines."""
        return Counter({kind: n for kind, n in self.kinds.items() if matches(kind)})


def by_count(counts: Counter[str]) -> str:
    """Write counts as `exon (1,200), gene (60)`, the greatest first."""
    return listed([f"{name} ({n:,})" for name, n in counts.most_common() if n], 12)


@contextmanager
def open_annotation(path: AnyPath) -> Iterator[AnnotationFile]:
    """Open an annotation and find out its format: by content, or by its name where that decides nothing.

    Args:
        path: BED, GTF or GFF3, plain, gzip or bgzip, local or remote.

    Yields:
        The open file.

    Raises:
        InputError: the file is missing, damaged, or in none of these formats.
    """
    where = storage.require_file(path, "gene annotation")
    with storage.open_text(where) as file:
        lines = _data_lines(where, file)
        head = list(islice(lines, _HEAD))
        yield AnnotationFile(where, _format_of(where, head), chain(head, lines))


@cache
def is_gene(kind: str) -> bool:
    """Return whether a feature type is a gene's: `gene`, `ncRNA_gene`, `protein_coding_gene`."""
    return kind.lower().endswith("gene")


@cache
def is_transcript(kind: str) -> bool:
    """Return whether a feature type is a transcript's: `transcript`, `mRNA`, `tRNA`, `V_gene_segment`."""
    return kind.lower().endswith(("transcript", "rna", "gene_segment"))


@cache
def is_utr(kind: str) -> bool:
    """Return whether a feature type is an untranslated region."""
    return kind.lower().endswith("utr")


def without_prefix(value: str) -> str:
    """Remove the kind that NCBI (`gene-`, `rna-`, `cds-`) and Ensembl (`gene:`, `transcript:`) put before ids."""
    return _PREFIX.sub("", value)


def attribute_value(attributes: dict[str, str], name: str) -> str | None:
    """Look up an attribute; `Dbxref:PomBase` is the value that Dbxref (GTF: db_xref) has under that prefix."""
    value = attributes.get(name)
    if value is None and name.lower().startswith(("dbxref:", "db_xref:")):
        prefix = name.partition(":")[2] + ":"
        items = f"{attributes.get('Dbxref', '')},{attributes.get('db_xref', '')}".split(",")
        value = next((item.strip()[len(prefix) :] for item in items if item.strip().startswith(prefix)), None)
    return without_prefix(value) if value is not None and name == "ID" else value


def attribute_names(attributes: dict[str, str]) -> list[str]:
    """List the names that `attribute_value` knows."""
    names = set(attributes)
    for name in ("Dbxref", "db_xref"):
        for item in attributes.get(name, "").split(","):
            if ":" in item:
                names.add(f"{name}:{item.strip().partition(':')[0]}")
    return sorted(names)


def _data_lines(where: UPath, file: IO[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line), without comments, headers and blank lines."""
    for number, raw in enumerate(file, start=1):
        line = raw.rstrip("\r\n")
        if line.startswith((">", "##FASTA")):  # GFF3 may carry the sequence after its features
            return
        if not line.strip() or line.startswith(("#", "track ", "track\t", "browser ")):
            continue
        if line.lstrip().startswith("<"):
            raise InputError(f"{where}: line {number} is HTML or XML, not an annotation; download it again")
        yield number, line


def _format_of(where: UPath, head: list[tuple[int, str]]) -> Format:
    name = str(where).lower()
    for suffix in (".gz", ".bgz"):
        name = name.removesuffix(suffix)
    suffix = os.path.splitext(name)[1]  # noqa: PTH122 # may be a remote address
    by_name = _FORMATS.get(suffix)
    by_content = _format_of_lines(line for _, line in head)
    if by_content is None and by_name is None:
        raise InputError(
            f"{where}: is not BED, GTF or GFF3; make it BED: chromosome, start (from 0), end, gene id, 0, strand"
        )
    if by_content and by_name and by_content != by_name:
        note(f"{where}: is read as {by_content.upper()}, since its content is that, whatever its name says")
    return by_content or _FORMATS[suffix]


def _format_of_lines(lines: Iterable[str]) -> Format | None:
    for line in lines:
        if (found := _format_of_line(_bed_fields(line))) is not None:
            return found
    return None


def _format_of_line(fields: list[str]) -> Format | None:
    if len(fields) >= 3 and fields[1].isdigit() and fields[2].isdigit():
        return "bed"
    if len(fields) >= _FIELDS and fields[3].isdigit() and fields[4].isdigit() and fields[6] in _STRANDS:
        text = fields[8].lstrip()
        if _GFF3_START.match(text):
            return "gff3"
        if _GTF_START.match(text):
            return "gtf"
    return None


def _bed_fields(text: str) -> list[str]:
    """Split a line at tabs, or else at spaces, which UCSC's BED allows."""
    return text.split("\t") if "\t" in text else text.split()


def _parse_bed(number: int, text: str) -> Line:
    fields = _bed_fields(text)
    columns = zip(_BED_COLUMNS, fields[3:], strict=False)
    attributes = {name: value.strip() for name, value in columns if value.strip() not in ("", ".")}
    if len(fields) < 3:
        problem = f"has {len(fields)} columns, at least 3 are needed, separated by tabs"
        return Line(number, "", "", 0, 0, "", attributes, 0, problem)
    if not (fields[1] + fields[2]).isdigit():
        problem = f"is malformed: '{fields[1]}' and '{fields[2]}' are no positions; a header must begin with '#'"
        return Line(number, "", "", 0, 0, "", attributes, 0, problem)
    line = _place(number, fields, "", attributes)
    if line.problem is None and len(fields) >= 12:
        sizes = [size for size in fields[10].split(",") if size.strip()]
        if not all(size.strip().isdigit() for size in sizes):
            return line._replace(problem=f"has block sizes that are no numbers in column 11: {fields[10]}")
        return line._replace(bases=sum(map(int, sizes)) or line.bases)
    return line


def _parse_gff(number: int, text: str, kind: str, file_format: Format) -> Line:
    fields = text.split("\t")
    while len(fields) > _FIELDS and not fields[-1].strip():
        fields.pop()
    if len(fields) != _FIELDS:
        problem = (
            f"has {len(fields)} tab-separated columns, {file_format.upper()} has {_FIELDS}; is it the right file?"
        )
        return Line(number, kind, "", 0, 0, "", {}, 0, problem)
    return _place(number, fields, kind, _attributes(fields[8], kind, file_format))


def _place(number: int, fields: list[str], kind: str, attributes: dict[str, str]) -> Line:
    """Parse chromosome, start, end and strand with pybedtools."""
    try:
        interval = pybedtools.create_interval_from_list(fields)
        chrom, start, end, strand = interval.chrom, interval.start, interval.end, interval.strand
    except (ValueError, IndexError, OverflowError, pybedtools.cbedtools.MalformedBedLineError) as error:
        problem = f"is malformed ({' '.join(str(error).split())}): {fields[:6]}"
        return Line(number, kind, "", 0, 0, "", attributes, 0, problem)
    problem = None
    if end <= start:
        problem = f"ends at {end}, not after its start {start} (0-based, half-open)"
    return Line(number, kind, chrom, start, end, strand, attributes, end - start, problem)


def _attributes(text: str, kind: str, file_format: Format) -> dict[str, str]:
    """Parse column 9; pybedtools stops at a ';' within quotes, and at a lone '.'."""
    if file_format == "gtf":
        pairs = ((key, quoted or bare.strip()) for key, quoted, bare in _GTF_ATTRIBUTE.findall(text))
    else:
        items = (item.partition("=") for item in text.split(";"))
        pairs = ((key.strip(), value.strip()) for key, equals, value in items if equals)
    attributes: dict[str, str] = {}
    for key, value in pairs:
        if key not in attributes:
            attributes[key] = value
        elif key in _LISTS:
            attributes[key] += f",{value}"
    if not attributes:
        return _bare_id(text.strip().rstrip(";"), kind)
    if file_format == "gff3" and "%" in text:  # reserved letters are percent-encoded in GFF3
        return {key: value if key == "Parent" else unquote(value) for key, value in attributes.items()}
    return attributes


def _bare_id(text: str, kind: str) -> dict[str, str]:
    """Take an id that is all of column 9, as BRAKER writes genes (`g1`) and transcripts (`g1.t1`)."""
    if not text or text == "." or any(letter in text for letter in ' ="'):
        return {}
    if is_gene(kind):
        return {"gene_id": text}
    return {"gene_id": _AUGUSTUS_TRANSCRIPT.sub("", text), "transcript_id": text}
