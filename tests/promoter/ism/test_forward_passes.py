from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from promoter.errors import InputError
from promoter.ism import saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN

CASES = [  # configuration, length; N, lower case and other letters come with the sequences
    (CNNConfig((6,), (3,), (), hidden=16), 17),
    (CNNConfig((6, 5), (5, 3), (2,), hidden=16, n_targets=3), 31),
    (CNNConfig((8, 6, 5), (7, 5, 3), (4, 4), hidden=16, n_targets=2), 67),
    (CNNConfig((4, 4), (21, 3), (4,), hidden=16), 9),
]
SMALL, SHORT = CASES[1]


def network(config: CNNConfig) -> PromoterCNN:
    """Random weights and running statistics, with most hidden units at work."""
    torch.manual_seed(4)
    model = PromoterCNN(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    nn.init.uniform_(model.head[0].get_parameter("bias"), -0.5, 2)
    return model


def sequences(length: int, n: int = 3) -> list[str]:
    """One of plain bases, then some with N, lower case, IUPAC letters and gaps."""
    rng = np.random.default_rng(length)
    plain = "".join(rng.choice(list("ACGT"), length))
    return [plain, *("".join(rng.choice(list("ACGTacgtNnR-"), length)) for _ in range(n - 1))]


def by_hand(model: nn.Module, sequence: str) -> np.ndarray:
    """Mutate the string one base at a time, one forward pass in float64 each: (targets, 4, length)."""
    double = copy.deepcopy(model).double().eval()

    def f(letters: str) -> np.ndarray:
        rows = [[float(letter.upper() == base) for letter in letters] for base in "ACGT"]
        with torch.no_grad():
            return double(torch.tensor([rows], dtype=torch.float64)).numpy().reshape(-1)

    reference = f(sequence)
    scores = np.zeros((len(reference), 4, len(sequence)))
    for position in range(len(sequence)):
        for row, base in enumerate("ACGT"):
            mutant = sequence[:position] + base + sequence[position + 1 :]
            scores[:, row, position] = f(mutant) - reference
    return scores


@pytest.mark.parametrize(("config", "length"), CASES)
def test_scores_are_those_of_one_mutated_string_at_a_time(config: CNNConfig, length: int) -> None:
    model, letters = network(config), sequences(length)
    scores = saturation_mutagenesis(model, letters)
    expected = np.stack([by_hand(model, one) for one in letters])
    assert scores.shape == expected.shape == (3, config.n_targets, 4, length)
    assert scores.dtype == np.float32
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(scores, expected, atol=1e-5)  # differences of float32 predictions of order 1


class Linear(nn.Module):
    """Targets with known weights: f_t(x) = sum over bases and positions of weight[t, base, position]."""

    def __init__(self, weight_TCL: np.ndarray, squeeze: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight_TCL, dtype=torch.float32))
        self.squeeze = squeeze

    def forward(self, x_BCL: Tensor) -> Tensor:
        outputs = torch.einsum("bcl,tcl->bt", x_BCL, self.get_buffer("weight"))
        return outputs.squeeze(1) if self.squeeze else outputs


def test_axes_of_scores_are_gene_target_base_position() -> None:
    """Whole numbers are exact in float32, so a swap of axes, also of equal sizes, cannot pass."""
    weight = np.random.default_rng(0).integers(-1000, 1000, (4, 4, 4))
    tokens = np.array([[0, 1, 2, 3], [3, 3, 1, 4], [2, 0, 4, 1], [1, 2, 0, 0]], np.uint8)
    scores = saturation_mutagenesis(Linear(weight), tokens)
    for gene, target, base, position in np.ndindex(4, 4, 4, 4):
        present = tokens[gene, position]
        lost = weight[target, present, position] if present < 4 else 0
        assert scores[gene, target, base, position] == weight[target, base, position] - lost


