from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from promoter.errors import InputError
from promoter.ism.forward_passes import score_substitutions as in_full
from promoter.ism.incremental import score_substitutions
from promoter.ism.mutagenesis import saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import one_hot
from promoter.training import Examples, TrainingConfig, fit


class Float64(nn.Module):
    """The network with float64 weights, for float32 input and output: an oracle of whole forward passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).double().eval()

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Return float64 scores, (N, targets, 4, length)."""
        n, length = tokens.shape
        changed = np.repeat(tokens[:, None, None], 4, axis=1).repeat(length, axis=2)
        for base in range(4):
            changed[:, base, range(length), range(length)] = base
        mutants = torch.from_numpy(changed.reshape(-1, length))
        with torch.no_grad():
            outputs = torch.cat([self.model(one_hot(some).double()) for some in mutants.split(256)])
            reference = self.model(one_hot(tokens).double())
        outputs_NALT = outputs.view(n, 4, length, -1)
        return (outputs_NALT - reference[:, None, None]).permute(0, 3, 1, 2).numpy()


def random_network(config: CNNConfig, seed: int) -> PromoterCNN:
    torch.manual_seed(seed)
    model = PromoterCNN(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)  # of either sign
            nn.init.normal_(module.bias, std=0.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.1, 1)
    nn.init.uniform_(model.head[0].get_parameter("bias"), -0.5, 2)
    return model


