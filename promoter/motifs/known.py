"""Read known motifs from JASPAR or a MEME file, and find by Tomtom which of them other motifs resemble."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from memelite import tomtom
from memelite.io import read_meme
from pyjaspar import jaspardb
from scipy.stats import false_discovery_control

from promoter import storage
from promoter.errors import InputError
from promoter.sequence import BASES
from promoter.storage import AnyPath

TAXA = ("vertebrates", "plants", "insects", "nematodes", "fungi", "urochordates", "all", "none")
_RELEASE = "JASPAR2026"
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
        path: path or URL of the file.

    Raises:
        InputError: the file is missing, or holds no motif of DNA.
    """
    source = storage.require_file(path, "MEME file")
    try:
        with storage.open_text(source) as text:
            content = text.read()
        with tempfile.TemporaryDirectory() as folder:  # memelite opens local files only
            local = Path(folder) / "motifs.meme"
            local.write_text(content)
            matrices = read_meme(str(local))
    except (ValueError, IndexError) as error:
        raise InputError(f"{source}: is not a MEME file of DNA ({error}); write it as MEME 4 or 5 text") from error
    if not matrices:
        raise InputError(
            f"{source}: holds no MOTIF with a letter-probability matrix; write it as MEME 4 or 5 text"
        )
    names = [(*key.split(maxsplit=1), "")[:2] for key in matrices]
    return [
        KnownMotif(matrix_id, name or matrix_id, _normalised(matrix))
        for (matrix_id, name), matrix in zip(names, matrices.values(), strict=True)
    ]


def match_motifs(motifs: Mapping[str, np.ndarray], known: list[KnownMotif]) -> pd.DataFrame:
    """Find the known motif that resembles each motif most, by Tomtom, on either strand.

    Tomtom's chance scores come from the columns of its targets. Where these are few, the rest of JASPAR adds its
    columns, and takes no part otherwise.

    Args:
        motifs: name -> frequencies of the bases, (4, width).
        known: known motifs to compare with.

    Returns:
        A row per motif, in the order of `motifs`: `match_id`, `match_name`, `p`, `q` (Benjamini-Hochberg over the
        known motifs); empty strings and NaN where there are none to compare with.
    """
    columns = pd.Index(["match_id", "match_name", "p", "q"])
    if not motifs or not known:
        return pd.DataFrame(
            [("", "", np.nan, np.nan)] * len(motifs), index=pd.Index(list(motifs)), columns=columns
        )
    p_QT = tomtom_p(list(motifs.values()), [motif.frequencies_AL for motif in known])
    q_QT = np.apply_along_axis(false_discovery_control, 1, p_QT)
    best = p_QT.argmin(axis=1)
    rows = [
        (known[column].matrix_id, known[column].name, float(p_QT[row, column]), float(q_QT[row, column]))
        for row, column in enumerate(best)
    ]
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
