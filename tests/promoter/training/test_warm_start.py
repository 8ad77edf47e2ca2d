from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.training.batches import Examples
from promoter.training.config import TrainingConfig
from promoter.training.inference import predict
from promoter.training.loop import fit
from promoter.training.losses import LOSSES, Loss
from promoter.training.state import TrainingState
from promoter.training.warm_start import WarmStart, start_from

CONFIG = TrainingConfig(epochs=3, batch_size=64, learning_rate=0.02, reverse_complement=0)
FROZEN = replace(CONFIG, epochs=1, learning_rate=1e-12)
TOKENS = np.random.default_rng(0).integers(0, 4, (60, 24)).astype(np.uint8)
POISSON = LOSSES["poisson"]()
MSE = LOSSES["mse"]()


def network(n_targets: int, seed: int) -> PromoterCNN:
    torch.manual_seed(seed)
    return PromoterCNN(CNNConfig((6, 4), (5, 3), (2,), hidden=4, dropout=0, n_targets=n_targets))


def examples(mean: Sequence[float], sd: Sequence[float], seed: int) -> Examples:
    drawn = np.random.default_rng(seed).normal(mean, sd, (len(TOKENS), len(mean)))
    drawn += (TOKENS == 1).sum(axis=1, keepdims=True) * np.asarray(sd) / 3  # something to learn
    return Examples(TOKENS, drawn.astype(np.float32))


@pytest.fixture(scope="module")
def earlier() -> PromoterCNN:
    """A trained network of two targets in original units."""
    model = network(2, seed=1)
    data = examples([500, -3], [30, 0.2], 1)
    fit(model, data, data, config=CONFIG)
    return model


def weights_of(model: PromoterCNN) -> bytes:
    return safetensors.torch.save(model.state_dict())


def predicted_in_training(model: PromoterCNN, train: Examples, loss: Loss) -> np.ndarray:
    """Return predictions of a network in training, in original units, as each epoch's validation does."""
    scale = loss.scale(train.targets)
    return predict(model, train.tokens) * scale.sd + scale.mean


def test_a_network_starts_with_the_predictions_of_the_earlier_one_in_original_units(earlier: PromoterCNN) -> None:
    train, model = examples([900, 40], [2, 7], 2), network(2, seed=2)
    start_from(model, WarmStart(weights_of(earlier), [0, 1]), train, MSE)
    expected = predict(earlier, TOKENS)
    np.testing.assert_allclose(predicted_in_training(model, train, MSE), expected, rtol=1e-5, atol=1e-4)


def test_a_training_without_steps_returns_the_earlier_network(earlier: PromoterCNN) -> None:
    train, model = examples([900, 40], [2, 7], 2), network(2, seed=2)
    start_from(model, WarmStart(weights_of(earlier), [0, 1]), train, MSE)
    state = fit(model, train, train, config=FROZEN)
    np.testing.assert_allclose(predict(model, TOKENS), predict(earlier, TOKENS), rtol=1e-4)
    expected = ((predict(earlier, TOKENS) - train.targets) ** 2).mean()
    assert state.history[0]["val_mse"] == pytest.approx(expected, rel=1e-3)


def test_targets_are_found_by_their_rows_and_a_new_one_keeps_its_new_weights(earlier: PromoterCNN) -> None:
    train, model = examples([0, -5], [1, 3], 3), network(2, seed=2)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, WarmStart(weights_of(earlier), [None, 1]), train, MSE)
    found = predicted_in_training(model, train, MSE)
    np.testing.assert_allclose(found[:, 1], predict(earlier, TOKENS)[:, 1], rtol=1e-4, atol=1e-4)
    last = model.output_layer()
    torch.testing.assert_close(last.weight[0], fresh["head.3.weight"][0], rtol=0, atol=0)
    torch.testing.assert_close(last.bias[0], fresh["head.3.bias"][0], rtol=0, atol=0)
    for name, value in model.state_dict().items():
        if not name.startswith("head.3."):
            torch.testing.assert_close(value, earlier.state_dict()[name], rtol=0, atol=0)


def test_without_a_common_target_the_head_is_new_and_the_rest_is_not(earlier: PromoterCNN) -> None:
    train, model = examples([0, 1, 2], [1, 1, 1], 3), network(3, seed=2)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, WarmStart(weights_of(earlier), [None] * 3), train, MSE)
    for name, value in model.state_dict().items():
        expected = fresh if name.startswith("head.") else earlier.state_dict()
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert not torch.equal(model.state_dict()["blocks.0.conv.weight"], fresh["blocks.0.conv.weight"])


def test_a_poisson_training_starts_from_the_same_predictions(earlier: PromoterCNN) -> None:
    values = np.random.default_rng(5).poisson(7, (len(TOKENS), 2))
    train, model = Examples(TOKENS, np.log1p(values).astype(np.float32)), network(2, seed=2)
    start_from(model, WarmStart(weights_of(earlier), [0, 1]), train, POISSON)
    np.testing.assert_allclose(
        predicted_in_training(model, train, POISSON), predict(earlier, TOKENS), rtol=1e-5, atol=1e-4
    )


def test_a_resumed_training_does_not_need_the_earlier_weights(earlier: PromoterCNN) -> None:
    train, saved = examples([900, 40], [2, 7], 2), []
    model = network(2, seed=2)
    start_from(model, WarmStart(weights_of(earlier), [0, 1]), train, MSE)
    fit(model, train, train, config=CONFIG, on_epoch=lambda state: saved.append(state.to_bytes()))
    resumed = network(2, seed=9)
    fit(resumed, train, train, config=CONFIG, state=TrainingState.from_bytes(saved[0]))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
