"""From scores (differences of predictions) to contributions, as logos and motif discovery want them."""

from __future__ import annotations

import numpy as np

from promoter.sequence import BASES


def hypothetical_contributions(scores: np.ndarray) -> np.ndarray:
    """Return scores minus their mean over the four bases.

    Args:
        scores: differences of predictions, shape (..., 4, length).

    Returns:
        Hypothetical contributions of every base at every position, same shape and units.
    """
    return scores - scores.mean(axis=-2, keepdims=True)


def actual_contributions(scores: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the hypothetical contribution of the base that is there, and 0 for the others.

    Args:
        scores: differences of predictions, shape (N, targets, 4, length).
        tokens: uint8, shape (N, length); an N has no contribution.

    Returns:
        Actual contributions (hypothetical times one-hot), shape (N, targets, 4, length).
    """
    present = tokens[:, None, None, :] == np.arange(len(BASES), dtype=np.uint8)[:, None]
    return np.where(present, hypothetical_contributions(scores), np.float32(0))
