"""Match the names of chromosomes across spellings, and read their lengths.

Names match if they are equal; if a table of names or a file says that they are one sequence; if they differ in
`chr`, in case, in leading zeros, or in the word for the mitochondrion or the plastid; if one is the Roman and one
the Arabic number; or if one is an accession without its version. Names that could stand for several do not match.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from promoter import storage
from promoter.errors import InputError, doubt, listed, note
from promoter.storage import AnyPath

Aliases = Sequence[Collection[str]]  # each: the names of one sequence
_PREFIX = re.compile(r"^chr(omosome|om)?[ _.-]?(?=.)", re.IGNORECASE)
_MITOCHONDRION = re.compile(r"m|mt|mit|mito|mtdna|mitochondri(on|a|al)|mitochondri(on|al)_genome")
_PLASTID = re.compile(r"c|cp|pt|pltd|(cp|pt)dna|(chloroplast|plastid)(_genome)?")
_ZEROS = re.compile(r"^([a-z]*)0+(?=[1-9])")
_ROMAN = re.compile(r"(x{0,3})(ix|iv|v?i{0,3})")  # 1 to 39; tetraploids need no more
_UNITS = {"": 0, "i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9}
_ACCESSION = re.compile(r"((?:[A-Z]{2}_|[A-Z]{1,6})\d{5,})(?:\.\d+)?")  # of RefSeq and INSDC
_MAX_LENGTH = 2**32 - 1  # of a bigWig
_SHOWN = 4  # names in a message


class Match(NamedTuple):
    """How a chromosome's name was matched.

    Attributes:
        name: the other file's name.
        how: what the two spellings differ in, for a note; empty for equal names, `chr`, and organelles' names.
    """

    name: str
    how: str


def match_chromosomes(
    wanted: Iterable[str], available: Iterable[str], names: Aliases | None = None
) -> dict[str, str]:
    """Match chromosome names that differ in spelling only; a note says in what, unless it is `chr`.

    Args:
        wanted: chromosome names to look up; give all of a file at once, since `X` is ten only beside `IX`.
        available: chromosome names to choose from.
        names: groups of names of one sequence each, as `aliases.read_chrom_names` returns them; by default none.

    Returns:
        Wanted name -> available name, for each wanted name that was found; an equal name is preferred to another
        spelling.

    Raises:
        InputError: by `names`, one name stands for several available ones.
    """
    wanted, available = list(wanted), list(available)
    matches = find_matches(wanted, available, names)
    note_matches(wanted, available, matches)
    return {name: match.name for name, match in matches.items()}


def find_matches(
    wanted: Iterable[str], available: Iterable[str], names: Aliases | None = None
) -> dict[str, Match]:
    """Match chromosome names as `match_chromosomes` does, without a note, and say how each was matched."""
    wanted, available = list(dict.fromkeys(wanted)), list(dict.fromkeys(available))
    in_available = set(available)
    found = {name: Match(name, "") for name in wanted if name in in_available}

    def add(targets: Mapping[str, str], how: str) -> None:
        found.update({name: Match(other, how) for name, other in targets.items() if name not in found})

    if names:
        left = [name for name in wanted if name not in found]
        add(_alias_targets(left, available, names), "by their other names")
    for key, how in ((_without_prefix, ""), (_organelle, ""), (_spelling, "in another spelling")):
        add(_targets(_keys(key, wanted), _keys(key, available)), how)
    accessions = _targets(_keys(_accession, wanted), _keys(_accession, available))
    unversioned = {name: other for name, other in accessions.items() if ("." in name) != ("." in other)}
    for pairs, how in (
        (_targets(_numbers(wanted), _numbers(available)), "by number"),
        (unversioned, "by accession, without version"),
    ):
        claims = Counter(match.name for match in found.values())
        claims.update(other for name, other in pairs.items() if name not in found)
        add({name: other for name, other in pairs.items() if claims[other] == 1}, how)
    return {name: found[name] for name in wanted if name in found}


def note_matches(wanted: Iterable[str], available: Iterable[str], matches: Mapping[str, Match]) -> None:
    """Note which names were matched otherwise than by `chr`, and warn of accessions in another version.

    Args:
        wanted: chromosome names that were looked up.
        available: chromosome names that there were to choose from.
        matches: what `find_matches` returned for them.
    """
    for how in dict.fromkeys(match.how for match in matches.values() if match.how):
        pairs = [f"{name} is {match.name}" for name, match in matches.items() if match.how == how]
        note(f"chromosomes matched {how}: {listed(pairs, _SHOWN)}")
    if versions := _other_versions([name for name in wanted if name not in matches], available):
        doubt(f"chromosomes not matched, since other versions are of another assembly: {listed(versions, _SHOWN)}")


def renamed(matched: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of `match_chromosomes`' result whose two spellings differ."""
    return {name: other for name, other in matched.items() if name != other}


def require_overlap(
    genes: Mapping[str, int], matched: Mapping[str, str], available: Iterable[str], *, genes_file: str, genome: str
) -> None:
    """Check that no more than half of the genes lie on chromosomes that the genome lacks.

    Args:
        genes: chromosome of the annotation -> number of genes on it.
        matched: names found, as `match_chromosomes` returns them.
        available: chromosome names of the genome.
        genes_file: name of the annotation, for the message.
        genome: name of the genome, for the message.

    Raises:
        InputError: more than half are lost; the message has both files' names.
    """
    problem = describe_unmatched(genes, matched, available, genes_file=genes_file, genome=genome)
    lost = sum(count for chrom, count in genes.items() if chrom not in matched)
    if problem and 2 * lost > sum(genes.values()):
        raise InputError(
            problem, fix="use files of one assembly, map the names with `chrom_names`, or set `allow_loss=True`"
        )


