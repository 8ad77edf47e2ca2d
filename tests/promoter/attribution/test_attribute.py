"""Attributions beside closed forms, float64 loops and captum."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift, IntegratedGradients
from torch import Tensor, nn

from promoter.attribution import Method, attribute, explain
from promoter.attribution.deeplift import shuffled_references
from promoter.attribution.methods import MethodName
from promoter.errors import InputError, InputWarning
from promoter.ism import saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import encode, one_hot

LENGTH = 48
METHODS: tuple[MethodName, ...] = ("gradient", "integrated_gradients", "deeplift")
CONFIG = CNNConfig((6, 5), (5, 3), (2,), hidden=16, n_targets=3)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4 * LENGTH, 2))

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.layers(x_BCL)


class EachPosition(nn.Module):
    """Add up a non-linear function of the base at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, LENGTH))
        self.act = nn.Softplus()

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.act((x_BCL * self.weight).sum(dim=1)).sum(dim=1)  # (batch,): one target


class Functional(nn.Module):
    """Have a ReLU that is no module, so that DeepLIFT has no rule for it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(4, 8, 5), nn.Linear(8, 1)

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x_BCL)).mean(dim=2))


class Exponential(nn.Module):
    """Be a module of a class that nobody knows, as bpnet-lite has them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)


