"""The example networks of the page "Your model", and a naive oracle for scores of any network."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from support.commands import ROOT

EXAMPLES = ROOT / "docs" / "examples"


def load_example(name: str, folder: Path = EXAMPLES) -> ModuleType:
    """Import an example from its file, under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"docs_example_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def randomise(network: nn.Module, seed: int = 0) -> None:
    """Draw weights, and running statistics of batch norms as training would leave them."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5)


@torch.inference_mode()
def scores_by_loop(network: nn.Module, tokens_L: np.ndarray) -> np.ndarray:
    """Score one sequence in float64, a mutant at a time: (targets, 4, length)."""
    double = copy.deepcopy(network).double().eval()

    def predicted(row_L: np.ndarray) -> np.ndarray:
        return double(torch.tensor(np.eye(5)[row_L, :4].T[None])).reshape(-1).numpy()

    reference_T = predicted(tokens_L)
    scores_TAL = np.zeros((len(reference_T), 4, len(tokens_L)))
    for position in range(len(tokens_L)):
        for base in range(4):
            mutant_L = tokens_L.copy()
            mutant_L[position] = base
            scores_TAL[:, base, position] = predicted(mutant_L) - reference_T
    return scores_TAL
