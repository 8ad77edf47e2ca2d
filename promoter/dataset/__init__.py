"""Make and read data sets: promoters with targets, from a genome, its genes and their expression."""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.dataset.library import read_library
    from promoter.dataset.promoters import read_promoters

__getattr__ = lazy_names(__name__, __file__)
