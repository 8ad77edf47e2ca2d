"""A user's network as one of this package: outputs of any usual shape, refusals that say what to give instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from promoter.attribution import attribute
from promoter.attribution.attributions import explain
from promoter.attribution.completeness import unexplained_share
from promoter.attribution.methods import Method
from promoter.errors import InputError, InputWarning
from promoter.ism import saturation_mutagenesis
from promoter.models.external import ExternalModel, chain, examine, log_counts, select_head, sum_bins
from promoter.sequence import encode, one_hot
from promoter.training import predict

TOKENS = torch.tensor(np.random.default_rng(0).integers(0, 4, (5, 40), dtype=np.uint8))


class Function(nn.Module):
    """Computes a function of the one-hot sequences."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def gc(x: Tensor) -> Tensor:
    return x[:, 1:3].sum(dim=(1, 2))


def test_channels_come_in_the_order_that_the_network_was_trained_with() -> None:
    purines = Function(lambda x: x[:, :2].sum(2))  # of a network trained on AGCT: A and G
    y = ExternalModel(purines, bases="AGCT")(one_hot(encode(["AAGC", "TTGG"])))
    assert y.tolist() == [[2, 1], [0, 2]]


@pytest.mark.parametrize(
    ("returned", "output", "expected"),
    [
        (gc, None, lambda x: gc(x)[:, None]),
        (lambda x: gc(x)[:, None, None], None, lambda x: gc(x)[:, None]),
        (lambda x: (x, gc(x)), select_head(1), lambda x: gc(x)[:, None]),
        (lambda x: {"counts": gc(x)}, select_head("counts"), lambda x: gc(x)[:, None]),
        (lambda x: x[:, :2], sum_bins(), lambda x: x[:, :2].sum(2)),
        (lambda x: x[:, :2].transpose(1, 2), sum_bins(1), lambda x: x[:, :2].sum(2)),
        (
            lambda x: (x[:, :3], 0),
            chain(select_head(0), sum_bins(), log_counts()),
            lambda x: torch.log1p(x[:, :3].sum(2)),
        ),
        (lambda x: x[:, :3], chain(sum_bins(), log_counts(0.5)), lambda x: torch.log(x[:, :3].sum(2) + 0.5)),
    ],
)
def test_outputs_of_usual_shapes_become_a_table(returned: Any, output: Any, expected: Any) -> None:
    x = one_hot(TOKENS)
    model = ExternalModel(Function(returned), output=output)
    assert torch.allclose(model(x), expected(x))
    assert model(x).shape == expected(x).shape
    assert examine(model, TOKENS) == expected(x).shape[1]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: (x, x), r"returns a tuple of 2, not a tensor.*select_head"),
        (lambda x: {"a": x}, r"returns a dict of 1, not a tensor"),
        (lambda x: x.sum().item(), r"returns a float, not a tensor"),
        (lambda x: None, r"returns a NoneType"),
        (lambda x: x, r"returns shape \(5, 4, 40\) for 5 sequences.*sum_bins"),
        (lambda x: x[:, None], r"returns shape \(5, 1, 4, 40\) for 5 sequences"),
        (lambda x: gc(x).sum(), r"returns shape \(\) for 5 sequences"),
        (lambda x: gc(x).sum()[None], r"returns shape \(1,\) for 5 sequences"),
        (lambda x: gc(x).long(), r"returns torch.int64, not floating-point numbers"),
        (lambda x: gc(x) / 0, "not a finite number"),
        (lambda x: gc(x) + torch.rand(()), "something else each time"),
        (lambda x: gc(x) - gc(x).mean(), "depends on the others in the batch"),
        (lambda x: x @ torch.zeros(7, 1), r"fails at sequences of 40 bases .RuntimeError"),
        (lambda x: x.missing, r"fails at sequences of 40 bases .AttributeError"),
    ],
)
def test_what_is_no_table_of_predictions_is_refused(returned: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        examine(ExternalModel(Function(returned)), TOKENS)
    assert "\n" not in str(raised.value)


def test_the_same_prediction_for_all_is_doubted() -> None:
    with pytest.warns(InputWarning, match="weights may not be loaded"):
        examine(ExternalModel(Function(lambda x: 0 * gc(x) + 3)), TOKENS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bases": "ACGU"}, "letters of ACGT in some order"),
        ({"bases": "ACG"}, "letters of ACGT in some order"),
        ({"length": 0}, "at least 1"),
        ({"length": "2114"}, "whole number of bases"),
        ({"targets": []}, "names, each once"),
        ({"targets": ["a", "a"]}, "names, each once"),
        ({"targets": ["a", 3]}, "names, each once"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExternalModel(Function(gc), **arguments)
    with pytest.raises(InputError, match=r"wants an nn.Module, not function"):
        ExternalModel(gc)  # type: ignore[arg-type] # what a user may try


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_network_of_any_number_type_is_given_that_type(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(160, 2))
    expected = network(one_hot(TOKENS)).detach().numpy()
    model = ExternalModel(network.to(dtype))
    assert np.allclose(predict(model, TOKENS.numpy()), expected, atol=1e-5 if dtype == torch.float64 else 1e-2)


def test_a_network_without_weights_predicts_and_is_scored() -> None:
    model = ExternalModel(Function(gc))
    tokens = TOKENS.numpy()
    assert predict(model, tokens)[:, 0].tolist() == ((tokens == 1) | (tokens == 2)).sum(1).tolist()
    scores = saturation_mutagenesis(model, tokens)
    strong = np.isin(np.arange(4), (1, 2)).astype(int)
    expected = strong[None, :, None] - strong[tokens][:, None]
    assert np.array_equal(scores[:, 0], expected)


def test_deeplift_has_a_rule_for_the_logarithm_of_counts() -> None:
    torch.manual_seed(0)
    profile = nn.Sequential(nn.Conv1d(4, 6, 5), nn.ReLU(), nn.Conv1d(6, 2, 1), nn.Softplus())
    model = ExternalModel(profile, output=chain(sum_bins(), log_counts()))
    sums = explain(model, TOKENS, Method.of("deeplift", shuffles=3)).sums
    assert sums is not None
    assert unexplained_share(sums).max() < 1e-3


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "deeplift"])
def test_a_network_that_keeps_a_table_is_explained_after_it_has_predicted(method: Any) -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 1)
            self.table: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.table is None:  # as tables of positions and angles are kept
                self.table = torch.linspace(0, 1, x.shape[-1], dtype=x.dtype) * self.last.weight[0, 0].detach()
            return self.last((x * self.table).sum(2))

    model, tokens = ExternalModel(Positions()), TOKENS.numpy()
    predict(model, tokens)
    scores = saturation_mutagenesis(model, tokens)
    assert np.allclose(attribute(model, tokens, method=method), scores, atol=1e-5)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "deeplift"])
def test_a_network_in_bfloat16_is_explained(method: Any) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(160, 2))
    expected = saturation_mutagenesis(network, TOKENS.numpy())
    scores = attribute(ExternalModel(network.to(torch.bfloat16)), TOKENS.numpy(), method=method)
    assert np.allclose(scores, expected, atol=2e-2)


def test_rescaling_is_that_of_units_also_twice() -> None:
    model = ExternalModel(Function(lambda x: x.sum(2)), targets=list("wxyz"))
    plain = model(one_hot(TOKENS))
    model.rescale_output([1, 2, 3, 4], [2, 2, 2, 0.5])
    model.rescale_output([10, 0, 0, 0], [1, 1, 1, 2])
    expected = (plain * torch.tensor([2, 2, 2, 0.5]) + torch.arange(1, 5)) * torch.tensor([1, 1, 1, 2.0])
    assert torch.allclose(model(one_hot(TOKENS)), expected + torch.tensor([10.0, 0, 0, 0]))
