"""Scores, predictions and embeddings are computed in full float32, whatever a program has set around them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import backends

from promoter.ism import saturation_mutagenesis
from promoter.models.config import PretrainedConfig
from promoter.models.precision import full_float32
from promoter.models.pretrained import PretrainedModel, embed
from promoter.models.trunk import Trunk
from promoter.training import Examples, evaluate, predict


def settings_now() -> dict[str, Any]:
    """Read all that PyTorch has to say of float32; "contradiction" where an older name can no longer tell."""
    readers: dict[str, Callable[[], Any]] = {
        "matmul": torch.get_float32_matmul_precision,
        "cuda.matmul.allow_tf32": lambda: backends.cuda.matmul.allow_tf32,
        "cudnn.allow_tf32": lambda: backends.cudnn.allow_tf32,
    }
    kinds: list[tuple[Any, str]] = [(backends.cuda, "matmul")]
    kinds += [(backends.cudnn, "conv"), (backends.cudnn, "rnn")]
    kinds += [(backends.mkldnn, kind) for kind in ("matmul", "conv", "rnn")]
    for owner, kind in kinds:
        readers[f"{owner.__name__}.{kind}"] = lambda owner=owner, kind=kind: getattr(owner, kind).fp32_precision
    values = {}
    for name, read in readers.items():
        try:
            values[name] = read()
        except RuntimeError:
            values[name] = "contradiction"
    return values


# Each in a process of its own: PyTorch cannot be brought back to a state in which nothing was set.
SETTINGS = {
    "nothing": "pass",
    "matmul high": "torch.set_float32_matmul_precision('high')",
    "matmul medium": "torch.set_float32_matmul_precision('medium')",
    "allow_tf32": "backends.cuda.matmul.allow_tf32 = True",
    "cudnn off": "backends.cudnn.allow_tf32 = False",
    "all, newer name": "backends.fp32_precision = 'tf32'",
    "matmul, newer name": "backends.cuda.matmul.fp32_precision = 'tf32'",
    "cudnn, newer name": "backends.cudnn.fp32_precision = 'tf32'",
    "conv ieee, newer name": "backends.cudnn.conv.fp32_precision = 'ieee'",
    "CPU, newer name": "backends.mkldnn.fp32_precision = 'bf16'",
    "both names": "torch.set_float32_matmul_precision('high'); backends.cuda.matmul.fp32_precision = 'ieee'",
}


@pytest.mark.skipif(not hasattr(backends, "fp32_precision"), reason="this PyTorch has the older names alone")
def test_full_float32_overrides_every_setting_and_restores_it() -> None:
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
import torch
from torch import backends
from promoter.models.precision import full_float32
from test_precision import settings_now
{{}}
before = settings_now()
try:
    with full_float32():
        inside = settings_now()
        raise KeyError
except KeyError:
    pass
assert settings_now() == before, (before, settings_now())
exact = {{{{"highest", False, "ieee", "contradiction"}}}}
assert set(inside.values()) <= exact, inside
assert "ieee" in inside.values()
"""
    running = {
        name: subprocess.Popen([sys.executable, "-c", script.format(statement)], stderr=subprocess.PIPE, text=True)
        for name, statement in SETTINGS.items()
    }
    failed = {name: process.communicate()[1] for name, process in running.items() if process.wait()}
    assert not failed


class Watching(torch.nn.Module):
    """A model that notes how it is to be computed when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(4, 1, 3)
        self.seen: list[dict[str, Any]] = []

    def forward(self, x_BCL: torch.Tensor) -> torch.Tensor:
        self.seen.append(settings_now())
        return self.conv(x_BCL).mean(dim=-1)


@pytest.fixture
def tf32_everywhere() -> Any:
    """Convolutions (PyTorch's default) and matrix products by TF32, as some images set it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    assert backends.cudnn.allow_tf32
    yield settings_now()
    torch.set_float32_matmul_precision(before)


def allowed(seen: list[dict[str, Any]]) -> set[Any]:
    assert seen
    return {one[name] for one in seen for name in ("matmul", "cuda.matmul.allow_tf32", "cudnn.allow_tf32")}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_predictions_and_metrics_never_use_tf32(tf32_everywhere: dict[str, Any], precision: Any) -> None:
    model, tokens = Watching(), np.zeros((2, 20), np.uint8)
    saturation_mutagenesis(model, tokens)
    predict(model, tokens, precision=precision)
    evaluate(model, Examples(tokens, np.zeros((2, 1), np.float32)), precision=precision)
    assert allowed(model.seen) == {"highest", False}
    assert settings_now() == tf32_everywhere


def test_embeddings_never_use_tf32(tf32_everywhere: dict[str, Any]) -> None:
    """A head trained on embeddings rounded to TF32 would be used on exact ones."""
    watching = Watching()
    trunk = torch.nn.Sequential(watching, torch.nn.Unflatten(1, (1, 1)))  # (batch, 1) as (batch, bins, dim)
    model = PretrainedModel(PretrainedConfig("enformer", tss_bins=1), Trunk(trunk, [trunk], 1), {})
    embed(model, np.zeros((1, 512), np.uint8), device="cpu")
    assert allowed(watching.seen) == {"highest", False}
    assert settings_now() == tf32_everywhere


def test_precision_settings_are_restored_after_an_error() -> None:
    before = settings_now()
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert settings_now() == before
