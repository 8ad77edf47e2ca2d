"""The training loop, the same on one device or, when a process group is initialised, under DDP.

Shapes: B genes of a batch, T targets.
"""

from __future__ import annotations

import copy
import functools
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from promoter import metrics
from promoter.errors import TrainingDivergedError
from promoter.metrics import MIN_GENES_FOR_R
from promoter.models.build import Learner
from promoter.models.external import ExternalModel
from promoter.training.batches import (
    Batch,
    Examples,
    TrainingBatches,
    as_model_input,
    batch_bounds,
    require_enough_genes,
    require_orientation,
    require_values,
)
from promoter.training.config import TrainingConfig
from promoter.training.distributed import DistributedContext
from promoter.training.inference import autocast, predict_on
from promoter.training.losses import LOSSES, SQUARED_ERROR, Loss, SquaredError
from promoter.training.state import PartialEpoch, TrainingState

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_GENES_FOR_STATISTICS = 512  # enough that their sampling error does not show in a validation loss
OnBatch = Callable[[Callable[[], TrainingState]], None]


def fit(
    model: Learner,
    train: Examples,
    val: Examples,
    *,
    config: TrainingConfig | None = None,
    device: str | torch.device = "cpu",
    state: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] | None = None,
    on_batch: OnBatch | None = None,
    max_workers: int | None = None,
    loss: Loss | None = None,
) -> TrainingState:
    """Train `model` and leave in it the best epoch's weights, returning original units.

    When `torch.distributed` is initialised every process must call this with the same arguments;
    gradients are averaged by DDP and batch-norm statistics once an epoch. Seeds torch's global
    generators, epoch by epoch, so that a resumed training equals an uninterrupted one (under DDP with more
    than two processes up to rounding: its first step adds the gradients up in another order).

    Args:
        model: network with its initial weights; moved to `device`.
        train: training genes; their mean and SD standardise the targets. NaN is a missing value, which counts in
            no mean of its target; genes without any value are left out, and so are those of weight 0. The other
            weights are scaled to a mean of 1.
        val: validation genes, which choose the learning rate and the best epoch, by a loss weighted by their
            weights; no gradient comes from them.
        config: how to train; None (the default) is the published recipe.
        device: device of this process (default "cpu").
        state: state of an earlier call with the same data, config and loss, to resume; changed in place. None (the
            default) starts anew.
        on_epoch: called after each epoch, on every process, with a state that is valid during the call; None (the
            default) calls nothing.
        on_batch: called after each batch, on every process, with a function that returns a state from which a
            later call resumes after this batch. It is valid during the call, and every process must make it or
            none, since they put together what each knows. None (the default) calls nothing.
        max_workers: maximum number of processes, for a training whose number of processes changes from one
            resumption to the next: batches are cut for so many, and so stay the same. None (the default) takes the
            present number.
        loss: what is minimised; None (the default) is the one that `config` names.

    Returns:
        The final state.

    Raises:
        InputError: too few genes, too few values of a target, or a batch size too small for the workers.
        TrainingDivergedError: the loss became NaN or infinite.
    """
    config, state = config or TrainingConfig(), state or TrainingState()
    loss = loss or LOSSES[config.loss]()
    for _ in train_epochs(
        model,
        train,
        val,
        config,
        device=device,
        state=state,
        max_workers=max_workers,
        loss=loss,
        on_batch=on_batch,
    ):
        if on_epoch is not None:
            on_epoch(state)
    restore_best_weights(model, state, train, loss)
    return state


def restore_best_weights(model: Learner, state: TrainingState, train: Examples, loss: Loss) -> None:
    """Leave in `model` the best epoch's weights, returning original units; ends what `train_epochs` began."""
    state.model = copy.deepcopy(state.model)  # until here these were the model's own tensors
    _load_trainable(model, state.best_model)
    model.end_adapting()
    scale = loss.scale(train.for_training().targets)
    model.rescale_output(scale.mean.tolist(), scale.sd.tolist())


