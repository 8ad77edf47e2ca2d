"""Fitting and evaluating: one loop, the same on one device or, when a process group is up, under DDP.

Genes are dealt out so that the sum over the workers is what one worker would compute: each global
batch is shared by all workers, and each gene is predicted by exactly one.
"""

from __future__ import annotations

import copy
import io
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from promoter import metrics
from promoter.errors import InputError
from promoter.models.build import Learner, NetworkConfig
from promoter.models.cnn import CNNConfig, PromoterCNN, evaluating
from promoter.models.precision import full_float32
from promoter.models.pretrained import PretrainedModel, genes_per_pass
from promoter.sequence import N_TOKEN, one_hot, reverse_complement

_GENES_FOR_STATISTICS = 512  # enough that their sampling error does not show in a validation loss
_GENES_PER_PREDICTION = 32  # small enough for a CPU's cache; fixed, so that results do not depend on it


class TrainingDivergedError(FloatingPointError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are the published recipe.

    Args:
        epochs: most epochs to train.
        batch_size: genes in one step, over all workers together.
        learning_rate: step size of Adam at the start; with one_cycle at its highest.
        weight_decay: L2 penalty of Adam.
        schedule: plateau lowers the learning rate where the validation loss falls no more; one_cycle raises it
            over the first 30% of all steps and lowers it to nothing over the rest, whatever the validation says.
        lr_patience: with plateau, epochs without a better validation loss before the learning rate falls.
        lr_factor: with plateau, factor by which the learning rate falls.
        early_stopping: epochs without a better validation loss before training ends; null for never.
        gradient_clip: largest norm of the gradient.
        reverse_complement: probability that a promoter is shown reverse-complemented.
        jitter: most bases by which a promoter is shown shifted either way.
        precision: fp32, or bf16 for mixed precision.
        compile: compile the network with torch.compile (needs a C++ compiler on CPUs).
        seed: seed of weights, order, augmentation, dropout and bootstrap.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    lr_patience: int = 5
    lr_factor: float = 0.5
    early_stopping: int | None = 20
    gradient_clip: float = 1.0
    reverse_complement: float = 0.5
    jitter: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        least = {"epochs": 1, "batch_size": 2, "lr_patience": 0, "jitter": 0, "weight_decay": 0, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"training: {name} {getattr(self, name)} must be at least {bound}")
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"training: {name} {getattr(self, name)} must be above 0")
        if not 0 < self.lr_factor < 1:
            raise InputError(f"training: lr_factor {self.lr_factor} must lie between 0 and 1")
        if not 0 <= self.reverse_complement <= 1:
            raise InputError(f"training: reverse_complement {self.reverse_complement} must lie in 0 to 1")
        if self.schedule not in ("plateau", "one_cycle"):
            raise InputError(f"training: schedule {self.schedule} is not plateau or one_cycle")
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"training: precision {self.precision} is not fp32 or bf16")
        if self.early_stopping is not None and self.early_stopping < 1:
            raise InputError(f"training: early_stopping {self.early_stopping} must be at least 1, or null")


class Examples(NamedTuple):
    """Promoters with targets: `tokens` uint8 (N, length), `targets` float32 (N, targets) in original units.

    For a `PretrainedHead` the tokens are embeddings: float32 (N, 1 or 2, dim), of the sequence and, where it is to
    be shown reverse-complemented too, of its reverse complement.
    """

    tokens: np.ndarray
    targets: np.ndarray


