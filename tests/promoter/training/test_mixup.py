"""Promoters mixed with one another in training, against loops written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_missing_values import cnn, embeddings, head, sequences

from promoter.errors import InputError
from promoter.models.build import Learner
from promoter.training.batches import Batch, Examples, TrainingBatches, as_model_input, mix_seed
from promoter.training.config import TrainingConfig
from promoter.training.distributed import DistributedContext
from promoter.training.loop import fit
from promoter.training.losses import TargetScale

SHOWN = TrainingConfig(batch_size=8, reverse_complement=0.5, jitter=2, seed=3)
MIXED = replace(SHOWN, mixup=0.4)


def epoch_of(
    examples: Examples, model: Learner, config: TrainingConfig, context: DistributedContext
) -> list[Batch]:
    targets = examples.targets.shape[1]
    scale = TargetScale(np.full(targets, 2.0), np.full(targets, 0.5))
    batches = TrainingBatches(
        examples,
        scale,
        config=config,
        device=torch.device("cpu"),
        context=context,
        network=model.config,
        min_size=2,
    )
    return list(batches.iterate_epoch(5))


def weighted(examples: Examples) -> Examples:
    return examples._replace(weights=np.random.default_rng(1).lognormal(0, 1, len(examples.tokens)).astype("f4"))


@pytest.mark.parametrize("examples", [weighted(sequences(37, 1)), sequences(37, 1), embeddings(37, 1)])
def test_each_promoter_is_mixed_with_another_as_that_one_is_shown(examples: Examples) -> None:
    model = head() if examples.tokens.dtype == np.float32 else cnn()
    recipe = replace(SHOWN, reverse_complement=0, jitter=0) if examples.tokens.dtype == np.float32 else SHOWN
    shown, mixed = (
        epoch_of(examples, model, config, DistributedContext())
        for config in (recipe, replace(recipe, mixup=MIXED.mixup))
    )
    tokens = as_model_input(torch.cat([batch.tokens for batch in shown]))
    targets = torch.cat([batch.targets for batch in shown])
    weights = None if examples.weights is None else torch.cat([b.weights for b in shown if b.weights is not None])

    generator = torch.Generator().manual_seed(mix_seed(SHOWN.seed, 5))
    n = len(examples.tokens)
    torch.randperm(n, generator=generator)
    torch.rand(n, generator=generator)
    torch.randint(-recipe.jitter, recipe.jitter + 1, (n,), generator=generator)
    partner = torch.randperm(n, generator=generator).tolist()
    part = (torch.rand(n, generator=generator) * MIXED.mixup).tolist()
    assert 0.3 < max(part) < 0.4
    row = 0
    for batch in mixed:
        known = np.zeros(targets.shape[1], int)
        for i in range(len(batch.tokens)):
            own, other, share = row, partner[row], part[row]
            for found, values in ((batch.tokens, tokens), (batch.targets, targets)):
                expected = (1 - share) * values[own].double() + share * values[other].double()
                np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)
            if weights is not None and batch.weights is not None:
                expected = (1 - share) * weights[own] + share * weights[other]
                np.testing.assert_allclose(batch.weights[i], expected, rtol=1e-5)
            known += ~np.isnan(batch.targets[i].numpy())
            row += 1
        assert batch.global_values.tolist() == known.tolist()
        assert (batch.weights is None) == (weights is None)
    assert row == n
    assert torch.cat([batch.targets for batch in mixed]).isnan().any()  # a missing value was mixed


def test_processes_divide_the_mixed_batches_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = weighted(sequences(37, 1))
    whole = epoch_of(examples, cnn(), MIXED, DistributedContext())
    shares = []
    for rank in range(3):
        context = DistributedContext()
        monkeypatch.setattr(context, "rank", rank)
        monkeypatch.setattr(context, "size", 3)
        shares.append(epoch_of(examples, cnn(), MIXED, context))
    for batch, *parts in zip(whole, *shares, strict=True):
        for rank, part in enumerate(parts):
            torch.testing.assert_close(part.tokens, batch.tokens[rank::3], rtol=0, atol=0)
            torch.testing.assert_close(part.targets, batch.targets[rank::3], rtol=0, atol=0, equal_nan=True)
            assert part.weights is not None
            assert batch.weights is not None
            torch.testing.assert_close(part.weights, batch.weights[rank::3], rtol=0, atol=0)
            assert part.global_values.tolist() == batch.global_values.tolist()


@pytest.mark.parametrize(("network", "examples"), [(cnn, sequences), (head, embeddings)])
def test_a_network_learns_from_mixed_promoters_and_otherwise_than_from_others(
    network: Callable[[], Learner], examples: Callable[[int, int], Examples]
) -> None:
    config = TrainingConfig(epochs=2, batch_size=8, reverse_complement=0)
    histories = [
        fit(network(), examples(40, 1), examples(24, 2), config=replace(config, mixup=mixup)).history
        for mixup in (0.0, 0.3)
    ]
    assert np.isfinite([record["val_loss"] for record in histories[1]]).all()
    assert histories[0][0]["train_mse"] != histories[1][0]["train_mse"]


def test_mixed_counts_are_refused() -> None:
    with pytest.raises(InputError, match=r"`TrainingConfig.mixup=0\.1`: goes with the loss mse"):
        TrainingConfig(mixup=0.1, loss="poisson")
