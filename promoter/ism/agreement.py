"""How far two folders of scores agree: ISM and attributions from gradients, say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from promoter.errors import InputError
from promoter.ism.contents import Contents
from promoter.ism.contributions import actual_contributions
from promoter.ism.store import Scores, load_contents, load_scores
from promoter.metrics import pearson
from promoter.sequence import N_TOKEN, encode
from promoter.storage import AnyPath, resolve

_MAX_GENES = 1_000  # their quantiles are those of all to a hundredth
_MAX_BYTES = 1 << 28  # of scores in memory


def agreement(first: AnyPath, second: AnyPath, target: str) -> pd.DataFrame:
    """Compare the actual contributions of the genes that two folders share: one number a base that is there.

    Args:
        first: folder that ism or attribute wrote.
        second: another one, of the same model, data and positions.
        target: name of the target.

    Returns:
        Columns `gene_id` and `pearson`, r over the bases of the gene that are no N, NaN where the contributions of
        a folder are all equal; in the order of `first`. Of more than 1,000 genes, or of very long ones, some are
        taken at equal distances.

    Raises:
        InputError: a folder lacks the target, they share no gene, or a gene has other sequences in them.
    """
    contents = [load_contents(folder) for folder in (first, second)]
    for folder, of_folder in zip((first, second), contents, strict=True):
        if target not in of_folder.targets:
            raise InputError(
                f"{resolve(folder)}: has no scores of {target}; there are {', '.join(of_folder.targets)}"
            )
    if contents[0].both_strands != contents[1].both_strands:
        both, one = (second, first) if contents[1].both_strands else (first, second)
        raise InputError(
            f"{resolve(both)}: has means over both strands, {resolve(one)} not; give both the same `both_strands`"
        )
    shared = _shared(contents[0], contents[1])
    if not shared:
        raise InputError(f"{resolve(second)}: shares no gene with {resolve(first)}; score the same ones in both")
    most = max(1, min(_MAX_GENES, _MAX_BYTES // (16 * contents[0].length)))
    ids = [
        shared[place] for place in np.unique(np.linspace(0, len(shared) - 1, min(most, len(shared))).astype(int))
    ]
    of_first, of_second = (load_scores(folder, ids, [target]) for folder in (first, second))
    if of_first.genes["sequence"].tolist() != of_second.genes["sequence"].tolist():
        raise InputError(
            f"{resolve(second)}: has other sequences than {resolve(first)}; score the same `positions` in both"
        )
    known_NL = encode(of_first.genes["sequence"].tolist()) != N_TOKEN
    pairs = zip(_contributions(of_first), _contributions(of_second), known_NL, strict=True)
    values = [float(pearson(one[known, None], other[known, None])[0]) for one, other, known in pairs]
    return pd.DataFrame({"gene_id": ids, "pearson": values})


def _shared(first: Contents, second: Contents) -> list[str]:
    genes = first.genes["gene_id"]
    return genes[genes.isin(second.genes["gene_id"])].tolist()


def _contributions(scores: Scores) -> np.ndarray:
    """Return the contribution of the base that is there: (genes, positions)."""
    return actual_contributions(scores.scores, encode(scores.genes["sequence"].tolist()))[:, 0].sum(axis=1)
