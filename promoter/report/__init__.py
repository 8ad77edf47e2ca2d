"""Report a run as one HTML page, from the files of the jobs."""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.report.build import Report, build_report

__getattr__ = lazy_names(__name__, __file__)
