from __future__ import annotations

import io
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from promoter import training
from promoter.errors import InputError, TrainingDivergedError
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode, encode, one_hot
from promoter.training.batches import Examples, augment, batch_bounds
from promoter.training.config import TrainingConfig
from promoter.training.inference import evaluate, predict
from promoter.training.loop import fit
from promoter.training.losses import standardisation
from promoter.training.state import TrainingState

LENGTH = 32
TIMINGS = {"genes_per_second", "seconds"}


def network(seed: int = 0, dropout: float = 0.3, n_targets: int = 1) -> PromoterCNN:
    torch.manual_seed(seed)
    return PromoterCNN(CNNConfig((8, 8), (7, 3), (4,), hidden=8, dropout=dropout, n_targets=n_targets), LENGTH)


def random_examples(n: int, seed: int = 0, n_targets: int = 1) -> Examples:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, (n, LENGTH)).astype(np.uint8)
    return Examples(tokens, rng.normal(1000, 50, (n, n_targets)).astype(np.float32))


def examples_with_motif(n: int, seed: int) -> Examples:
    """Half of the genes hold TGACTCA, which adds 100 units to a noise of SD 10: r can reach 0.98."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 4, (n, LENGTH)).astype(np.uint8)
    has = rng.random(n) < 0.5
    for row in np.flatnonzero(has):
        offset = rng.integers(0, LENGTH - 7)
        tokens[row, offset : offset + 7] = encode("TGACTCA")
    targets = 950 + 100 * has + rng.normal(0, 10, n)
    return Examples(tokens, targets.astype(np.float32)[:, None])


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in history]


def assert_same_weights(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


# Importing


def test_the_training_config_is_imported_without_a_heavy_library() -> None:
    code = "import sys, promoter.training.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "promoter.training.config" in imported
    assert not imported & {"torch", "numpy", "pandas", "pyarrow", "scipy", "optuna"}


def test_promoter_training_offers_every_name_that_it_lists() -> None:
    assert [name for name in training.__all__ if not hasattr(training, name)] == []


# Learning


@pytest.fixture(scope="module")
def learned() -> tuple[PromoterCNN, TrainingState, Examples]:
    train, val = examples_with_motif(384, 1), examples_with_motif(128, 2)
    model = network(dropout=0.1)
    config = TrainingConfig(epochs=16, batch_size=32, learning_rate=1e-2, reverse_complement=0, jitter=2)
    return model, fit(model, train, val, config=config), val


def test_an_implanted_motif_is_learned(learned: tuple[PromoterCNN, TrainingState, Examples]) -> None:
    model, _, _ = learned
    assert evaluate(model, examples_with_motif(128, 3)).pearson[0] > 0.8


def test_fit_leaves_the_best_epoch_in_original_units(
    learned: tuple[PromoterCNN, TrainingState, Examples],
) -> None:
    model, state, val = learned
    losses = [record["val_loss"] for record in state.history]
    assert state.best_epoch == int(np.argmin(losses)) + 1
    best, found = state.history[state.best_epoch - 1], evaluate(model, val)
    assert found.mse[0] == pytest.approx(best["val_mse"], rel=1e-4)
    assert found.pearson[0] == pytest.approx(best["val_pearson"], abs=1e-6)
    assert found.mse[0] < val.targets.var()
    assert abs(found.predictions.mean() - 1000) < 20
    np.testing.assert_allclose(found.predictions, predict(model, val.tokens))


def test_the_best_epoch_has_the_lowest_mean_over_targets_of_the_standardised_mse() -> None:
    train, val = random_examples(24, 1, n_targets=2), random_examples(16, 2, n_targets=2)
    for examples in (train, val):
        examples.targets[:, 1] /= 1e4  # of no weight in a mean of raw errors
    model = network(n_targets=2)
    state = fit(model, train, val, config=TrainingConfig(epochs=8, batch_size=8, learning_rate=3e-2))
    assert state.best_epoch < state.epoch  # there is nothing to learn; or the last would serve as well
    sd = standardisation(train.targets).sd
    found = evaluate(model, val)
    best = state.history[state.best_epoch - 1]
    assert best["val_loss"] == pytest.approx((found.mse / sd**2).mean(), rel=1e-4)
    assert best["val_mse"] == pytest.approx(found.mse.mean(), rel=1e-4)


def test_train_mse_is_the_mean_over_all_genes_in_original_units() -> None:
    train = random_examples(37, 1)
    train.tokens[:] = train.tokens[0]  # one sequence: in training mode, too, one prediction for all
    model = network(dropout=0)
    x_BCL = one_hot(train.tokens)
    scale = standardisation(train.targets)
    predicted = model.train()(x_BCL).detach().numpy() * scale.sd + scale.mean
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-12, reverse_complement=0)
    state = fit(network(dropout=0), train, random_examples(4), config=config)
    assert state.history[0]["train_mse"] == pytest.approx(np.mean((predicted - train.targets) ** 2), rel=1e-5)


def test_batch_norm_statistics_are_those_of_the_training_genes_under_the_final_weights() -> None:
    train, model = random_examples(32, 1), network()
    fit(model, train, random_examples(4), config=TrainingConfig(epochs=1, batch_size=8, reverse_complement=0))
    weight = next(model.parameters()).detach()  # of the first convolution
    outputs_BCL = torch.nn.functional.conv1d(one_hot(train.tokens), weight, padding="same")
    first = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    by_batch = [batch.transpose(0, 1).flatten(1) for batch in outputs_BCL.split(8)]
    mean_C = torch.stack([batch.mean(1) for batch in by_batch]).mean(0)
    var_C = outputs_BCL.transpose(0, 1).flatten(1).var(1)
    torch.testing.assert_close(first.running_mean, mean_C, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first.running_var, var_C, rtol=0.02, atol=0)  # the mean of four batches'
    assert first.momentum == 0.1


def test_a_constant_target_is_learned_as_that_constant() -> None:
    train, val = random_examples(40, 1, n_targets=2), random_examples(20, 2, n_targets=2)
    for examples in (train, val):
        examples.targets[:, 1] = 0.1
    model = network(n_targets=2)
    state = fit(model, train, val, config=TrainingConfig(epochs=8, batch_size=8, learning_rate=1e-2))
    assert np.isfinite([list(record.values()) for record in state.history]).all()
    assert np.abs(predict(model, val.tokens)[:, 1] - 0.1).max() < 0.5  # 1 would be the scale of an untrained one


@given(st.integers(2, 40), st.integers(0, 100))
@settings(max_examples=20)
def test_standardised_targets_have_mean_0_and_sd_1(n: int, seed: int) -> None:
    targets = random_examples(n, seed, n_targets=2).targets
    scale = standardisation(targets)
    standardised = (targets - scale.mean) / scale.sd
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(standardised.std(axis=0), 1, atol=1e-9)


def test_a_diverging_training_names_the_epoch_and_the_learning_rate() -> None:
    config = TrainingConfig(epochs=3, batch_size=8, learning_rate=1e6, gradient_clip=1e9)
    with pytest.raises(TrainingDivergedError, match=r"epoch \d.*`TrainingConfig.learning_rate` \(now 1e\+06\)"):
        fit(network(), random_examples(24), random_examples(8), config=config)


@pytest.mark.parametrize(
    ("genes", "batch_size", "message"),
    [((1, 9), 8, "1 training and 9 validation"), ((9, 1), 8, "9 training and 1 validation")],
)
def test_too_few_genes_to_train_on_are_refused(genes: tuple[int, int], batch_size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(
            network(),
            random_examples(genes[0]),
            random_examples(genes[1]),
            config=TrainingConfig(epochs=1, batch_size=batch_size),
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("lr_patience", -1),
        ("jitter", -1),
        ("mixup", 0.6),
        ("weight_decay", -0.1),
        ("seed", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("gradient_clip", 0.0),
        ("lr_factor", 1.0),
        ("lr_factor", 0.0),
        ("reverse_complement", 1.1),
        ("early_stopping", 0),
        ("precision", "fp16"),
        ("schedule", "cosine"),
    ],
)
def test_a_setting_that_cannot_train_is_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"`TrainingConfig.{name}={value!r}`: must "):
        TrainingConfig(**{name: value})


def test_reverse_complements_are_refused_for_a_network_with_position_bins() -> None:
    model = PromoterCNN(CNNConfig((4,), (3,), (), bins=2))
    with pytest.raises(InputError, match=r"`CNNConfig.bins=2` with `TrainingConfig.reverse_complement=0\.5`"):
        fit(model, random_examples(8, 0), random_examples(4, 1), config=TrainingConfig(epochs=1, batch_size=4))


# Repeating and resuming

RECIPES = {
    "plain": TrainingConfig(epochs=4, batch_size=8, reverse_complement=0),
    "augmented": TrainingConfig(epochs=4, batch_size=8, reverse_complement=0.5, jitter=3, mixup=0.3),
    "plateau": TrainingConfig(epochs=8, batch_size=8, lr_patience=0, learning_rate=0.03, early_stopping=None),
    "one cycle": TrainingConfig(epochs=5, batch_size=8, schedule="one_cycle", learning_rate=0.01),
    "early stopping": TrainingConfig(epochs=30, batch_size=8, early_stopping=2, learning_rate=0.03),
}


def run(
    config: TrainingConfig, state: TrainingState | None = None, seed: int = 0
) -> tuple[PromoterCNN, TrainingState, list[bytes]]:
    model, saved = network(seed), []
    state = fit(
        model,
        random_examples(37, 1),
        random_examples(16, 2),
        config=config,
        state=state,
        on_epoch=lambda now: saved.append(now.to_bytes()),
    )
    return model, state, saved


def test_equal_seeds_train_equal_weights_and_other_seeds_do_not() -> None:
    weights = [run(TrainingConfig(epochs=2, batch_size=8, seed=seed))[0].state_dict() for seed in (1, 1, 2)]
    assert_same_weights(weights[0], weights[1])
    assert differ(weights[0], weights[2])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resumed_fit_equals_an_uninterrupted_one_bit_for_bit(recipe: str) -> None:
    config = RECIPES[recipe]
    model, state, saved = run(config)
    if recipe == "plateau":
        assert state.history[-1]["learning_rate"] < config.learning_rate
    if recipe == "early stopping":
        assert state.epoch == state.best_epoch + 2 < config.epochs
    assert len(saved) == state.epoch >= 3
    for content in (saved[0], saved[2], saved[-1], state.to_bytes()):
        again_model, again, _ = run(config, TrainingState.from_bytes(content), seed=9)
        assert timeless(again.history) == timeless(state.history)
        assert again.best_epoch == state.best_epoch
        assert_same_weights(again_model.state_dict(), model.state_dict())
        assert_same_weights(again.model, state.model)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_fit_resumed_after_any_batch_equals_an_uninterrupted_one_bit_for_bit(recipe: str) -> None:
    config = replace(RECIPES[recipe], epochs=3)
    train, val = random_examples(37, 1), random_examples(16, 2)
    model, states = network(), []
    state = fit(model, train, val, config=config, on_batch=lambda snapshot: states.append(snapshot().to_bytes()))
    assert len(states) == 3 * 5  # batches of 37 genes
    expected = run(config)[0]
    assert_same_weights(model.state_dict(), expected.state_dict())  # a look at the state changes nothing
    for content in states:
        again_model, again, _ = run(config, TrainingState.from_bytes(content), seed=9)
        assert timeless(again.history) == timeless(state.history)
        assert again.partial == {}
        assert_same_weights(again_model.state_dict(), model.state_dict())
        assert_same_weights(again.best_model, state.best_model)


def test_a_state_says_how_far_the_training_has_come() -> None:
    states: list[TrainingState] = []
    config = TrainingConfig(epochs=2, batch_size=8)
    train = random_examples(16, 1)
    ended = fit(network(), train, train, config=config, on_batch=lambda snapshot: states.append(snapshot()))
    positions = ["batch 1 of epoch 1", "batch 2 of epoch 1", "batch 1 of epoch 2", "batch 2 of epoch 2"]
    assert [state.position for state in states] == positions
    assert ended.position == "epoch 2"


def test_one_cycle_raises_the_rate_for_30_of_100_steps_and_lowers_it_to_nothing() -> None:
    config = TrainingConfig(epochs=10, batch_size=8, schedule="one_cycle", learning_rate=0.02, early_stopping=None)
    _, state, _ = run(config)
    steps = 5  # of 37 genes in an epoch
    ends = np.arange(1, 11) * steps
    top = 0.3 * 10 * steps - 1
    rising = 0.02 / 25 + (0.02 - 0.02 / 25) * (1 - np.cos(np.pi * ends / top)) / 2
    last = 10 * steps - 1
    low = 0.02 / 25 / 1e4
    falling = low + (0.02 - low) * (1 + np.cos(np.pi * (ends - top) / (last - top))) / 2
    expected = np.where(ends <= top, rising, falling)
    expected[-1] = low + (0.02 - low) * (1 + np.cos(np.pi * (last + 1 - top) / (last - top))) / 2
    found = [record["learning_rate"] for record in state.history]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert max(found) > 0.019


def test_one_cycle_trains_all_epochs_whatever_early_stopping_says() -> None:
    config = replace(RECIPES["early stopping"], epochs=12, early_stopping=1)
    stopped, all_epochs = run(config)[1], run(replace(config, schedule="one_cycle"))[1]
    assert stopped.epoch == stopped.best_epoch + 1 < config.epochs
    losses = [record["val_loss"] for record in all_epochs.history]
    assert all_epochs.epoch == len(losses) == config.epochs
    assert all_epochs.best_epoch == 1 + int(np.argmin(losses))  # the best epoch is kept all the same
    assert any(later >= min(losses[:epoch]) for epoch, later in enumerate(losses) if epoch)  # would stop


def test_a_finished_fit_can_be_extended_as_if_it_had_not_ended() -> None:
    long = TrainingConfig(epochs=5, batch_size=8, jitter=2)
    short = TrainingConfig(epochs=2, batch_size=8, jitter=2)
    expected, whole, _ = run(long)
    extended, state, _ = run(long, TrainingState.from_bytes(run(short)[1].to_bytes()), seed=9)
    assert timeless(state.history) == timeless(whole.history)
    assert_same_weights(extended.state_dict(), expected.state_dict())


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_a_state_with_code_in_it_is_refused_unexecuted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"epoch": _Evil()}, buffer)
    with pytest.raises(pickle.UnpicklingError):
        TrainingState.from_bytes(buffer.getvalue())
    assert not (tmp_path / "executed").exists()


# Batches and augmentation


@given(st.integers(2, 300), st.integers(2, 70), st.integers(2, 8))
def test_batches_cover_each_gene_once_and_leave_no_small_remainder(n: int, batch_size: int, least: int) -> None:
    least = min(least, batch_size)
    bounds = batch_bounds(n, batch_size, least)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(n))
    sizes = [stop - start for start, stop in bounds]
    assert set(sizes[:-1]) <= {batch_size}
    assert min(n, least) <= sizes[-1] < batch_size + least


def naive_augmentation(sequence: str, flip: bool, shift: int) -> str:
    shown = "".join(sequence[p + shift] if 0 <= p + shift < len(sequence) else "N" for p in range(len(sequence)))
    return shown[::-1].translate(str.maketrans("ACGT", "TGCA")) if flip else shown


@given(
    st.integers(1, 12).flatmap(
        lambda length: st.lists(
            st.tuples(st.text("ACGTN", min_size=length, max_size=length), st.booleans(), st.integers(-15, 15)),
            min_size=1,
            max_size=6,
        )
    )
)
def test_augmentation_is_that_of_each_string_by_itself(genes: list[tuple[str, bool, int]]) -> None:
    sequences, flips, shifts = (list(column) for column in zip(*genes, strict=True))
    tokens = torch.from_numpy(encode(sequences))
    flip_B = torch.tensor(flips)
    shown = augment(tokens, flip_B, torch.tensor(shifts))
    assert shown.dtype == torch.uint8
    assert decode(shown.numpy()) == [naive_augmentation(*gene) for gene in genes]
    expected = [naive_augmentation(sequence, flip, 0) for sequence, flip, _ in genes]
    assert decode(augment(tokens, flip_B).numpy()) == expected


def test_a_crop_is_cut_after_the_shift_and_before_the_flip() -> None:
    sequence = "AACCGGTTAC"
    tokens = torch.from_numpy(encode([sequence, sequence]))
    shown = augment(tokens, torch.tensor([False, True]), torch.tensor([-2, -2]), outside=6)
    assert decode(shown.numpy()) == ["GGTT", "AACC"]  # the last 4 of NNAACCGGTT, and their reverse complement


# Prediction


@pytest.mark.parametrize("n", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_prediction_of_a_sequence_does_not_depend_on_neighbours_or_order(n: int, n_targets: int) -> None:
    model = network(n_targets=n_targets).train()
    tokens = random_examples(n, 5).tokens
    found = predict(model, tokens)
    assert model.training
    assert found.shape == (n, n_targets)
    assert found.dtype == np.float32
    order = np.random.default_rng(0).permutation(n)
    np.testing.assert_allclose(predict(model, tokens[order]), found[order], rtol=1e-5, atol=1e-6)
    one_by_one = [model.eval()(one_hot(tokens[[row]])).detach().numpy()[0] for row in range(n)]
    np.testing.assert_allclose(found, one_by_one, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predict(model, tokens, distributed=True), found)  # alone, all of it


def test_predicting_no_sequence_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sequence"):
        predict(network(), np.zeros((0, LENGTH), np.uint8))


def test_bf16_predictions_are_near_those_of_fp32() -> None:
    model, tokens = network(), random_examples(40).tokens
    fine, coarse = predict(model, tokens), predict(model, tokens, precision="bf16")
    assert coarse.dtype == np.float32
    assert not np.array_equal(fine, coarse)
    np.testing.assert_allclose(coarse, fine, atol=0.02)  # 8 bits of mantissa


def _learned(config: TrainingConfig) -> tuple[list[float], np.ndarray]:
    """Return each epoch's training loss, and predictions in fp32 of what was learned."""
    model = network(dropout=0)
    state = fit(model, examples_with_motif(128, 1), examples_with_motif(32, 2), config=config)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    return [record["train_mse"] for record in state.history], predict(model, examples_with_motif(64, 3).tokens)


