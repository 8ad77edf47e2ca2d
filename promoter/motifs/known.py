"""Read known motifs from JASPAR or a MEME file, and find by Tomtom which of them other motifs resemble."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pandas as pd
from memelite import tomtom
from pyjaspar import jaspardb
from scipy.stats import false_discovery_control

from promoter import storage
from promoter.errors import InputError, note
from promoter.sequence import BASES
from promoter.storage import AnyPath

TAXA = ("vertebrates", "plants", "insects", "nematodes", "fungi", "urochordates", "all", "none")
_RELEASE = "JASPAR2026"
_ROUNDED = 0.05  # by how much probabilities may miss 1; of two digits each, four miss it by 0.02 at most
MAX_Q = 0.05  # of a match that names a motif; the best of hundreds of known motifs resembles any motif somewhat
_MIN_TARGETS = 50  # with fewer, Tomtom's chance scores depend on which targets there are; MEME's warns too


@dataclass(frozen=True)
class KnownMotif:
    """A motif of a database.

    Attributes:
        matrix_id: id in the database.
        name: name of the transcription factor, or `matrix_id` where there is none.
        frequencies_AL: frequencies of the bases, (4, width), columns sum to 1.
    """

    matrix_id: str
    name: str
    frequencies_AL: np.ndarray


def jaspar_motifs(taxon: str) -> list[KnownMotif]:
    """Return the CORE motifs of JASPAR 2026.

    Args:
        taxon: one of `TAXA`: a taxon, `all` of them, or `none`, which gives an empty list.

    Raises:
        InputError: the taxon is not in `TAXA`.
    """
    if taxon not in TAXA:
        raise InputError(f"choose among {', '.join(TAXA)}", setting="taxon", value=taxon)
    if taxon == "none":
        return []
    groups = None if taxon == "all" else [taxon]
    database = jaspardb(release=_RELEASE)
    try:
        records = database.fetch_motifs(collection="CORE", tax_group=groups)
    finally:
        database.conn.close()
    return [
        KnownMotif(record.matrix_id, record.name, _normalised(np.array([record.counts[base] for base in BASES])))
        for record in records
    ]


def read_motifs(path: AnyPath) -> list[KnownMotif]:
    """Read the motifs of a MEME file.

    Args:
        path: path or URL of the file, MEME 4 or 5 text. Of RNA, U is read as T, and a note says so.

    Raises:
        InputError: the file is missing or holds no motif of DNA, or a motif twice, or probabilities that are none.
    """
    source = storage.require_file(path, "MEME file")
    with storage.open_text(source) as text:
        lines = text.read().splitlines()
    motifs: dict[str, KnownMotif] = {}
    name, name_line = "", 0  # of the motif whose matrix is still to come

    def refuse(line: int, problem: str) -> NoReturn:
        raise InputError(f"{source}: line {line}: {problem}; correct it, or leave the motif out")

    for number, line in enumerate(lines, start=1):
        if line.startswith("ALPHABET"):
            _require_dna(line, f"{source}: line {number}")
        elif match := re.match(r"MOTIF\s+(\S.*)", line):
            if name:
                refuse(name_line, f"MOTIF {name} has no letter-probability matrix")
            name, name_line = " ".join(match[1].split()), number
            if name in motifs:
                refuse(number, f"MOTIF {name} occurs twice")
        elif line.startswith("letter-probability matrix") and name:
            width = re.search(r"\bw=\s*(\d+)", line)
            rows = list(itertools.takewhile(str.strip, lines[number:])) if width is None else lines[number:]
            rows = rows if width is None else rows[: int(width[1][:9])]
            if not rows or (width is not None and len(rows) < int(width[1][:9])):
                refuse(number, f"the matrix of MOTIF {name} ends early")
            values = []
            for at, row in enumerate(rows, start=number + 1):
                try:
                    values.append(_probabilities(row))
                except ValueError as error:
                    refuse(at, f"{row.strip()[:60]!r} of MOTIF {name} {error}")
            matrix_id, alternative, *_ = [*name.split(maxsplit=1), ""]
            motifs[name] = KnownMotif(matrix_id, alternative or matrix_id, _normalised(np.array(values).T))
            name = ""
    if name:
        refuse(name_line, f"MOTIF {name} has no letter-probability matrix")
    if not motifs:
        raise InputError(
            f"{source}: holds no MOTIF with a letter-probability matrix; write it as MEME 4 or 5 text"
        )
    return list(motifs.values())


def _require_dna(line: str, source: str) -> None:
    """Refuse an alphabet other than DNA and RNA; lines are `ALPHABET= ACGT` or `ALPHABET "DNA" DNA-LIKE`."""
    letters = line.removeprefix("ALPHABET").strip(" =\t").upper()
    if letters == "ACGU" or "RNA" in letters:
        note(f"{source}: the motifs are of RNA; U is read as T")
    elif letters != "ACGT" and "DNA" not in letters:
        raise InputError(f"{source}: the alphabet {letters[:30]} is not DNA; give a MEME file of DNA")


def _probabilities(row: str) -> list[float]:
    """Read the four probabilities of a position; ValueError says what is wrong with them."""
    try:
        values = [float(cell) for cell in row.split()]
    except ValueError:
        values = []
    if len(values) != len(BASES):
        raise ValueError("is not four numbers, one for each of A, C, G and T")
    if not all(0 <= value <= 1 + _ROUNDED for value in values) or abs(sum(values) - 1) > _ROUNDED:
        raise ValueError("is not four probabilities that add up to 1")
    return values


def match_motifs(motifs: Mapping[str, np.ndarray], known: list[KnownMotif]) -> pd.DataFrame:
    """Find the known motif that resembles each motif most, by Tomtom, on either strand.

    Tomtom's chance scores come from the columns of its targets. Where these are few, the rest of JASPAR adds its
    columns, and takes no part otherwise.

    Args:
        motifs: name -> frequencies of the bases, (4, width).
        known: known motifs to compare with.

    Returns:
        A row per motif, in the order of `motifs`: `resembles`, the name of the best match if its q is at most
        `MAX_Q`, else an empty string; `q` of the best match (Benjamini-Hochberg over the known motifs), its `p`,
        `match_id` and `match_name`; empty strings and NaN where there are none to compare with.
    """
    columns = pd.Index(["resembles", "q", "p", "match_id", "match_name"])
    if not motifs or not known:
        rows = [("", np.nan, np.nan, "", "")] * len(motifs)
        return pd.DataFrame(rows, index=pd.Index(list(motifs)), columns=columns)
    p_QT = tomtom_p(list(motifs.values()), [motif.frequencies_AL for motif in known])
    q_QT = np.apply_along_axis(false_discovery_control, 1, p_QT)
    best = p_QT.argmin(axis=1)
    rows = []
    for row, column in enumerate(best):
        match, q = known[column], float(q_QT[row, column])
        resembles = match.name if q <= MAX_Q else ""
        rows.append((resembles, q, float(p_QT[row, column]), match.matrix_id, match.name))
    return pd.DataFrame(rows, index=pd.Index(list(motifs)), columns=columns)


def tomtom_p(motifs: list[np.ndarray], known: list[np.ndarray]) -> np.ndarray:
    """Return Tomtom's p-value of each motif with each known one, shape (motifs, known).

    Motifs are frequencies of the bases, (4, width).
    """
    others = [] if len(known) >= _MIN_TARGETS else [motif.frequencies_AL for motif in jaspar_motifs("all")]
    targets = [np.ascontiguousarray(matrix, dtype=np.float64) for matrix in [*known, *others]]
    queries = [np.ascontiguousarray(matrix, dtype=np.float64) for matrix in motifs]
    return np.clip(tomtom(queries, targets)[0][:, : len(known)], 0, 1)


def as_meme(motifs: Mapping[str, np.ndarray], seqlets: Mapping[str, int] | None = None) -> str:
    """Format motifs as MEME text.

    Args:
        motifs: name -> frequencies of the bases, (4, width).
        seqlets: name -> number of sites; 20, the default of MEME, for motifs without an entry.
    """
    lines = ["MEME version 4", "", "ALPHABET= ACGT", "", "strands: + -", "", "Background letter frequencies"]
    lines += ["A 0.25 C 0.25 G 0.25 T 0.25", ""]
    for name, frequencies_AL in motifs.items():
        sites = (seqlets or {}).get(name, 20)
        width = frequencies_AL.shape[1]
        lines += [f"MOTIF {name}", f"letter-probability matrix: alength= 4 w= {width} nsites= {sites} E= 0"]
        lines += [" ".join(f"{value:.6f}" for value in column) for column in frequencies_AL.T]
        lines.append("")
    return "\n".join(lines) + "\n"


def _normalised(counts_AL: np.ndarray) -> np.ndarray:
    return counts_AL / counts_AL.sum(axis=0, keepdims=True)
