"""List the export formats.

To add one, write a `FormatWriter` in a module of its own and add a line to `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from promoter.errors import InputError
from promoter.export.chrombpnet import H5Writer
from promoter.export.modisco import ModiscoWriter
from promoter.export.regions import BedWriter
from promoter.export.tracks import BedGraphWriter, BigWigWriter
from promoter.export.writer import FormatWriter
from promoter.storage import AnyPath

FORMATS: dict[str, type[FormatWriter]] = {
    "modisco": ModiscoWriter,
    "bigwig": BigWigWriter,
    "bedgraph": BedGraphWriter,
    "bed": BedWriter,
    "h5": H5Writer,
}


def require_formats(formats: Sequence[str], genome: AnyPath | None, *, located: bool = True) -> None:
    """Check that formats exist, and that the scores have what they need.

    Args:
        formats: names of formats.
        genome: genome with the lengths of the chromosomes; None if none was given.
        located: whether the scores are of windows on a genome (default), and not of a library of sequences.

    Raises:
        InputError: a format is unknown, needs the genome, or needs coordinates that the scores lack; or there is a
            genome without coordinates.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"choose among {', '.join(FORMATS)}", setting="formats", value=unknown)
    if not located:
        needing = [name for name in formats if FORMATS[name].needs_coordinates]
        if needing:
            problem = "needs coordinates, but the scores are of sequences without coordinates"
            others = [name for name, writer in FORMATS.items() if not writer.needs_coordinates]
            raise InputError(problem, setting="formats", value=needing, fix=f"choose `formats={others}`")
        if genome is not None:
            problem = "the scores are of sequences without coordinates"
            raise InputError(problem, setting="genome", value=str(genome), fix="leave it out")
        return
    needing = [name for name in formats if FORMATS[name].needs_sizes]
    if needing and genome is None:
        others = [name for name, writer in FORMATS.items() if not writer.needs_sizes]
        raise InputError(
            "needs the chromosomes' lengths",
            setting="formats",
            value=needing,
            fix=f"give `genome`, a FASTA, .fai or chrom.sizes, or choose `formats={others}`",
        )
