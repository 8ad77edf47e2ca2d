"""Mask tandem repeats and low complexity, which are alike in windows that have no common origin."""

from __future__ import annotations

import numpy as np

from promoter.sequence import N_TOKEN
from promoter.splits.compiled import bit_planes, compiled, in_threads, threads

MAX_PERIOD = 50  # bases: microsatellites and most minisatellites
_MIN_REPEATED = 12  # matches with the bases one period before: poly-A of 13; of longer periods, a second copy
_MISMATCH = -2  # so up to a third of the bases may differ from those one period before


def mask_repeats(tokens: np.ndarray) -> np.ndarray:
    """Put N where a sequence repeats itself with a period of 1 to 50 bases, eight of them in a row unchanged.

    Poly-A, dinucleotides, microsatellites and minisatellites are masked. Sequence poor in letters, but without
    a period, such as ATATTTAATAAT, is left: `promoter.splits.alignment` asks more matches of it.

    Args:
        tokens: the sequences: uint8, shape (N, length).

    Returns:
        A copy with N in the repeats.
    """
    tokens = np.ascontiguousarray(tokens)
    masked = tokens.copy()
    parts = [part for part in np.array_split(np.arange(len(tokens)), 4 * threads()) if len(part)]
    rows = [slice(part[0], part[-1] + 1) for part in parts]
    in_threads(_mask, [(tokens[some], bit_planes(tokens[some]), masked[some]) for some in rows])
    return masked


@compiled
def _mask(tokens, planes, masked):  # numba finds the types
    n, length = tokens.shape
    for row in range(n):
        for period in range(1, min(MAX_PERIOD, length - 1) + 1):
            if _has_run(planes, row, length // 64 + 2, period):
                _mask_period(tokens[row], masked[row], period)


@compiled
def _has_run(planes, row, numbers, period):
    """Return whether eight bases in a row equal those one period later, 64 compared at once."""
    ahead, back = np.uint64(period), np.uint64(64 - period)
    half = np.uint64(32)
    before = np.uint64(0)
    for number in range(1 + row * numbers, (row + 1) * numbers):
        low = planes[0, number] ^ (planes[0, number] >> ahead | planes[0, number + 1] << back)
        high = planes[1, number] ^ (planes[1, number] >> ahead | planes[1, number + 1] << back)
        both = planes[2, number] & (planes[2, number] >> ahead | planes[2, number + 1] << back)
        equal = both & ~(low | high)
        for bits in (equal, before >> half | equal << half):  # the second crosses from one number to the next
            two = bits & bits >> np.uint64(1)
            four = two & two >> np.uint64(2)
            if four & four >> np.uint64(4):
                return True
        before = equal
    return False


@compiled
def _mask_period(tokens, masked, period):
    """Mask each region that scores enough: a match with the base one period before adds 1, a mismatch takes 2."""
    length = len(tokens)
    score = best = first = last = 0
    for at in range(period, length + 1):
        if at == length or tokens[at] >= N_TOKEN:
            score = 0
        else:
            if score == 0:
                first = at
            score += 1 if tokens[at] == tokens[at - period] else _MISMATCH
            if score > best:
                best, last = score, at
        if score <= 0:
            if best >= max(_MIN_REPEATED, period):
                masked[first - period : last + 1] = N_TOKEN
            score = best = 0