class Turned(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return -super().forward(-input)


def small(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(4, 8, 5), *layers, nn.Flatten(), nn.LazyLinear(2))


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = build()
    with torch.no_grad():
        model(one_hot(tokens()))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def tokens(n: int = 3, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).integers(0, 4, (n, LENGTH)).astype(np.uint8)
    made[-1, :7] = 4  # as a window is padded past the end of a chromosome
    made[-1, 20] = 4
    return made


def by_substitution(model: nn.Module, sequences: np.ndarray) -> np.ndarray:
    """Score each substitution by a pass of its own, in float64."""
    double = copy.deepcopy(model).double().eval()

    def f(one: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return double(one_hot(one[None], torch.float64)).reshape(-1).numpy()

    scores = np.zeros((len(sequences), len(f(sequences[0])), 4, LENGTH))
    for row, sequence in enumerate(sequences):
        for position in range(LENGTH):
            for base in range(4):
                mutant = sequence.copy()
                mutant[position] = base
                scores[row, :, base, position] = f(mutant) - f(sequence)
    return scores


def as_scores(multipliers: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """Take from each base what the base that is there has, by indices; at an N nothing is there."""
    scores = multipliers.copy()
    for row, position in np.argwhere(sequences < 4):
        scores[row, :, :, position] -= multipliers[row, :, sequences[row, position], position][:, None]
    return scores


@pytest.mark.parametrize("method", METHODS)
def test_attributions_of_a_linear_network_are_the_differences_of_its_predictions(method: MethodName) -> None:
    model = made(Linear)
    expected = by_substitution(model, tokens())
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(attribute(model, tokens(), method=method), expected, rtol=0, atol=1e-6)


def test_deeplift_with_every_rule_explains_all_where_positions_are_independent() -> None:
    model = made(EachPosition)
    gradient = attribute(model, tokens(), method="gradient")
    slope = torch.sigmoid(model.get_parameter("weight")).detach().numpy()
    at = np.where(tokens()[:, None] < 4, slope[np.minimum(tokens(), 3), np.arange(LENGTH)][:, None], 0.5)
    multipliers = at[:, None] * model.get_parameter("weight").detach().numpy()
    np.testing.assert_allclose(gradient, as_scores(multipliers, tokens()), rtol=0, atol=1e-6)
    for method in METHODS[1:]:
        result = explain(model, tokens(), Method.of(method))
        assert result.sums is not None
        np.testing.assert_allclose(result.sums[:, 0], result.sums[:, 1], atol=1e-4)
        assert np.corrcoef(result.scores.ravel(), by_substitution(model, tokens()).ravel())[0, 1] > 0.95


def captum_gradients(model: nn.Module, x_NCL: Tensor, target: int) -> Tensor:
    """Return captum's integrated gradients divided by the path, which gives the mean gradient."""
    baseline = x_NCL.sum(dim=1, keepdim=True).expand_as(x_NCL) / 4
    attributed = IntegratedGradients(model).attribute(x_NCL, baseline, target=target, n_steps=20)
    return attributed / torch.where(x_NCL == baseline, torch.nan, x_NCL - baseline)


def captum_deeplift(model: nn.Module, x_NCL: Tensor, target: int) -> Tensor:
    references = shuffled_references(model, x_NCL.float(), shuffles=20, seed=0).double()
    rows = []
    for x_CL, references_SCL in zip(x_NCL, references, strict=True):
        several = x_CL.expand_as(references_SCL)
        # captum says so of each call: it adds hooks, and DeepLIFT here is its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            multiplied = DeepLift(model, multiply_by_inputs=False).attribute(
                several, references_SCL, target=target
            )
        rows.append(multiplied.mean(dim=0).detach())
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("method", "oracle"), [("integrated_gradients", captum_gradients), ("deeplift", captum_deeplift)]
)
def test_attributions_are_those_of_captum(method: MethodName, oracle: Callable[..., Tensor]) -> None:
    model = made(lambda: small(nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(8, 8, 3), nn.Tanh()))
    sequences = tokens()[:2]  # without N
    double = copy.deepcopy(model).double()
    multipliers = np.stack(
        [oracle(double, one_hot(sequences, torch.float64), target).detach().numpy() for target in range(2)], axis=1
    )
    expected = as_scores(multipliers, sequences)
    scores = explain(model, sequences, Method.of(method)).scores
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("strands", [{}, {"both_strands": True}, {"both_strands": True, "keep_strands": True}])
@pytest.mark.parametrize("bins", [1, 2])
def test_deeplift_of_our_network_adds_up_and_so_does_that_of_both_strands(
    strands: dict[str, bool], bins: int
) -> None:
    config = CNNConfig((6, 5), (5, 3), (2,), hidden=16, n_targets=3, bins=bins, **strands)
    model = made(lambda: PromoterCNN(config))
    result = explain(model, tokens(), Method.of("deeplift"))
    assert result.sums is not None
    with torch.no_grad():
        x = one_hot(tokens())
        references = shuffled_references(model, x, shuffles=20, seed=0)
        expected = model(x) - model(references.flatten(0, 1)).reshape(3, 20, 3).mean(dim=1)
    np.testing.assert_allclose(result.sums[:, 1], expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(result.sums[:, 0], result.sums[:, 1], atol=1e-3 * np.abs(result.sums).max())


@pytest.mark.parametrize("method", METHODS)
def test_batches_targets_positions_and_neighbours_change_no_attribution(method: MethodName) -> None:
    model = made(lambda: PromoterCNN(CONFIG))

    def attributed(sequences: np.ndarray, **options: Any) -> np.ndarray:
        return explain(model, sequences, Method.of(method), **options).scores

    whole = attributed(tokens())
    assert whole.shape == (3, 3, 4, LENGTH)
    assert whole.dtype == np.float32
    atol = 1e-5 * np.abs(whole).max()
    for size in (1, 7, 1000):
        np.testing.assert_allclose(attributed(tokens(), batch_size=size), whole, atol=atol)
    some = attributed(tokens(), targets=[2, 0], positions=(5, 23))
    np.testing.assert_allclose(some, whole[:, [2, 0], :, 5:23], atol=atol)
    for row in (2, 0):
        alone = attributed(tokens()[row : row + 1])
        np.testing.assert_allclose(alone, whole[row : row + 1], atol=atol)
    there = np.take_along_axis(whole, np.minimum(tokens(), 3)[:, None, None].astype(int), axis=2)[:, :, 0]
    assert (np.where(tokens()[:, None] < 4, there, 0) == 0).all()
    assert np.abs(whole[2, :, :, 20]).min() > 0  # an N has four scores


@pytest.mark.parametrize("method", METHODS)
def test_both_strands_are_the_mean_of_strings_turned_by_hand(method: MethodName) -> None:
    model = made(lambda: PromoterCNN(CNNConfig((6, 5), (5, 3), (2,), hidden=16, crop=40, n_targets=2)))
    turned = (3 - tokens()[:2, LENGTH - 40 :][:, ::-1]).astype(np.uint8)
    one, other = attribute(model, tokens()[:2], method=method), attribute(model, turned, method=method)
    expected = one.copy()
    expected[..., LENGTH - 40 :] += other[..., ::-1, ::-1]
    both = attribute(model, tokens()[:2], method=method, both_strands=True)
    np.testing.assert_allclose(both, expected / 2, atol=1e-5 * np.abs(expected).max())
    assert (both[..., : LENGTH - 40] == 0).all()


def test_shuffles_keep_pairs_of_bases_and_follow_from_seed_and_sequence() -> None:
    model = made(Linear)
    x = one_hot(tokens(5))
    first = shuffled_references(model, x, shuffles=4, seed=1)
    assert torch.equal(shuffled_references(model, x[[3, 1]], shuffles=4, seed=1), first[[3, 1]])
    assert not torch.equal(shuffled_references(model, x, shuffles=4, seed=2), first)
    assert torch.equal(shuffled_references(model, x, shuffles=6, seed=1)[:, :4], first)

    def pairs(one_hot_CL: Tensor) -> list[tuple[int, int]]:
        letters = one_hot_CL.argmax(dim=0)[one_hot_CL.sum(dim=0) > 0].tolist()
        return sorted(itertools.pairwise(letters))

    for row in range(5):
        assert len({tuple(one.flatten().tolist()) for one in first[row]}) == 4
        assert all(pairs(one) == pairs(x[row]) for one in first[row])
    unknown = x.sum(dim=1) == 0
    assert torch.equal(first.sum(dim=2) == 0, unknown[:, None].expand(-1, 4, -1))  # each N stays where it is


@pytest.mark.parametrize("letters", ["A" * LENGTH, "N" * LENGTH, "ACGT" * 12, "N" * (LENGTH - 2) + "AC"])
def test_a_sequence_that_no_shuffle_changes_is_its_own_reference(letters: str) -> None:
    model = made(lambda: PromoterCNN(CONFIG))
    x = one_hot(encode([letters]))
    assert torch.equal(shuffled_references(model, x, shuffles=2, seed=0), x[:, None].expand(-1, 2, -1, -1))
    scores = attribute(model, [letters], method="deeplift")
    np.testing.assert_allclose(scores, attribute(model, [letters], method="gradient"), atol=1e-7)


@pytest.mark.parametrize(
    "layers",
    [
        [Exponential()],
        [Turned()],
        [nn.Hardswish(), nn.AdaptiveMaxPool1d(6)],
        [nn.ReLU(inplace=True), nn.SiLU(inplace=True)],
        [nn.GroupNorm(2, 8), nn.Sigmoid()],
    ],
    ids=["unknown class", "subclass", "without a rule", "in place", "norm of the input"],
)
def test_deeplift_adds_up_over_modules_that_tangermeme_has_no_rule_for(layers: list[nn.Module]) -> None:
    model = made(lambda: small(*layers))
    result = explain(model, tokens(), Method.of("deeplift"))
    assert result.sums is not None
    np.testing.assert_allclose(result.sums[:, 0], result.sums[:, 1], atol=0.1 * np.abs(result.sums).max())


def test_what_deeplift_has_no_rule_for_is_doubted_with_the_fix() -> None:
    model = made(Functional)
    with pytest.warns(InputWarning, match="method='deeplift'.*unexplained: output 0 .*integrated_gradients"):
        attribute(model, tokens(), method="deeplift")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(model, tokens(), method="integrated_gradients", steps=100)
    with pytest.warns(InputWarning, match="method='integrated_gradients'.*take more `steps`"):
        attribute(
            made(lambda: small(Exponential(), Exponential())), tokens(), method="integrated_gradients", steps=1
        )


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 2)

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.table(x_BCL.argmax(dim=1)).mean(dim=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_without_gradients_is_refused_instead_of_scored_with_zeros(method: MethodName) -> None:
    with pytest.raises(InputError, match="no gradient with respect to the sequence"):
        attribute(made(Detached), tokens(), method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_is_left_as_it_was(method: MethodName) -> None:
    model = made(lambda: small(nn.ReLU(inplace=True), nn.Dropout(0.5)))
    model.train()
    first = next(model.children())
    first.eval().requires_grad_(False)
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))

    def state() -> list[Any]:
        modules = [
            (module.training, getattr(module, "inplace", None), sorted(vars(module)), len(module._forward_hooks))
            for module in model.modules()
        ]
        gradients = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
        return [modules, gradients, torch.backends.cudnn.enabled]

    before, weights = state(), copy.deepcopy(model.state_dict())
    attribute(model, tokens(), method=method)
    assert state() == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert calls


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "lime"}, "`method='lime'`: there is no such method; there are gradient, integ"),
        ({"method": "gradient", "steps": 20}, "`steps=20`: is a setting of integrated_gradients, not of gradient"),
        ({"method": "integrated_gradients", "seed": 0}, "`seed=0`: is a setting of deeplift"),
        ({"method": "deeplift", "steps": 3}, "`steps=3`: is a setting of integrated_gradients"),
        ({"method": "deeplift", "shuffles": 0}, "`shuffles=0`: must be at least 1"),
    ],
)
def test_settings_of_another_method_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        attribute(made(Linear), tokens(), **settings)


def test_gradients_rank_substitutions_as_mutagenesis_does() -> None:
    model = made(lambda: PromoterCNN(CONFIG))
    strings = ["ACGT" * 12, "GGCATTAC" * 6]
    scores = saturation_mutagenesis(model, encode(strings))
    for method in METHODS:
        assert np.corrcoef(attribute(model, strings, method=method).ravel(), scores.ravel())[0, 1] > 0.5
