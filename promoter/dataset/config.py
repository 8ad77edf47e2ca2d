"""How expression values become targets: names of the layouts and transforms, and what to do about missing values.

Imports no pandas, so that the command line does without it.
"""

from __future__ import annotations

from typing import Literal

Layout = Literal[
    "plain",
    "featurecounts",
    "salmon",
    "kallisto",
    "rsem",
    "stringtie",
    "htseq",
    "star",
    "deseq2",
    "edger",
    "limma",
    "gct",
]
Transform = Literal["none", "log1p", "log2p1", "cpm_log2p1"]
Missing = Literal["keep", "drop", "error"]
Align = Literal["right", "left", "center"]
TranscriptChoice = Literal["5prime_most", "longest", "canonical"]
