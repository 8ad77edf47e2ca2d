"""Scores and predictions of both strands, and of some targets, against strings turned and edited by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from promoter.ism import incremental, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import encode
from promoter.training import predict

LENGTH = 31
OF_LETTER = dict(zip("ACGTN", "TGCAN", strict=True))
CONFIG = CNNConfig((6, 5), (5, 3), (2,), hidden=16, n_targets=4)


class Any4(nn.Module):
    """A network that the package knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(4, 6, 5, padding=2), nn.ReLU(), nn.Conv1d(6, 4, 3))

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.layers(x_BCL).mean(dim=2)


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(3)
    hooked = PromoterCNN(CONFIG)
    hooked.head[0].register_forward_hook(lambda *_: None)
    made = {
        "incremental": PromoterCNN(CONFIG),
        "cropped": PromoterCNN(CNNConfig((6, 5), (5, 3), (2,), hidden=16, crop=20, n_targets=4)),
        "binned": PromoterCNN(CNNConfig((6, 5), (5, 3), (2,), hidden=16, bins=3, n_targets=4)),
        "whole passes": hooked,
        "any": Any4(),
    }
    for model in made.values():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, 0.2, 1)
    return made


def sequences() -> list[str]:
    rng = np.random.default_rng(5)
    return ["".join(rng.choice(list("ACGT" if row else "ACGTN"), LENGTH)) for row in range(3)]


def f(model: nn.Module, letters: str, *, both: bool) -> np.ndarray:
    """Predict a string in float64, alone or as the mean with its other strand, which is made letter by letter."""
    double = copy.deepcopy(model).double().eval()
    crop = getattr(getattr(model, "config", None), "crop", None)
    seen = letters[-crop:] if crop else letters
    strands = [letters, "".join(OF_LETTER[letter] for letter in reversed(seen))] if both else [letters]
    rows = [[[float(letter == base) for letter in strand] for base in "ACGT"] for strand in strands]
    with torch.no_grad():
        return np.mean([double(torch.tensor([row], dtype=torch.float64)).numpy()[0] for row in rows], axis=0)


def by_hand(model: nn.Module, letters: str, *, both: bool) -> np.ndarray:
    scores = np.zeros((4, 4, LENGTH))
    for at in range(LENGTH):
        for row, base in enumerate("ACGT"):
            mutant = letters[:at] + base + letters[at + 1 :]
            scores[:, row, at] = f(model, mutant, both=both) - f(model, letters, both=both)
    return scores


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("positions", [None, (4, 15), (0, 9)])
def test_scores_of_both_strands_are_the_mean_of_strings_turned_by_hand(
    name: str, positions: tuple[int, int] | None
) -> None:
    model, letters = networks()[name], sequences()
    start, end = positions or (0, LENGTH)
    scores = saturation_mutagenesis(model, letters, positions=positions, both_strands=True)
    expected = np.stack([by_hand(model, one, both=True) for one in letters])
    np.testing.assert_allclose(scores, expected[..., start:end], atol=1e-5)
    alone = np.stack([by_hand(model, one, both=False) for one in letters])
    assert name == "cropped" or np.abs(expected - alone).max() > 1e-3


@pytest.mark.parametrize("name", networks())
def test_predictions_of_both_strands_are_the_mean_of_strings_turned_by_hand(name: str) -> None:
    model, letters = networks()[name], sequences()
    for both in (False, True):
        expected = [f(model, one, both=both) for one in letters]
        np.testing.assert_allclose(predict(model, encode(letters), both_strands=both), expected, atol=1e-5)


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("targets", [[2], [3, 0]])
def test_scores_of_some_targets_are_those_of_all_in_the_order_asked_for(name: str, targets: list[int]) -> None:
    model, letters = networks()[name], sequences()
    scores = saturation_mutagenesis(model, letters, targets=targets, both_strands=True, positions=(10, 25))
    expected = np.stack([by_hand(model, one, both=True)[targets] for one in letters])[..., 10:25]
    assert scores.shape == (3, len(targets), 4, 15)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("targets", [[], [1, 1], [-1]])
def test_targets_that_name_no_output_or_one_twice_are_refused(targets: list[int]) -> None:
    with pytest.raises(ValueError, match="numbers of outputs, from 0, each once"):
        saturation_mutagenesis(networks()["incremental"], sequences(), targets=targets)


def test_a_target_past_the_last_output_is_refused() -> None:
    with pytest.raises(IndexError):
        saturation_mutagenesis(networks()["incremental"], sequences(), targets=[4])


def test_the_engine_multiplies_by_the_rows_of_the_chosen_targets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: set[int] = set()
    whole = nn.Linear.forward

    def noted(self: nn.Linear, values: Tensor) -> Tensor:
        rows.add(self.out_features if self.weight.shape[1] == CONFIG.hidden else 0)
        rows.add(len(self.weight))
        return whole(self, values)

    model = networks()["incremental"]
    tokens = torch.tensor(encode(sequences()))
    with torch.inference_mode():
        assert model.copy_head([2])(torch.zeros(1, 5)).shape == (1, 1)  # type: ignore[operator] # a PromoterCNN
    monkeypatch.setattr(nn.Linear, "forward", noted)
    incremental.score_substitutions(model, tokens, targets=[2])  # type: ignore[arg-type] # likewise
    assert 1 in rows
    assert rows <= {0, 1, 4, CONFIG.hidden}  # 4: what the layer was built with


@pytest.mark.parametrize("bins", [1, 2])
def test_a_network_that_reads_both_strands_is_run_once(bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    model = PromoterCNN(CNNConfig((6, 5), (5, 3), (2,), both_strands=True, bins=bins, n_targets=2)).eval()
    tokens, letters = encode(sequences()), sequences()
    scores, predictions = saturation_mutagenesis(model, tokens), predict(model, tokens)
    np.testing.assert_array_equal(saturation_mutagenesis(model, tokens, both_strands=True), scores)
    np.testing.assert_array_equal(predict(model, tokens, both_strands=True), predictions)
    of_mean = np.stack([f(model, one, both=True) for one in letters])
    # turned round, a window has its bins in reverse, which such a network never saw in training
    assert np.allclose(predictions, of_mean, atol=1e-5) == (bins == 1)
    passes, features = [], PromoterCNN._features

    def counted(self: PromoterCNN, x_BCL: Tensor) -> Tensor:
        passes.append(len(x_BCL))
        return features(self, x_BCL)

    monkeypatch.setattr(PromoterCNN, "_features", counted)
    predict(model, tokens, both_strands=True)
    assert sum(passes) == 6  # three sequences on two strands, once
