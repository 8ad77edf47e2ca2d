"""Check and measure on one GPU all that this project says of GPUs; print Markdown tables, write JSON.

    python benchmarks/gpu.py [--device cuda] [--parts exactness ism …] [--out gpu.json]

It needs `promoter/` and PyTorch: no Ray, no network, none of the packages that read files. Each part runs in a
process of its own, since an error of CUDA spoils its process, and within a time budget, after which it is ended. A
part that fails prints its traceback, and the next one runs; the exit code is then 1. The most valuable parts come
first. All budgets together are 300 s.

machine: the card and what it can do: matrix products in float32, TF32 and bf16, and a copy within its memory.
exactness: the incremental engine on the card against whole passes in float64 on the CPU, with TF32 switched on
    around it on purpose. The contract is 1e-5 of the largest score; the part fails above it.
ism: genes/s by batch size, memory, kernels, launches and synchronisations; against batched passes in float32, bf16
    and compiled bf16, and tangermeme's fast path where it is installed; by window and number of targets.
training: genes/s of `fit` in float32, bf16 and compiled, against a plain loop.
predict: sequences/s.
pretrained: Enformer and Borzoi at their true sizes with random weights, where the extras are installed: time and
    memory of a forward pass and of a training step, mutants/s; beside what docs/pretrained.md has computed.

`--device cpu --small` runs the same code on small inputs in seconds, without budgets; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import functools
import gc
import importlib
import json
import math
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from torch import Tensor, nn

from promoter.ism import forward_passes, saturation_mutagenesis
from promoter.ism.operations import operations
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.precision import full_float32
from promoter.sequence import one_hot

LENGTH = 2000
PUBLISHED = CNNConfig()
# of configs/small-genome.yaml, which a test holds beside it; here without the package that reads YAML
SMALL_GENOME = CNNConfig((128, 32, 32), (7, 3, 3), (8, 4), 32, 0.37, crop=500, bins=5, both_strands=True)
SMALL_PRETRAINED = {  # settings of the libraries' classes
    "enformer": {"dim": 48, "depth": 1, "heads": 4, "attn_dim_key": 8, "dim_divisible_by": 4},
    "borzoi": {"dim": 16, "depth": 1, "heads": 2, "attn_dim_key": 8, "attn_dim_value": 8},
}
CONTRACT = 1e-5  # of the largest |score|


@dataclass
class Session:
    """What a part is given, and what it has found so far.

    Attributes:
        device: to compute on.
        small: whether inputs are cut to what a CPU does in seconds.
        deadline: `time.monotonic()` by which the part should end by itself.
        out: file that gets the tables after each row, so that they outlast a part that is ended.
        tables: found so far: title, columns, rows.
    """

    device: torch.device
    small: bool
    deadline: float
    out: Path
    tables: list[dict[str, Any]] = field(default_factory=list)

    def size(self, large: int, small: int) -> int:
        """Return a size for a card, or for `--small`."""
        return small if self.small else large

    def table(self, title: str, *columns: str) -> None:
        """Begin a table, which the next calls of `row` fill."""
        self.tables.append({"title": title, "columns": columns, "rows": []})
        print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)

    def row(self, *cells: object) -> None:
        """Add a row to the table begun last."""
        self.tables[-1]["rows"].append(cells)
        print(f"| {' | '.join(_shown(cell) for cell in cells)} |", flush=True)
        self.out.write_text(json.dumps(self.tables))

    @contextmanager
    def measuring(self, *cells: object) -> Iterator[bool]:
        """Give whether there is time left for a row; a row that runs out of memory says so."""
        if time.monotonic() > self.deadline:
            self.row(*cells, "no time left")
            yield False
            return
        try:
            yield True
        except torch.cuda.OutOfMemoryError:
            self.row(*cells, "out of memory")
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def seconds(self, call: Callable[[], object], min_total: float = 0.5, warm_up: int = 1) -> float:
        """Return the median time of a call: at least three calls, and as many as `min_total` seconds hold."""
        for _ in range(warm_up):
            call()
        times: list[float] = []
        min_total = 0.0 if self.small else min_total
        while len(times) < 3 or (sum(times) < min_total and len(times) < 100):
            self.wait()
            began = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - began)
            if len(times) == 1 and time.monotonic() + times[0] > self.deadline:
                break
        return statistics.median(times)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak(self, call: Callable[[], object]) -> float:
        """Return the most memory in GB that PyTorch held on the card during a call; NaN on a CPU."""
        if self.device.type != "cuda":
            call()
            return math.nan
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        return torch.cuda.max_memory_allocated(self.device) / 1e9

    def compiled(self, model: nn.Module) -> Any:
        """Compile a model; on a CPU, which may have no compiler, capture it only."""
        return torch.compile(model) if self.device.type == "cuda" else torch.compile(model, backend="eager")


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        return (
            "–" if math.isnan(cell) else f"{cell:,.4g}" if 1e-3 <= abs(cell) < 1e6 or not cell else f"{cell:.1e}"
        )
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


# --- machine ---------------------------------------------------------------------------------------------------


def machine(session: Session) -> None:
    device = session.device
    session.table("Machine", "", "")
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        session.row("card", f"{card.name}, {card.multi_processor_count} multiprocessors")
        session.row("memory", f"{card.total_memory / 1e9:.0f} GB")
        session.row(
            "driver", output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "unknown"
        )
        session.row("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    else:
        session.row("CPU", f"{platform.machine()}, {torch.get_num_threads()} threads")
    session.row("Python, PyTorch", f"{platform.python_version()}, {torch.__version__}")
    session.row("commit", output_of("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown")
    session.table("Ceilings", "", "shape", "rate", "unit")
    for name, rate in product_rates(session).items():
        n = session.size(8192, 256)
        session.row(f"matrix product, {name}", f"{n} × {n} × {n}", rate / 1e12, "TFLOP/s")
    count = session.size(1 << 28, 1 << 20)
    source, target = (torch.rand(count, device=device) for _ in range(2))
    took = session.seconds(lambda: target.copy_(source))
    session.row("copy, read and written", f"{4 * count / 1e9:.2f} GB", 8 * count / took / 1e12, "TB/s")


def product_rates(session: Session) -> dict[str, float]:
    """Return operations a second of a large matrix product of random numbers."""
    n = session.size(8192, 256)
    a, b = (torch.randn(n, n, device=session.device) for _ in range(2))
    rates = {}
    with full_float32():
        rates["float32"] = 2 * n**3 / session.seconds(lambda: a @ b)
    with tf32():
        rates["TF32"] = 2 * n**3 / session.seconds(lambda: a @ b)
    a, b = a.bfloat16(), b.bfloat16()
    rates["bf16"] = 2 * n**3 / session.seconds(lambda: a @ b)
    return rates


@contextmanager
def tf32() -> Iterator[None]:
    """Switch TF32 on for convolutions and matrix products, as some images and training scripts do."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


