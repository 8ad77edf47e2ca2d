"""Weights of genes: training, validation and tuning against loops written out in plain torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from test_missing_values import CONFIG, NAN, AbsoluteError, assert_near, cnn, embeddings, head, sequences
from torch import nn

from promoter.errors import InputError
from promoter.models.build import Learner
from promoter.sequence import one_hot
from promoter.training.batches import Examples, mix_seed, require_values
from promoter.training.cross_validation import CrossValidation, require_scorable
from promoter.training.inference import predict
from promoter.training.loop import fit
from promoter.training.losses import SQUARED_ERROR, Loss, TargetScale
from promoter.training.state import TrainingState


def weighted(examples: Examples, seed: int = 7, zeros: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    weights = rng.lognormal(3, 1, len(examples.tokens)).astype(np.float32)
    weights[rng.permutation(len(weights))[:zeros]] = 0
    return examples._replace(weights=weights)


def train_naively(model: Learner, examples: Examples, error: nn.Module, *, standardised: bool = True) -> None:
    """Train with a loop over genes and targets; each loss is multiplied by weight over mean weight."""
    assert examples.weights is not None
    scale = [(v[~np.isnan(v)].mean(), v[~np.isnan(v)].std()) for v in examples.targets.T.astype(float)]
    weights = examples.weights.astype(float) / examples.weights.astype(float).mean()
    inputs = torch.tensor(examples.tokens)
    inputs = inputs[:, 0] if inputs.is_floating_point() else one_hot(inputs)
    optimiser = torch.optim.Adam(model.parameters(), lr=CONFIG.learning_rate)
    model.train()
    for epoch in range(1, CONFIG.epochs + 1):
        generator = torch.Generator().manual_seed(mix_seed(CONFIG.seed, epoch))
        for rows in torch.randperm(len(inputs), generator=generator).split(CONFIG.batch_size):
            outputs = model(inputs[rows])
            loss = torch.zeros(())
            for index, (mean, sd) in enumerate(scale):
                losses = []
                for i, row in enumerate(rows.tolist()):
                    value = float(examples.targets[row, index])
                    if not np.isnan(value):
                        known = torch.tensor((value - mean) / sd if standardised else value, dtype=torch.float32)
                        losses.append(float(weights[row]) * error(outputs[i, index], known))
                if losses:
                    loss = loss + sum(losses) / len(losses) / len(scale)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CONFIG.gradient_clip)
            optimiser.step()


def test_each_loss_is_multiplied_by_the_weight_over_the_mean_weight() -> None:
    train, val = weighted(sequences(40, 1)), weighted(sequences(24, 2))
    state = fit(cnn(), train, val, config=CONFIG)
    expected = cnn()
    train_naively(expected, train, nn.MSELoss())
    assert_near(state.model, expected)


def test_a_loss_in_original_units_is_weighted_too() -> None:
    train, val = weighted(embeddings(40, 1)), weighted(embeddings(24, 2))
    state = fit(head(), train, val, config=CONFIG, loss=AbsoluteError())
    expected = head()
    train_naively(expected, train, nn.L1Loss(), standardised=False)
    assert_near(state.model, expected)


def work(rank: int, world: int, folder: str) -> None:
    """Be one of `world` processes, and save what this one has after training."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    state = fit(head(), weighted(embeddings(37, 1)), weighted(embeddings(23, 2)), config=CONFIG)
    torch.save({"weights": state.model, "history": state.history}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_learn_what_one_does_though_their_shares_weigh_differently(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (2, str(tmp_path)), nprocs=2)  # type: ignore[reportPrivateImportUsage] # documented
    alone = fit(head(), weighted(embeddings(37, 1)), weighted(embeddings(23, 2)), config=CONFIG)
    expected = head()
    train_naively(expected, weighted(embeddings(37, 1)), nn.MSELoss())
    assert_near(alone.model, expected)
    for rank in range(2):
        seen: dict[str, Any] = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_near(seen["weights"], expected)
        for record, other in zip(seen["history"], alone.history, strict=True):
            for name in ("train_mse", "val_mse", "val_loss"):
                assert record[name] == pytest.approx(other[name], rel=1e-4), name


def states_equal(first: TrainingState, second: TrainingState) -> bool:
    names = ("train_mse", "val_mse", "val_loss")
    same = all(torch.equal(second.model[name], value) for name, value in first.model.items())
    pairs = zip(first.history, second.history, strict=True)
    return same and all(one[name] == other[name] for one, other in pairs for name in names)


def test_equal_weights_and_another_unit_of_weights_change_no_bit() -> None:
    train, val = sequences(40, 1), sequences(24, 2)
    plain = fit(cnn(), train, val, config=CONFIG)
    ones = [examples._replace(weights=np.full(len(examples.tokens), 0.1, np.float32)) for examples in (train, val)]
    equal = fit(cnn(), *ones, config=CONFIG)
    assert all(torch.equal(equal.model[name], value) for name, value in plain.model.items())
    some = weighted(train)
    assert some.weights is not None
    units = [fit(cnn(), some._replace(weights=some.weights * unit), val, config=CONFIG) for unit in (1, 1024)]
    assert states_equal(*units)
    assert not states_equal(units[0], plain)


def test_training_genes_of_weight_0_change_nothing_whatever_their_values() -> None:
    train, val = weighted(sequences(40, 1), zeros=11), weighted(sequences(24, 2))
    assert train.weights is not None
    unused = train.weights == 0
    train.targets[unused] = 1e6
    models = [cnn(), cnn()]
    first = fit(models[0], train, val, config=CONFIG)
    second = fit(models[1], train.rows(~unused), val, config=CONFIG)
    assert states_equal(first, second)
    for name, value in models[0].state_dict().items():  # in original units
        assert torch.equal(models[1].state_dict()[name], value), name


def test_the_best_epoch_is_chosen_by_the_weighted_loss_and_the_metrics_of_the_history_are_unweighted() -> None:
    train, val = sequences(40, 1), weighted(sequences(24, 2), zeros=3)
    assert val.weights is not None
    model = cnn()
    state = fit(model, train, val, config=CONFIG)
    unweighted = fit(cnn(), train, val._replace(weights=None), config=CONFIG)
    best = state.history[state.best_epoch - 1]
    predicted = predict(model, val.tokens)
    mse, plain = [], []
    for index in range(3):
        known = ~np.isnan(val.targets[:, index])
        off = np.square(val.targets[known, index].astype(float) - predicted[known, index])
        sd = np.nanstd(train.targets[:, index].astype(float))
        mse.append(np.average(off, weights=val.weights[known]) / sd**2)
        plain.append(off.mean())
    assert best["val_loss"] == pytest.approx(np.mean(mse), rel=1e-4)
    assert best["val_mse"] == pytest.approx(np.mean(plain), rel=1e-4)
    assert [record["val_loss"] for record in state.history] != [r["val_loss"] for r in unweighted.history]


def test_a_mean_loss_of_any_kind_is_weighted() -> None:
    observed, predicted = np.array([[0.0, NAN], [5.0, 1.0], [NAN, 2.0]]), np.full((3, 2), 3.0)
    weights, scale = np.array([1.0, 3.0, 4.0]), TargetScale(np.zeros(2), np.ones(2))

    class Square(Loss):
        def elementwise(self, output_BT: torch.Tensor, target_BT: torch.Tensor) -> torch.Tensor:
            return (output_BT - target_BT).square()

    for loss in (SQUARED_ERROR, Square()):
        found = loss.mean(predicted, observed, scale, weights)
        np.testing.assert_allclose(found, [(9 * 1 + 4 * 3) / 4, (4 * 3 + 1 * 4) / 7])


def test_a_weighted_training_resumes_to_the_same_weights() -> None:
    train, val, saved = weighted(sequences(40, 1)), weighted(sequences(24, 2)), []
    whole = fit(cnn(), train, val, config=CONFIG, on_epoch=lambda state: saved.append(state.to_bytes()))
    resumed = fit(cnn(), train, val, config=CONFIG, state=TrainingState.from_bytes(saved[0]))
    assert states_equal(whole, resumed)


def test_folds_are_trained_with_the_weights_of_their_own_training_genes() -> None:
    genes, fold = weighted(sequences(60, 5), zeros=5), np.arange(60) % 2
    splits = [np.where(fold == number, "val", "train") for number in range(2)]
    trial = CrossValidation(genes, splits, cnn().config, training=CONFIG, metric="mse")
    while trial.advance():
        pass
    for number, network in enumerate(trial.best_networks()):
        expected = cnn()
        fit(expected, genes.rows(fold != number), genes.rows(fold == number), config=CONFIG)
        for name, value in expected.state_dict().items():
            assert torch.equal(network.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("of_train", "of_val", "message"),
    [
        ([1, 2, NAN, 1], [1, 1], "weight nan of a training gene: a weight is a number of at least 0"),
        ([1, 2, np.inf, 1], [1, 1], "weight inf of a training gene"),
        ([1, 1, 1, 1], [1, -2], "weight -2 of a validation gene"),
        ([0, 0, 0, 0], [1, 1], "all 4 training genes have the weight 0"),
        ([1, 1, 1, 1], [0, 0], "all 2 validation genes have the weight 0"),
        ([0, 0, 0, 1], [1, 1], "target A: 1 of 4 training and 2 of 2 validation genes have a value and a weight"),
        ([0, 0, 1, 1], None, "no target varies among the training genes"),
    ],
)
def test_weights_that_leave_nothing_to_learn_or_are_none_are_refused(
    of_train: list[float], of_val: list[float] | None, message: str
) -> None:
    train, val = np.array([[1.0], [2.0], [3.0], [3.0]]), np.array([[1.0], [2.0]])
    weights = np.array(of_train, np.float32), None if of_val is None else np.array(of_val, np.float32)
    with pytest.raises(InputError, match=message):
        require_values(train, val, ["A"], weights=weights)


def test_too_few_genes_of_weight_above_0_are_refused() -> None:
    train, val = sequences(40, 1), sequences(24, 2)
    weights = np.zeros(40, np.float32)
    weights[:1] = 1
    with pytest.raises(InputError, match=r"1 training|target number 1: 1 of 40"):
        fit(cnn(), train._replace(weights=weights), val, config=CONFIG)


def test_r_of_fewer_than_ten_validation_genes_is_not_in_the_history() -> None:
    train, val = sequences(40, 1), sequences(24, 2)
    val.targets[9:, 0] = val.targets[:, 1] = NAN
    val.targets[:2, 1] = 5, 6
    record = fit(cnn(), train, val, config=replace(CONFIG, epochs=1)).history[0]
    assert np.isnan(record["val_pearson"])
    assert np.isfinite(record["val_mse"])


def test_a_search_by_r_needs_ten_values_of_each_target_in_each_fold() -> None:
    targets, fold = np.zeros((40, 2)), np.repeat([0, 1, -1], [20, 15, 5])
    splits = [np.where(fold == number, "val", "train") for number in range(2)]
    require_scorable(targets, splits, "pearson", ["A", "B"])
    targets[24:32, 1] = NAN
    require_scorable(targets, splits, "mse", ["A", "B"])
    with pytest.raises(
        InputError, match=r"fold 2 validates on 7 values of target B, .*fewer than 10.*`metric='mse'`"
    ):
        require_scorable(targets, splits, "pearson", ["A", "B"])
