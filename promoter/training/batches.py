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
from promoter.sequence import N_TOKEN, reverse_complement
from promoter.training.config import TrainingConfig
from promoter.training.distributed import DistributedContext
from promoter.training.losses import TargetScale


class Examples(NamedTuple):
    """Promoters with targets: `tokens` uint8 (N, length), `targets` float32 (N, targets) in original units.

    A missing target is NaN, and takes part in no loss, mean or metric of its target. For a `PretrainedHead` the
    tokens are embeddings: float32 (N, 1 or 2, dim), of the sequence and, where it is to be shown
    reverse-complemented too, of its reverse complement.
    """

    tokens: np.ndarray
    targets: np.ndarray

    def with_values(self) -> Examples:
        """Return the genes that have a value of some target."""
        empty = np.isnan(self.targets).all(axis=1)
        return Examples(self.tokens[~empty], self.targets[~empty]) if empty.any() else self


class Batch(NamedTuple):
    """This process's share of a global batch, on the device.

    Attributes:
        tokens: uint8 (B, L), or embeddings float32 (B, dim).
        targets: float32 (B, T), on the scale of training, NaN where missing.
        global_size: number of genes in the batch over all processes.
        global_values: number of these that have a value of each target: int64 (T,).
    """

    tokens: Tensor
    targets: Tensor
    global_size: int
    global_values: Tensor


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
        self.config, self.device, self.context = config, device, context

    def iterate_epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield an epoch's batches; order and augmentation depend on seed and epoch, not on the processes."""
        n, config = len(self.tokens_NL), self.config
        generator = torch.Generator().manual_seed(mix_seed(config.seed, epoch))
        order = torch.randperm(n, generator=generator)
        flip = torch.rand(n, generator=generator) < config.reverse_complement
        shift = torch.randint(-config.jitter, config.jitter + 1, (n,), generator=generator)
        order, flip, shift = (drawn.to(self.device) for drawn in (order, flip, shift))
        for start, stop in batch_bounds(n, config.batch_size, self.min_size):
            share = slice(start + self.context.rank, stop, self.context.size)
            rows = order[share]
            if self.tokens_NL.is_floating_point():  # embeddings (genes, strands, dim)
                tokens = self.tokens_NL[rows, flip[share].long()]
            else:
                shift_B = shift[share] if config.jitter else None
                tokens = augment(self.tokens_NL[rows], flip[share], shift_B, self.crop)
            # every process knows the global batch, so the counts need no communication
            yield Batch(tokens, self.targets_NT[rows], stop - start, self.known_NT[order[start:stop]].sum(dim=0))


def batch_bounds(n: int, batch_size: int, min_size: int) -> list[tuple[int, int]]:
    """Cut `n` genes into batches; a remainder of fewer than `min_size` joins the batch before it.

    Returns:
        Start and stop of each batch, half-open.
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] < min_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


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


def require_values(train: np.ndarray, val: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Check that each target has values to learn from, and to choose the best epoch by.

    Args:
        train: targets of the training genes, shape (genes, targets), NaN where missing.
        val: targets of the validation genes, likewise.
        names: names of the targets, for messages; None (the default) counts them from 1.

    Raises:
        InputError: a target has an infinite value, or fewer than two values in a set, or no target varies.
    """
    names = names or [f"number {number}" for number in range(1, train.shape[1] + 1)]
    for index, name in enumerate(names):
        infinite = int(np.isinf(train[:, index]).sum() + np.isinf(val[:, index]).sum())
        if infinite:
            raise InputError(f"target {name}: has infinite values ({infinite:,}); leave them empty, as missing")
        of_train, of_val = (int((~np.isnan(targets[:, index])).sum()) for targets in (train, val))
        if of_train < 2 or of_val < 2:
            raise InputError(
                f"target {name}: {of_train:,} of {len(train):,} training and {of_val:,} of {len(val):,} "
                "validation genes have a value, at least 2 of each are needed; prepare the data without it "
                "(`targets`), or hold out other genes"
            )
    if len(_constant(train)) == len(names):
        raise InputError(
            f"no target varies among the training genes ({', '.join(names[:3])}), so there is nothing to learn; "
            "prepare the data with another column (`targets`)"
        )


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


def require_orientation(model: NetworkConfig, config: TrainingConfig) -> None:
    """Check that the network can learn from promoters that are augmented as `config` says.

    Raises:
        InputError: reverse complements for a network with several position bins, or shifts for one whose
            embeddings are computed once.
    """
    model.require_augmentation(config.reverse_complement, config.jitter)


def mix_seed(*parts: int) -> int:
    """Mix numbers into one random seed, so that neighbouring epochs and ranks share nothing."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