def largest_error(scores: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error, each sequence and target in units of its largest |score|."""
    scale = np.abs(expected).max(axis=(2, 3), keepdims=True)
    return float((np.abs(scores - expected) / np.maximum(scale, 1e-30)).max())


@st.composite
def configurations(draw: st.DrawFn) -> tuple[CNNConfig, int]:
    blocks = draw(st.integers(1, 4))
    channels = draw(st.lists(st.integers(1, 9), min_size=blocks, max_size=blocks))
    kernels = draw(st.lists(st.sampled_from([1, 3, 5, 7, 9, 15]), min_size=blocks, max_size=blocks))
    pools = draw(st.lists(st.integers(1, 5), min_size=blocks - 1, max_size=blocks - 1))
    targets = draw(st.integers(1, 3))
    config = CNNConfig(tuple(channels), tuple(kernels), tuple(pools), hidden=16, n_targets=targets)
    strands = draw(st.integers(1, 3))  # one, the mean of both, or both
    config = replace(config, bins=draw(st.integers(1, 4)), both_strands=strands > 1, keep_strands=strands == 3)
    length = draw(st.integers(config.min_length, max(config.min_length + 20, 70)))
    crop = draw(st.none() | st.integers(config.min_length, length))
    return replace(config, crop=crop), length


@given(configurations(), st.integers(0, 1000), st.sampled_from([None, 1, 5, 64]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_network_and_length_agree_with_float64_to_1e_5_of_the_largest_score(
    drawn: tuple[CNNConfig, int], seed: int, batch_size: int | None
) -> None:
    config, length = drawn
    model = random_network(config, seed)
    tokens = np.random.default_rng(seed).integers(0, 5, (2, length)).astype(np.uint8)
    tokens[0, length // 3 : length // 2] = 4  # a run of N
    scores = score_substitutions(model, torch.from_numpy(tokens), batch_size=batch_size).numpy()
    expected = Float64(model).scores(tokens)
    assert scores.shape == expected.shape == (2, config.n_targets, 4, length)
    # 1e-7 is float32's rounding of values of order 1: all there is left where most units are off
    bound = 1e-5 * np.abs(expected).max(axis=(2, 3), keepdims=True) + 1e-7
    assert (np.abs(scores - expected) < bound).all()


@pytest.mark.parametrize("length", [160, 163, 175, 500])
def test_the_published_network_is_scored_more_exactly_than_by_float32_passes(length: int) -> None:
    model = random_network(CNNConfig(n_targets=2), 1)
    tokens = np.random.default_rng(length).integers(0, 4, (1, length)).astype(np.uint8)
    expected = Float64(model).scores(tokens)
    ours = largest_error(score_substitutions(model, torch.from_numpy(tokens)).numpy(), expected)
    theirs = largest_error(in_full(model, torch.from_numpy(tokens)).numpy(), expected)
    assert ours < 1e-5
    assert ours < theirs


def test_a_trained_network_is_scored_as_by_forward_passes() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (128, 80)).astype(np.uint8)
    targets = (tokens[:, 10:30] == 2).sum(axis=1, keepdims=True).astype(np.float32)
    model = PromoterCNN(CNNConfig((16, 8), (7, 3), (4,), 8))
    fit(
        model,
        Examples(tokens, targets),
        Examples(tokens[:32], targets[:32]),
        config=TrainingConfig(epochs=4, batch_size=16),
    )
    expected = Float64(model).scores(tokens[:4])
    assert np.abs(expected).max() > 0.05
    assert largest_error(score_substitutions(model, torch.from_numpy(tokens[:4])).numpy(), expected) < 1e-5


def test_the_scores_of_a_sequence_do_not_depend_on_its_neighbours() -> None:
    model = random_network(CNNConfig((8, 6), (7, 3), (4,), 8), 0)
    tokens = torch.randint(0, 5, (5, 41), dtype=torch.uint8)
    together = score_substitutions(model, tokens).numpy()
    for row in range(5):
        alone = score_substitutions(model, tokens[row : row + 1]).numpy()
        np.testing.assert_allclose(together[row : row + 1], alone, rtol=0, atol=1e-5 * np.abs(alone).max())


def test_the_shortest_window_works_and_a_shorter_one_is_refused() -> None:
    config = CNNConfig((4, 4, 4), (15, 5, 3), (4, 4), 8)
    model = random_network(config, 3)
    tokens = torch.randint(0, 4, (2, math.prod(config.pool_sizes)), dtype=torch.uint8)
    assert largest_error(score_substitutions(model, tokens).numpy(), Float64(model).scores(tokens.numpy())) < 1e-5
    with pytest.raises(InputError, match="15 bases is too short"):
        score_substitutions(model, tokens[:, 1:])


@given(configurations(), st.integers(0, 1000), st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_chosen_positions_score_as_they_do_among_all(
    drawn: tuple[CNNConfig, int], seed: int, data: st.DataObject
) -> None:
    config, length = drawn
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, length))
    model = random_network(config, seed)
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(0, 5, (3, length)).astype(np.uint8))
    some = score_substitutions(model, tokens, positions=(start, end)).numpy()
    every = score_substitutions(model, tokens).numpy()
    # batches of other sizes: rounding only
    np.testing.assert_allclose(some, every[..., start:end], rtol=0, atol=1e-5 * np.abs(every).max() + 1e-7)


def test_a_window_of_100_kb_is_scored_at_chosen_positions() -> None:
    model = random_network(CNNConfig((32, 16, 16)), 4)
    length, start, end = 100_003, 99_995, 100_003  # the end, where pooling leaves a remainder
    tokens = np.random.default_rng(4).integers(0, 4, (1, length)).astype(np.uint8)
    scores = score_substitutions(model, torch.from_numpy(tokens), positions=(start, end)).numpy()
    double = copy.deepcopy(model).double().eval()
    expected = np.zeros((4, end - start))
    with torch.no_grad():
        reference = double(one_hot(tokens).double()).item()
        for position in range(start, end):
            for base in range(4):
                mutant = tokens.copy()
                mutant[0, position] = base
                expected[base, position - start] = double(one_hot(mutant).double()).item() - reference
    assert np.abs(scores[0, 0] - expected).max() < 1e-5 * np.abs(expected).max() + 1e-9


def test_bf16_products_cost_some_hundredths_of_the_largest_score() -> None:
    model = random_network(CNNConfig(), 5)
    tokens = torch.randint(0, 4, (1, 300), dtype=torch.uint8)
    exact = score_substitutions(model, tokens).numpy()
    rough = score_substitutions(model, tokens, precision="bf16").numpy()
    # bf16 keeps 8 bits: 0.4% of each product; on this network 0.5% of the largest score
    assert 0 < largest_error(rough, exact) < 0.03


def test_a_mutation_that_no_unit_passes_on_scores_exactly_0() -> None:
    model = random_network(CNNConfig((8, 4), (5, 3), (4,), 8), 6)
    with torch.no_grad():
        norm = model.blocks[0].get_submodule("norm")
        norm.get_parameter("bias").fill_(-100)  # below what any base can lift above 0
    tokens = torch.randint(0, 4, (2, 40), dtype=torch.uint8)
    assert (score_substitutions(model, tokens) == 0).all()


@pytest.mark.parametrize("length", [50, 64, 110, 150, 499, 500, 501])
def test_a_network_trained_on_short_windows_is_scored_as_by_forward_passes(length: int) -> None:
    small_genome = CNNConfig((8, 6, 6), (7, 3, 3), (8, 4), hidden=8, crop=500, bins=5, both_strands=True)
    rng = np.random.default_rng(length)
    tokens = rng.integers(0, 4, (24, length)).astype(np.uint8)
    genes = Examples(tokens, rng.normal(size=(24, 1)).astype(np.float32))
    torch.manual_seed(0)
    model = PromoterCNN(small_genome, length)
    recipe = TrainingConfig(epochs=1, batch_size=8, learning_rate=6e-3, jitter=5, reverse_complement=0)
    fit(model, genes, genes, config=replace(recipe, schedule="one_cycle"))
    with torch.no_grad():
        for group in model.convolution_blocks():
            group.norm.bias.normal_(std=0.5)  # else many units are off on sequences without a motif
    tokens = rng.integers(0, 5, (1, length)).astype(np.uint8)
    scores = saturation_mutagenesis(model, tokens)
    expected = Float64(model).scores(tokens)
    assert np.abs(expected).max() > 0
    assert (scores[..., : max(0, length - 500)] == 0).all()
    assert (np.abs(scores - expected) < 1e-5 * np.abs(expected).max() + 1e-7).all()
