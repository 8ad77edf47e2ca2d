"""Attributions from gradients, in the axes and units of in-silico mutagenesis, for a few passes a sequence.

`scores[sequence, target, base, position]` estimates f(sequence with base at position) - f(sequence), from the
gradients of f at the sequence (`gradient`), between it and a baseline (`integrated_gradients`), or from DeepLIFT's
multipliers between it and shuffled references (`deeplift`). 0 at the base that is there.
"""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.attribution.attributions import Attributions, attribute, explain
    from promoter.attribution.methods import Method

__getattr__ = lazy_names(__name__, __file__)
