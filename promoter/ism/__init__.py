"""In-silico mutagenesis: what each single-base change would do to the prediction.

`scores[gene, target, base, position] = f(sequence with base at position) - f(sequence)`: float32,
shape (N, targets, 4, length), in target units, 0 at the reference base. These are differences of
predictions, not contributions.
"""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.ism.contributions import actual_contributions, hypothetical_contributions
    from promoter.ism.mutagenesis import saturation_mutagenesis
    from promoter.ism.store import Scores, iterate_scores, load_scores

__getattr__ = lazy_names(__name__, __file__)
