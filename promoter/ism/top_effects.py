"""The substitutions that move a prediction most."""

from __future__ import annotations

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
    """

    effect: float
    target: str
    gene: str
    offset: int
    reference: str
    alternative: str


def strongest_substitutions(scores: Scores, count: int) -> list[Substitution]:
    """Return the strongest substitution of each gene, over all targets; only the `count` largest of them."""
    size_NX = np.abs(scores.scores.reshape(len(scores.scores), -1))
    best = size_NX.argmax(axis=1)
    rows = np.argsort(-size_NX[np.arange(len(best)), best], kind="stable")[:count]
    found = []
    for row in rows.tolist():
        target, base, offset = np.unravel_index(best[row], scores.scores.shape[1:])
        gene = scores.genes.iloc[row]
        effect = float(scores.scores[row, target, base, offset])
        name, reference = scores.targets[target], gene["sequence"][offset]
        label = gene_label(gene["gene_id"], gene.get("gene_name"))
        found.append(Substitution(effect, name, label, int(offset), reference, BASES[base]))
    return found
