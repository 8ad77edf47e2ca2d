"""Align candidates within a band, and keep the alignments that chance does not explain.

A match scores 1, a mismatch -1, a gap of k bases -(4 + k), N and masked bases 0: scores for 75% identity.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from promoter.splits.compiled import compiled, in_threads, threads

BAND = 16  # bases by which the gaps of an alignment may shift it either way
_GAP_OPEN, _GAP = 4, 1
_X_DROP = 20  # an alignment ends this far below its best score: gaps of 16 bases are crossed
_MAX_EXPECTED = 0.01  # alignments as good among unrelated sequences of the size and composition of the data
_K = 0.33  # of Karlin and Altschul (1990), for match 1, mismatch -1 and equal bases
_MIN_SCORE = 24  # however small the data: so many bases in a row are a common element, not chance
# An alignment's score, matches and compared columns in one number, whose maximum is that of the score
_SCORE, _MATCH = 1 << 40, 1 << 20
_NEVER = -(1 << 60)


def min_score(tokens: np.ndarray) -> int:
    """Return the smallest score of a significant alignment, which sequences of equal bases reach.

    Args:
        tokens: the windows: uint8, shape (N, length).
    """
    return max(_MIN_SCORE, math.ceil(_needed_bits(tokens) / math.log2(3)))


def _needed_bits(tokens: np.ndarray) -> float:
    """Return the information that all pairs of positions, on either strand, reach 0.01 times by chance."""
    bases = max(int((tokens < 4).sum()), 1)
    return 2 * math.log2(bases) + math.log2(_K / _MAX_EXPECTED)


def align(tokens: np.ndarray, found: dict[str, np.ndarray]) -> pd.DataFrame:
    """Align candidates, and keep what is significant for the composition of the two sequences.

    Unrelated bases agree with the probability p that two bases of an aligned region do, at least 1/4. A match
    then tells log2((1 - p) / p) bits (Karlin and Altschul 1990). So no region of two letters is significant.

    Args:
        tokens: the windows: uint8, shape (N, length).
        found: candidates, as `promoter.splits.seeds.candidates` returns them.

    Returns:
        One row per alignment: rows `i` < `j`; `i_start`, `i_end`, `j_start`, `j_end`: the aligned regions;
        `opposite`: whether they are alike on opposite strands; `score`; `identity`: matches divided by columns
        in which both sequences have a base that counts, or one has a gap.
    """
    names = ("i", "x", "j", "y", "opposite")
    parts = np.array_split(np.stack([found[name] for name in names], axis=1), 8 * threads())
    rows = np.concatenate(in_threads(_align, [(tokens, np.ascontiguousarray(part)) for part in parts]))
    columns = ["i_start", "i_end", "j_start", "j_end", "score", "matches", "columns"]
    table = pd.DataFrame(rows[:, :7].astype(np.int64), columns=pd.Index(columns))
    table.insert(0, "i", found["i"])
    table.insert(1, "j", found["j"])
    table["opposite"] = found["opposite"].astype(bool)
    table["identity"] = table["matches"] / table["columns"]
    chance = np.maximum(rows[:, 7], 0.25)
    bits = table["score"] * np.log2((1 - chance) / chance)
    keep = (bits >= _needed_bits(tokens)) & (table["score"] >= _MIN_SCORE)
    return table[keep].drop(columns=["matches", "columns"]).reset_index(drop=True)


@compiled
def _align(tokens, candidates):  # numba finds the types
    """Return ends, score, matches, columns and the chance of a match of each candidate's alignment."""
    length = tokens.shape[1]
    found = np.zeros((len(candidates), 8))
    work = np.empty((3, 2 * BAND + 3), np.int64)
    for row in range(len(candidates)):
        i, x, j, y, opposite = candidates[row]
        step = -1 if opposite else 1
        right, a_right, b_right = extend(tokens[i, x:], tokens[j, y::step], opposite, work)
        left, a_left, b_left = _SCORE * 0, 0, 0
        beside = y - step
        if x > 0 and 0 <= beside < length:
            left, a_left, b_left = extend(tokens[i, :x][::-1], tokens[j, beside::-step], opposite, work)
        total = left + right
        found[row, 0], found[row, 1] = x - a_left, x + a_right
        found[row, 2] = y - (b_right - 1 if opposite else b_left)
        found[row, 3] = y + (b_left + 1 if opposite else b_right)
        found[row, 4] = total >> 40
        found[row, 5] = total >> 20 & 0xFFFFF
        found[row, 6] = total & 0xFFFFF
        first = _agreement(tokens[i, x - a_left : x + a_right])
        second = _agreement(tokens[j, int(found[row, 2]) : int(found[row, 3])])
        found[row, 7] = (first + second) / 2
    return found


@compiled
def _agreement(tokens):
    """Return the probability that two different bases of a region are equal."""
    counts = np.zeros(5, np.int64)
    for token in tokens:
        counts[token] += 1
    n = counts[:4].sum()
    return (counts[:4] * (counts[:4] - 1)).sum() / max(n * (n - 1), 1)


@compiled
def extend(first: np.ndarray, second: np.ndarray, opposite: int, work: np.ndarray) -> tuple[int, int, int]:
    """Find the best alignment of a prefix of one sequence and a prefix of another.

    Args:
        first: tokens of the first sequence.
        second: tokens of the second sequence; complemented where `opposite`.
        opposite: 1 where the second sequence is complemented, else 0.
        work: int64, shape (3, 2 * BAND + 3), overwritten.

    Returns:
        Score, matches and compared columns in one number; the lengths of the prefixes.
    """
    n, m = len(first), len(second)
    equal, other, gap = _SCORE + _MATCH + 1, -_SCORE + 1, -_GAP * _SCORE + 1
    opened = gap - _GAP_OPEN * _SCORE
    total, down = work[0], work[1]  # best of all, and best that ends in a gap in the second sequence; by diagonal
    total[:] = down[:] = _NEVER
    total[BAND + 1] = 0
    for at in range(1, BAND + 1):
        total[BAND + 1 + at] = opened + (at - 1) * gap if at <= m else _NEVER
    best, best_first, best_second = 0, 0, 0
    for row in range(1, n + 1):
        base = first[row - 1]
        right = _NEVER
        top = _NEVER
        for diagonal in range(1, 2 * BAND + 2):
            column = row + diagonal - BAND - 1
            if column < 0 or column > m:
                total[diagonal] = down[diagonal] = _NEVER
                continue
            down[diagonal] = max(total[diagonal + 1] + opened, down[diagonal + 1] + gap)
            right = max(total[diagonal - 1] + opened, right + gap) if column > 0 else _NEVER
            value = max(down[diagonal], right)
            if column > 0:
                token = second[column - 1]
                if base < 4 and token < 4:
                    step = equal if base == (3 - token if opposite else token) else other
                else:
                    step = 0
                value = max(value, total[diagonal] + step)
            total[diagonal] = value
            top = max(top, value)
            if value > best:
                best, best_first, best_second = value, row, column
        if top < best - _X_DROP * _SCORE:
            break
    return best, best_first, best_second