def train_epochs(
    model: Learner,
    train: Examples,
    val: Examples,
    config: TrainingConfig,
    *,
    device: str | torch.device,
    state: TrainingState,
    loss: Loss,
    max_workers: int | None = None,
    on_batch: OnBatch | None = None,
) -> Iterator[TrainingState]:
    """Train as `fit` does, one epoch per step, so that several trainings can advance side by side.

    Arguments and errors are those of `fit`. Yields `state` after each epoch; it is valid until the next.
    """
    context = DistributedContext()
    min_batch_size = 2 * max(context.size, max_workers or 0)  # batch norm needs 2 genes a worker
    train, val = train.with_values(), val.with_values()
    require_enough_genes(len(train.tokens), len(val.tokens), config, min_batch_size // 2)
    require_values(train.targets, val.targets, weights=(train.weights, val.weights))
    train = train.for_training()
    require_enough_genes(len(train.tokens), len(val.tokens), config, min_batch_size // 2)  # of weight above 0
    require_orientation(model.config, config, train.tokens.shape[1])
    device = torch.device(device)
    model.begin_adapting()
    model.to(device)
    scale = loss.scale(train.targets)
    bounds = batch_bounds(len(train.tokens), config.batch_size, min_batch_size)
    optimisation = _Optimisation(model, config, loss, device=device, context=context, steps=len(bounds))
    if state.epoch or state.partial:
        optimisation.load(state)
    batches = TrainingBatches(
        train, scale, config=config, device=device, context=context, network=model.config, min_size=min_batch_size
    )
    ended = time.perf_counter()
    while not state.is_finished(config):
        began = time.perf_counter()
        epoch = state.epoch + 1
        done = PartialEpoch.resume(state, len(scale.sd), device, context=context, seed=config.seed)
        genes = sum(stop - start for start, stop in bounds[done.batches :])

        def snapshot(done: PartialEpoch = done) -> TrainingState:
            return replace(state, partial=done.gather(context), **optimisation.weights())

        after_batch = None if on_batch is None else functools.partial(on_batch, snapshot)
        loss_T, squared_error_T = optimisation.train(batches.iterate_epoch(epoch, done.batches), done, after_batch)
        training_seconds = time.perf_counter() - began
        optimisation.recompute_batch_norm_stats(batches.iterate_epoch(epoch))
        forward, precision = optimisation.forward, config.precision
        predicted = predict_on(forward, val.tokens, device=device, precision=precision, context=context)
        predicted = (predicted * scale.sd + scale.mean).astype(np.float32)
        val_loss = float(loss.mean(predicted, val.targets, scale, val.weights).mean())
        rate = optimisation.end_epoch(val_loss)
        record = {
            "epoch": epoch,
            "learning_rate": rate,
            "train_mse": float((squared_error_T * scale.sd**2).mean()),
            "val_mse": float(metrics.mse(val.targets, predicted).mean()),
            "val_pearson": _mean_r(metrics.pearson(val.targets, predicted), val.targets),
            "val_loss": val_loss,
            "genes_per_second": genes / training_seconds,
            "seconds": time.perf_counter() - ended,
        }
        ended += record["seconds"]
        if not np.isfinite([*loss_T, record["train_mse"], val_loss]).all():
            raise TrainingDivergedError(
                f"the loss is not a number in epoch {epoch}; lower `TrainingConfig.learning_rate` (now {rate:g})"
            )
        _update_state(state, record, optimisation)
        yield state


def _mean_r(r_T: np.ndarray, targets_NT: np.ndarray) -> float:
    """Return the mean over the targets that have enough genes for a correlation; a constant prediction has r 0."""
    enough = (~np.isnan(targets_NT)).sum(axis=0) >= MIN_GENES_FOR_R
    return float(np.nan_to_num(r_T)[enough].mean()) if enough.any() else float("nan")


class _Optimisation:
    """Hold the network with its optimiser, and a learning-rate schedule of `steps` steps per epoch."""

    def __init__(
        self,
        model: Learner,
        config: TrainingConfig,
        loss: Loss,
        *,
        device: torch.device,
        context: DistributedContext,
        steps: int,
    ) -> None:
        self.model, self.config, self.loss = model, config, loss
        self.device, self.context = device, context
        self.forward: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
        self.wrapped: nn.Module = self.forward
        if context.size > 1:
            with warnings.catch_warnings():
                # torch 2.13 renames the argument; releases before it know only this name
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                # Buffers are averaged once an epoch instead of being overwritten by rank 0's at each step.
                # What a user's network computes may leave some weights without a gradient.
                self.wrapped = DistributedDataParallel(
                    self.forward, broadcast_buffers=False, find_unused_parameters=isinstance(model, ExternalModel)
                )
        groups = model.parameter_groups(config.learning_rate)
        self.optimizer = torch.optim.Adam(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        max_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.scheduler: OneCycleLR | ReduceLROnPlateau
        if config.schedule == "one_cycle":  # Smith and Topin 2018, arXiv:1708.07120
            self.scheduler = OneCycleLR(self.optimizer, max_rates, total_steps=config.epochs * steps)
        else:
            self.scheduler = ReduceLROnPlateau(
                self.optimizer, patience=config.lr_patience, factor=config.lr_factor
            )

    def load(self, state: TrainingState) -> None:
        """Take weights, optimiser and schedule from a state to resume."""
        _load_trainable(self.model, state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.scheduler.load_state_dict(state.scheduler)

    def end_epoch(self, val_loss: float) -> float:
        """Step the schedule plateau; return the learning rate that the epoch ended with."""
        rate = self.optimizer.param_groups[0]["lr"]
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(val_loss)
        return rate

    @torch.no_grad()
    def recompute_batch_norm_stats(self, batches: Iterator[Batch]) -> None:
        """Set the batch-norm statistics to those of training genes under the present weights.

        The running averages trail the weights; behind a global average pool, whose variance is small, that
        shifts all predictions: validation losses of ten times the true one. "Precise BN": Wu and Johnson
        2021, arXiv:2105.07576, section 3. Norms that a network keeps in evaluation mode, or whose momentum is 0,
        keep their statistics.
        """
        if not self.model.trains_batch_norms:
            return
        self.model.train()
        norms = [module for module in self.model.modules() if isinstance(module, _BATCH_NORMS)]
        norms = [norm for norm in norms if norm.training and norm.track_running_stats and norm.momentum != 0]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
        passes = -(-_GENES_FOR_STATISTICS // self.config.batch_size) if norms else 0
        for batch in itertools.islice(batches, passes):
            with autocast(self.device, self.config.precision):
                self.model(as_model_input(batch.tokens))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.context.average_buffers(self.model)

    def weights(self) -> dict[str, Any]:
        """Return the weights, and the states of optimiser and schedule, as the fields of a `TrainingState`."""
        return {
            "model": _trainable_state_dict(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def train(
        self, batches: Iterator[Batch], done: PartialEpoch, after_batch: Callable[[], None] | None
    ) -> np.ndarray:
        """Make a step per batch, count it in `done`, and return means over all processes' genes: (2, targets).

        They are of loss and squared error.

        The loss of a batch is a mean over targets, of each target's mean over its values in the global batch. A
        target without a value there adds 0 to it, so that its presence changes the weight of no other target.

        Weights multiply the losses, and the sum is still divided by the number of values, not by their weights:
        the weights have a mean of 1 over the training set, so that an epoch's steps add up to the weighted mean of
        the set. Divided by its own weights, a batch of little weight would count as much as any other, and the
        weight of a gene would depend on which genes share its batch.
        """
        self.wrapped.train()
        for batch in batches:
            self.optimizer.zero_grad(set_to_none=True)
            passes = self._passes(batch)
            for index, part in enumerate(passes):
                with self._summing(last=index == len(passes) - 1):
                    with autocast(self.device, self.config.precision):
                        output_BT = self.wrapped(as_model_input(part.tokens))
                    output_BT = output_BT.float()
                    loss_T = self.loss.sum(output_BT, part.targets, part.weights)
                    # DDP takes the mean over workers, whose shares may differ: weight by the global batch. Where
                    # no value is missing the weights are exactly 1.
                    weight_T = batch.global_size / batch.global_values.clamp(min=1)
                    loss = (loss_T * weight_T).mean() * (self.context.size / batch.global_size)
                    loss.backward()
                loss_T = loss_T.detach()
                # the squared error is not computed twice where it is the loss itself
                same = type(self.loss) is SquaredError and part.weights is None
                squared_T = loss_T if same else SQUARED_ERROR.sum(output_BT.detach(), part.targets)
                # read once an epoch: reading each step would stall a GPU
                done.totals_2T += torch.stack([loss_T, squared_T])
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
            self.optimizer.step()
            if isinstance(self.scheduler, OneCycleLR):
                self.scheduler.step()
            done.values_T += batch.global_values
            done.batches += 1
            if after_batch is not None:
                after_batch()
        return (self.context.sum(done.totals_2T) / done.values_T).cpu().numpy()

    def _passes(self, batch: Batch) -> list[Batch]:
        """Cut a batch into what fits into memory; without batch norms to be trained the gradient is the same."""
        size = self.model.genes_per_pass(batch.tokens.shape[-1], len(batch.tokens))
        cut = zip(batch.tokens.split(size), batch.targets.split(size), strict=True)
        parts = [batch._replace(tokens=tokens, targets=targets) for tokens, targets in cut]
        if batch.weights is None:
            return parts
        weights = batch.weights.split(size)
        return [part._replace(weights=of_part) for part, of_part in zip(parts, weights, strict=True)]

    def _summing(self, last: bool) -> AbstractContextManager[None]:
        """Let DDP average the gradients once a batch, after its last pass."""
        if last or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        return self.wrapped.no_sync()


def _update_state(state: TrainingState, record: dict[str, float], optimisation: _Optimisation) -> None:
    """Bring `state` up to the epoch just finished."""
    better = all(record["val_loss"] < earlier["val_loss"] for earlier in state.history)
    state.epoch = int(record["epoch"])
    state.history.append(record)
    state.partial = {}
    for name, value in optimisation.weights().items():
        setattr(state, name, value)
    if better:
        state.best_epoch = state.epoch
        state.best_model = copy.deepcopy(state.model)


def _trainable_state_dict(model: nn.Module) -> dict[str, Any]:
    """Return the weights; of a network with frozen ones that are known elsewhere only those that are trained."""
    state = model.state_dict()
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: value for name, value in state.items() if name in learned} if _is_partly_known(model) else state


def _load_trainable(model: nn.Module, state: dict[str, Any]) -> None:
    model.load_state_dict(state, strict=not _is_partly_known(model))


def _is_partly_known(model: nn.Module) -> bool:
    """Tell whether a network has frozen weights that need no saving; a user's may draw its own."""
    frozen = any(not parameter.requires_grad for parameter in model.parameters())
    return frozen and not isinstance(model, ExternalModel)