@dataclass
class TrainingState:
    """All that a later process needs to go on as if nothing had happened.

    Attributes:
        epoch: finished epochs.
        history: a record an epoch: `epoch`, `learning_rate`, `train_mse`, `val_mse` and `val_pearson` (means
            over targets, original units), `val_loss` (the mean over targets of the standardised MSE, which
            chooses the best epoch), `genes_per_second` of the training pass, `seconds` since the end of the
            epoch before (validation and `on_epoch` included).
        best_epoch: the epoch with the lowest `val_loss`; 0 before the first.
        model: weights after `epoch`, for standardised targets.
        best_model: weights after `best_epoch`, for standardised targets.
        optimizer: state of Adam.
        scheduler: state of the learning-rate schedule.
    """

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    best_model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` reads it without unpickling code."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainingState:
        """Read what `to_bytes` wrote, onto the CPU."""
        return cls(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))

    def is_finished(self, config: TrainingConfig) -> bool:
        """Tell whether the epochs are used up or early stopping has struck."""
        patience = config.early_stopping
        stalled = patience is not None and self.epoch - self.best_epoch >= patience
        return self.epoch >= config.epochs or stalled


class Evaluation(NamedTuple):
    """Predictions, float32 (N, targets), and each metric over all genes, (targets,)."""

    predictions: np.ndarray
    mse: np.ndarray
    pearson: np.ndarray
    spearman: np.ndarray


class _Standardisation(NamedTuple):
    mean: np.ndarray
    sd: np.ndarray


def standardisation(targets: np.ndarray) -> _Standardisation:
    """Return mean and SD of each target, (targets,); a constant target keeps its scale (SD 1)."""
    sd = targets.std(axis=0, dtype=np.float64)
    return _Standardisation(targets.mean(axis=0, dtype=np.float64), np.where(sd > 0, sd, 1.0))


def fit(
    model: Learner,
    train: Examples,
    val: Examples,
    config: TrainingConfig | None = None,
    device: str | torch.device = "cpu",
    state: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] | None = None,
    most_workers: int | None = None,
) -> TrainingState:
    """Train `model` and leave in it the best epoch's weights, returning original units.

    When `torch.distributed` is initialised every process must call this with the same arguments;
    gradients are averaged by DDP and batch-norm statistics once an epoch. Seeds torch's global
    generators, epoch by epoch, so that a resumed training equals an uninterrupted one (under DDP with more
    than two processes up to rounding: its first step adds the gradients up in another order).

    Args:
        model: with the initial weights; moved to `device`.
        train: to learn from; its mean and SD standardise the targets.
        val: chooses the learning rate and the best epoch; never learned from.
        config: how to train.
        device: of this process.
        state: of an earlier call to go on from.
        on_epoch: called after each epoch, on every process, with a state that is valid during the call.
        most_workers: processes there may ever be, where their number changes from one resumption to the next:
            batches are cut for so many, and so stay the same. By default, as many as there are.

    Returns:
        The final state.

    Raises:
        InputError: too few genes, or a batch size too small for the workers.
        TrainingDivergedError: the loss became NaN or infinite.
    """
    state = state or TrainingState()
    for _ in epochs(model, train, val, config, device, state, most_workers):
        if on_epoch is not None:
            on_epoch(state)
    take_best(model, state, train)
    return state


def take_best(model: Learner, state: TrainingState, train: Examples) -> None:
    """Leave in `model` the best epoch's weights, returning original units; closes what `epochs` began."""
    state.model = copy.deepcopy(state.model)  # until here these were the model's own tensors
    _load_trained(model, state.best_model)
    if isinstance(model, PretrainedModel):
        model.end_adapting()
    scale = standardisation(train.targets)
    model.rescale_output(scale.mean.tolist(), scale.sd.tolist())


def epochs(
    model: Learner,
    train: Examples,
    val: Examples,
    config: TrainingConfig | None = None,
    device: str | torch.device = "cpu",
    state: TrainingState | None = None,
    most_workers: int | None = None,
) -> Iterator[TrainingState]:
    """Train as `fit` does, an epoch a step, so that several trainings can go on side by side.

    Arguments and errors as for `fit`. Yields after each epoch the same state, which is valid until the next;
    `state`, when given, is that one.
    """
    config = config or TrainingConfig()
    world = _World()
    least = 2 * max(world.size, most_workers or 0)  # genes of a batch: batch norm needs 2 a worker
    require_enough_genes(len(train.tokens), len(val.tokens), config, least // 2)
    require_orientation(model.config, config)
    device = torch.device(device)
    if isinstance(model, PretrainedModel):
        model.begin_adapting()
    model.to(device)
    scale = standardisation(train.targets)
    steps = len(batch_bounds(len(train.tokens), config.batch_size, least))
    learner = _Learner(model, config, device, world, steps)
    state = state or TrainingState()
    if state.epoch:
        learner.load(state)
    batches = _Batches(train, scale, config, device, world, model.config, least)
    ended = time.perf_counter()
    while not state.is_finished(config):
        began = time.perf_counter()
        epoch = state.epoch + 1
        _seed(config.seed, epoch, world.rank)
        train_loss = learner.learn(batches.of_epoch(epoch))
        trained = time.perf_counter()
        learner.settle_statistics(batches.of_epoch(epoch))
        checked = _evaluate(learner.forward, val, device, config.precision, world, scale)
        val_loss = float((checked.mse / scale.sd**2).mean())
        rate = learner.end_epoch(val_loss)
        record = {
            "epoch": epoch,
            "learning_rate": rate,
            "train_mse": float((train_loss * scale.sd**2).mean()),
            "val_mse": float(checked.mse.mean()),
            "val_pearson": float(np.nan_to_num(checked.pearson).mean()),
            "val_loss": val_loss,
            "genes_per_second": len(train.tokens) / (trained - began),
            "seconds": time.perf_counter() - ended,
        }
        ended += record["seconds"]
        if not np.isfinite([record["train_mse"], val_loss]).all():
            raise TrainingDivergedError(
                f"the loss is not a number in epoch {epoch}; lower --training.learning_rate (now {rate:g})"
            )
        _advance(state, record, learner)
        yield state


def require_enough_genes(train: int, val: int, config: TrainingConfig, workers: int) -> None:
    """Refuse what leaves a worker without the 2 genes a batch that batch norm needs.

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
            f"training: batch_size {config.batch_size} is too small for {workers} workers; "
            f"at least 2 genes a worker are needed, {2 * workers} in all"
        )


def require_orientation(model: NetworkConfig, config: TrainingConfig) -> None:
    """Refuse to show promoters in ways that the network cannot learn from.

    Raises:
        InputError: several bins, and reverse complements; or shifts of what is embedded once.
    """
    if not isinstance(model, CNNConfig):
        if model.adapt == "head" and config.jitter:
            raise InputError(
                f"--training.jitter {config.jitter} with --model.adapt head: embeddings are computed once, of "
                "sequences as they are; give --training.jitter 0, or --model.adapt lora"
            )
        return
    if model.bins > 1 and config.reverse_complement > 0:
        raise InputError(
            f"--model.bins {model.bins} with --training.reverse_complement {config.reverse_complement:g}: a "
            "promoter turned round has its bins in reverse; give --training.reverse_complement 0, and "
            "--model.both_strands true instead"
        )


def predict(
    model: nn.Module,
    tokens: np.ndarray,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    together: bool = False,
) -> np.ndarray:
    """Predict every sequence, in order.

    Args:
        model: one-hot (batch, 4, length) -> (batch, targets); run in evaluation mode.
        tokens: uint8, shape (N, length).
        device: of the computation, where the model is; by default that of its parameters.
        precision: fp32 or bf16.
        together: share the work among the processes of `torch.distributed`, all of which must call this
            and get the whole result.

    Returns:
        float32, shape (N, targets), in the model's units.
    """
    device = torch.device(device or next(model.parameters()).device)
    with full_float32():
        return _predict(model, tokens, device, precision, _World() if together else None)


def evaluate(
    model: nn.Module,
    examples: Examples,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    together: bool = False,
) -> Evaluation:
    """Predict all examples and compare with their targets, over all genes at once; arguments as for `predict`."""
    device = torch.device(device or next(model.parameters()).device)
    with full_float32():
        return _evaluate(model, examples, device, precision, _World() if together else None)


class _World:
    """This process among those of `torch.distributed`, or alone."""

    def __init__(self) -> None:
        up = dist.is_available() and dist.is_initialized()
        self.rank: int = dist.get_rank() if up else 0
        self.size: int = dist.get_world_size() if up else 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def average_buffers(self, model: nn.Module) -> None:
        """Give every process the same batch-norm statistics: the mean of what each has seen."""
        if self.size == 1:
            return
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        flat = self.sum(torch.cat([buffer.flatten() for buffer in buffers])) / self.size
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))


class _Learner:
    """The network with its optimiser and schedule."""

    def __init__(
        self, model: Learner, config: TrainingConfig, device: torch.device, world: _World, steps: int
    ) -> None:
        """`steps`: of the optimiser in an epoch."""
        self.model, self.config, self.device = model, config, device
        self.forward: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
        self.wrapped: nn.Module = self.forward
        if world.size > 1:
            with warnings.catch_warnings():
                # torch 2.13 renames the argument; releases before it know only this name
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                # Buffers are averaged once an epoch instead of being overwritten by rank 0's at each step.
                self.wrapped = DistributedDataParallel(self.forward, broadcast_buffers=False)
        self.world = world
        groups: Any = (
            model.parameter_groups(config.learning_rate)
            if isinstance(model, PretrainedModel)
            else model.parameters()
        )
        self.optimizer = torch.optim.Adam(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        highest = [group["lr"] for group in self.optimizer.param_groups]
        # Smith and Topin 2018, arXiv:1708.07120
        self.cycle = (
            OneCycleLR(self.optimizer, highest, total_steps=config.epochs * steps)
            if config.schedule == "one_cycle"
            else None
        )
        plateau = ReduceLROnPlateau(self.optimizer, patience=config.lr_patience, factor=config.lr_factor)
        self.scheduler = self.cycle or plateau

    def load(self, state: TrainingState) -> None:
        _load_trained(self.model, state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.scheduler.load_state_dict(state.scheduler)

    def end_epoch(self, val_loss: float) -> float:
        """Let the schedule know; return the learning rate that the epoch ended with."""
        rate = self.optimizer.param_groups[0]["lr"]
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(val_loss)
        return rate

    @torch.no_grad()
    def settle_statistics(self, batches: Iterator[_Batch]) -> None:
        """Set the batch-norm statistics to those of training genes under the weights as they are now.

        The running averages trail the weights; behind a global average pool, whose variance is small, that
        shifts all predictions: validation losses of ten times the true one. "Precise BN": Wu and Johnson
        2021, arXiv:2105.07576, section 3.
        """
        if not isinstance(self.model, PromoterCNN):
            return  # those of a pretrained network stay as they are
        norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
        self.model.train()
        for batch in itertools.islice(batches, -(-_GENES_FOR_STATISTICS // self.config.batch_size)):
            with _autocast(self.device, self.config.precision):
                self.model(one_hot(batch.tokens))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.world.average_buffers(self.model)

    def learn(self, batches: Iterator[_Batch]) -> np.ndarray:
        """Go through the batches once; return the mean loss of each target over all genes, (targets,)."""
        self.wrapped.train()
        total_T = torch.zeros(self.model.config.n_targets, dtype=torch.float64, device=self.device)
        genes = 0
        for batch in batches:
            self.optimizer.zero_grad(set_to_none=True)
            passes = self._passes(batch)
            for index, some in enumerate(passes):
                with self._summing(last=index == len(passes) - 1):
                    with _autocast(self.device, self.config.precision):
                        predicted_BT = self.wrapped(_input(some.tokens))
                    error_T = (predicted_BT.float() - some.targets).square().sum(dim=0)
                    # DDP takes the mean over workers, whose shares may differ by a gene: weight by the global
                    # batch.
                    loss = error_T.mean() * (self.world.size / batch.global_size)
                    loss.backward()
                total_T += error_T.detach()  # read once an epoch: reading each step would stall a GPU
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
            self.optimizer.step()
            if self.cycle is not None:
                self.cycle.step()
            genes += batch.global_size
        return (self.world.sum(total_T) / genes).cpu().numpy()

    def _passes(self, batch: _Batch) -> list[_Batch]:
        """Cut a batch into what fits into memory; without batch norms to be trained the gradient is the same."""
        if not isinstance(self.model, PretrainedModel):
            return [batch]
        size = genes_per_pass(batch.tokens.shape[1], len(batch.tokens))
        cut = zip(batch.tokens.split(size), batch.targets.split(size), strict=True)
        return [_Batch(tokens, targets, batch.global_size) for tokens, targets in cut]

    def _summing(self, last: bool) -> AbstractContextManager[None]:
        """Let DDP average the gradients once a batch, after its last pass."""
        if last or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        return self.wrapped.no_sync()


class _Batch(NamedTuple):
    tokens: Tensor
    targets: Tensor
    global_size: int


class _Batches:
    """Training batches on the device; this process gets its share of each global batch."""

    def __init__(
        self,
        examples: Examples,
        scale: _Standardisation,
        config: TrainingConfig,
        device: torch.device,
        world: _World,
        network: NetworkConfig,
        least: int,
    ) -> None:
        self.least = least
        self.crop = network.outside(examples.tokens.shape[1])
        self.tokens_NL = torch.tensor(examples.tokens, device=device)
        standardised = (examples.targets - scale.mean) / scale.sd
        self.targets_NT = torch.from_numpy(standardised.astype(np.float32)).to(device)
        self.config, self.device, self.world = config, device, world

    def of_epoch(self, epoch: int) -> Iterator[_Batch]:
        """Yield the epoch's batches; order and augmentation depend on seed and epoch, not on the workers."""
        n, config = len(self.tokens_NL), self.config
        generator = torch.Generator().manual_seed(_seed_of(config.seed, epoch))
        order = torch.randperm(n, generator=generator)
        flip = torch.rand(n, generator=generator) < config.reverse_complement
        shift = torch.randint(-config.jitter, config.jitter + 1, (n,), generator=generator)
        order, flip, shift = (drawn.to(self.device) for drawn in (order, flip, shift))
        jitter = config.jitter > 0
        for start, stop in batch_bounds(n, config.batch_size, self.least):
            mine = slice(start + self.world.rank, stop, self.world.size)
            rows = order[mine]
            if self.tokens_NL.is_floating_point():  # embeddings (genes, strands, dim)
                strand = flip[mine].long()
                yield _Batch(self.tokens_NL[rows, strand], self.targets_NT[rows], stop - start)
                continue
            tokens_BL = augment(self.tokens_NL[rows], flip[mine], shift[mine] if jitter else None, self.crop)
            yield _Batch(tokens_BL, self.targets_NT[rows], stop - start)


def batch_bounds(n: int, batch_size: int, least: int) -> list[tuple[int, int]]:
    """Cut `n` genes into batches; a remainder of fewer than `least` joins the batch before it."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] < least:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def augment(tokens_BL: Tensor, flip_B: Tensor, shift_B: Tensor | None = None, outside: int = 0) -> Tensor:
    """Shift, crop, then reverse-complement some sequences.

    Args:
        tokens_BL: integer tokens, shape (batch, length).
        flip_B: bool; which to reverse-complement.
        shift_B: integer; position p shows what stood at p + shift, N past the ends. None shifts nothing.
        outside: first bases to crop; after the shift, so that it brings in the real sequence beside the crop.

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


@torch.inference_mode()
def _predict(
    model: nn.Module, tokens: np.ndarray, device: torch.device, precision: str, world: _World | None
) -> np.ndarray:
    """Predict fixed batches, dealt to the processes in turn; adding up zeros elsewhere gathers them exactly."""
    rank, size = (world.rank, world.size) if world else (0, 1)
    outputs: Tensor | None = None
    with evaluating(model), _autocast(device, precision):
        # so many, whatever the network, that results do not depend on how the genes are dealt out
        genes = (
            _GENES_PER_PREDICTION if tokens.ndim > 2 else genes_per_pass(tokens.shape[1], _GENES_PER_PREDICTION)
        )
        for index, start in enumerate(range(0, len(tokens), genes)):
            if index % size != rank and outputs is not None:
                continue  # the first batch is for all: it tells the number of targets
            rows = slice(start, start + genes)
            some = tokens[rows, 0] if tokens.ndim > 2 else tokens[rows]
            predicted_BT = model(_input(torch.tensor(some, device=device))).float()
            if outputs is None:
                outputs = torch.zeros(len(tokens), predicted_BT.shape[-1], device=device)
            if index % size == rank:
                outputs[rows] = predicted_BT
    if outputs is None:
        raise ValueError("no sequence to predict: tokens has shape (0, ...)")
    if world:
        world.sum(outputs)
    return outputs.cpu().numpy()


def _evaluate(
    model: nn.Module,
    examples: Examples,
    device: torch.device,
    precision: str,
    world: _World | None,
    scale: _Standardisation | None = None,
) -> Evaluation:
    """Evaluate in original units; `scale` brings the output of a network in training back to them."""
    predictions = _predict(model, examples.tokens, device, precision, world)
    if scale is not None:
        predictions = (predictions * scale.sd + scale.mean).astype(np.float32)
    observed = examples.targets
    return Evaluation(
        predictions,
        metrics.mse(observed, predictions),
        metrics.pearson(observed, predictions),
        metrics.spearman(observed, predictions),
    )


def _advance(state: TrainingState, record: dict[str, float], learner: _Learner) -> None:
    """Bring `state` up to the epoch just finished."""
    better = all(record["val_loss"] < earlier["val_loss"] for earlier in state.history)
    state.epoch = int(record["epoch"])
    state.history.append(record)
    state.model = _trained(learner.model)
    state.optimizer = learner.optimizer.state_dict()
    state.scheduler = learner.scheduler.state_dict()
    if better:
        state.best_epoch = state.epoch
        state.best_model = copy.deepcopy(state.model)


def _input(tokens: Tensor) -> Tensor:
    """Return what a network is given: one-hot sequences, or embeddings as they are."""
    return tokens if tokens.is_floating_point() else one_hot(tokens)


def _trained(model: nn.Module) -> dict[str, Any]:
    """Return the weights, of a network that is frozen in part those that are not: the others need not be saved."""
    state = model.state_dict()
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = any(not parameter.requires_grad for parameter in model.parameters())
    return {name: value for name, value in state.items() if name in learned} if frozen else state


def _load_trained(model: nn.Module, state: dict[str, Any]) -> None:
    frozen = any(not parameter.requires_grad for parameter in model.parameters())
    model.load_state_dict(state, strict=not frozen)


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _seed(*parts: int) -> None:
    torch.manual_seed(_seed_of(*parts))


def _seed_of(*parts: int) -> int:
    """Mix numbers into a seed, so that neighbouring epochs and ranks share nothing."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
