"""Exact incremental saturation mutagenesis of a `PromoterCNN`: only what a mutation changes is computed.

A substitution changes as many columns of the first convolution as its kernel is wide; pooling leaves a
few changed cells, the next convolution widens them a little, and so on to the global average, where what
remains is a sum of differences. Each sequence has one whole forward pass, whose values are kept; each
mutant then carries the *difference* to them from layer to layer:

- first convolution: the difference of two columns of weights, without any multiplication;
- batch norm: folded into the convolution before it;
- pooling and ReLU: of the reference plus the difference, minus what the reference gave. Past the ends,
  and in the remainder that pooling drops, the reference is -inf, so that nothing there counts;
- later convolutions: one matrix product of all changed cells of many mutants with all taps, whose
  results are added up where the taps put them;
- global average: the sum of the differences over the positions; head: in float64, since it alone forms
  differences of near-equal numbers.

Positions that are equal modulo the product of the pools change cells in the same pattern, hence are
computed together. No convolution of the unchanged rest, no approximation.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promoter.model import PromoterCNN
from promoter.sequence import BASES, one_hot

# Bytes of the widest intermediate in one batch of mutants: on a CPU about what the caches hold; a GPU
# needs more to be busy.
_BYTES_PER_BATCH = {"cpu": 1 << 23, "cuda": 1 << 28}


class _Layer(NamedTuple):
    """A convolution with its batch norm folded in.

    Attributes:
        weight_OIK: of the convolution, (outputs, inputs, kernel).
        bias_O: (outputs,).
        taps_IKO: the weights as a matrix product over cells wants them, taps reversed: the result of tap t
            belongs t cells to the right of the first cell that the input changes.
        pool: width of the max pooling after it; 1 for none.
    """

    weight_OIK: Tensor
    bias_O: Tensor
    taps_IKO: Tensor
    pool: int

    @property
    def half(self) -> int:
        """Cells that the kernel reaches to either side."""
        return self.weight_OIK.shape[-1] // 2


class _Reference(NamedTuple):
    """What one layer gave for the unchanged sequences, channels last.

    Attributes:
        before_NLC: before pooling and ReLU; -inf in `margin` cells before the first, and after the last
            that pooling uses.
        after_NLC: after them; 0 in `margin / pool` cells before the first and after the last.
        margin: see there; a multiple of the pool.
        stride: bases of the sequence for one cell of `before_NLC`.
    """

    before_NLC: Tensor
    after_NLC: Tensor
    margin: int
    stride: int


@torch.inference_mode()
def score_substitutions(model: PromoterCNN, tokens_NL: Tensor, batch_size: int | None = None) -> Tensor:
    """Score every single-base substitution.

    Args:
        model: on the device of `tokens_NL`; taken as in evaluation mode, and left as it is.
        tokens_NL: uint8, shape (N, length).
        batch_size: mutants at a time; by default as many as suit the device.

    Returns:
        float32, shape (N, targets, 4, length): f(sequence with base at position) - f(sequence). Off from
        float64 by at most 1e-5 of the sequence's largest |score|, and float32's rounding (1e-7 where the
        network's values are of order 1).

    Raises:
        InputError: the window is shorter than the model's pools need.
    """
    model.require_length(tokens_NL.shape[1])
    layers = _fold(model)
    references = _forward(layers, tokens_NL)
    head = copy.deepcopy(model.head).double().eval()
    last = references[-1]
    cells = last.after_NLC.shape[1] - 2 * last.margin
    mean_NC = last.after_NLC.double().sum(dim=1) / cells
    reference_NT = head(mean_NC)
    n, length = tokens_NL.shape
    scores_NTAL = torch.zeros(n, reference_NT.shape[1], len(BASES), length, device=tokens_NL.device)
    period = math.prod(layer.pool for layer in layers)
    bases = torch.arange(len(BASES), device=tokens_NL.device)
    for residue in range(min(period, length)):
        here_NM = tokens_NL[:, residue::period].long()
        # each mutant by its sequence, its step (position = residue + step * period), and its new base
        sequence_M, step_M, base_M = torch.nonzero(here_NM[..., None] != bases, as_tuple=True)
        size = batch_size or _mutants_per_batch(layers, tokens_NL.device)
        for one in zip(sequence_M.split(size), step_M.split(size), base_M.split(size), strict=True):
            sequence_B, step_B, base_B = one
            old_B = here_NM[sequence_B, step_B]
            moved_BC = _moved_mean(layers, references, residue, period, sequence_B, step_B, base_B, old_B) / cells
            moved_BT = head(mean_NC[sequence_B] + moved_BC) - reference_NT[sequence_B]
            scores_NTAL[sequence_B, :, base_B, step_B * period + residue] = moved_BT.float()
    return scores_NTAL


def _moved_mean(
    layers: list[_Layer],
    references: list[_Reference],
    residue: int,
    period: int,
    sequence_B: Tensor,
    step_B: Tensor,
    base_B: Tensor,
    old_B: Tensor,
) -> Tensor:
    """Return by how much each mutant moves the sum over the last layer's cells, float64, (mutants, channels)."""
    columns_AKC = F.pad(layers[0].taps_IKO, (0, 0, 0, 0, 0, 1))  # the fifth, of N, contributes nothing
    differences_AAKC = columns_AKC[None, : len(BASES)] - columns_AKC[:, None]
    change_BLC = differences_AAKC[old_B, base_B]
    low = residue - layers[0].half  # of the first changed cell, for step 0
    for number, (layer, reference) in enumerate(zip(layers, references, strict=True)):
        if number:
            change_BLC = _convolve(change_BLC, layer)
            low -= layer.half
        low, change_BLC = _pool(change_BLC, low, period // reference.stride, layer, reference, sequence_B, step_B)
    return change_BLC.sum(dim=1, dtype=torch.float64)


def _convolve(change_BLI: Tensor, layer: _Layer) -> Tensor:
    """Return the change after a convolution: kernel - 1 cells longer, from `half` cells further left."""
    b, length, inputs = change_BLI.shape
    _, kernel, outputs = layer.taps_IKO.shape
    products = (change_BLI.reshape(b * length, inputs) @ layer.taps_IKO.reshape(inputs, kernel * outputs)).view(
        b, length, kernel, outputs
    )
    change_BLO = products.new_zeros(b, length + kernel - 1, outputs)
    for tap in range(kernel):
        change_BLO[:, tap : tap + length] += products[:, :, tap]
    return change_BLO


def _pool(
    change_BLC: Tensor,
    low: int,
    steps: int,
    layer: _Layer,
    reference: _Reference,
    sequence_B: Tensor,
    step_B: Tensor,
) -> tuple[int, Tensor]:
    """Return the first changed cell, for step 0, and the change after pooling and ReLU."""
    pool = layer.pool
    first, last = low // pool, (low + change_BLC.shape[1] - 1) // pool
    cells = last - first + 1
    before_BLC = _windows(reference.before_NLC, first * pool + reference.margin, cells * pool, steps)[
        sequence_B, step_B
    ]
    start = low - first * pool
    before_BLC[:, start : start + change_BLC.shape[1]] += change_BLC
    after_BLC = before_BLC.unflatten(1, (cells, pool)).amax(dim=2).relu_() if pool > 1 else before_BLC.relu_()
    old = _windows(reference.after_NLC, first + reference.margin // pool, cells, steps // pool)
    return first, after_BLC.sub_(old[sequence_B, step_B])


def _windows(values_NLC: Tensor, start: int, width: int, step: int) -> Tensor:
    """View (N, steps, width, channels): the window that starts `step` cells further for each step."""
    return values_NLC[:, start:].unfold(1, width, step).transpose(2, 3)


def _fold(model: PromoterCNN) -> list[_Layer]:
    layers = []
    for block in model.blocks:
        conv, norm, pool = block.get_submodule("conv"), block.get_submodule("norm"), int(block.pool)  # type: ignore[arg-type] # an int there
        assert isinstance(conv, nn.Conv1d) and isinstance(norm, nn.BatchNorm2d)  # noqa: S101, PT018 # built so
        assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018 # likewise
        scale_O = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight_OIK = (conv.weight.double() * scale_O[:, None, None]).to(conv.weight.dtype)
        bias_O = (norm.bias.double() - norm.running_mean.double() * scale_O).to(conv.weight.dtype)
        layers.append(_Layer(weight_OIK, bias_O, weight_OIK.flip(-1).permute(1, 2, 0).contiguous(), pool))
    return layers


def _forward(layers: list[_Layer], tokens_NL: Tensor) -> list[_Reference]:
    """Run the unchanged sequences through all layers and keep what each gives."""
    margins = _margins(layers)
    x_NCL = one_hot(tokens_NL).to(layers[0].weight_OIK.dtype)
    references, stride = [], 1
    for layer, margin in zip(layers, margins, strict=True):
        z_NCL = F.conv1d(x_NCL, layer.weight_OIK, layer.bias_O, padding=layer.half)
        used = z_NCL.shape[-1] // layer.pool * layer.pool
        x_NCL = F.max_pool1d(z_NCL, layer.pool).relu_() if layer.pool > 1 else z_NCL.relu()
        before_NLC = F.pad(z_NCL[..., :used], (margin, margin), value=-math.inf).transpose(1, 2).contiguous()
        after_NLC = F.pad(x_NCL, (margin // layer.pool,) * 2).transpose(1, 2).contiguous()
        references.append(_Reference(before_NLC, after_NLC, margin, stride))
        stride *= layer.pool
    return references


def _margins(layers: list[_Layer]) -> list[int]:
    """Return, per layer, how far beyond the ends a window can reach, in cells: a multiple of the pool."""
    margins, reach = [], 0
    for layer in layers:
        # one pool more for the remainder that pooling drops, one for alignment, and the rest of the layers above
        reach += 2 * layer.half + 2 * layer.pool
        margin = -(-reach // layer.pool) * layer.pool
        margins.append(margin)
        reach = margin // layer.pool
    return margins


def _mutants_per_batch(layers: list[_Layer], device: torch.device) -> int:
    widest, cells = 1, layers[0].weight_OIK.shape[-1]
    for number, layer in enumerate(layers):
        outputs, _, kernel = layer.weight_OIK.shape
        if number:
            widest = max(widest, cells * kernel * outputs)
            cells += kernel - 1
        widest = max(widest, (cells + 2 * layer.pool) * outputs)
        cells = (cells + layer.pool - 2) // layer.pool + 1
    return max(1, _BYTES_PER_BATCH.get(device.type, 1 << 22) // (4 * widest))