RECIPE = TrainingConfig(epochs=3, batch_size=32, learning_rate=1e-2, reverse_complement=0)


def test_training_in_bf16_learns_what_fp32_does() -> None:
    fine, _ = _learned(RECIPE)
    coarse, _ = _learned(replace(RECIPE, precision="bf16"))
    assert fine[-1] < 0.8 * fine[0]
    assert coarse != fine
    # products of 8 bits of mantissa, 0.4% each, which 12 steps of Adam spread
    np.testing.assert_allclose(coarse, fine, rtol=0.05)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs: no g++ here")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own parts
def test_a_compiled_network_learns_what_a_plain_one_does() -> None:
    compiled, predicted = _learned(replace(RECIPE, compile=True))
    plain, expected = _learned(RECIPE)
    # the same sums in another order: float32 rounding, which 12 steps of Adam spread
    np.testing.assert_allclose(compiled, plain, rtol=1e-3)
    np.testing.assert_allclose(predicted, expected, rtol=1e-3)


def test_read_only_arrays_as_ray_hands_them_out_serve_without_a_warning() -> None:
    examples = random_examples(12)._replace(weights=np.ones(12, np.float32))
    assert examples.weights is not None
    for array in (examples.tokens, examples.targets, examples.weights):
        array.flags.writeable = False
    torch.set_warn_always(True)  # otherwise torch warns once in a process, whichever test comes first
    try:
        model = network()
        fit(model, examples, examples, config=TrainingConfig(epochs=1, batch_size=4))
        predict(model, examples.tokens)
    finally:
        torch.set_warn_always(False)


