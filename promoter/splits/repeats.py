"""Tell repeats, which many windows share by a part, from families, which share most of a window."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

SHARE = 0.01  # of the windows: a region that more of them share is a repeat
MIN_WINDOWS = 20  # however few the windows: so many share a repeat at least
_PART = 0.5  # of a window: a region that is longer is no repeat; a library of variants of one element shares all
_NEIGHBORS = 8  # regions of a window, by their middles, after each that it is compared with


def are_repeats(alignments: pd.DataFrame, bases: np.ndarray) -> np.ndarray:
    """Return which alignments are of a repeat: a part of a window that more than 1% of all windows share.

    Regions that an alignment connects, and those of one window that have half of the longer in common, are one
    element. So an element is counted in all windows, although each is aligned with some of the others only.

    Args:
        alignments: table as `promoter.splits.alignment.align` returns it.
        bases: number of bases of each window that are not N: int, shape (windows,).

    Returns:
        bool, shape (alignments,).
    """
    n = len(alignments)
    window = alignments[["i", "j"]].to_numpy().T.ravel()
    start, end = (alignments[[f"i_{side}", f"j_{side}"]].to_numpy().T.ravel() for side in ("start", "end"))
    order = np.lexsort((start + end, window))
    links = [(np.arange(n), n + np.arange(n))]
    for lag in range(1, _NEIGHBORS + 1):
        first, second = order[:-lag], order[lag:]
        common = np.minimum(end[first], end[second]) - np.maximum(start[first], start[second])
        longer = np.maximum(end[first] - start[first], end[second] - start[second])
        near = (window[first] == window[second]) & (2 * common >= longer)
        links.append((first[near], second[near]))
    rows, columns = (np.concatenate(side) for side in zip(*links, strict=True))
    graph = sparse.coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(2 * n, 2 * n))
    element = connected_components(graph, directed=False)[1]
    windows_of_element = pd.Series(window).groupby(element).nunique().to_numpy()
    many = windows_of_element[element[:n]] > max(SHARE * len(bases), MIN_WINDOWS)
    part = (end - start) < _PART * bases[window]
    repeat = many & part[:n] & part[n:]
    # tiles of one locus share less and less of their windows, and are one family all the same
    i, j = alignments["i"].to_numpy(), alignments["j"].to_numpy()
    alike = (np.ones(np.count_nonzero(~repeat), bool), (i[~repeat], j[~repeat]))
    family = connected_components(sparse.coo_array(alike, shape=(len(bases), len(bases))), directed=False)[1]
    return repeat & (family[i] != family[j])
