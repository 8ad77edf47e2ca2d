"""Targets with missing values: training and validation against loops written out in plain torch."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from scipy import stats
from torch import Tensor, nn

from promoter.errors import InputError, InputWarning
from promoter.models.build import Learner
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.config import PretrainedConfig
from promoter.models.pretrained import PretrainedHead
from promoter.sequence import one_hot
from promoter.training.batches import Examples, doubt_constant_targets, mix_seed, require_values
from promoter.training.config import TrainingConfig
from promoter.training.cross_validation import CrossValidation
from promoter.training.inference import evaluate, predict
from promoter.training.loop import fit
from promoter.training.losses import Loss, standardisation
from promoter.training.state import TrainingState

LENGTH, DIM = 32, 6
NAN = np.nan
CONFIG = TrainingConfig(
    epochs=3, batch_size=8, learning_rate=3e-3, reverse_complement=0, early_stopping=None, weight_decay=0
)


class AbsoluteError(Loss):
    """Absolute error of targets in their own units, for which a stand-in for a missing value is no neutral one."""

    standardises_targets = False

    def elementwise(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
        return (output_BT - target_BT).abs()


def targets(n: int, seed: int) -> np.ndarray:
    """Three targets on different scales: complete, missing in half of the genes, and in all but a fifth."""
    rng = np.random.default_rng(seed)
    values = rng.normal([1000, 5, -2], [50, 1, 0.1], (n, 3))
    values[rng.permutation(n)[: n // 2], 1] = NAN
    values[rng.permutation(n)[: n - n // 5], 2] = NAN
    return values.astype(np.float32)


def sequences(n: int, seed: int) -> Examples:
    tokens = np.random.default_rng(seed).integers(0, 4, (n, LENGTH)).astype(np.uint8)
    return Examples(tokens, targets(n, seed))


def embeddings(n: int, seed: int) -> Examples:
    values = np.random.default_rng(seed).normal(size=(n, 1, DIM)).astype(np.float32)
    return Examples(values, targets(n, seed))


def cnn() -> PromoterCNN:
    torch.manual_seed(0)
    return PromoterCNN(CNNConfig((8, 8), (7, 3), (4,), hidden=8, dropout=0, n_targets=3), LENGTH)


def head() -> PretrainedHead:
    torch.manual_seed(0)
    return PretrainedHead(PretrainedConfig(head="mlp", hidden=8, dropout=0, n_targets=3), DIM)


def known_mean_and_sd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    columns = [column[~np.isnan(column)].astype(float) for column in values.T]
    return np.array([c.mean() for c in columns]), np.array([c.std() for c in columns])


def train_naively(model: Learner, examples: Examples, error: nn.Module, *, standardised: bool = True) -> list[int]:
    """Train with a loop over targets that indexes the genes with a value; return how many each batch had."""
    mean, sd = known_mean_and_sd(examples.targets) if standardised else (0.0, 1.0)
    y_NT = torch.tensor((examples.targets - mean) / sd, dtype=torch.float32)
    inputs = torch.tensor(examples.tokens)
    inputs = inputs[:, 0] if inputs.is_floating_point() else one_hot(inputs)
    optimiser = torch.optim.Adam(model.parameters(), lr=CONFIG.learning_rate)
    counts = []
    model.train()
    for epoch in range(1, CONFIG.epochs + 1):
        generator = torch.Generator().manual_seed(mix_seed(CONFIG.seed, epoch))
        for rows in torch.randperm(len(y_NT), generator=generator).split(CONFIG.batch_size):
            outputs = model(inputs[rows])
            loss = torch.zeros(())
            for index in range(3):
                known = [i for i, row in enumerate(rows) if not np.isnan(examples.targets[row, index])]
                counts.append(len(known))
                if known:
                    loss = loss + error(outputs[known, index], y_NT[rows[known], index]) / 3
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CONFIG.gradient_clip)
            optimiser.step()
    return counts


def assert_near(found: dict[str, Tensor], expected: Learner) -> None:
    for name, weights in expected.named_parameters():
        # float32 sums in another order; Adam's steps of 3e-3 multiply what is left of them
        torch.testing.assert_close(found[name], weights.detach(), rtol=1e-4, atol=1e-5)


def test_a_cnn_learns_as_by_a_loop_over_the_observed_values_of_each_target() -> None:
    train, val = sequences(40, 1), sequences(24, 2)
    state = fit(cnn(), train, val, config=CONFIG)
    expected = cnn()
    counts = train_naively(expected, train, nn.MSELoss())
    assert 0 in counts  # a batch without any value of a target
    assert_near(state.model, expected)


def test_a_loss_in_original_units_sees_observed_values_alone() -> None:
    train, val = embeddings(40, 1), embeddings(24, 2)
    state = fit(head(), train, val, config=CONFIG, loss=AbsoluteError())
    expected = head()
    train_naively(expected, train, nn.L1Loss(), standardised=False)
    assert_near(state.model, expected)


def test_what_a_missing_value_hides_does_not_matter_and_other_values_do() -> None:
    train, val = sequences(40, 1), sequences(24, 2)
    states = []
    for changed in (None, (train, 0), (val, 0)):
        if changed is not None:
            changed[0].targets[changed[1], 0] += 100
        states.append(fit(cnn(), train, val, config=CONFIG))
    assert states[0].history[0]["val_loss"] != states[1].history[0]["val_loss"] != states[2].history[0]["val_loss"]
    assert np.isfinite([list(record.values()) for record in states[0].history]).all()


def work(rank: int, world: int, folder: str) -> None:
    """Be one of `world` processes, and save what this one has after training."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    state = fit(head(), embeddings(37, 1), embeddings(23, 2), config=CONFIG)
    torch.save({"weights": state.model, "history": state.history}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_learn_what_one_does_though_their_shares_miss_different_values(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (2, str(tmp_path)), nprocs=2)  # type: ignore[reportPrivateImportUsage] # documented
    alone = fit(head(), embeddings(37, 1), embeddings(23, 2), config=CONFIG)
    expected = head()
    train_naively(expected, embeddings(37, 1), nn.MSELoss())
    assert_near(alone.model, expected)
    for rank in range(2):
        seen: dict[str, Any] = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_near(seen["weights"], expected)
        for record, other in zip(seen["history"], alone.history, strict=True):
            for name in ("train_mse", "val_mse", "val_pearson", "val_loss"):
                assert record[name] == pytest.approx(other[name], rel=1e-4), name


def test_the_history_has_means_over_targets_of_their_observed_values() -> None:
    train, val = sequences(40, 1), sequences(24, 2)
    model = cnn()
    state = fit(model, train, val, config=CONFIG)
    best = state.history[state.best_epoch - 1]
    predicted = predict(model, val.tokens)
    _, sd = known_mean_and_sd(train.targets)
    mse, r, rho = [], [], []
    for index in range(3):
        known = ~np.isnan(val.targets[:, index])
        x, y = val.targets[known, index].astype(float), predicted[known, index].astype(float)
        mse.append(np.mean((x - y) ** 2))
        r.append(stats.pearsonr(x, y)[0])
        rho.append(stats.spearmanr(x, y)[0])
    assert best["val_mse"] == pytest.approx(np.mean(mse), rel=1e-4)
    assert best["val_loss"] == pytest.approx(np.mean(np.array(mse) / sd**2), rel=1e-4)
    assert [int((~np.isnan(column)).sum()) for column in val.targets.T] == [24, 12, 4]
    assert best["val_pearson"] == pytest.approx(np.mean(r[:2]), abs=1e-5)  # no r of four genes
    found = evaluate(model, val)
    np.testing.assert_allclose(found.mse, mse, rtol=1e-6)
    np.testing.assert_allclose(found.pearson, r, atol=1e-6)
    np.testing.assert_allclose(found.spearman, rho, atol=1e-9)


def test_train_mse_is_a_mean_over_observed_values() -> None:
    train = sequences(40, 1)
    train.tokens[:] = train.tokens[0]  # one sequence: in training mode, too, one prediction for all
    mean, sd = known_mean_and_sd(train.targets)
    predicted = cnn().train()(one_hot(train.tokens)).detach().numpy() * sd + mean
    state = fit(cnn(), train, sequences(24, 2), config=replace(CONFIG, epochs=1, learning_rate=1e-12))
    expected = np.nanmean((predicted - train.targets) ** 2, axis=0).mean()
    assert state.history[0]["train_mse"] == pytest.approx(expected, rel=1e-5)


def test_genes_without_any_value_change_nothing() -> None:
    train, val = sequences(40, 1), sequences(24, 2)

    def with_empty(examples: Examples, seed: int) -> Examples:
        rng = np.random.default_rng(seed)
        at = rng.integers(0, len(examples.tokens), 10)
        tokens = np.insert(examples.tokens, at, rng.integers(0, 4, (10, LENGTH)), axis=0)
        return Examples(tokens, np.insert(examples.targets, at, np.full((10, 3), NAN), axis=0))

    models = [cnn(), cnn()]
    fit(models[0], train, val, config=CONFIG)
    fit(models[1], with_empty(train, 3), with_empty(val, 4), config=CONFIG)
    for name, weights in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], weights), name


