"""The incremental engine is used for the network that it computes, and for no other."""

from __future__ import annotations

import logging
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_incremental import Float64, largest_error, random_network
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from promoter.ism import forward_passes, incremental, saturation_mutagenesis, self_check
from promoter.models import cnn as model_module
from promoter.models.cnn import CNNConfig, PromoterCNN

CONFIG = CNNConfig((8, 6), (5, 3), (4,), hidden=16)
LENGTH = 61


@pytest.fixture
def tokens() -> np.ndarray:
    tokens = np.random.default_rng(0).integers(0, 4, (2, LENGTH)).astype(np.uint8)
    tokens[1, 20:25] = 4
    return tokens


def squared(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output**2


class Squared(PromoterCNN):
    def forward(self, x_BCL: Tensor) -> Tensor:
        return super().forward(x_BCL) ** 2


class Leaky(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, 0.3)


def hooked(model: PromoterCNN) -> None:
    model.register_forward_hook(squared)


def hooked_before(model: PromoterCNN) -> None:
    model.blocks[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] ** 2,))


def hooked_inside(model: PromoterCNN) -> None:
    model.blocks[0].get_submodule("conv").register_forward_hook(squared)
    model.blocks[0].get_submodule("norm").register_forward_hook(squared)


def pruned(model: PromoterCNN) -> None:
    prune.l1_unstructured(model.head[0], "weight", amount=0.5)  # type: ignore[arg-type] # a module


def weight_normed(model: PromoterCNN) -> None:
    parametrizations.weight_norm(model.blocks[0].get_submodule("conv"))


def with_instance_normalisation(model: PromoterCNN) -> None:
    model.blocks[1].norm = nn.InstanceNorm2d(6)


def with_another_block(model: PromoterCNN) -> None:
    inner = model.blocks[1]
    model.blocks[1] = nn.Sequential(inner, nn.Tanh())


def with_forward_of_an_instance(model: PromoterCNN) -> None:
    model.forward = types.MethodType(lambda self, x_BCL: PromoterCNN.forward(self, x_BCL) ** 2, model)


def with_another_head(model: PromoterCNN) -> None:
    model.head[1] = Leaky()  # the engine runs the head itself


def exact(model: nn.Module, tokens: np.ndarray) -> np.ndarray:
    return Float64(model).scores(tokens)


def make(kind: type[PromoterCNN] = PromoterCNN) -> PromoterCNN:
    plain = random_network(CONFIG, 0)
    model = kind(CONFIG).eval()
    model.load_state_dict(plain.state_dict())
    return model


