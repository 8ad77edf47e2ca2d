from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import tangermeme.saturation_mutagenesis as theirs
import torch
from torch import Tensor, nn

from promoter.ism import saturation_mutagenesis
from promoter.ism.forward_passes import score_substitutions as in_full
from promoter.models.cnn import PromoterCNN


class Attentive(nn.Module):
    """A model of another kind: attention over positions, three targets."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(4, 8, 5, padding=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x_BCL: Tensor) -> Tensor:
        x_BLC = self.embed(x_BCL).transpose(1, 2)
        return self.out(self.attention(x_BLC, x_BLC, x_BLC, need_weights=False)[0].mean(dim=1))


class OneOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 7, padding=3)

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.conv(x_BCL).relu().sum(dim=(1, 2))


@pytest.fixture
def tokens() -> np.ndarray:
    tokens = np.random.default_rng(0).integers(0, 4, (3, 31)).astype(np.uint8)
    tokens[1, 4:9] = 4
    return tokens


@pytest.mark.parametrize("make", [Attentive, OneOutput])
@pytest.mark.parametrize("positions", [None, (3, 20)])
def test_other_models_score_as_one_mutant_at_a_time_does(
    make: type[nn.Module], positions: tuple[int, int] | None, tokens: np.ndarray
) -> None:
    torch.manual_seed(0)
    model = make()
    scores = saturation_mutagenesis(model, tokens, positions=positions, batch_size=5)
    start, end = positions or (0, 31)
    assert scores.dtype == np.float32
    assert scores.shape == (3, 3 if make is Attentive else 1, 4, end - start)
    double = model.double().eval()
    for row in range(3):
        for position in range(start, end):
            for base in range(4):
                expected = (_predict(double, tokens[row], position, base) - _predict(double, tokens[row])).numpy()
                # float32 predictions of order 1, one subtracted from another
                np.testing.assert_allclose(scores[row, :, base, position - start], expected, rtol=0, atol=5e-6)


def _predict(model: nn.Module, tokens: np.ndarray, position: int = 0, base: int | None = None) -> Tensor:
    x_CL = torch.zeros(4, len(tokens), dtype=torch.float64)
    for place, token in enumerate(tokens):
        letter = base if base is not None and place == position else int(token)
        if letter < 4:
            x_CL[letter, place] = 1
    with torch.no_grad():
        return model(x_CL[None]).reshape(-1)


def test_the_engine_chosen_for_a_model_is_logged(tokens: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="promoter"):
        saturation_mutagenesis(OneOutput(), tokens)
        saturation_mutagenesis(PromoterCNN(), tokens)
    assert [record.getMessage() for record in caplog.records] == [
        "saturation mutagenesis: through tangermeme",
        "saturation mutagenesis: incremental",
    ]


def test_fewer_mutants_are_scored_at_a_time_after_memory_ran_out(
    tokens: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    class Tight(OneOutput):
        """Fits five sequences into its memory; raises what a GPU raises."""

        def forward(self, x_BCL: Tensor) -> Tensor:
            if len(x_BCL) > 5:
                raise torch.cuda.OutOfMemoryError("tight")
            return super().forward(x_BCL)

    torch.manual_seed(0)
    model = Tight()
    scores = saturation_mutagenesis(model, tokens)
    assert "batch size 4" in caplog.text
    expected = in_full(model, torch.from_numpy(tokens), batch_size=5).numpy()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=5e-6)

    class Hopeless(OneOutput):
        def forward(self, x_BCL: Tensor) -> Tensor:
            raise torch.cuda.OutOfMemoryError("none at all")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        saturation_mutagenesis(Hopeless(), tokens)


def test_all_sequences_of_a_call_go_to_tangermeme_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """It prepares its fast path once a call, and only where it expects the call to take half a minute."""
    original, given = theirs.saturation_mutagenesis, []

    def counting(model: nn.Module, x_NCL: Tensor, *left: Any, **options: Any) -> Any:
        given.append(tuple(x_NCL.shape))
        return original(model, x_NCL, *left, **options)

    monkeypatch.setattr(theirs, "saturation_mutagenesis", counting)
    many = np.random.default_rng(1).integers(0, 4, (7, 1500)).astype(np.uint8)
    scores = saturation_mutagenesis(OneOutput(), many, positions=(700, 702))
    assert given == [(7, 4, 1500)] * 2  # then in float64: sums of 9,000 numbers
    assert scores.shape == (7, 1, 4, 2)


@pytest.mark.parametrize("positions", [(5, 5), (-1, 4), (0, 32)])
def test_positions_outside_the_window_are_not_scored_by_any_engine(
    positions: tuple[int, int], tokens: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="0 <= start < end <= 31"):
        saturation_mutagenesis(OneOutput(), tokens, positions=positions)
