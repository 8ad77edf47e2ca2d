"""Training batches: which genes, in which order, and how they are augmented.

Shapes: B genes of a batch, N genes of a data set, L positions of a sequence, T targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from promoter.errors import InputError, doubt
from promoter.models.build import NetworkConfig
from promoter.sequence import N_TOKEN, one_hot, reverse_complement
from promoter.training.config import TrainingConfig
from promoter.training.distributed import DistributedContext
from promoter.training.losses import TargetScale


class Examples(NamedTuple):
    """Promoters with targets: `tokens` uint8 (N, length), `targets` float32 (N, targets) in original units.

    A missing target is NaN, and takes part in no loss, mean or metric of its target. For a `PretrainedHead` the
    tokens are embeddings: float32 (N, 1 or 2, dim), of the sequence and, where it is to be shown
    reverse-complemented too, of its reverse complement. `weights`, float32 (N,), multiply the loss of each gene;
    None (the default) weighs all alike.
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None = None

    def rows(self, chosen: np.ndarray) -> Examples:
        """Return the genes of an index or a mask."""
        return Examples(self.tokens[chosen], self.targets[chosen], weights_of(self.weights, chosen))

    def with_values(self) -> Examples:
        """Return the genes that have a value of some target."""
        known = np.flatnonzero((~np.isnan(self.targets)).any(axis=1))
        return self if len(known) == len(self.targets) else self.rows(known)

    def for_training(self) -> Examples:
        """Return the genes to learn from: those with a value and a weight above 0; the mean of the weights is 1.

        So the unit of the weights changes neither the size of the loss nor what gradient clipping does, and a gene
        of weight 0 changes nothing: not the scale of the targets, nor the statistics of batch norm.
        """
        known = self.with_values()
        if known.weights is None:
            return known
        positive = known.weights > 0
        weights = known.weights[positive].astype(np.float64)
        mean = weights.mean() if weights.size else 1.0
        return known.rows(positive)._replace(weights=(weights / mean).astype(np.float32))


