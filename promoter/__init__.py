"""Predict gene expression from promoter sequence and explain it base by base.

This package is a library that never imports Ray; the Ray entry points are in `jobs`.
"""

__version__ = "0.1.0"
