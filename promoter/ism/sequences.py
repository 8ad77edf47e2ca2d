"""What scoring takes whatever the method: arguments checked, strands averaged, batches that memory holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from promoter.models.strands import bases_outside, other_strand, reads_both_strands
from promoter.sequence import encode

_log = logging.getLogger(__name__)
_BATCH_AFTER_OOM = 4096  # assumed size of a batch that did not fit into memory, where none was given
_Result = TypeVar("_Result")


def checked_tokens(
    tokens: np.ndarray | Tensor | Sequence[str], positions: tuple[int, int] | None, targets: Sequence[int] | None
) -> np.ndarray:
    """Return sequences as tokens, uint8 (N, length), after checking what is to be scored of them.

    Raises:
        ValueError: tokens of another shape, sequences of several lengths, positions outside them, no target, or
            one twice.
    """
    tokens_NL = _as_tokens(tokens)
    n, length = tokens_NL.shape
    if n == 0 or length == 0:
        raise ValueError(f"no sequence given: tokens has shape {tokens_NL.shape}")
    if positions is not None and not 0 <= positions[0] < positions[1] <= length:
        raise ValueError(f"positions {positions} must be (start, end) with 0 <= start < end <= {length}")
    if targets is not None and (not len(targets) or len(set(targets)) < len(targets) or min(targets) < 0):
        raise ValueError(f"targets {list(targets)} must be numbers of outputs, from 0, each once")
    return tokens_NL


def average_strands(
    score: Callable[[np.ndarray, tuple[int, int] | None], np.ndarray],
    model: nn.Module,
    tokens_NL: np.ndarray,
    positions: tuple[int, int] | None,
    *,
    both_strands: bool,
) -> np.ndarray:
    """Score a strand, or both, and return scores of the bases of the first: (N, targets, 4, end - start).

    Args:
        score: function of tokens and positions that scores one strand, (N, targets, 4, end - start).
        model: network that is scored.
        tokens_NL: uint8, shape (N, length).
        positions: (start, end) of the bases to score; None for all.
        both_strands: whether the mean over both strands is wanted; a network that reads both is scored once.
    """
    scores_NTAL = score(tokens_NL, positions)
    length = tokens_NL.shape[1]
    start, end = positions or (0, length)
    seen = max(start, bases_outside(model, length))  # what the model does not see changes nothing
    if not both_strands or reads_both_strands(model) or seen >= end:
        return scores_NTAL
    other_NTAL = score(other_strand(model, tokens_NL), (length - end, length - seen))
    scores_NTAL[..., seen - start :] += other_NTAL[..., ::-1, ::-1]
    scores_NTAL /= 2
    return scores_NTAL


def within_memory(
    score: Callable[[np.ndarray, int | None], _Result],
    tokens_NL: np.ndarray,
    at_a_time: int | None,
    batch_size: int | None,
) -> Iterator[tuple[slice, _Result]]:
    """Score a few sequences at a time; fewer, then with smaller batches, each time that memory runs out.

    Args:
        score: function of tokens and the size of a batch.
        tokens_NL: uint8, shape (N, length).
        at_a_time: number of sequences that it is given; None gives it all, and only the batches get smaller.
        batch_size: size of a batch; None leaves it to the function.

    Yields:
        The rows of the sequences, and what the function returned for them.
    """
    start = 0
    while start < len(tokens_NL):
        rows = slice(start, start + (at_a_time or len(tokens_NL)))
        try:
            some = score(tokens_NL[rows], batch_size)
        except torch.cuda.OutOfMemoryError:  # memory of a CPU is not refused: the system kills
            if at_a_time is not None and at_a_time > 1:
                at_a_time //= 2
            elif batch_size != 1:
                batch_size = (batch_size or _BATCH_AFTER_OOM) // 2
            else:
                raise
            torch.cuda.empty_cache()
            _log.warning("out of memory: %s sequences at a time, batch size %s", at_a_time or "all", batch_size)
            continue
        yield rows, some
        start = rows.stop


def _as_tokens(tokens: np.ndarray | Tensor | Sequence[str]) -> np.ndarray:
    if isinstance(tokens, Tensor):
        tokens = tokens.cpu().numpy()
    if isinstance(tokens, str):
        raise ValueError(f"tokens is one string of {len(tokens)} letters; give a list of strings")
    if not isinstance(tokens, np.ndarray):
        tokens = encode(list(tokens))
    if tokens.ndim != 2 or tokens.dtype != np.uint8:
        raise ValueError(f"tokens must be uint8 of shape (N, length), not {tokens.dtype} of shape {tokens.shape}")
    return np.ascontiguousarray(tokens)
