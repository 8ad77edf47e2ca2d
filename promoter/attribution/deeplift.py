"""DeepLIFT/SHAP (Shrikumar et al. 2017, Lundberg & Lee 2017) by tangermeme, with shuffled references.

The references of a sequence are dinucleotide shuffles of what the network sees of it, which follow from the seed
and the sequence alone. DeepLIFT replaces the gradient of each non-linear module by the ratio of what changes after
it and before it, between sequence and reference. It can do so for modules, and knows nothing of functions that a
network calls between them (`F.relu`, a product, attention): these it takes for linear, which the sum of the
attributions then shows (`promoter.attribution.completeness`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from promoter.attribution.gradients import outputs_of, require_gradient
from promoter.models.strands import bases_outside

_RULED = (  # classes that tangermeme has a rule for
    *(nn.ReLU, nn.ReLU6, nn.RReLU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.GLU, nn.ELU, nn.LeakyReLU),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softshrink, nn.LogSigmoid, nn.PReLU),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.Softmax, nn.LayerNorm, nn.RMSNorm),
)
_LINEAR = (  # in evaluation mode; of these the gradient is right
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Identity),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten, nn.Unflatten),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
)

_NODES = 20  # of the quadrature in a module without a rule: of a maximum these leave some 5% of the difference


def shuffled_references(model: nn.Module, x_NCL: Tensor, *, shuffles: int, seed: int) -> Tensor:
    """Return dinucleotide shuffles of one-hot sequences: (N, shuffles, 4, length).

    The first and the last base stay where they are, as does each N, and what the network crops. A sequence that
    has no other order of its pairs of bases, such as one of a single base, is its own reference.
    """
    from tangermeme.ersatz import dinucleotide_shuffle  # noqa: PLC0415 # takes seconds to import

    outside = bases_outside(model, x_NCL.shape[-1])
    references_NSCL = x_NCL.cpu()[:, None].repeat(1, shuffles, 1, 1)
    seeds = np.random.SeedSequence(seed).generate_state(shuffles).tolist()  # for each sequence the same
    for references_SCL in references_NSCL:
        known = torch.nonzero(references_SCL[0, :, outside:].sum(dim=0))[:, 0] + outside
        if len(known) > 2:
            shuffled = dinucleotide_shuffle(references_SCL[:, :, known], n=1, random_state=seeds)
            references_SCL[:, :, known] = torch.as_tensor(shuffled, dtype=references_SCL.dtype)[:, 0]
    return references_NSCL


def deeplift_multipliers(
    model: nn.Module,
    x_NCL: Tensor,
    references_NSCL: Tensor,
    *,
    batch_size: int,
    targets: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    """Return the multipliers of each target, means over the references, and what they explain.

    Args:
        model: network in evaluation mode, one-hot (batch, 4, length) -> (batch, targets).
        x_NCL: one-hot sequences.
        references_NSCL: one-hot references of each.
        batch_size: number of pairs of sequence and reference in one pass.
        targets: numbers of the outputs; None for all.

    Returns:
        Multipliers, (N, targets, 4, length), and sums of attributions, means over the references, (N, targets).

    Raises:
        InputError: the predictions have no gradient with respect to the sequence.
    """
    from tangermeme.deep_lift_shap import deep_lift_shap  # noqa: PLC0415 # takes seconds to import

    probe_2CL = x_NCL[:1].repeat(2, 1, 1).requires_grad_()
    rules, outputs = _find_rules(model, probe_2CL)
    require_gradient(outputs)
    one_output = _OneOutput(model).eval()  # tangermeme leaves modules in the mode that it finds this in
    multipliers, explained = [], []
    difference_NSCL = x_NCL.cpu()[:, None] - references_NSCL
    with _out_of_place(model), warnings.catch_warnings():
        # of N in sequences, and of what is not explained, which is measured here
        warnings.filterwarnings("ignore", module=r"tangermeme\..*|torch\..*")
        for target in range(outputs.shape[1]) if targets is None else targets:
            some = deep_lift_shap(
                one_output,
                x_NCL,
                target=target,
                batch_size=batch_size,
                references=references_NSCL,
                raw_outputs=True,
                additional_nonlinear_ops=rules,
                only_warn=True,  # an N is no error
                dtype=x_NCL.dtype,
                device=x_NCL.device,
            )
            assert isinstance(some, Tensor)  # noqa: S101 # for the type checker: references were not asked for
            multipliers.append(some.mean(dim=1))
            explained.append((some * difference_NSCL).double().sum(dim=(2, 3)).mean(dim=1))
    return torch.stack(multipliers, dim=1), torch.stack(explained, dim=1)


class _OneOutput(nn.Module):
    """Return the outputs of a network as (batch, targets)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCL: Tensor) -> Tensor:
        return outputs_of(self.network, x_BCL, None)


def _find_rules(model: nn.Module, probe_BCL: Tensor) -> tuple[dict[type[nn.Module], Callable[..., Any]], Tensor]:
    """Return a rule for each class of module that tangermeme lacks one for, and the outputs of a pass.

    It is the module's own integrated gradients, which is right for whatever maps one tensor to one, row by row. A
    module with parts is left to its parts.
    """
    from tangermeme.deep_lift_shap import integrated_gradients_op  # noqa: PLC0415 # as above

    found: dict[type[nn.Module], bool] = {}

    def look(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        tensors = (*inputs, output)
        fits = len(tensors) == 2 and not named and all(isinstance(value, Tensor) for value in tensors)
        fits = fits and len(inputs[0]) == len(output) and len(output) % len(probe_BCL) == 0
        found[type(module)] = fits and found.get(type(module), True)

    with ExitStack() as hooks:
        for module in model.modules():
            leaf = next(module.children(), None) is None
            if type(module) not in (*_RULED, *_LINEAR) and (leaf or isinstance(module, _RULED)):
                hooks.callback(module.register_forward_hook(look, with_kwargs=True).remove)
        with torch.enable_grad():
            outputs = outputs_of(model, probe_BCL, None)
    return {kind: integrated_gradients_op(_NODES) for kind, fits in found.items() if fits}, outputs


@contextmanager
def _out_of_place(model: nn.Module) -> Iterator[None]:
    """Let no module overwrite its input, which DeepLIFT compares with the output, while the block runs."""
    changed = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    try:
        for module in changed:
            setattr(module, "inplace", False)  # noqa: B010 # a plain attribute, which nn.Module's types deny
        yield
    finally:
        for module in changed:
            setattr(module, "inplace", True)  # noqa: B010 # likewise