def test_a_training_with_missing_values_resumes_to_the_same_weights() -> None:
    train, val, saved = sequences(40, 1), sequences(24, 2), []
    models = [cnn(), cnn()]
    fit(models[0], train, val, config=CONFIG, on_epoch=lambda state: saved.append(state.to_bytes()))
    fit(models[1], train, val, config=CONFIG, state=TrainingState.from_bytes(saved[0]))
    for name, weights in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], weights), name


def test_folds_with_missing_values_are_trained_as_by_fit_and_scored_on_observed_genes() -> None:
    genes, fold = sequences(60, 5), np.arange(60) % 3
    splits = [np.where(fold == number, "val", "train") for number in range(3)]
    trial = CrossValidation(genes, splits, cnn().config, training=CONFIG)
    while trial.advance():
        pass
    scores = trial.fold_scores()
    for number, network in enumerate(trial.best_networks()):
        train, val = (
            Examples(genes.tokens[rows], genes.targets[rows]) for rows in (fold != number, fold == number)
        )
        expected = cnn()
        fit(expected, train, val, config=CONFIG)
        np.testing.assert_array_equal(predict(network, val.tokens), predict(expected, val.tokens))
        enough = (~np.isnan(val.targets)).sum(axis=0) >= 10
        assert scores[number] == pytest.approx(evaluate(expected, val).pearson[enough].mean(), abs=1e-5)