# Several processes

SIZES = [1, 2, 33, 65, 97]
AUGMENTED = TrainingConfig(epochs=3, batch_size=8, jitter=3, mixup=0.3, early_stopping=None)
ONE_STEP = TrainingConfig(
    epochs=1, batch_size=7, learning_rate=1e-6, weight_decay=0, gradient_clip=1e9, reverse_complement=0
)


def identical_genes(n: int) -> Examples:
    """Genes with one sequence and several targets: any share of them has the batch statistics of the whole."""
    examples = random_examples(n, 3)
    examples.tokens[:] = examples.tokens[0]
    return examples


def work(rank: int, world: int, folder: str) -> None:
    """Be one of `world` processes and save what this one sees."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    seen: dict[str, Any] = {}
    for n in SIZES:
        examples = random_examples(n, 7)
        if n > 1:
            seen[f"mse {n}"] = evaluate(network(), examples, distributed=True).mse
        seen[f"predictions {n}"] = predict(network(), examples.tokens, distributed=True)
    train, val = random_examples(37, 1), random_examples(35, 2)
    model, saved = network(rank), []  # other initial weights on each: those of rank 0 count
    state = fit(model, train, val, config=AUGMENTED, on_epoch=lambda now: saved.append(now.to_bytes()))
    within: list[Any] = [None]

    def save_once(snapshot: Callable[[], TrainingState]) -> None:
        taken = snapshot()
        if taken.partial["batches"] == 2 and taken.epoch == 1:
            within[:] = [taken.to_bytes()]

    fit(network(rank), train, val, config=AUGMENTED, on_batch=save_once)
    dist.broadcast_object_list(within)  # the first process writes the checkpoint
    halfway = network(9)
    ended = fit(halfway, train, val, config=AUGMENTED, state=TrainingState.from_bytes(within[0]))
    seen["within"] = within[0]
    seen |= {"resumed within": halfway.state_dict(), "history of resumed within": timeless(ended.history)}
    seen |= {"weights": model.state_dict(), "history": timeless(state.history)}
    seen["steps"] = state.optimizer["state"][0]["step"]
    again = network(9)
    fit(again, train, val, config=AUGMENTED, state=TrainingState.from_bytes(saved[0]))
    seen["resumed"] = again.state_dict()
    stepped = fit(network(dropout=0), identical_genes(7), val, config=ONE_STEP)
    seen["gradients"] = [moments["exp_avg"] for moments in stepped.optimizer["state"].values()]
    seen["train_mse"] = stepped.history[0]["train_mse"]
    try:
        fit(network(), train, val, config=TrainingConfig(batch_size=3))
    except InputError as error:
        seen["refusal"] = str(error)
    torch.save(seen, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of 2 or 3 processes saw."""
    folder = tmp_path_factory.mktemp("world")
    torch.multiprocessing.spawn(work, (request.param, str(folder)), nprocs=request.param)  # type: ignore[reportPrivateImportUsage] # documented
    # not weights alone, but written just above
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(request.param)]


