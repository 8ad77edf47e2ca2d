"""In-silico mutagenesis: what each single-base change would do to the prediction.

`scores[gene, target, base, position] = f(sequence with base at position) - f(sequence)`: float32,
shape (N, targets, 4, length), in target units, 0 at the reference base. These are differences of
predictions, not contributions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from promoter.ism.contributions import actual_contributions, hypothetical_contributions
from promoter.ism.mutagenesis import saturation_mutagenesis

if TYPE_CHECKING:
    from promoter.ism.store import Scores, iterate_scores, load_scores

__all__ = [
    "Scores",
    "actual_contributions",
    "hypothetical_contributions",
    "iterate_scores",
    "load_scores",
    "saturation_mutagenesis",
]


def __getattr__(name: str) -> Any:
    """Import the store when it is asked for: scoring needs PyTorch alone, the store what reads files."""
    if name in ("Scores", "iterate_scores", "load_scores"):
        return getattr(importlib.import_module("promoter.ism.store"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