def output_of(*command: str) -> str | None:
    """Return what a command prints; None where there is no such command or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


# --- exactness -------------------------------------------------------------------------------------------------


def exactness(session: Session) -> None:
    cases = {
        "published": PUBLISHED,
        "published, 5 targets": replace(PUBLISHED, n_targets=5),
        "small-genome.yaml": SMALL_GENOME,
        "bins": replace(PUBLISHED, bins=4),
        "both strands": replace(PUBLISHED, both_strands=True),
    }
    session.table(
        "Error in units of the largest |score|, TF32 switched on around it",
        *("network", "bases", "engine", "engine, bf16", "whole passes", "whole passes, TF32"),
    )
    worst = 0.0
    for name, config in cases.items():
        for length in (session.size(LENGTH, 600), session.size(LENGTH + 13, 613)):
            with session.measuring(name, length) as on:
                if not on:
                    continue
                model = network(config, length, session.device)
                tokens_NL = random_tokens(2, length, session.device)
                tokens_NL[1, length // 3 : length // 3 + 40] = 4
                tokens_NL[:, 0] = 4
                tokens_NL[1, -1] = 4
                errors = engine_errors(session, model, tokens_NL)
                worst = max(worst, errors[0])
                session.row(name, length, *errors)
    print(f"\nlargest error of the engine: {worst:.1e}; the contract is {CONTRACT:.0e}")
    if not worst <= CONTRACT:
        raise AssertionError(f"the engine is off by {worst:.1e} of the largest |score|, more than {CONTRACT:.0e}")


def engine_errors(session: Session, model: PromoterCNN, tokens_NL: Tensor) -> list[float]:
    """Return the errors of the ways to score, at positions spread over the window and at its ends."""
    length = tokens_NL.shape[1]
    outside = model.config.outside(length)
    spread = np.linspace(outside, length - 1, session.size(24, 4)).astype(int).tolist()
    chosen = sorted({*spread, outside, outside + 1, length - 2, length // 3 * (outside == 0) or length - 3})
    expected_NTAP = exact_scores(model, tokens_NL, chosen)
    largest_NT11 = expected_NTAP.abs().amax(dim=(2, 3), keepdim=True)

    def error(scores_NTAL: np.ndarray | Tensor) -> float:
        scores = torch.as_tensor(scores_NTAL).double().cpu()[..., chosen]
        return float(((scores - expected_NTAP).abs() / largest_NT11).max())

    with tf32():
        tokens = tokens_NL.cpu().numpy()
        errors = [error(saturation_mutagenesis(model, tokens, precision=name)) for name in ("fp32", "bf16")]
        with full_float32():
            errors.append(error(passes_at(model, tokens_NL, chosen)))
        errors.append(error(passes_at(model, tokens_NL, chosen)))
    return errors


def passes_at(model: PromoterCNN, tokens_NL: Tensor, chosen: list[int]) -> Tensor:
    """Score some positions by whole passes, and leave 0 at the others: (N, targets, 4, length)."""
    scores = torch.zeros(len(tokens_NL), model.config.n_targets, 4, tokens_NL.shape[1])
    for position in chosen:
        region = (position, position + 1)
        scores[..., position] = forward_passes.score_substitutions(
            model, tokens_NL, batch_size=None, positions=region
        )[..., 0].cpu()
    return scores


@torch.inference_mode()
def exact_scores(model: PromoterCNN, tokens_NL: Tensor, positions: list[int]) -> Tensor:
    """Score some positions by forward passes in float64 on the CPU, one by one: (N, targets, 4, positions)."""
    double = copy.deepcopy(model).cpu().double()
    tokens_NL = tokens_NL.cpu()
    reference_NT = double(one_hot(tokens_NL, torch.float64))
    scores = torch.zeros(*reference_NT.shape, 4, len(positions), dtype=torch.float64)
    for index, position in enumerate(positions):
        for base in range(4):
            mutants_NL = tokens_NL.clone()
            mutants_NL[:, position] = base
            scores[:, :, base, index] = double(one_hot(mutants_NL, torch.float64)) - reference_NT
    return scores


# --- ism -------------------------------------------------------------------------------------------------------


def ism(session: Session) -> None:
    length, genes = session.size(LENGTH, 300), session.size(130, 3)
    model = network(PUBLISHED, length, session.device)
    tokens = random_tokens(genes, length, session.device).cpu().numpy()
    floor = operations(PUBLISHED, length)
    session.table(
        f"ISM of {length} bases, published network, {genes} genes a call",
        *("method", "genes/s", "GB", "TFLOP/s of the floor's operations"),
    )
    ours = math.inf
    sizes: list[int | None] = [None] if session.small else [None, 1 << 12, 1 << 14, 1 << 16]
    for size in sizes:
        name = f"promoter, batch_size {size or 'by default'}"
        with session.measuring(name) as on:
            if on:
                score = functools.partial(saturation_mutagenesis, model, tokens, batch_size=size)
                took = session.seconds(score, 1.0) / genes
                ours = min(ours, took)
                session.row(name, 1 / took, session.peak(score), floor / took / 1e12)
    profile(session, model, tokens[: session.size(65, 3)])
    windows_and_targets(session)
    against_others(session, model, ours)


def profile(session: Session, model: PromoterCNN, tokens: np.ndarray) -> None:
    """Print where the time of one call goes: kernels, launches, synchronisations."""
    cuda = session.device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    with torch.profiler.profile(activities=kinds) as profiler:
        saturation_mutagenesis(model, tokens)
        session.wait()
    averages = profiler.key_averages()

    def own_time(event: Any) -> float:
        if not cuda:
            return event.self_cpu_time_total
        # operations of the CPU are listed with the time of the kernels that they launch; count each kernel once
        return event.self_device_time_total if event.device_type.name == "CUDA" else 0.0

    total = sum(own_time(event) for event in averages) or 1.0
    ran_on = "kernel" if cuda else "operation"
    session.table(f"One call of {len(tokens)} genes, by {ran_on}", ran_on, "calls", "ms", "share")
    for event in sorted(averages, key=own_time, reverse=True)[:12]:
        session.row(
            event.key[:70].replace("|", "/"), event.count, own_time(event) / 1e3, f"{own_time(event) / total:.0%}"
        )
    counts = Counter({event.key: event.count for event in averages})
    session.table("Launches and synchronisations of that call", "", "calls")
    session.row("operations of PyTorch", sum(n for key, n in counts.items() if key.startswith("aten::")))
    session.row("kernels launched", sum(n for key, n in counts.items() if "LaunchKernel" in key))
    session.row("synchronisations", sum(n for key, n in counts.items() if "Synchronize" in key))
    session.row(
        "copies between host and card", sum(n for key, n in counts.items() if key.startswith("cudaMemcpy"))
    )
    for name in ("aten::nonzero", "aten::addmm_", "aten::index"):
        session.row(name, counts[name])


def against_others(session: Session, model: PromoterCNN, ours: float) -> None:
    """Time whole passes and tangermeme on as few genes as are needed."""
    length = session.size(LENGTH, 300)
    tokens_NL = random_tokens(session.size(2, 1), length, session.device)
    n = len(tokens_NL)
    session.table("The same by other methods", "method", "genes/s", "GB", "promoter is faster by")

    def add(name: str, score: Callable[[], object], count: int = n, warm_up: int = 1) -> None:
        with session.measuring(name) as on:
            if on:
                took = session.seconds(score, warm_up=warm_up) / count
                session.row(name, 1 / took, session.peak(score), took / ours)

    for name, guard in (("float32", full_float32), ("TF32", tf32)):
        with guard():
            add(f"batched passes, {name}", lambda: forward_passes.score_substitutions(model, tokens_NL))
    add("batched passes, bf16", lambda: forward_passes.score_substitutions(model, tokens_NL, precision="bf16"))
    fast = session.compiled(model)
    compiled = functools.partial(forward_passes.score_substitutions, fast, tokens_NL, precision="bf16")
    add("batched passes, bf16, compiled", compiled)
    if not installed("tangermeme"):
        session.row("tangermeme", "not installed", "", "")
        return
    count = session.size(16, 1)
    many_NL = random_tokens(count, length, session.device)
    with full_float32():
        add("tangermeme, fast=True", lambda: through_tangermeme(model, many_NL), count, warm_up=0)


def through_tangermeme(model: nn.Module, tokens_NL: Tensor) -> None:
    from tangermeme.saturation_mutagenesis import saturation_mutagenesis as theirs  # noqa: PLC0415 # may be missing

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs(
            model,
            one_hot(tokens_NL, torch.int8),
            raw_outputs=True,
            dtype=torch.float32,
            device=tokens_NL.device,
            batch_size=1024,
        )
    for text in {" ".join(str(warning.message).split()) for warning in caught if "fast" in str(warning.message)}:
        print(f"tangermeme: {text[:300]}")


def windows_and_targets(session: Session) -> None:
    session.table(
        "ISM by window and targets", "bases", "targets", "genes/s", "GB", "TFLOP/s of the floor's operations"
    )
    lengths = [300, 500] if session.small else [500, 1000, 2000, 4000, 8000, 16_000]
    for length, targets in [(length, 1) for length in lengths] + [(session.size(LENGTH, 300), 50)]:
        with session.measuring(length, targets) as on:
            if on:
                config = replace(PUBLISHED, n_targets=targets)
                model = network(config, length, session.device)
                genes = max(1, session.size(1 << 17, 300) // length)
                tokens = random_tokens(genes, length, session.device).cpu().numpy()
                score = functools.partial(saturation_mutagenesis, model, tokens)
                took = session.seconds(score) / genes
                rate = operations(config, length) / took / 1e12
                session.row(length, targets, 1 / took, session.peak(score), rate)


# --- training and predictions ----------------------------------------------------------------------------------


def training(session: Session) -> None:
    from promoter.training import Examples, TrainingConfig, fit  # noqa: PLC0415 # brings scipy, which ISM does not need

    length, genes, batch = session.size(LENGTH, 200), session.size(8192, 48), session.size(64, 16)
    tokens = random_tokens(genes + 64, length).numpy()
    targets = np.random.default_rng(0).normal(size=(len(tokens), 1)).astype(np.float32)
    learned, validated = Examples(tokens[:genes], targets[:genes]), Examples(tokens[genes:], targets[genes:])
    operations = training_operations(PUBLISHED, length)
    rates = product_rates(session)
    session.table(
        f"Training, {length} bases, published network, {genes} genes",
        *("", "batch", "genes/s", "GB", "× the plain loop", "share of the card's matrix product"),
    )
    plain = math.nan
    with session.measuring("plain loop", batch) as on:
        if on:
            loop = functools.partial(plain_loop, session, tokens[:genes], targets[:genes], batch)
            plain = loop()
            session.row("plain loop", batch, plain, session.peak(loop), 1.0, operations * plain / rates["TF32"])
    for name, size, settings in (
        ("fit, float32", batch, {}),
        ("fit, bf16", batch, {"precision": "bf16"}),
        ("fit, bf16", 16 * batch, {"precision": "bf16"}),
        ("fit, bf16, compiled", batch, {"precision": "bf16", "compile": True}),
    ):
        if settings.get("compile") and session.device.type != "cuda":
            session.row(name, size, "a CPU may have no compiler", *[""] * 3)
            continue
        with session.measuring(name, size) as on:
            if not on:
                continue
            config = TrainingConfig(epochs=3, batch_size=size, **settings)  # type: ignore[arg-type] # as written here
            epoch_rates: list[float] = []

            def run(config: TrainingConfig = config, epoch_rates: list[float] = epoch_rates) -> None:
                state = fit(PromoterCNN(PUBLISHED), learned, validated, config=config, device=session.device)
                epoch_rates.extend(record["genes_per_second"] for record in state.history[1:])

            memory = session.peak(run)
            rate = statistics.median(epoch_rates)
            # PyTorch's default for float32 is TF32 in convolutions, which are nearly all of it
            ceiling = rates["bf16" if "precision" in settings else "TF32"]
            session.row(name, size, rate, memory, rate / plain, operations * rate / ceiling)


def training_operations(config: CNNConfig, length: int) -> float:
    """Count a gene's operations in a training step, by PyTorch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 # used here alone

    with FlopCounterMode(display=False) as counter:
        PromoterCNN(config)(torch.zeros(2, 4, length)).sum().backward()
    return counter.get_total_flops() / 2


