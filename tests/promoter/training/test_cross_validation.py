from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.training.batches import Examples
from promoter.training.config import TrainingConfig
from promoter.training.cross_validation import CrossValidation, Metric
from promoter.training.inference import evaluate
from promoter.training.loop import fit

MODEL = CNNConfig((6, 4), (5, 3), (2,), hidden=8, crop=32)
TRAINING = TrainingConfig(epochs=5, batch_size=8, learning_rate=5e-3, jitter=2, early_stopping=2, seed=3)


@pytest.fixture(scope="module")
def examples() -> Examples:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (61, 40)).astype(np.uint8)
    targets = np.stack([(tokens == 2).mean(axis=1) * 10, rng.normal(size=61)], axis=1)
    return Examples(tokens, targets.astype(np.float32))


FOLDS = np.arange(61) % 3 - 1  # -1: in the training set of both folds
SPLITS = [np.where(fold == FOLDS, "val", "train") for fold in range(2)]
TWO = replace(MODEL, n_targets=2)


def by_hand(examples: Examples, fold: int, seed: int) -> tuple[PromoterCNN, Examples, int]:
    """Train one of the networks as one would without `CrossValidation`."""
    torch.manual_seed(TRAINING.seed + seed)
    network = PromoterCNN(TWO, length=40)
    learned, held_out = (
        Examples(examples.tokens[some], examples.targets[some]) for some in (fold != FOLDS, fold == FOLDS)
    )
    state = fit(network, learned, held_out, config=replace(TRAINING, seed=TRAINING.seed + seed))
    return network, held_out, state.epoch


@pytest.mark.parametrize("metric", ["pearson", "mse"])
def test_folds_trained_side_by_side_equal_folds_trained_one_by_one(examples: Examples, metric: Metric) -> None:
    both = CrossValidation(examples, SPLITS, TWO, training=TRAINING, metric=metric, seeds=2)
    while both.advance():
        pass
    assert both.is_finished()
    scores = both.fold_scores()
    networks = both.best_networks()
    longest = 0
    for fold in range(2):
        found = []
        for seed in range(2):
            expected, held_out, epochs = by_hand(examples, fold, seed)
            for ours, theirs in zip(networks[2 * fold + seed].parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
            found.append(np.mean(getattr(evaluate(expected, held_out), metric)))
            longest = max(longest, epochs)
        assert scores[fold] == pytest.approx(np.mean(found), rel=1e-4)  # its best epoch's, in original units
    assert both.epoch == longest


def test_resumed_cross_validation_equals_an_uninterrupted_one(examples: Examples) -> None:
    whole = CrossValidation(examples, SPLITS, TWO, training=TRAINING)
    while whole.advance():
        pass
    first = CrossValidation(examples, SPLITS, TWO, training=TRAINING)
    for _ in range(2):
        assert first.advance()
    second = CrossValidation(examples, SPLITS, TWO, training=TRAINING, saved=first.to_bytes())
    assert second.epoch == 2
    while second.advance():
        pass
    assert second.fold_scores() == whole.fold_scores()
    for ours, theirs in zip(second.best_networks(), whole.best_networks(), strict=True):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_fold_trains_on_none_of_its_validation_genes(examples: Examples) -> None:
    targets = examples.targets.copy()
    targets[FOLDS == 0] = 7.0  # constant: no learning rate or epoch is chosen the same, so one epoch only
    changed = Examples(examples.tokens, targets)
    weights = []
    for some in (examples, changed):
        trial = CrossValidation(some, SPLITS, TWO, training=replace(TRAINING, epochs=1))
        trial.advance()
        weights.append(trial.best_networks()[0].get_parameter("blocks.0.conv.weight"))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_a_gene_that_a_fold_leaves_out_is_neither_learned_from_nor_validated_on(examples: Examples) -> None:
    splits = [split.astype(object) for split in SPLITS]
    for split in splits:
        split[::7] = None
    targets = np.where(np.arange(61)[:, None] % 7 == 0, 1e6, examples.targets).astype(np.float32)
    scores = []
    for some in (examples, Examples(examples.tokens, targets)):
        trial = CrossValidation(some, splits, TWO, training=replace(TRAINING, epochs=1), metric="mse")
        trial.advance()
        scores.append(trial.fold_scores())
    assert scores[0] == scores[1]
