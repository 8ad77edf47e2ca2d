"""The substitutions that move a prediction most, compared between targets in standard deviations of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from promoter.dataset.gene_names import gene_label
from promoter.ism.store import Scores
from promoter.sequence import BASES


class Substitution(NamedTuple):
    """A base changed to another.

    Attributes:
        effect: f(changed sequence) - f(sequence), target units.
        target: name of the target whose prediction it moves.
        gene: id of the gene, and its name, as `gene_label` shows them.
        offset: position of the base in the scored sequence, 5'→3' along the gene, from 0.
        reference: the base that is there.
        alternative: the one that takes its place.
        in_sds: the effect in standard deviations of the target; in target units where they are not known.
    """

    effect: float
    target: str
    gene: str
    offset: int
    reference: str
    alternative: str
    in_sds: float


def strongest_substitutions(scores: Scores, count: int, sds: Sequence[float] | None = None) -> list[Substitution]:
    """Return the strongest substitution of each gene, over all targets; only the `count` largest of them.

    Args:
        scores: scores of some genes.
        count: maximum number of substitutions.
        sds: standard deviation of each target, in which effects on it are compared with those on others; None
            (default) compares them in target units.
    """
    scale_T = np.ones(len(scores.targets), np.float32) if sds is None else np.asarray(sds, np.float32)
    # a gene at a time: of many targets, the sizes of all scores would take as much memory as these
    size_NT = np.stack([np.abs(scores_TAL).max(axis=(1, 2)) for scores_TAL in scores.scores]) / scale_T
    strongest_N = size_NT.argmax(axis=1)
    rows = np.argsort(-size_NT.max(axis=1), kind="stable")[:count]
    found = []
    for row in rows.tolist():
        target = int(strongest_N[row])
        size_AL = np.abs(scores.scores[row, target])
        base, offset = (int(index) for index in np.unravel_index(size_AL.argmax(), size_AL.shape))
        gene = scores.genes.iloc[row]
        effect = float(scores.scores[row, target, base, offset])
        name, reference = scores.targets[target], gene["sequence"][offset]
        label = gene_label(gene["gene_id"], gene.get("gene_name"))
        in_sds = effect / float(scale_T[target])
        found.append(Substitution(effect, name, label, offset, reference, BASES[base], in_sds))
    return found