@pytest.mark.parametrize(
    ("change", "method"),
    [
        (hooked, "whole passes"),
        (hooked_before, "whole passes"),
        (hooked_inside, "whole passes"),
        (pruned, "whole passes"),
        (weight_normed, "whole passes"),
        (with_instance_normalisation, "whole passes"),
        (with_another_block, "whole passes"),
        (with_forward_of_an_instance, "whole passes"),
        (with_another_head, "incremental"),
    ],
)
def test_a_network_with_changed_modules_is_scored_as_it_is(
    change: Callable[[PromoterCNN], None], method: str, tokens: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    model = make()
    with caplog.at_level(logging.INFO, logger="promoter"):
        before = saturation_mutagenesis(model, tokens)  # the engine has been found to suit it
        change(model)
        scores = saturation_mutagenesis(model, tokens)
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["incremental", method]
    expected = exact(model, tokens)
    # float32 predictions of order 1 to 100, one subtracted from another
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
    if change is not weight_normed:
        assert largest_error(before, expected) > 0.01  # the change matters


def test_a_subclass_of_the_network_is_scored_as_it_is(tokens: np.ndarray) -> None:
    model = make(Squared)
    expected = exact(model, tokens)
    scores = saturation_mutagenesis(model, tokens)
    assert largest_error(scores, expected) < 1e-4
    assert largest_error(saturation_mutagenesis(make(), tokens), expected) > 0.01


def averaging(block: Any, x_BC1L: Tensor) -> Tensor:
    weight = block.conv.weight
    x_BC1L = block.norm(F.conv2d(x_BC1L, weight.unsqueeze(2), padding=(0, weight.shape[-1] // 2)))
    return F.relu(F.avg_pool2d(x_BC1L, (1, block.pool)) if block.pool > 1 else x_BC1L)


def keeping_the_remainder(block: Any, x_BC1L: Tensor) -> Tensor:
    weight = block.conv.weight
    x_BC1L = block.norm(F.conv2d(x_BC1L, weight.unsqueeze(2), padding=(0, weight.shape[-1] // 2)))
    return F.relu(F.max_pool2d(x_BC1L, (1, block.pool), ceil_mode=True) if block.pool > 1 else x_BC1L)


def linear_below_zero(block: Any, x_BC1L: Tensor) -> Tensor:
    weight = block.conv.weight
    x_BC1L = block.norm(F.conv2d(x_BC1L, weight.unsqueeze(2), padding=(0, weight.shape[-1] // 2)))
    return F.leaky_relu(F.max_pool2d(x_BC1L, (1, block.pool)) if block.pool > 1 else x_BC1L, 0.1)


@pytest.mark.parametrize("forward", [averaging, keeping_the_remainder, linear_below_zero])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_block_whose_code_was_changed_is_found_out(
    forward: Callable[[Any, Tensor], Tensor],
    precision: Any,
    tokens: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an edit of model.py alone would change it."""
    model = make()
    saturation_mutagenesis(model, tokens)  # suits; but that was before the change
    monkeypatch.setattr(model_module._Block, "forward", forward)
    with pytest.warns(RuntimeWarning, match=r"PromoterCNN: the incremental engine's scores .* are off by"):
        scores = saturation_mutagenesis(model, tokens, precision=precision)
    expected = exact(model, tokens)
    assert largest_error(scores, expected) < 1e-4  # in fp32: bf16 would round predictions, not their differences
    assert largest_error(incremental.score_substitutions(model, torch.from_numpy(tokens)).numpy(), expected) > 1e-2
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        saturation_mutagenesis(model, tokens)


def test_a_network_is_checked_once_for_each_length(tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    original = forward_passes.score_substitutions

    def counting(*given: Any, **options: Any) -> Tensor:
        passes.append(1)
        return original(*given, **options)

    monkeypatch.setattr(forward_passes, "score_substitutions", counting)
    model = make()
    for length in (LENGTH, LENGTH, 40, LENGTH, 40):
        saturation_mutagenesis(model, tokens[:, :length])
    assert len(passes) == 2 * 3  # two ends and the middle
    saturation_mutagenesis(make(), tokens)
    assert len(passes) == 3 * 3


def test_weights_that_hide_the_structure_do_not_count_as_a_check(
    tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of zeros makes all scores 0, as fits any engine; the network may be trained afterwards."""
    model = make()
    monkeypatch.setattr(model_module._Block, "forward", averaging)
    last = model.head[-1].get_parameter("weight")
    trained = last.detach().clone()
    nn.init.zeros_(last)
    assert not saturation_mutagenesis(model, tokens).any()
    with torch.no_grad():
        last.copy_(trained)
    with pytest.warns(RuntimeWarning, match="are off by"):
        scores = saturation_mutagenesis(model, tokens)
    assert largest_error(scores, exact(model, tokens)) < 1e-4


def test_a_pooling_that_the_engine_does_not_handle_is_refused(tokens: np.ndarray) -> None:
    """As if `Pooling` had a kind more, which pyright refuses: each block that pools, and none that does not."""
    model = make()
    model.convolution_blocks()[1].pooling = "mean"  # type: ignore[assignment] # the last block does not pool
    incremental.score_substitutions(model, torch.from_numpy(tokens))
    model.convolution_blocks()[0].pooling = "mean"  # type: ignore[assignment]
    words = r"promoter/ism/incremental\.py: does not handle pooling 'mean' of promoter/models/cnn\.py"
    with pytest.raises(NotImplementedError, match=words):
        incremental.score_substitutions(model, torch.from_numpy(tokens))


@pytest.mark.parametrize("seed", range(20))
def test_no_sound_network_is_refused_the_engine(seed: int) -> None:
    """Of any architecture, weights and length; a warning would be an error here."""
    rng = np.random.default_rng(seed)
    blocks, strands = int(rng.integers(1, 4)), int(rng.integers(1, 4))  # one, the mean of both, or both
    config = CNNConfig(
        tuple(rng.integers(1, 24, blocks).tolist()),
        tuple((2 * rng.integers(0, 8, blocks) + 1).tolist()),
        tuple(rng.integers(1, 6, blocks - 1).tolist()),
        hidden=int(rng.integers(1, 20)),
        bins=int(rng.integers(1, 4)),
        both_strands=strands > 1,
        keep_strands=strands == 3,
        n_targets=int(rng.integers(1, 4)),
    )
    model = random_network(config, seed)
    mean, sd = float(rng.normal(0, 100)), 10.0 ** rng.uniform(-3, 3)
    model.rescale_output([mean] * config.n_targets, [sd] * config.n_targets)
    for length in (config.min_length, config.min_length + 1, config.min_length + int(rng.integers(2, 300))):
        assert self_check.engine_matches(model, length, torch.device("cpu"))


def test_a_network_in_float64_is_scored_in_float64(tokens: np.ndarray) -> None:
    """By the engine, and by whole passes where it has a hook."""
    model = make().double()
    expected = exact(model, tokens)
    assert largest_error(saturation_mutagenesis(model, tokens), expected) < 1e-5
    hooked(model)
    assert largest_error(saturation_mutagenesis(model, tokens), exact(model, tokens)) < 1e-6


def test_weights_that_are_not_finite_give_scores_that_are_not(tokens: np.ndarray) -> None:
    model = make()
    nn.init.constant_(model.head[-1].get_parameter("weight"), float("nan"))
    assert np.isnan(saturation_mutagenesis(model, tokens)).any()
