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


def require_formats(formats: Sequence[str], genome: AnyPath | None) -> None:
    """Raise InputError that names unknown formats, or formats that need the genome if it is None."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"choose among {', '.join(FORMATS)}", setting="formats", value=unknown)
    needing = [name for name in formats if FORMATS[name].needs_sizes]
    if needing and genome is None:
        others = [name for name, writer in FORMATS.items() if not writer.needs_sizes]
        raise InputError(
            "needs the chromosomes' lengths",
            setting="formats",
            value=needing,
            fix=f"give `genome`, a FASTA, .fai or chrom.sizes, or choose `formats={others}`",
        )
