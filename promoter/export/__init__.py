"""Write scores as other tools read them: tf-modisco-lite, genome browsers, bedtools, chrombpnet's tools.

Each format is a module: `modisco`, `tracks` (bigWig, bedGraph), `regions` (BED), `chrombpnet` (HDF5). `formats`
lists them.
"""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.export.formats import FORMATS, require_formats
    from promoter.export.modisco import modisco_command
    from promoter.export.scores import Exported, export_scores
    from promoter.export.writer import Batch, ExportSource, FormatWriter

__getattr__ = lazy_names(__name__, __file__)
