from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import PoissonRegressor
from torch import Tensor

from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.training.batches import Examples
from promoter.training.config import TrainingConfig
from promoter.training.cross_validation import CrossValidation
from promoter.training.inference import predict
from promoter.training.loop import fit
from promoter.training.losses import LOSSES, Loss, Poisson, SquaredError, standardisation

LENGTH = 16
CONFIG = TrainingConfig(
    epochs=40, batch_size=32, learning_rate=0.03, weight_decay=0, lr_patience=3, reverse_complement=0
)


class AbsoluteError(Loss):
    name = "absolute_error"

    def elementwise(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
        return (output_BT - target_BT).abs()


class PoissonDeviance(Loss):
    """Deviance of counts from a rate whose logarithm is the output."""

    name = "poisson_deviance"
    standardises_targets = False

    def elementwise(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
        logarithm_BT = torch.xlogy(target_BT, target_BT) - target_BT * output_BT
        return 2 * (logarithm_BT - target_BT + output_BT.exp())


def deviance(log_rates: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute the mean Poisson deviance of each target as textbooks write it; no count may be 0."""
    rates = np.exp(log_rates.astype(np.float64))
    return 2 * (counts * np.log(counts / rates) - (counts - rates)).mean(axis=0)


MODEL = CNNConfig((4,), (3,), (), hidden=4, dropout=0, n_targets=2)


def network() -> PromoterCNN:
    torch.manual_seed(CONFIG.seed)
    return PromoterCNN(MODEL, LENGTH)


def one_sequence(targets: np.ndarray) -> Examples:
    """Make genes of one sequence, for which the best prediction is one number per target."""
    return Examples(np.tile(np.arange(LENGTH, dtype=np.uint8) % 4, (len(targets), 1)), targets.astype(np.float32))


def skewed(n: int, seed: int) -> np.ndarray:
    """Draw targets whose mean is far above their median, on two scales."""
    return np.random.default_rng(seed).exponential([30, 0.2], (n, 2)) + np.array([500, 0])


def counts(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson([4, 12], (n, 2)) + 1


def test_absolute_error_of_standardised_targets_learns_the_median_in_original_units() -> None:
    train, val = one_sequence(skewed(256, 1)), one_sequence(skewed(64, 2))
    model = network()
    state = fit(model, train, val, config=CONFIG, loss=AbsoluteError())
    predicted = predict(model, val.tokens)
    sd = train.targets.std(axis=0)
    middle = np.median(train.targets, axis=0)
    assert ((train.targets.mean(axis=0) - middle) / sd > 0.2).all()
    assert (np.abs(predicted[0] - middle) / sd < 0.1).all()
    best = state.history[state.best_epoch - 1]
    assert best["val_loss"] == min(record["val_loss"] for record in state.history)
    assert best["val_loss"] == pytest.approx((np.abs(predicted - val.targets).mean(axis=0) / sd).mean(), rel=1e-5)
    assert best["val_mse"] == pytest.approx(((predicted - val.targets) ** 2).mean(), rel=1e-4)


def test_poisson_deviance_learns_the_logarithm_of_the_mean_and_the_output_is_not_rescaled() -> None:
    train, val = one_sequence(counts(256, 1)), one_sequence(counts(64, 2))
    model = network()
    state = fit(model, train, val, config=CONFIG, loss=PoissonDeviance())
    predicted = predict(model, val.tokens)
    np.testing.assert_allclose(predicted[0], np.log(train.targets.mean(axis=0)), atol=0.1)
    best = state.history[state.best_epoch - 1]
    assert best["val_loss"] == pytest.approx(deviance(predicted, val.targets).mean(), rel=1e-4)
    for name, weights in state.best_model.items():
        assert torch.equal(model.state_dict()[name], weights), name


def sparse_counts(n: int, seed: int) -> np.ndarray:
    """Draw counts of which many are 0, and others thousands."""
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.exponential([0.7, 900], (n, 2)))


def test_poisson_has_the_gradient_of_the_likelihood_in_torch() -> None:
    values = torch.from_numpy(sparse_counts(50, 1)).double()
    loss, scale = Poisson(), Poisson().scale(np.log1p(values.numpy()))
    mean = torch.from_numpy(np.exp(scale.mean))
    output = torch.randn(50, 2, dtype=torch.float64, requires_grad=True)
    target = values.log1p() - mean.log()
    mine = torch.autograd.grad(loss.sum(output, target).sum(), output)[0]
    theirs = torch.nn.functional.poisson_nll_loss(output + mean.log(), values + 1, reduction="none")
    expected = torch.autograd.grad((theirs / mean).sum(), output)[0]
    torch.testing.assert_close(mine, 2 * expected)
    assert (loss.elementwise(output, target) >= 0).all()
    torch.testing.assert_close(loss.elementwise(target, target), torch.zeros_like(target), atol=1e-12, rtol=0)


def test_a_linear_model_with_the_poisson_loss_is_scikit_learns_regression() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3))
    values = rng.poisson(np.exp(features @ [0.6, -0.4, 0.1] + 2))
    loss, targets = Poisson(), np.log1p(values)[:, None]
    scale = loss.scale(targets)
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    x, t = torch.from_numpy(features), torch.from_numpy(targets - scale.mean)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss.sum((x @ weights[:3] + weights[3])[:, None], t).sum()
        value.backward()
        return value

    optimizer.step(closure)
    theirs = PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(features, values + 1)
    mine = weights.detach().numpy()
    np.testing.assert_allclose(mine[:3], theirs.coef_, atol=1e-5)
    assert mine[3] + scale.mean[0] == pytest.approx(theirs.intercept_, abs=1e-5)


def test_poisson_learns_the_expected_value_with_zeros_missing_values_and_targets_of_any_size() -> None:
    values = sparse_counts(256, 1).astype(np.float64)
    values[::3, 0] = np.nan
    train, val = one_sequence(np.log1p(values)), one_sequence(np.log1p(sparse_counts(64, 2)))
    model = network()
    state = fit(model, train, val, config=replace(CONFIG, loss="poisson"))
    predicted = predict(model, val.tokens)
    np.testing.assert_allclose(predicted[0], np.log1p(np.nanmean(values, axis=0)), atol=0.05)
    best, scale = state.history[state.best_epoch - 1], np.nanmean(values, axis=0) + 1
    shifted = sparse_counts(64, 2) + 1
    assert best["val_loss"] == pytest.approx((deviance(predicted, shifted) / scale).mean(), rel=1e-3)
    assert best["val_mse"] == pytest.approx(((predicted - val.targets) ** 2).mean(), rel=1e-4)


def test_an_untrained_network_with_the_poisson_loss_starts_near_the_mean() -> None:
    train = one_sequence(np.log1p(sparse_counts(256, 1)))
    model = network()
    fit(model, train, train, config=replace(CONFIG, loss="poisson", epochs=1, learning_rate=1e-12))
    with torch.no_grad():
        assert np.abs(predict(model, train.tokens)[0] - np.log1p(sparse_counts(256, 1).mean(axis=0))).max() < 1


def test_weights_make_poisson_learn_the_weighted_mean() -> None:
    values = sparse_counts(256, 1)
    weights = np.random.default_rng(3).integers(1, 6, 256).astype(np.float32)
    train = one_sequence(np.log1p(values))._replace(weights=weights)
    model = network()
    fit(model, train, train, config=replace(CONFIG, loss="poisson"))
    expected = np.log1p(np.average(values, axis=0, weights=weights))
    np.testing.assert_allclose(predict(model, train.tokens)[0], expected, atol=0.05)
    assert np.abs(expected - np.log1p(values.mean(axis=0))).max() > 0.02


def test_cross_validation_trains_with_the_loss_as_fit_does() -> None:
    rng = np.random.default_rng(0)
    genes = Examples(rng.integers(0, 4, (24, LENGTH)).astype(np.uint8), counts(24, 3).astype(np.float32))
    fold, config = np.arange(24) % 3, replace(CONFIG, epochs=2, batch_size=8)
    trial = CrossValidation(
        genes,
        [np.where(fold == f, "val", "train") for f in range(3)],
        MODEL,
        training=config,
        loss=PoissonDeviance(),
    )
    while trial.advance():
        pass
    train, val = (Examples(genes.tokens[rows], genes.targets[rows]) for rows in (fold != 0, fold == 0))
    expected = network()
    fit(expected, train, val, config=config, loss=PoissonDeviance())
    np.testing.assert_array_equal(predict(trial.best_networks()[0], val.tokens), predict(expected, val.tokens))


def test_train_mse_is_the_mean_squared_error_whatever_the_loss() -> None:
    examples = one_sequence(skewed(32, 1))
    config = replace(CONFIG, epochs=1, batch_size=8, learning_rate=1e-12)
    expected = fit(network(), examples, examples, config=config).history[0]
    found = fit(network(), examples, examples, config=config, loss=AbsoluteError()).history[0]
    assert found["train_mse"] == pytest.approx(expected["train_mse"], rel=1e-6)
    assert found["val_loss"] != pytest.approx(expected["val_loss"], rel=1e-2)


def test_a_loss_is_registered_by_its_name() -> None:
    assert LOSSES["mse"] is SquaredError
    assert LOSSES["poisson"] is Poisson
    assert LOSSES["absolute_error"] is AbsoluteError
    assert LOSSES["poisson_deviance"] is PoissonDeviance


def test_a_loss_without_a_name_of_its_own_is_not_registered() -> None:
    before = dict(LOSSES)

    class Nameless(SquaredError):  # noqa: N818 # not an exception
        pass

    assert before == LOSSES


def test_squared_error_gives_one_mean_from_its_metric_and_from_its_sum() -> None:
    observed, predicted = skewed(50, 1), skewed(50, 2)
    loss, scale = SquaredError(), standardisation(observed)
    np.testing.assert_allclose(
        loss.mean(predicted, observed, scale), Loss.mean(loss, predicted, observed, scale), rtol=1e-12
    )
