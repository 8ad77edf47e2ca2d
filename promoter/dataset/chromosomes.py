"""Match the names of chromosomes across spellings, and read their lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from promoter import storage
from promoter.errors import InputError
from promoter.storage import AnyPath

_MITOCHONDRION = {"m", "mt", "mito", "mitochondrion"}


def match_chromosomes(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Match chromosome names that differ in spelling only: `chr1` and `1`, `chrM` and `MT` or `Mito`.

    Args:
        wanted: chromosome names to look up.
        available: chromosome names to choose from.

    Returns:
        Wanted name -> available name, for each wanted name that was found; an equal name is preferred to another
        spelling.
    """
    available = list(available)
    exact, folded = set(available), {}
    for name in available:
        folded.setdefault(_fold(name), name)
    matched = {}
    for name in wanted:
        if name in exact:
            matched[name] = name
        elif _fold(name) in folded:
            matched[name] = folded[_fold(name)]
    return matched


def renamed(matched: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of `match_chromosomes`' result whose two spellings differ."""
    return {name: other for name, other in matched.items() if name != other}


def chromosome_sizes(path: AnyPath) -> dict[str, int]:
    """Read the lengths of chromosomes.

    Args:
        path: a FASTA, its index (`.fai`), or a table of names and lengths (`chrom.sizes`).

    Returns:
        Chromosome name -> number of bases, in the order of the file.

    Raises:
        InputError: the file is missing, or none of these.
    """
    from promoter.dataset.genome import Genome, first_bytes  # noqa: PLC0415 # matching names needs no pyfaidx

    where = storage.require_file(path, "genome")
    if storage.is_gzip(where) or first_bytes(where).startswith(b">"):
        fasta = Genome(where)
        fasta.close()
        return fasta.lengths
    sizes = {}
    with storage.open_text(where) as file:
        for number, line in enumerate(file, start=1):
            cells = line.split("\t")
            if len(cells) < 2 or not cells[1].strip().isdecimal():
                raise InputError(
                    f"{where}: line {number} has no chromosome and length ({line.strip()[:40]!r}); "
                    "give the FASTA, its .fai, or a chrom.sizes file"
                )
            sizes[cells[0]] = int(cells[1])
    return sizes


def _fold(name: str) -> str:
    bare = name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name
    return "m" if bare.lower() in _MITOCHONDRION else bare