@pytest.mark.parametrize("n", SIZES)
def test_several_processes_predict_what_one_process_does(ranks: list[dict[str, Any]], n: int) -> None:
    examples = random_examples(n, 7)
    expected = evaluate(network(), examples) if n > 1 else None
    for seen in ranks:
        assert np.array_equal(seen[f"predictions {n}"], ranks[0][f"predictions {n}"])
        np.testing.assert_allclose(
            seen[f"predictions {n}"], predict(network(), examples.tokens), rtol=1e-5, atol=1e-6
        )
        if expected is not None:
            np.testing.assert_allclose(seen[f"mse {n}"], expected.mse, rtol=1e-6)


def test_all_training_processes_end_with_equal_weights_statistics_and_history(ranks: list[dict[str, Any]]) -> None:
    assert any("running_var" in name for name in ranks[0]["weights"])
    for seen in ranks[1:]:
        assert_same_weights(seen["weights"], ranks[0]["weights"])
        assert seen["history"] == ranks[0]["history"]


def test_resuming_a_training_on_several_processes_equals_its_uninterrupted_run(
    ranks: list[dict[str, Any]],
) -> None:
    for seen in ranks:
        for name, weights in seen["weights"].items():
            if len(ranks) == 2:
                assert torch.equal(seen["resumed"][name], weights), name
            else:  # DDP's first step has its own order of gradients, and so of the sum of three
                torch.testing.assert_close(seen["resumed"][name], weights, rtol=1e-3, atol=1e-4)