def weights_of(weights: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    """Return the weights of the genes of an index or a mask; None where there are none."""
    return None if weights is None else weights[chosen]


class Batch(NamedTuple):
    """This process's share of a global batch, on the device.

    Attributes:
        tokens: uint8 (B, L), or embeddings float32 (B, dim); of mixed promoters one-hot float32 (B, 4, L).
        targets: float32 (B, T), on the scale of training, NaN where missing.
        global_size: number of genes in the batch over all processes.
        global_values: number of these that have a value of each target: int64 (T,).
        weights: weight of each gene's loss, float32 (B,); None weighs all alike.
    """

    tokens: Tensor
    targets: Tensor
    global_size: int
    global_values: Tensor
    weights: Tensor | None = None


class TrainingBatches:
    """Keep the training genes on the device, and cut them into augmented batches, epoch by epoch.

    Each process of `context` gets its share of every global batch, which has at least `min_size` genes. The config
    of the network says how many of the first bases are cropped.
    """

    def __init__(
        self,
        examples: Examples,
        scale: TargetScale,
        *,
        config: TrainingConfig,
        device: torch.device,
        context: DistributedContext,
        network: NetworkConfig,
        min_size: int,
    ) -> None:
        self.min_size = min_size
        self.crop = network.outside(examples.tokens.shape[1])
        self.tokens_NL = torch.tensor(examples.tokens, device=device)
        scaled = (examples.targets - scale.mean) / scale.sd
        self.targets_NT = torch.from_numpy(scaled.astype(np.float32)).to(device)
        self.known_NT = ~self.targets_NT.isnan()
        weights = examples.weights
        self.weights_N = None if weights is None else torch.from_numpy(weights).to(device)
        self.config, self.device, self.context = config, device, context

    def iterate_epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches; order and augmentation depend on seed and epoch, not on the processes.

        Args:
            epoch: number of the epoch, from 1.
            first: index of the first batch to yield (default 0).
        """
        n, config = len(self.tokens_NL), self.config
        generator = torch.Generator().manual_seed(mix_seed(config.seed, epoch))
        order = torch.randperm(n, generator=generator)
        flip = torch.rand(n, generator=generator) < config.reverse_complement
        shift = torch.randint(-config.jitter, config.jitter + 1, (n,), generator=generator)
        partner = torch.randperm(n, generator=generator)
        part = torch.rand(n, generator=generator) * config.mixup
        order, flip, shift, partner, part = (
            drawn.to(self.device) for drawn in (order, flip, shift, partner, part)
        )
        known_NT = self.known_NT[order]
        if config.mixup:
            known_NT &= known_NT[partner]
        for start, stop in batch_bounds(n, config.batch_size, self.min_size)[first:]:
            share = torch.arange(start + self.context.rank, stop, self.context.size, device=self.device)
            # every process knows the global batch, so the counts need no communication
            whole = stop - start, known_NT[start:stop].sum(dim=0)
            batch = self._show(order[share], flip[share], shift[share], whole)
            if config.mixup:
                others = partner[share]
                batch = _mix(batch, self._show(order[others], flip[others], shift[others], whole), part[share])
            yield batch

    def _show(self, rows: Tensor, flip_B: Tensor, shift_B: Tensor, whole: tuple[int, Tensor]) -> Batch:
        """Return these genes, flipped and shifted as drawn; `whole` is what a `Batch` says of the global one."""
        if self.tokens_NL.is_floating_point():  # embeddings (genes, strands, dim)
            tokens = self.tokens_NL[rows, flip_B.long()]
        else:
            tokens = augment(self.tokens_NL[rows], flip_B, shift_B if self.config.jitter else None, self.crop)
        weights_B = None if self.weights_N is None else self.weights_N[rows]
        return Batch(tokens, self.targets_NT[rows], *whole, weights_B)


def _mix(own: Batch, other: Batch, part_B: Tensor) -> Batch:
    """Return means of two genes each, with `part_B` of the other; a target that one of them lacks is missing."""

    def mean(first: Tensor, second: Tensor) -> Tensor:
        return torch.lerp(first, second, part_B.reshape(-1, *[1] * (first.dim() - 1)))

    return own._replace(
        tokens=mean(as_model_input(own.tokens), as_model_input(other.tokens)),
        targets=mean(own.targets, other.targets),
        weights=None if own.weights is None or other.weights is None else mean(own.weights, other.weights),
    )


def batch_bounds(n: int, batch_size: int, min_size: int) -> list[tuple[int, int]]:
    """Cut `n` genes into batches; a remainder of fewer than `min_size` joins the batch before it.

    Returns:
        Start and stop of each batch, half-open.
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] < min_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def as_model_input(tokens: Tensor) -> Tensor:
    """Return what a network is given: one-hot sequences, or embeddings as they are."""
    return tokens if tokens.is_floating_point() else one_hot(tokens)


def augment(tokens_BL: Tensor, flip_B: Tensor, shift_B: Tensor | None = None, outside: int = 0) -> Tensor:
    """Shift all sequences, crop them, then reverse-complement some.

    Args:
        tokens_BL: integer tokens, shape (batch, length).
        flip_B: bool, shape (batch,): True for sequences to reverse-complement.
        shift_B: integer, shape (batch,): position p shows the base that was at p + shift, N past the ends. None
            (the default) shifts nothing.
        outside: number of first bases to crop (default 0); cropped after the shift, so that the shift brings in
            the real sequence beside the crop.

    Returns:
        Tokens of the same type, shape (batch, length - outside).
    """
    length = tokens_BL.shape[1]
    if shift_B is not None:
        source_BL = torch.arange(length, device=tokens_BL.device) + shift_B[:, None]
        inside = (source_BL >= 0) & (source_BL < length)
        moved = tokens_BL.gather(1, source_BL.clamp(0, length - 1))
        tokens_BL = torch.where(inside, moved, N_TOKEN)
    tokens_BL = tokens_BL[:, outside:]
    flipped = reverse_complement(tokens_BL)
    assert isinstance(flipped, Tensor)  # noqa: S101 # for the type checker: a tensor comes back as one
    return torch.where(flip_B[:, None], flipped, tokens_BL)


