"""The other strand of a window, as training shows it to a network, for averages of predictions and scores.

Training crops a window first and reverse-complements what is left (`promoter.training.batches.augment`), so the
other strand is that of the bases that the network sees, and not of the complete window.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from promoter.models.cnn import PromoterCNN
from promoter.sequence import reverse_complement


def reads_both_strands(model: nn.Module) -> bool:
    """Tell whether a network reads both strands itself, by bins: turned round, these are in reverse."""
    return isinstance(model, PromoterCNN) and model.config.both_strands


def bases_outside(model: nn.Module, length: int) -> int:
    """Return the number of bases at the start of a window of `length` bases that a network crops."""
    return model.config.outside(length) if isinstance(model, PromoterCNN) else 0


def other_strand(model: nn.Module, tokens_NL: np.ndarray) -> np.ndarray:
    """Return the reverse complement of the bases that a network sees: uint8, (N, length - bases outside)."""
    seen_NL = tokens_NL[:, bases_outside(model, tokens_NL.shape[1]) :]
    reverse_NL = reverse_complement(seen_NL)
    assert isinstance(reverse_NL, np.ndarray)  # noqa: S101 # for the type checker: an array comes back as one
    return np.ascontiguousarray(reverse_NL)