def test_several_processes_resume_within_an_epoch_to_the_result_of_their_uninterrupted_run(
    ranks: list[dict[str, Any]],
) -> None:
    for seen in ranks:
        assert_same_weights(seen["resumed within"], ranks[0]["resumed within"])
        for name, weights in seen["weights"].items():
            if len(ranks) == 2:
                assert torch.equal(seen["resumed within"][name], weights), name
            else:  # as above: the sum of three in another order
                torch.testing.assert_close(seen["resumed within"][name], weights, rtol=1e-3, atol=1e-4)
        if len(ranks) == 2:
            assert seen["history of resumed within"] == seen["history"]


def test_fewer_processes_resume_within_an_epoch_with_the_sums_of_all(ranks: list[dict[str, Any]]) -> None:
    """Dropout differs; that no gene is lost shows in the mean over the epoch."""
    state = TrainingState.from_bytes(ranks[0]["within"])
    train, val = random_examples(37, 1), random_examples(35, 2)
    ended = fit(network(9), train, val, config=AUGMENTED, state=state, max_workers=len(ranks))
    found, expected = (history[1]["train_mse"] for history in (ended.history, ranks[0]["history"]))
    assert found == pytest.approx(expected, rel=0.2)


def test_the_global_batch_keeps_its_size_on_several_processes(ranks: list[dict[str, Any]]) -> None:
    # 37 genes in batches of 8; the last 5 are enough for 2 workers, and join the batch before them for 3
    assert ranks[0]["steps"] == AUGMENTED.epochs * {2: 5, 3: 4}[len(ranks)]


def test_the_gradient_is_that_of_one_process_though_shares_differ_by_a_gene(ranks: list[dict[str, Any]]) -> None:
    alone = fit(network(dropout=0), identical_genes(7), random_examples(35, 2), config=ONE_STEP)
    expected = [moments["exp_avg"] for moments in alone.optimizer["state"].values()]
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    for seen in ranks:
        torch.testing.assert_close(seen["gradients"], expected, rtol=1e-4, atol=1e-7)
        assert seen["train_mse"] == pytest.approx(alone.history[0]["train_mse"], rel=1e-6)


def test_a_batch_too_small_for_the_processes_is_refused(ranks: list[dict[str, Any]]) -> None:
    least = 2 * len(ranks)
    for seen in ranks:
        assert f"batch_size=3`: is too small for {len(ranks)} workers" in seen["refusal"]
        assert f"{least} in all" in seen["refusal"]
