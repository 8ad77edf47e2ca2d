"""Attributions of small networks of the real pretrained classes, beside finite differences in float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support import hub

pytest.importorskip("enformer_pytorch")
pytest.importorskip("borzoi_pytorch")

from promoter.attribution import Method, attribute, explain
from promoter.errors import InputError
from promoter.models.config import PretrainedConfig
from promoter.models.pretrained import PretrainedModel, build_model
from promoter.models.weights import fetch_trunk
from promoter.sequence import one_hot

LENGTH = 1024


@pytest.fixture(scope="module")
def enformer(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    config = PretrainedConfig("enformer", str(hub.enformer(tmp_path_factory.mktemp("hub") / "small")), n_targets=2)
    torch.manual_seed(1)
    return build_model(config, LENGTH, fetch_trunk(config)).eval()


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (2, LENGTH)).astype(np.uint8)


def test_the_gradient_is_the_slope_between_predictions_beside_the_sequence(
    enformer: PretrainedModel, tokens: np.ndarray
) -> None:
    scores = attribute(enformer, tokens[:1], method="gradient", positions=(500, 503))
    double = copy.deepcopy(enformer).double()
    double.embed = lambda x_BCL: double.trunk(x_BCL).mean(dim=1)  # type: ignore[method-assign] # without its rounding
    x = one_hot(tokens[:1], torch.float64)
    for position in range(3):
        for base in range(4):
            toward = torch.zeros_like(x)
            toward[0, base, 500 + position] += 1
            toward[0, int(tokens[0, 500 + position]), 500 + position] -= 1
            with torch.no_grad():
                slope = (double(x + 1e-4 * toward) - double(x - 1e-4 * toward))[0] / 2e-4
            largest = float(np.abs(scores).max())
            np.testing.assert_allclose(scores[0, :, base, position], slope.numpy(), atol=1e-3 * largest)


def test_integrated_gradients_add_up_with_enough_steps(enformer: PretrainedModel, tokens: np.ndarray) -> None:
    method = Method.of("integrated_gradients", steps=200)
    sums = explain(enformer, tokens, method, targets=[1]).sums
    assert sums is not None
    np.testing.assert_allclose(sums[:, 0], sums[:, 1], rtol=0.05)
    assert next(enformer.parameters()).requires_grad


def test_deeplift_of_attention_is_refused(enformer: PretrainedModel, tokens: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"no rules for the attention of enformer.*take integrated_gradients"):
        attribute(enformer, tokens, method="deeplift")