def describe_unmatched(
    genes: Mapping[str, int], matched: Mapping[str, str], available: Iterable[str], *, genes_file: str, genome: str
) -> str:
    """Say how many genes lie on which chromosomes that the genome lacks; empty if none does.

    The arguments are those of `require_overlap`.
    """
    lost = Counter({chrom: count for chrom, count in genes.items() if chrom not in matched})
    if not lost:
        return ""
    chroms = listed([f"{chrom} ({count:,})" for chrom, count in lost.most_common()], _SHOWN)
    return (
        f"{genes_file}: {lost.total():,} of {sum(genes.values()):,} genes lie on chromosomes that {genome} lacks: "
        f"{chroms}; it has {listed(list(available), _SHOWN)}"
    )


def chromosome_sizes(path: AnyPath) -> dict[str, int]:
    """Read the lengths of chromosomes.

    Args:
        path: a FASTA, its index (`.fai`), or a table of names and lengths (`chrom.sizes`).

    Returns:
        Chromosome name -> number of bases, in the order of the file.

    Raises:
        InputError: the file is missing, or none of these.
    """
    from promoter.dataset.genome import Genome  # noqa: PLC0415 # matching names needs no pyfaidx

    where = storage.require_file(path, "genome")
    if storage.decode(storage.first_bytes(where)).lstrip("\ufeff\r\n").startswith((">", ";")):
        fasta = Genome(where)
        fasta.close()
        return fasta.lengths
    sizes = {}
    with storage.open_text(where) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            cells = [cell.strip() for cell in line.split("\t")]
            if len(cells) < 2 or not (cells[1].isascii() and cells[1].isdigit()):
                raise InputError(
                    f"{where}: line {number} has no chromosome and length ({line.strip()[:40]!r}); "
                    "give the FASTA, its .fai, or a chrom.sizes file"
                )
            if len(cells[1]) > len(str(_MAX_LENGTH)) or int(cells[1]) > _MAX_LENGTH:
                raise InputError(
                    f"{where}: line {number}: {cells[0]} has a length of {cells[1][:20]}, but no chromosome is "
                    f"longer than {_MAX_LENGTH:,}; correct it"
                )
            if not int(cells[1]) or cells[0] in sizes:
                problem = "occurs twice" if cells[0] in sizes else "has a length of 0"
                raise InputError(f"{where}: line {number}: {cells[0]} {problem}; correct it, or leave it out")
            sizes[cells[0]] = int(cells[1])
    return sizes


def _keys(key: Callable[[str], str | None], names: Iterable[str]) -> dict[str, str]:
    """Return the key of each name that has one."""
    return {name: folded for name in names if (folded := key(name)) is not None}


def _by_key(keys: Mapping[str, str]) -> dict[str, str]:
    """Return the name of each key that only one name has."""
    counts = Counter(keys.values())
    return {key: name for name, key in keys.items() if counts[key] == 1}


def _targets(wanted: Mapping[str, str], available: Mapping[str, str]) -> dict[str, str]:
    """Return, for each wanted name, the only available name with the same key."""
    by_key = _by_key(available)
    return {name: by_key[key] for name, key in wanted.items() if key in by_key}


def _alias_targets(wanted: Sequence[str], available: Sequence[str], names: Aliases) -> dict[str, str]:
    """Return, for each wanted name, the available name of the same group; each may be spelled otherwise."""
    group_of: dict[str, set[str]] = {}
    for group in names:
        for name in group:
            group_of.setdefault(_spelling(name), set()).update(group)
    in_available, spelled = set(available), _by_key(_keys(_spelling, available))
    targets = {}
    for name in wanted:
        group = group_of.get(_spelling(name), set())
        others = group & in_available or {spelled[key] for key in map(_spelling, group) if key in spelled}
        if len(others) > 1:
            raise InputError(
                f"{name} may be {' or '.join(sorted(others))}, by the table of names",
                setting="chrom_names",
                fix="leave one of them",
            )
        if others:
            targets[name] = others.pop()
    return targets


def _without_prefix(name: str) -> str:
    return _PREFIX.sub("", name)


def _organelle(name: str) -> str | None:
    bare = _without_prefix(name).lower()
    if _MITOCHONDRION.fullmatch(bare):
        return "mitochondrion"
    return "plastid" if _PLASTID.fullmatch(bare) else None


def _spelling(name: str) -> str:
    return _organelle(name) or _ZEROS.sub(r"\1", _without_prefix(name).lower())


def _numbers(names: Iterable[str]) -> dict[str, str]:
    """Return the number that each name is, in Roman or Arabic digits; `X` is one only if `IX` is one too."""
    bare = {name: _spelling(name) for name in names}
    has_nine = "ix" in bare.values()
    numbers = {}
    for name, text in bare.items():
        roman = _ROMAN.fullmatch(text)
        if text.isascii() and text.isdigit():
            numbers[name] = text
        elif roman and (text != "x" or has_nine):
            numbers[name] = str(10 * len(roman[1]) + _UNITS[roman[2]])
    return numbers


def _accession(name: str) -> str | None:
    """Return an accession with the version left out, of which a match has at most one; None for other names."""
    match = _ACCESSION.fullmatch(name)
    return match[1] if match else None


def _other_versions(wanted: Iterable[str], available: Iterable[str]) -> list[str]:
    """Return the pairs of accessions that differ in version, as `U00096.2 and U00096.3`."""
    of_accession = _by_key(_keys(_accession, available))
    pairs = {name: of_accession.get(base) for name, base in _keys(_accession, wanted).items()}
    return [f"{name} and {other}" for name, other in pairs.items() if other]
