"""Score every substitution of a `PromoterCNN` exactly, computing only what each mutation changes.

A substitution changes as many columns of the first convolution as its kernel is wide; pooling leaves a
few changed cells, the next convolution widens them a little, and so on to the global average, where what
remains is a sum of differences. Each sequence has one full forward pass, whose values are kept; each
mutant then carries the *difference* to them from layer to layer:

- first convolution: the difference of two columns of weights, without any multiplication;
- batch norm: folded into the convolution before it;
- pooling and ReLU: store, for the reference, the gap between each value before pooling and the pooled value;
  add the mutant's difference, take the maximum over the pool, and clamp at minus the pooled value, where ReLU
  clips. Where the maximum stays in its cell the difference passes unrounded: no layer subtracts two near-equal
  numbers. Past the ends, and in the remainder that pooling drops, the gap is -inf, so that nothing there
  counts;
- later convolutions: for each changed cell of the output one matrix product, of just those changed
  cells of the input that it sees with just those taps;
- average over bins: the sum of the differences over the positions of each; head: in float64, since it alone
  forms differences of near-equal numbers;
- a network that reads both strands: the same once more for the reverse complement, in which the mutation has
  the mirrored position; the strands are averaged before the head, or follow one another.

Positions that are equal modulo the product of the pools change cells in the same pattern, hence are
computed together, and of those the ones that hold the same base: all their mutants share one table of
differences, and three mutants share each region of the reference that is read. No convolution of the
unchanged rest, no approximation.

This is a second copy of the arithmetic of `promoter.models.cnn`, whose comments name this module too. Each step
that depends on the kind of pooling matches on `promoter.models.cnn.Pooling` and refuses a kind that it does not
handle, to pyright and at run time. `promoter.ism.self_check` compares the two copies.

The floor. What no method of this kind avoids is the matrix products: per mutant, the changed cells of
each later convolution's input times all its taps. For the published network that is 1.6 MFLOP a mutant,
where a forward pass takes 231; the first layer needs none. The engine does exactly these and no more; what
it takes beyond them is memory traffic: forming and pooling the changed region of the first layer, 20
cells of 256 filters a mutant. Not exploited: of the differences after the first pooling many are exactly
zero, since the ReLU or the maximum hides them, but in no pattern that a dense product could skip
(`benchmarks/ism.py` counts them), and the three new bases at a position share no product, since each
passes its own ReLU and maximum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Never, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from promoter.models.cnn import Pooling, PromoterCNN, join_strands
from promoter.sequence import BASES, N_TOKEN, one_hot, reverse_complement

# Bytes of the widest intermediate in one batch of mutants: what a CPU's caches hold, and what keeps a GPU busy
_BYTES_PER_BATCH = {"cpu": 1 << 24, "cuda": 1 << 31}


class _Layer(NamedTuple):
    """A convolution with its batch norm folded in.

    Attributes:
        weight_OIK: weights of the convolution, (outputs, inputs, kernel).
        bias_O: bias of the convolution, (outputs,).
        taps_KIO: the weights once more, laid out for matrix products over cells.
        pool: width of the pooling after it; 1 for none.
        pooling: kind of this pooling.
    """

    weight_OIK: Tensor
    bias_O: Tensor
    taps_KIO: Tensor
    pool: int
    pooling: Pooling

    @property
    def kernel(self) -> int:
        """Cells that an output sees."""
        return self.weight_OIK.shape[-1]

    @property
    def half(self) -> int:
        """Cells that the kernel reaches to either side."""
        return self.kernel // 2


class _Reference(NamedTuple):
    """What one layer gave for the unchanged sequences, channels last.

    Attributes:
        gap_NLC: values before pooling and ReLU minus the cell's value after them; -inf in `margin` cells
            before the first, and after the last that pooling uses.
        lower_bound_NLC: the lowest that the change after pooling and ReLU can be: minus the value there; 0 in
            `margin / pool` cells before the first and after the last.
        margin: number of cells added at each end of `gap_NLC`; a multiple of the pool.
        stride: number of bases of the sequence for one cell of `gap_NLC`.
    """

    gap_NLC: Tensor
    lower_bound_NLC: Tensor
    margin: int
    stride: int


class _MutationSites(NamedTuple):
    """Positions to mutate that change cells in the same pattern, in the order of the bases that they hold.

    Attributes:
        sequence_P: index of the sequence of each site.
        step_P: step of each site; its position is residue + step * period.
        new_PA: the bases that each site is changed to.
        counts: base -> number of sites that hold it.
        residue: position modulo the period, which all sites share.
        period: product of all pools.
    """

    sequence_P: Tensor
    step_P: Tensor
    new_PA: Tensor
    counts: dict[int, int]
    residue: int
    period: int

    @classmethod
    def of(cls, bases_NS: Tensor, olds: Iterable[int], *, first: int, residue: int, period: int) -> _MutationSites:
        """Find the sites that hold one of the bases `olds`; `bases_NS` has the steps from `first` on."""
        indices = {old: torch.nonzero(bases_NS == old) for old in olds}
        new = [
            torch.tensor([_new_bases(old)], device=bases_NS.device).expand(len(sites), -1)
            for old, sites in indices.items()
        ]
        sequence_P, step_P = torch.cat(list(indices.values())).unbind(1)
        counts = {old: len(sites) for old, sites in indices.items()}
        return cls(sequence_P, step_P + first, torch.cat(new), counts, residue, period)

    def on_other_strand(self, length: int) -> _MutationSites:
        """Return the same sites of the reverse complements; the new bases of each come in reverse order."""
        last = length - 1 - self.residue  # position of the first step on the other strand
        step_P = last // self.period - self.step_P
        counts = {N_TOKEN if old == N_TOKEN else N_TOKEN - 1 - old: count for old, count in self.counts.items()}
        return _MutationSites(
            self.sequence_P, step_P, self.new_PA.flip(1), counts, last % self.period, self.period
        )


@torch.inference_mode()
def score_substitutions(
    model: PromoterCNN,
    tokens_NL: Tensor,
    *,
    batch_size: int | None = None,
    positions: tuple[int, int] | None = None,
    targets: Sequence[int] | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Tensor:
    """Score every single-base substitution.

    Args:
        model: the network, on the device of `tokens_NL`; taken as in evaluation mode, and left as it is.
        tokens_NL: uint8, shape (N, length).
        batch_size: number of mutants at a time; by default as many as suit the device.
        positions: (start, end) of the bases to change, 0-based, half-open; None, the default, for all.
        targets: numbers of the outputs to score; None, the default, for all.
        precision: precision of the matrix products: fp32 (the default), or bf16, off by some 1e-2 of the largest
            |score|.

    Returns:
        float32, shape (N, targets, 4, end - start): f(sequence with base at position) - f(sequence). In fp32
        off from float64 by at most 1e-5 of the sequence's largest |score|, and float32's rounding (1e-7
        where the network's values are of order 1).

    Raises:
        InputError: the window is shorter than the model's pools need.
        NotImplementedError: a block has a kind of pooling that the engine does not handle.
    """
    model.config.require_length(tokens_NL.shape[1])
    start, end = positions or (0, tokens_NL.shape[1])
    outside = model.config.outside(tokens_NL.shape[1])
    if outside:  # nothing there changes anything
        seen = (max(start - outside, 0), max(end - outside, 0))
        options = {"batch_size": batch_size, "positions": seen, "targets": targets, "precision": precision}
        scores_NTAL = score_substitutions(model, tokens_NL[:, outside:], **options)
        return F.pad(scores_NTAL, (end - start - scores_NTAL.shape[-1], 0))
    layers = _fold(model, torch.bfloat16 if precision == "bf16" else torch.float32)
    strands = [tokens_NL, reverse_complement(tokens_NL)] if model.config.both_strands else [tokens_NL]
    references = [_forward(layers, strand_NL) for strand_NL in strands]
    head = model.copy_head(targets).double().eval()
    weights_LG = _bin_weights(references[0][-1], model.config.bins)
    keep = model.config.keep_strands
    mean_NCG = join_strands([_bin_means(reference[-1], weights_LG) for reference in references], keep=keep)
    reference_NT = head(mean_NCG.flatten(1))
    (n, length), outputs = tokens_NL.shape, reference_NT.shape[1]
    period = math.prod(layer.pool for layer in layers)
    scores_NLAT = torch.zeros(n, length, len(BASES), outputs, device=tokens_NL.device)
    old_NL = torch.full_like(tokens_NL, N_TOKEN + 1)  # the base to be changed; no base where none is
    old_NL[:, start:end] = tokens_NL[:, start:end].clamp(max=N_TOKEN)
    most = batch_size // len(BASES) if batch_size else _sites_per_batch(layers, outputs, tokens_NL.device)
    at_a_time = max(1, most // n)  # steps
    for residue in range(min(period, length)):
        bases_NS = old_NL[:, residue::period]
        for first in range(0, bases_NS.shape[1], at_a_time):
            bases_NP = bases_NS[:, first : first + at_a_time]
            for olds in (range(N_TOKEN), [N_TOKEN]):  # three new bases where the old one is known, four for N
                sites = _MutationSites.of(bases_NP, olds, first=first, residue=residue, period=period)
                if not len(sites.sequence_P):
                    continue
                moved = [_moved_means(layers, references[0], sites, weights_LG)]
                if len(strands) > 1:
                    other = sites.on_other_strand(length)
                    moved.append(_moved_means(layers, references[1], other, weights_LG).flip(1))
                sequence_P1 = sites.sequence_P[:, None]
                moved_PACG = mean_NCG[sequence_P1] + join_strands(moved, keep=keep)
                moved_PAT = head(moved_PACG.flatten(2)) - reference_NT[sequence_P1]
                position_P1 = residue + period * sites.step_P[:, None]
                scores_NLAT[sequence_P1, position_P1, sites.new_PA] = moved_PAT.float()
    return scores_NLAT[:, start:end].permute(0, 3, 2, 1).contiguous()


def _bin_weights(last: _Reference, bins: int) -> Tensor:
    """Return the weight of each cell of the last layer, margins included, in each bin's average: (cells, bins)."""
    cells = last.lower_bound_NLC.shape[1] - 2 * last.margin
    cell_L1 = torch.arange(cells, device=last.lower_bound_NLC.device)[:, None]
    bin_G = torch.arange(bins, device=last.lower_bound_NLC.device)
    start_G, end_G = bin_G * cells // bins, -(-(bin_G + 1) * cells // bins)  # as adaptive_avg_pool cuts them
    weights_LG = ((cell_L1 >= start_G) & (cell_L1 < end_G)).double() / (end_G - start_G)
    return F.pad(weights_LG, (0, 0, last.margin, last.margin))


def _bin_means(last: _Reference, weights_LG: Tensor) -> Tensor:
    """Return the average of each bin for the unchanged sequences: float64, (N, channels, bins)."""
    return -last.lower_bound_NLC.double().transpose(1, 2) @ weights_LG


def _moved_means(
    layers: list[_Layer], references: list[_Reference], sites: _MutationSites, weights_LG: Tensor
) -> Tensor:
    """Return by how much each mutant moves the averages: float64, (sites, new, channels, bins)."""
    first, change_PALC = _first_change(layers[0], references[0], sites)
    new = change_PALC.shape[1]
    for layer, reference in zip(layers[1:], references[1:], strict=True):
        low, length = first - layer.half, change_PALC.shape[2] + layer.kernel - 1
        first, _ = pooled = _pooled(low, length, layer.pool)
        values_PAWC = _pre_pool_gap(layer, reference, pooled, sites)[:, None].repeat(1, new, 1, 1)
        lead = low - first * layer.pool
        _add_convolved(values_PAWC.flatten(0, 1)[:, lead : lead + length], change_PALC.flatten(0, 1), layer)
        change_PALC = _pool_and_relu(layer, values_PAWC, _lower_bound(layer, reference, pooled, sites))
    margin = references[-1].margin
    if weights_LG.shape[1] == 1:  # all weights are equal, and a change in the margins is 0
        return (change_PALC.sum(dim=2, dtype=torch.float64) * weights_LG[margin])[..., None]
    cell_PL = (
        first + margin + sites.step_P[:, None] + torch.arange(change_PALC.shape[2], device=sites.step_P.device)
    )
    return change_PALC.double().transpose(2, 3) @ weights_LG[cell_PL][:, None]


def _first_change(layer: _Layer, reference: _Reference, sites: _MutationSites) -> tuple[int, Tensor]:
    """Return the first cell, for step 0, and the change after the first layer: (sites, new, cells, channels)."""
    # the tap that sees the base is the further right the further left the cell; N, the fifth base, adds nothing
    taps_AKC = F.pad(layer.weight_OIK.permute(1, 2, 0).flip(1), (0, 0, 0, 0, 0, 1))
    low = sites.residue - layer.half
    first, cells = pooled = _pooled(low, layer.kernel, layer.pool)
    lead = low - first * layer.pool
    margins = (0, 0, lead, cells * layer.pool - lead - layer.kernel)
    gap_PWC = _pre_pool_gap(layer, reference, pooled, sites)
    lower_bound_PLC = _lower_bound(layer, reference, pooled, sites)
    sizes = list(sites.counts.values())
    changes = []
    for old, some_PWC, least in zip(sites.counts, gap_PWC.split(sizes), lower_bound_PLC.split(sizes), strict=True):
        change_AWC = F.pad(taps_AKC[_new_bases(old)] - taps_AKC[old], margins)
        changes.append(_pool_and_relu(layer, some_PWC[:, None] + change_AWC, least))
    return first, torch.cat(changes)


def _new_bases(old: int) -> list[int]:
    return [base for base in range(len(BASES)) if base != old]


def _add_convolved(values_BLO: Tensor, change_BLI: Tensor, layer: _Layer) -> None:
    """Add the convolution of a change, which is kernel - 1 cells longer than it, to what was there."""
    cells = change_BLI.shape[1]
    change_BLI = change_BLI.to(layer.taps_KIO.dtype)
    for out in range(values_BLO.shape[1]):
        left, right = max(0, out - layer.kernel + 1), min(cells, out + 1)  # of the input cells that it sees
        seen_BX = change_BLI[:, left:right].flatten(1)
        taps_XO = layer.taps_KIO[layer.kernel - 1 - (out - left) :][: right - left].flatten(0, 1)
        if taps_XO.dtype == values_BLO.dtype:
            values_BLO[:, out].addmm_(seen_BX, taps_XO)
        else:
            values_BLO[:, out] += seen_BX @ taps_XO


def _pooled(low: int, length: int, pool: int) -> tuple[int, int]:
    """Return the first pooled cell that a range of cells touches, and how many it touches."""
    first = low // pool
    return first, (low + length - 1) // pool - first + 1


def _pool_and_relu(layer: _Layer, values_PAWC: Tensor, lower_bound_PLC: Tensor) -> Tensor:
    """Return the change after pooling and ReLU: (sites, new, cells, channels)."""
    values_PALC = values_PAWC
    if layer.pool > 1:
        match layer.pooling:
            case "max":
                values_PALC = values_PAWC.unflatten(2, (-1, layer.pool)).amax(dim=3)
            case _:
                _refuse(layer.pooling)
    return torch.maximum(values_PALC, lower_bound_PLC[:, None])


def _refuse(pooling: Never) -> NoReturn:
    """Raise for a pooling that the caller does not match; pyright refuses the call as soon as there is one."""
    raise NotImplementedError(
        f"promoter/ism/incremental.py: does not handle pooling {pooling!r} of promoter/models/cnn.py; add it to "
        "each match on the pooling, or score by promoter.ism.forward_passes"
    )


def _pre_pool_gap(layer: _Layer, reference: _Reference, pooled: tuple[int, int], sites: _MutationSites) -> Tensor:
    """Return what pools into these cells, given as `_pooled` does: (sites, cells * pool, channels)."""
    start, width = pooled[0] * layer.pool + reference.margin, pooled[1] * layer.pool
    return _regions(reference.gap_NLC, (start, width), reference.stride, sites)


def _lower_bound(layer: _Layer, reference: _Reference, pooled: tuple[int, int], sites: _MutationSites) -> Tensor:
    """Return the lowest change of these pooled cells, given as `_pooled` does: (sites, cells, channels)."""
    start = pooled[0] + reference.margin // layer.pool
    return _regions(reference.lower_bound_NLC, (start, pooled[1]), reference.stride * layer.pool, sites)


def _regions(values_NLC: Tensor, region: tuple[int, int], stride: int, sites: _MutationSites) -> Tensor:
    """Copy from each site's sequence a region, its start for step 0 and its width: (sites, width, channels)."""
    steps_NSWC = values_NLC[:, region[0] :].unfold(1, region[1], sites.period // stride).transpose(2, 3)
    return steps_NSWC[sites.sequence_P, sites.step_P]


def _fold(model: PromoterCNN, dtype: torch.dtype) -> list[_Layer]:
    """Fold the batch norms into the convolutions; `dtype` is that of the matrix products."""
    layers = []
    for block in model.convolution_blocks():
        conv, norm = block.conv, block.norm
        assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018 # likewise
        scale_O = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight_OIK = (conv.weight.double() * scale_O[:, None, None]).to(conv.weight.dtype)
        bias_O = (norm.bias.double() - norm.running_mean.double() * scale_O).to(conv.weight.dtype)
        taps_KIO = weight_OIK.permute(2, 1, 0).contiguous().to(dtype)
        layers.append(_Layer(weight_OIK, bias_O, taps_KIO, block.pool, block.pooling))
    return layers


def _forward(layers: list[_Layer], tokens_NL: Tensor) -> list[_Reference]:
    """Run the unchanged sequences through all layers and keep what each gives."""
    # in float64, since errors stay in every gap; cuDNN convolves by Fourier transforms where that is faster
    x_NCL = one_hot(tokens_NL, torch.float64)
    references, stride = [], 1
    for layer, margin in zip(layers, _margins(layers), strict=True):
        z_NCL = F.conv1d(x_NCL, layer.weight_OIK.double(), layer.bias_O.double(), padding=layer.half)
        used = z_NCL.shape[-1] // layer.pool * layer.pool
        if layer.pool == 1:
            x_NCL = z_NCL.relu()
        else:
            match layer.pooling:
                case "max":
                    x_NCL = F.max_pool1d(z_NCL, layer.pool).relu_()
                case _:
                    _refuse(layer.pooling)
        gap_NCL = z_NCL[..., :used] - x_NCL.repeat_interleave(layer.pool, dim=-1)
        gap_NLC = F.pad(gap_NCL.to(layer.weight_OIK.dtype), (margin, margin), value=-math.inf).transpose(1, 2)
        lower_bound_NLC = F.pad(-x_NCL.to(layer.weight_OIK.dtype), (margin // layer.pool,) * 2).transpose(1, 2)
        references.append(_Reference(gap_NLC.contiguous(), lower_bound_NLC.contiguous(), margin, stride))
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


def _sites_per_batch(layers: list[_Layer], outputs: int, device: torch.device) -> int:
    """Return how many sites, with the mutants of each, keep the widest intermediate within bounds."""
    widest, length = 2 * outputs, 1  # the head's are float64
    for layer in layers:
        length += layer.kernel - 1
        cells = (length + layer.pool - 2) // layer.pool + 1  # that a region of this length touches at most
        widest = max(widest, cells * layer.pool * len(layer.bias_O))
        length = cells
    room = _BYTES_PER_BATCH.get(device.type, 1 << 22)
    if device.type == "cuda":
        room = min(room, torch.cuda.mem_get_info(device)[0] // 8)
    return max(1, room // (4 * widest * len(BASES)))