def plain_loop(session: Session, tokens: np.ndarray, targets: np.ndarray, batch: int) -> float:
    """Train as one writes it first, all data on the device; return genes/s of the epochs after the first."""
    x_NCL = one_hot(torch.from_numpy(tokens)).to(session.device)
    y_NT = torch.from_numpy(targets).to(session.device)
    model = plain_network().to(session.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    rates = []
    for _ in range(3):
        session.wait()
        began = time.perf_counter()
        for rows in torch.randperm(len(tokens), device=session.device).split(batch):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x_NCL[rows]), y_NT[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        session.wait()
        rates.append(len(tokens) / (time.perf_counter() - began))
    return statistics.median(rates[1:])


def plain_network() -> nn.Module:
    """Build the published design from PyTorch's own layers."""
    return nn.Sequential(
        *(nn.Conv1d(4, 256, 15, padding=7), nn.BatchNorm1d(256), nn.ReLU(), nn.MaxPool1d(4)),
        *(nn.Conv1d(256, 128, 5, padding=2), nn.BatchNorm1d(128), nn.ReLU(), nn.MaxPool1d(4)),
        *(nn.Conv1d(128, 64, 3, padding=1), nn.BatchNorm1d(64), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        *(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1)),
    )


def predict(session: Session) -> None:
    from promoter.training import predict as predicted  # noqa: PLC0415 # brings scipy, which ISM does not need

    length, count = session.size(LENGTH, 200), session.size(20_000, 100)
    model = network(PUBLISHED, length, session.device)
    tokens = random_tokens(count, length).numpy()
    session.table(f"Predictions, {length} bases, published network", "precision", "sequences/s", "GB")
    for precision in ("fp32", "bf16"):
        with session.measuring(precision) as on:
            if on:
                call = functools.partial(predicted, model, tokens, device=session.device, precision=precision)  # type: ignore[arg-type] # as listed
                session.row(precision, count / session.seconds(call), session.peak(call))


# --- pretrained ------------------------------------------------------------------------------------------------


def pretrained(session: Session) -> None:
    session.table(
        "Pretrained networks, one sequence of the whole context, random weights",
        *("network", "mode", "precision", "ms", "GB", "GB, computed", "TFLOP, computed", "TFLOP", "TFLOP/s"),
    )
    for name, library in (("enformer", "enformer_pytorch"), ("borzoi", "borzoi_pytorch")):
        if not installed(library):
            session.row(name, f"{library} is not installed", *[""] * 7)
            continue
        for adapt in ("head", "lora", "full"):
            with session.measuring(name, adapt) as on:
                if on:
                    pretrained_rows(session, name, adapt)


def pretrained_rows(session: Session, name: Any, adapt: Any) -> None:
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 # used here alone

    from benchmarks.pretrained_cost import vars_of  # noqa: PLC0415 # needs the libraries
    from promoter.models.config import PretrainedConfig  # noqa: PLC0415 # needed here alone
    from promoter.models.pretrained import empty_model  # noqa: PLC0415 # needed here alone

    config = PretrainedConfig(name, adapt=adapt)
    architecture = config.architecture
    length = architecture.context if not session.small else architecture.step * 2
    torch.manual_seed(0)
    settings = vars_of(architecture.library) | (SMALL_PRETRAINED[name] if session.small else {})
    model = empty_model(config, length, {"config": settings}).to(session.device)
    x_BCL = one_hot(random_tokens(1, length, session.device))

    def measure(mode: str, precision: str, call: Callable[[], object]) -> None:
        with FlopCounterMode(display=False) as counter:
            call()
        operations = counter.get_total_flops() / 1e12
        took = session.seconds(call)
        expected = computed(name, mode.split(",", maxsplit=1)[0], precision)
        memory = session.peak(call)
        session.row(name, mode, precision, 1e3 * took, memory, *expected, operations, operations / took)

    def autocast(precision: str) -> torch.autocast:
        return torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")

    def training_step(network: nn.Module, groups: Any, x: Tensor, precision: str) -> Callable[[], None]:
        optimizer = torch.optim.Adam(groups, lr=1e-4, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(precision):
                loss = network(x).square().mean()
            loss.backward()
            optimizer.step()

        return step

    if adapt != "head":
        model.begin_adapting()
        model.train()
        for precision in ("fp32", "bf16"):
            measure(adapt, precision, training_step(model, model.parameter_groups(1e-4), x_BCL, precision))
        return
    model.eval()
    for precision in ("fp32", "bf16"):
        with torch.no_grad(), autocast(precision):  # the counter does not know tensors of inference mode
            if precision == "fp32":
                measure("forward pass, TF32 as PyTorch has it", precision, lambda: model(x_BCL))
            with full_float32():
                measure("forward pass, as scores and embeddings", precision, lambda: model(x_BCL))
        mutants(session, model, name, precision=precision, length=length)
    embeddings_BD = torch.randn(64, model.head.norm.normalized_shape[0], device=session.device)
    head = model.head.train()
    measure("head, 64 embeddings", "fp32", training_step(head, head.parameters(), embeddings_BD, "fp32"))


@functools.cache
def computed(name: str, mode: str, precision: str) -> tuple[float, float]:
    """Return the GB and the TFLOP that docs/pretrained.md says of a sequence; NaN where it says nothing."""
    row = rf"\| {name}, [^|]* \| {mode} \| {precision} \| [^|]* \| ([\d.]+) GB \| ([\d.]+) \|"
    numbers = re.search(row, (ROOT / "docs" / "pretrained.md").read_text())
    return (float(numbers[1]), float(numbers[2])) if numbers else (math.nan, math.nan)


def mutants(session: Session, model: nn.Module, name: str, *, precision: Any, length: int) -> None:
    """Time the mutants of one position."""
    tokens_1L = random_tokens(1, length, session.device)
    with full_float32():
        score = functools.partial(
            forward_passes.score_substitutions,
            model,
            tokens_1L,
            positions=(length // 2, length // 2 + 1),
            precision=precision,
        )
        took = session.seconds(score)
    session.row(name, "ISM, a mutant", precision, 1e3 * took / 3, session.peak(score), *[math.nan] * 4)


# --- inputs and parts ------------------------------------------------------------------------------------------


def network(config: CNNConfig, length: int, device: torch.device | str = "cpu") -> PromoterCNN:
    """Return a network with batch-norm statistics of random sequences, as training leaves them."""
    torch.manual_seed(0)
    model = PromoterCNN(config, length=length).to(device)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(one_hot(random_tokens(32, length, device)))
    return model.eval()


def installed(library: str) -> bool:
    try:
        importlib.import_module(library)
    except ImportError as error:
        print(f"{library} cannot be imported: {error}")
        return False
    return True


def random_tokens(n: int, length: int, device: torch.device | str = "cpu") -> Tensor:
    return torch.randint(0, 4, (n, length), dtype=torch.uint8, device=device)


# with the seconds that each may take, of which the start of PyTorch and CUDA are some five
PARTS: dict[str, tuple[Callable[[Session], None], int]] = {
    "machine": (machine, 15),
    "exactness": (exactness, 30),
    "ism": (ism, 120),
    "training": (training, 60),
    "predict": (predict, 15),
    "pretrained": (pretrained, 60),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="cut the inputs to what a CPU does in seconds")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, help="JSON file for all tables")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)  # run one part here; the file for its tables
    options = parser.parse_args(arguments)
    if options.alone:
        part, budget = PARTS[options.parts[0]]
        deadline = math.inf if options.small else time.monotonic() + 0.8 * budget
        part(Session(torch.device(options.device), options.small, deadline, options.alone))
        return 0
    results: dict[str, Any] = {}
    for name in options.parts:
        results[name] = run_part(name, options.device, options.small)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1))
    failed = [name for name, result in results.items() if result["status"] != "done"]
    print(
        f"\n{len(results) - len(failed)} parts done" + f"; failed: {', '.join(failed)}" * bool(failed), flush=True
    )
    return 1 if failed else 0


def run_part(name: str, device: str, small: bool) -> dict[str, Any]:
    """Run a part in a process of its own; what it found until it failed or was ended is kept."""
    budget = PARTS[name][1]
    print(f"\n## {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tables.json"
        words = [sys.executable, str(Path(__file__).resolve()), "--alone", str(file), "--parts", name]
        began = time.monotonic()
        try:
            code = subprocess.run(
                [*words, "--device", device, *["--small"] * small], check=False, timeout=None if small else budget
            ).returncode
            status = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            status = f"ended after its budget of {budget} s"
        took = time.monotonic() - began
        tables = json.loads(file.read_text()) if file.exists() else []
    print(f"\n{name}: {status}, {took:.0f} s", flush=True)
    return {"status": status, "seconds": took, "tables": tables}


if __name__ == "__main__":
    sys.exit(main())
