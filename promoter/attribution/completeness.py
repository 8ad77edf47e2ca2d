"""What attributions leave unexplained: they should add up to f(sequence) - f(reference)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from upath import UPath

from promoter.attribution.methods import MethodName
from promoter.errors import doubt, listed
from promoter.ism.scores_format import SUMS
from promoter.storage.formats import open_table

MAX_UNEXPLAINED = 0.05  # of the difference; integrated gradients with 20 steps leave 1 to 2% of a CNN's
_FIX = {
    "deeplift": "the network has operations that DeepLIFT has no rule for; take `method='integrated_gradients'`",
    "integrated_gradients": "take more `steps`",
}


def unexplained_share(sums: np.ndarray) -> np.ndarray:
    """Return the share of the differences that the attributions of each target leave unexplained.

    Args:
        sums: sums of the attributions, and the differences that they should be, shape (N, 2, targets).

    Returns:
        Mean absolute error over mean absolute difference, shape (targets,); 0 where both are 0.
    """
    explained, difference = sums.astype(np.float64).swapaxes(0, 1)
    error, size = (np.abs(values).sum(axis=0) for values in (explained - difference, difference))
    return error / np.maximum(size, np.finfo(np.float32).tiny)


def read_sums(parts: Sequence[UPath], targets: Sequence[str]) -> np.ndarray:
    """Read what the attributions in part files add up to, and should: shape (N, 2, targets)."""
    columns = [f"{target}_{kind}" for kind in SUMS for target in targets]
    rows = []
    for path in parts:
        with open_table(path, "part") as file:
            table = file.read(columns=columns)
        rows.append(np.stack([table[name].to_numpy() for name in columns], axis=1).reshape(-1, 2, len(targets)))
    return np.concatenate(rows)


def doubt_incomplete(method: MethodName, shares: np.ndarray, targets: Sequence[str]) -> None:
    """Tell the user of the targets whose attributions leave too much unexplained.

    Args:
        method: name of the method.
        shares: share of each target, from `unexplained_share`.
        targets: names of the targets.
    """
    bad = np.flatnonzero(~(shares <= MAX_UNEXPLAINED))
    if not len(bad):
        return
    worst = bad[np.argsort(-shares[bad], kind="stable")]
    names = listed([f"{targets[target]} {shares[target]:.0%}" for target in worst])
    doubt(
        f"`method={method!r}`: attributions do not add up to differences of predictions; unexplained: {names}; "
        f"{_FIX[method]}"
    )
