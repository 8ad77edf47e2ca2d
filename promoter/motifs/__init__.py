"""Discover motifs in contributions, name them by known motifs, and measure known words and sites."""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.motifs.discovery import (
        INSTANCE_COLUMNS,
        Contributions,
        Discovery,
        FoundMotif,
        discover_motifs,
        place_on_genome,
        read_contributions,
        write_h5,
    )

__getattr__ = lazy_names(__name__, __file__)
