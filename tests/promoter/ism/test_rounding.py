"""Scores of any network equal a float64 loop to 1e-4 of the largest, however large its predictions are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.examples import load_example, randomise, scores_by_loop
from torch import Tensor, nn

from promoter.errors import InputWarning
from promoter.ism import saturation_mutagenesis
from promoter.ism.rounding import doubt_unchecked
from promoter.models.external import ExternalModel

bpnet_lite, deepstarr, legnet = (load_example(name) for name in ("bpnet_lite", "deepstarr", "legnet"))
NETWORKS: dict[str, tuple[Callable[[], ExternalModel], int]] = {
    "BPNet": (lambda: bpnet_lite.bpnet(8, 2, length=160), 160),
    "BPNet, counts and profile": (lambda: bpnet_lite.bpnet_profile(8, 2, length=160), 160),
    "ChromBPNet": (lambda: bpnet_lite.chrombpnet(8, 2, bias_filters=8, bias_layers=1, length=160), 160),
    "DeepSTARR": (deepstarr.network, 249),
    "LegNet": (lambda: ExternalModel(legnet.LegNet((16, 16, 8))), 80),
}


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_of_the_example_networks_equal_a_float64_loop(name: str, offset: float) -> None:
    make, length = NETWORKS[name]
    network = make()
    randomise(network)
    if offset:  # predictions large beside effects: float32 would round by 6e-5
        outputs = len(network.targets or [""])
        network.rescale_output([offset] * outputs, [1.0] * outputs)
    tokens = np.random.default_rng(0).integers(0, 4, (1, length), dtype=np.uint8)
    scores_TAL = saturation_mutagenesis(network, tokens)[0]
    expected_TAL = scores_by_loop(network, tokens[0])
    largest_T = np.abs(expected_TAL).max((1, 2))
    assert (largest_T > 0).all()
    assert (np.abs(scores_TAL - expected_TAL).max((1, 2)) < 1e-4 * largest_T).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_tangermeme_can_capture_the_example_networks_with_batches_of_any_size(name: str) -> None:
    make, length = NETWORKS[name]
    network = make().eval()
    batch = torch.export.Dim("batch", max=512)
    captured = torch.export.export(network, (torch.zeros(2, 4, length),), dynamic_shapes={"x_BCL": {0: batch}})
    x_BCL = torch.eye(4)[torch.randint(4, (5, length))].transpose(1, 2)
    torch.testing.assert_close(captured.module()(x_BCL), network(x_BCL))


class Offset(nn.Module):
    """A sum of effects of a given size beside a constant, in two targets of which the second has no constant."""

    def __init__(self, effect: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 2, 5)
        self.effect = effect

    def forward(self, x_BCL: Tensor) -> Tensor:
        y_BT = self.conv(x_BCL).tanh().sum(2) * self.effect
        return y_BT + torch.tensor([10.0, 0.0], dtype=x_BCL.dtype)


@pytest.mark.parametrize("effect", [10.0**exponent for exponent in range(-9, 2)])
def test_effects_of_any_size_are_exact_beside_a_prediction_of_ten(effect: float) -> None:
    torch.manual_seed(0)
    network = Offset(effect)
    tokens = np.random.default_rng(0).integers(0, 4, (4, 60), dtype=np.uint8)
    scores = saturation_mutagenesis(network, tokens)
    for found_TAL, row in zip(scores, tokens, strict=True):
        expected_TAL = scores_by_loop(network, row)
        largest_T = np.abs(expected_TAL).max((1, 2))
        assert (np.abs(found_TAL - expected_TAL).max((1, 2)) < 1e-4 * largest_T).all()


def test_only_sequences_that_need_it_are_computed_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[torch.dtype, int] = {}
    original = Offset.forward

    def counting(self: Offset, x_BCL: Tensor) -> Tensor:
        seen[x_BCL.dtype] = seen.get(x_BCL.dtype, 0) + len(x_BCL)
        return original(self, x_BCL)

    monkeypatch.setattr(Offset, "forward", counting)
    tokens = np.random.default_rng(0).integers(0, 4, (3, 60), dtype=np.uint8)
    torch.manual_seed(0)
    saturation_mutagenesis(Offset(1.0), tokens)
    assert seen == {torch.float32: 3 * (1 + 3 * 60), torch.float64: 3 * 5 * 4}  # five positions, and the reference
    seen.clear()
    saturation_mutagenesis(Offset(1e-3), tokens, precision="bf16")
    assert set(seen) == {torch.float32}


class OnlyFloat32(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 1, 5)

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.conv(x_BCL.float()).sum(2)


def test_a_network_that_runs_in_float32_alone_is_scored_with_a_warning() -> None:
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 4, (1, 30), dtype=np.uint8)
    with pytest.warns(RuntimeWarning, match="OnlyFloat32: does not run in float64"):
        scores = saturation_mutagenesis(OnlyFloat32(), tokens)
    assert np.abs(scores).max() > 0


def test_a_network_for_float32_alone_is_doubted() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.ones(1, 4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv1d(x, self.kernel.float()).sum(2)

    tokens = torch.zeros(1, 20, dtype=torch.uint8)
    with pytest.warns(InputWarning, match="does not run in float64"):
        doubt_unchecked(Single(), tokens)
    doubt_unchecked(nn.Conv1d(4, 1, 3), tokens)  # warns of nothing