def test_mean_and_sd_are_those_of_the_observed_values() -> None:
    values = targets(50, 3)
    mean, sd = known_mean_and_sd(values)
    scale = standardisation(values)
    np.testing.assert_allclose(scale.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(scale.sd, sd, rtol=1e-12)
    nothing = standardisation(np.array([[NAN, 1.0], [NAN, 3.0]], np.float32))
    assert [*nothing.mean, *nothing.sd] == [0, 2, 1, 1]


def test_a_mean_loss_leaves_missing_values_out_whatever_the_loss_makes_of_them() -> None:
    class Refusing(Loss):
        def elementwise(self, output_BT: Tensor, target_BT: Tensor) -> Tensor:
            assert not target_BT.isnan().any()
            return torch.where(output_BT > target_BT, 1.0, 2.0)

    observed = np.array([[0.0, NAN], [5.0, NAN], [NAN, NAN]])
    found = Refusing().mean(np.full((3, 2), 3.0), observed, standardisation(np.zeros((2, 2))))
    np.testing.assert_array_equal(found, [1.5, NAN])


def with_changed(values: np.ndarray, rows: slice, column: int, value: float) -> np.ndarray:
    values = values.copy()
    values[rows, column] = value
    return values


@pytest.mark.parametrize(
    ("of_train", "of_val", "message"),
    [
        (None, (slice(None), 1, NAN), "target B: 20 of 40 training and 0 of 24 validation genes have a value"),
        ((slice(1, None), 0, NAN), None, "target A: 1 of 40 training and 24 of 24 validation"),
        ((slice(3, 4), 0, np.inf), None, r"target A: has infinite values \(1\)"),
        (None, (slice(0, 2), 2, -np.inf), r"target C: has infinite values \(2\)"),
    ],
)
def test_a_target_that_cannot_be_learned_or_judged_is_refused_by_name(
    of_train: tuple[slice, int, float] | None, of_val: tuple[slice, int, float] | None, message: str
) -> None:
    train, val = (
        Examples(e.tokens, e.targets if change is None else with_changed(e.targets, *change))
        for e, change in ((sequences(40, 1), of_train), (sequences(24, 2), of_val))
    )
    with pytest.raises(InputError, match=message):
        require_values(train.targets, val.targets, ["A", "B", "C"])
    with pytest.raises(InputError, match=r"target number [123]: "):
        fit(cnn(), train, val, config=CONFIG)


def test_targets_that_do_not_vary_are_refused_and_one_of_several_is_named_in_a_warning() -> None:
    values = targets(40, 1)
    with pytest.raises(InputError, match=r"no target varies among the training genes \(A, B, C\)"):
        require_values(np.where(np.isnan(values), NAN, 7.0), values, ["A", "B", "C"])
    values[:, 1] = np.where(np.isnan(values[:, 1]), NAN, 7.0)
    require_values(values, values, ["A", "B", "C"])
    with pytest.warns(InputWarning, match="target B: has the same value, 7, in all training genes") as warned:
        doubt_constant_targets(values, ["A", "B", "C"])
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        doubt_constant_targets(targets(40, 1), ["A", "B", "C"])