def test_outputs_without_a_target_axis_are_one_target() -> None:
    weight = np.random.default_rng(1).normal(size=(1, 4, SHORT))
    for batch_size in (None, 1):  # a batch of one squeezes to nothing
        squeezed = saturation_mutagenesis(Linear(weight, squeeze=True), sequences(SHORT), batch_size=batch_size)
        assert squeezed.shape == (3, 1, 4, SHORT)
        # one order of summing or the other
        np.testing.assert_allclose(
            squeezed, saturation_mutagenesis(Linear(weight), sequences(SHORT)), rtol=0, atol=1e-5
        )


def test_strings_lower_case_and_all_kinds_of_tokens_score_alike() -> None:
    model, letters = network(SMALL), sequences(SHORT)
    tokens = np.array([["ACGT".find(letter) % 5 for letter in one.upper()] for one in letters], np.uint8)
    expected = saturation_mutagenesis(model, tokens)
    same: list[Any] = [
        letters,
        [one.upper() for one in letters],
        tuple(one.lower() for one in letters),
        torch.tensor(tokens),
        np.asfortranarray(tokens),
        np.repeat(tokens, 2, axis=1)[:, ::2],
    ]
    for one in same:
        assert np.array_equal(saturation_mutagenesis(model, one), expected)
    alone = saturation_mutagenesis(model, tokens[1:2])  # a matrix product of fewer rows may round otherwise
    np.testing.assert_allclose(alone, expected[1:2], rtol=0, atol=1e-5 * np.abs(expected[1]).max())


@pytest.mark.parametrize("batch_size", [1, 7, 92, 93, 1000])
def test_batch_size_does_not_change_scores(batch_size: int) -> None:
    model, letters = network(SMALL), sequences(SHORT)
    np.testing.assert_allclose(
        saturation_mutagenesis(model, letters, batch_size=batch_size),
        saturation_mutagenesis(model, letters),
        atol=1e-5,  # other batches are convolved in another order
    )


def test_the_reference_base_scores_exactly_0_and_N_scores_all_four() -> None:
    model, letters = network(SMALL), sequences(SHORT, 6)
    scores = saturation_mutagenesis(model, [*letters, "N" * SHORT])
    for row, one in enumerate([*letters, "N" * SHORT]):
        for position, letter in enumerate(one.upper()):
            zero = [bool((scores[row, :, base, position] == 0).all()) for base in range(4)]
            assert zero == [letter == base for base in "ACGT"]


def test_scoring_leaves_every_module_in_its_mode() -> None:
    model = network(SMALL).train()
    model.blocks.eval()
    before = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    scores = saturation_mutagenesis(model, sequences(SHORT))
    assert [module.training for module in model.modules()] == before
    assert set(before) == {True, False}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert np.array_equal(scores, saturation_mutagenesis(model.eval(), sequences(SHORT)))  # no dropout
    model.train()
    with pytest.raises(InputError, match="too short"):
        saturation_mutagenesis(model, ["A"])
    assert all(module.training for module in model.modules())


def test_a_scored_model_can_be_trained_further() -> None:
    model = network(SMALL)
    saturation_mutagenesis(model, sequences(SHORT))
    model(torch.zeros(2, 4, SHORT)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["ACGT", "ACG"], "sequence 1 has 3 bases, sequence 0 has 4"),
        ("ACGT", "one string of 4 letters"),
        ([], "no sequence"),
        ([""], "no sequence"),
        (np.zeros((0, 8), np.uint8), r"no sequence.*\(0, 8\)"),
        (np.zeros(8, np.uint8), r"uint8 of shape \(8,\)"),
        (np.zeros((2, 4, 8), np.uint8), r"shape \(2, 4, 8\)"),
        (np.zeros((2, 8), np.int64), "int64"),
        (torch.zeros(2, 4, 8), "float32"),
        (np.array(["ACGT"]), "<U4"),
    ],
)
def test_tokens_of_another_shape_are_refused(tokens: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        saturation_mutagenesis(network(SMALL), tokens)