def require_enough_genes(train: int, val: int, config: TrainingConfig, workers: int) -> None:
    """Check that each worker gets at least two genes per batch, as batch norm requires.

    Args:
        train: number of training genes.
        val: number of validation genes.
        config: training settings with the batch size.
        workers: largest number of workers that may share a batch.

    Raises:
        InputError: too few genes, or a batch size too small for the workers.
    """
    if train < 2 * workers or val < 2:
        raise InputError(
            f"{train} training and {val} validation genes are too few for {workers} "
            f"worker{'s' * (workers != 1)}; at least 2 a worker and 2 for validation are needed, "
            "so take more genes or fewer workers"
        )
    if config.batch_size < 2 * workers:
        raise InputError(
            f"is too small for {workers} workers",
            setting="TrainingConfig.batch_size",
            value=config.batch_size,
            fix=f"at least 2 genes a worker are needed, {2 * workers} in all",
        )


def require_values(
    train: np.ndarray,
    val: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> None:
    """Check that each target has values to learn from, and to choose the best epoch by.

    Args:
        train: targets of the training genes, shape (genes, targets), NaN where missing.
        val: targets of the validation genes, likewise.
        names: names of the targets, for messages; None (the default) counts them from 1.
        weights: weights of the training genes and of the validation genes, a value of weight 0 counting as
            missing; None (the default) weighs a set's genes alike.

    Raises:
        InputError: a target has an infinite value, or fewer than two values in a set, or no target varies; a
            weight is negative or no number, or all of a set are 0.
    """
    names = names or [f"number {number}" for number in range(1, train.shape[1] + 1)]
    train, val = _weighted(train, weights[0], "training"), _weighted(val, weights[1], "validation")
    counted = "" if all(of_set is None for of_set in weights) else " and a weight above 0"
    for index, name in enumerate(names):
        infinite = int(np.isinf(train[:, index]).sum() + np.isinf(val[:, index]).sum())
        if infinite:
            raise InputError(f"target {name}: has infinite values ({infinite:,}); leave them empty, as missing")
        of_train, of_val = (int((~np.isnan(targets[:, index])).sum()) for targets in (train, val))
        if of_train < 2 or of_val < 2:
            raise InputError(
                f"target {name}: {of_train:,} of {len(train):,} training and {of_val:,} of {len(val):,} "
                f"validation genes have a value{counted}, at least 2 of each are needed; prepare the data without "
                "it (`targets`), or hold out other genes"
            )
    if len(_constant(train)) == len(names):
        raise InputError(
            f"no target varies among the training genes ({', '.join(names[:3])}), so there is nothing to learn; "
            "prepare the data with another column (`targets`)"
        )


def _weighted(targets: np.ndarray, weights: np.ndarray | None, name: str) -> np.ndarray:
    """Return the targets without the values of weight 0.

    Raises:
        InputError: a weight is negative or no number, or all are 0.
    """
    if weights is None:
        return targets
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        raise InputError(
            f"weight {weights[wrong][0]:g} of a {name} gene: a weight is a number of at least 0", fix="correct it"
        )
    if not weights.any():
        raise InputError(
            f"all {len(weights):,} {name} genes have the weight 0",
            fix="give some of them a weight above 0, or hold out other genes",
        )
    return np.where(weights[:, None] > 0, targets, np.nan)


def doubt_constant_targets(train: np.ndarray, names: Sequence[str]) -> None:
    """Warn of each target that has the same value in all training genes; arguments as for `require_values`."""
    for index in _constant(train):
        doubt(
            f"target {names[index]}: has the same value, {np.nanmax(train[:, index]):g}, in all training genes, "
            "so there is nothing to learn; prepare the data without it (`targets`)"
        )


def _constant(targets: np.ndarray) -> np.ndarray:
    """Return the indices of the targets, each with a value or more, that do not vary."""
    return np.flatnonzero(np.nanmin(targets, axis=0) == np.nanmax(targets, axis=0))


def require_orientation(model: NetworkConfig, config: TrainingConfig, length: int) -> None:
    """Check that the network can learn from promoters that are augmented as `config` says.

    Args:
        model: settings of the network.
        config: training recipe with the augmentation.
        length: length of the windows in bases.

    Raises:
        InputError: reverse complements for a network with several position bins, shifts for one whose embeddings
            are computed once, or shifts that leave nothing of the window.
    """
    model.require_augmentation(config.reverse_complement, config.jitter)
    if config.jitter >= length:
        problem = f"leaves nothing of a window of {length:,} bases"
        raise InputError(problem, setting="TrainingConfig.jitter", value=config.jitter, fix="shift by less")


def mix_seed(*parts: int) -> int:
    """Mix numbers into one random seed, so that neighbouring epochs and ranks share nothing."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
