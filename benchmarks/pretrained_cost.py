"""Memory and work of the pretrained networks at their true sizes, computed without weights and without a GPU.

    python -m benchmarks.pretrained_cost

Each network is taken through a forward pass, or a training step of one sequence, of tensors without values
(torch's fake tensors), while the bytes of all tensors that are alive at a time and the operations of all matrix
products and convolutions are counted. What a GPU needs beyond that (its kernels, the workspace of cuDNN,
fragmentation) is not in it: allow 2 GB. Prints the table of docs/pretrained.md.
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from promoter.models.config import ARCHITECTURES, PretrainedConfig
from promoter.models.pretrained import PretrainedModel, empty_model

GENES = 18_000
# dense bf16 and TF32 of an NVIDIA A100 by its data sheet, and the share of it that such networks are taken to
# reach
A100 = {"bf16": 312e12, "fp32": 156e12}
SHARE = 0.3
GPUS = ((16, "T4, V100 16 GB"), (24, "L4, A10, RTX 4090"), (40, "A100 40 GB"), (80, "A100, H100 80 GB"))
OVERHEAD = 2e9


@dataclass(frozen=True)
class Cost:
    """Of one sequence."""

    parameters: int
    trained: int
    peak: float
    operations: float


class Peak(TorchDispatchMode):
    """Tells the most bytes that were alive at a time, of tensors made while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it makes."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.alive[reference.cdata] = (reference, storage.nbytes())
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, help="bases, fewer than the networks were trained on")
    context = parser.parse_args().context
    print("| network | mode | precision | trained weights | memory | TFLOP | fits | A100 |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- | --- |")
    for name, architecture in ARCHITECTURES.items():
        for mode, adapt in (("forward pass", "head"), ("lora", "lora"), ("full", "full")):
            for precision in ("fp32", "bf16"):
                cost = measure(name, adapt, precision, context or architecture.context)  # type: ignore[arg-type] # as listed
                print(_row(name, mode, precision, cost), flush=True)


def measure(
    name: Literal["enformer", "borzoi"],
    adapt: Literal["head", "lora", "full"],
    precision: Literal["fp32", "bf16"],
    length: int,
) -> Cost:
    """Count one sequence: a forward pass of a frozen trunk, else a training step."""
    architecture = ARCHITECTURES[name]
    settings = {"config": vars_of(architecture.library)}
    # with random weights: peft cannot be applied to fake ones
    model = empty_model(PretrainedConfig(name, adapt=adapt), length, settings)
    if adapt != "head":
        model.begin_adapting()
    model.train(adapt != "head")
    model_bytes = sum(_bytes(tensor) for tensor in [*model.parameters(), *model.buffers()])
    trained_tensors = [tensor for group in model.parameter_groups(1.0) for tensor in group["params"]]
    trained = sum(tensor.numel() for tensor in trained_tensors) if adapt != "head" else 0
    parameters = sum(tensor.numel() for tensor in model.parameters())
    peak, flops = Peak(), FlopCounterMode(display=False)
    with FakeTensorMode(allow_non_fake_inputs=True), flops, peak:
        x_BCL = torch.empty(1, 4, length)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            _step(model, x_BCL, adapt != "head")
    state = 8 * trained  # the two moments of Adam; the gradients are in the peak
    return Cost(parameters, trained, model_bytes + state + peak.most, float(flops.get_total_flops()))


def vars_of(library: tuple[str, str]) -> dict[str, Any]:
    """Return the settings of the published network, which are the library's defaults."""
    config = getattr(importlib.import_module(library[0]), library[1]).config_class()
    outputs = {"output_heads", "target_length", "use_checkpointing", "enable_mouse_head"}
    plain = vars(importlib.import_module("transformers").PretrainedConfig())
    return {key: value for key, value in vars(config).items() if key not in plain and key not in outputs}


def _step(model: PretrainedModel, x_BCL: Tensor, training: bool) -> None:
    if not training:
        with torch.no_grad():
            model(x_BCL)
        return
    model(x_BCL).sum().backward()


def _bytes(tensor: Tensor | nn.Parameter) -> int:
    return tensor.numel() * tensor.element_size()


def _row(name: str, mode: str, precision: str, cost: Cost) -> str:
    seconds = cost.operations / (A100[precision] * SHARE)
    able = GPUS if precision == "fp32" else GPUS[1:]  # the first have no bf16
    fitting = next((gpu for size, gpu in able if cost.peak + OVERHEAD <= size * 1e9), "none")
    hours = GENES * seconds / 3600
    trained = f"{cost.trained / 1e6:,.1f} M" if cost.trained else "–"
    return (
        f"| {name}, {cost.parameters / 1e6:,.0f} M | {mode} | {precision} | {trained} | "
        f"{cost.peak / 1e9:,.1f} GB | "
        f"{cost.operations / 1e12:,.1f} | {fitting} | {1000 * seconds:,.0f} ms, {hours:,.1f} h |"
    )


if __name__ == "__main__":
    main()
