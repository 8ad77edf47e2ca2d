"""Networks of other code in the training loop: batch norms, weights without gradients, two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn import functional as F

from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.external import ExternalModel
from promoter.sequence import encode
from promoter.training.batches import Examples
from promoter.training.config import TrainingConfig
from promoter.training.inference import evaluate, predict
from promoter.training.loop import fit
from promoter.training.state import TrainingState

LENGTH = 32


def random_examples(n: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, (n, LENGTH)).astype(np.uint8)
    return Examples(tokens, rng.normal(1000, 50, (n, 1)).astype(np.float32))


class Net(nn.Module):
    """A convolution, something between, and a head; `profile` takes no part in what it predicts."""

    def __init__(self, between: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.between = nn.Conv1d(4, 8, 5, padding=2), between
        self.after = after or nn.Identity()
        self.head, self.profile = nn.Linear(8, 1), nn.Linear(8, 2)

    def forward(self, x_BCL: Tensor) -> tuple[Tensor, Tensor]:
        x_BCL = torch.relu(self.between(self.conv(x_BCL)))
        return self.head(self.after(x_BCL.mean(-1))), self.profile(x_BCL.transpose(1, 2))


def external(between: nn.Module | None = None, after: nn.Module | None = None, seed: int = 0) -> ExternalModel:
    torch.manual_seed(seed)
    net = Net(between or nn.Identity(), after)
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            module.reset_parameters()  # drawn after those of `between`, whatever these are
    return ExternalModel(net, output=lambda heads: heads[0])


class _Norm2d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.norm(x_BCL[:, :, None])[:, :, 0]


class _Norm3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(8)

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.norm(x_BCL[:, :, None, None])[:, :, 0, 0]


class _Frozen(nn.BatchNorm1d):
    """A norm that stays in evaluation mode, as those of pretrained networks do."""

    def train(self, mode: bool = True) -> _Frozen:
        return super().train(False)


def norms() -> list[Any]:
    return [
        pytest.param(lambda: (nn.BatchNorm1d(8), nn.BatchNorm1d(8)), id="BatchNorm1d"),
        pytest.param(lambda: (_Norm2d(), None), id="BatchNorm2d"),
        pytest.param(lambda: (_Norm3d(), None), id="BatchNorm3d"),
        pytest.param(lambda: (nn.BatchNorm1d(8, momentum=None), None), id="momentum None"),
        pytest.param(lambda: (nn.BatchNorm1d(8, affine=False), None), id="without weights"),
        pytest.param(lambda: (nn.InstanceNorm1d(8, track_running_stats=True), None), id="InstanceNorm1d"),
        pytest.param(lambda: (nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(8)), nn.Dropout(0.5)), id="Dropout"),
        pytest.param(lambda: (nn.GroupNorm(2, 8), None), id="no statistics"),
    ]


@pytest.mark.parametrize("make", norms())
def test_the_validation_loss_is_that_of_the_network_that_is_left(make: Any) -> None:
    train, val = random_examples(48, 1), random_examples(40, 2)
    model = external(*make())
    config = TrainingConfig(epochs=3, batch_size=16, learning_rate=1e-2, early_stopping=None)
    state = fit(model, train, val, config=config)
    best = state.history[state.best_epoch - 1]
    assert best["val_mse"] == pytest.approx(float(evaluate(model, val).mse.mean()), rel=1e-5)


def test_statistics_of_every_kind_of_batch_norm_are_those_of_the_training_genes() -> None:
    train = random_examples(32, 1)
    model = external(nn.BatchNorm1d(8))
    fit(model, train, random_examples(8, 2), config=TrainingConfig(epochs=1, batch_size=8, reverse_complement=0))
    net = model.module
    assert isinstance(net, Net)
    one_hot = F.one_hot(torch.from_numpy(train.tokens).long(), 5)[..., :4].transpose(1, 2).float()
    outputs_CN = net.conv(one_hot).detach().transpose(0, 1).flatten(1)
    assert isinstance(net.between, nn.BatchNorm1d)
    torch.testing.assert_close(net.between.running_mean, outputs_CN.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net.between.running_var, outputs_CN.var(1), rtol=0.05, atol=0)  # of four batches
    assert net.between.momentum == 0.1


@pytest.mark.parametrize(
    "norm", [_Frozen(8), nn.BatchNorm1d(8, momentum=0.0)], ids=["evaluation mode", "momentum 0"]
)
def test_statistics_that_a_network_keeps_are_kept(norm: nn.BatchNorm1d) -> None:
    model = external(norm)
    with torch.no_grad():
        for buffer in (norm.running_mean, norm.running_var):
            assert buffer is not None
            buffer.fill_(0.5)
    fit(model, random_examples(32, 1), random_examples(8, 2), config=TrainingConfig(epochs=2, batch_size=8))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.tolist() == norm.running_var.tolist() == [0.5] * 8


def test_frozen_weights_stay_and_batch_norms_of_the_best_epoch_come_back() -> None:
    train, val = random_examples(48, 1), random_examples(40, 2)
    model = external(nn.BatchNorm1d(8))
    net = model.module
    assert isinstance(net, Net)
    net.conv.requires_grad_(False)
    before = net.conv.weight.clone()
    # a rate at which the first epoch is the best one, so that what is left is not what training ended with
    state = fit(model, train, val, config=TrainingConfig(epochs=6, batch_size=16, learning_rate=0.3))
    assert state.best_epoch < state.epoch
    assert torch.equal(net.conv.weight, before)
    best = state.history[state.best_epoch - 1]
    assert best["val_mse"] == pytest.approx(float(evaluate(model, val).mse.mean()), rel=1e-5)


def test_frozen_weights_that_another_process_draws_anew_are_resumed() -> None:
    train, val = random_examples(48, 1), random_examples(40, 2)
    config = TrainingConfig(epochs=4, batch_size=16)
    saved: list[bytes] = []

    def frozen(seed: int) -> ExternalModel:
        model = external(nn.BatchNorm1d(8), seed=seed)
        model.module.get_submodule("conv").requires_grad_(False)
        return model

    uninterrupted, resumed = frozen(0), frozen(1)
    fit(uninterrupted, train, val, config=config, on_epoch=lambda state: saved.append(state.to_bytes()))
    fit(resumed, train, val, config=config, state=TrainingState.from_bytes(saved[1]))
    for name, tensor in uninterrupted.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_of_both_precisions_are_trained(dtype: torch.dtype, precision: Any) -> None:
    train, val = random_examples(32, 1), random_examples(16, 2)
    model = external(nn.BatchNorm1d(8)).to(dtype)
    state = fit(model, train, val, config=TrainingConfig(epochs=2, batch_size=8, precision=precision))
    assert next(model.parameters()).dtype == dtype
    mse = float(evaluate(model, val, precision=precision).mse.mean())
    assert state.history[state.best_epoch - 1]["val_mse"] == pytest.approx(mse, rel=1e-5)


class Architecture(nn.Module):
    """What `PromoterCNN` computes, written as a user would: the usual order, BatchNorm1d, a bias."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, pool in ((4, 8, 7, 4), (8, 8, 3, 1)):
            layers += [nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm1d(outputs), nn.ReLU()]
            layers += [nn.MaxPool1d(pool)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.head(self.layers(x_BCL).mean(-1))


def examples_with_motif(n: int, seed: int) -> Examples:
    """Half of the genes hold TGACTCA, which adds 100 units to a noise of SD 10: r can reach 0.98."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 4, (n, LENGTH)).astype(np.uint8)
    has = rng.random(n) < 0.5
    for row in np.flatnonzero(has):
        offset = rng.integers(0, LENGTH - 7)
        tokens[row, offset : offset + 7] = encode("TGACTCA")
    return Examples(tokens, (950 + 100 * has + rng.normal(0, 10, n)).astype(np.float32)[:, None])


def test_a_users_copy_of_the_cnn_learns_what_the_cnn_learns() -> None:
    train, val, test = (examples_with_motif(n, seed) for n, seed in ((384, 1), (128, 2), (256, 3)))
    config = TrainingConfig(
        epochs=16, batch_size=32, learning_rate=1e-2, reverse_complement=0, jitter=2, mixup=0.2
    )
    torch.manual_seed(0)
    ours = PromoterCNN(CNNConfig((8, 8), (7, 3), (4,), hidden=8, dropout=0.1), LENGTH)
    torch.manual_seed(0)
    theirs = ExternalModel(Architecture())
    found = []
    for model in (ours, theirs):
        fit(model, train, val, config=config)
        found.append(float(evaluate(model, test).pearson[0]))
    assert min(found) > 0.8
    assert abs(found[0] - found[1]) < 0.05


# Two processes

_PLAIN = TrainingConfig(epochs=3, batch_size=8, learning_rate=1e-2, gradient_clip=0.5)


def _train_plain(seed: int) -> dict[str, Any]:
    """Train a network without batch norms, whose steps are the same however a batch is shared."""
    model = external(nn.GroupNorm(2, 8), seed=seed)
    state = fit(model, random_examples(37, 1), random_examples(35, 2), config=_PLAIN)
    return {"weights": model.state_dict(), "history": [record["val_loss"] for record in state.history]}


class _Sometimes(nn.Module):
    """Uses its layer for half of the batches only, and not for the same in all processes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(8, 8, 1)
        self.register_buffer("constant", torch.tensor([0.1, 1e30, float("inf")]))
        self.calls = 0

    def forward(self, x_BCL: Tensor) -> Tensor:
        self.calls += self.training
        rank = dist.get_rank() if dist.is_initialized() else 0
        return self.layer(x_BCL) if not self.training or (self.calls + rank) % 2 else x_BCL


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    seen = _train_plain(seed=rank)  # other initial weights on each: those of rank 0 count
    for name, between in (("norms", nn.BatchNorm1d(8)), ("sometimes", _Sometimes())):
        model = external(between)
        val = random_examples(35, 2)
        state = fit(model, random_examples(37, 1), val, config=_PLAIN)
        best = state.history[state.best_epoch - 1]["val_mse"]
        seen[name] = {
            "weights": model.state_dict(),
            "val_mse": best,
            "mse": float(evaluate(model, val).mse.mean()),
        }
    torch.save(seen, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    folder = tmp_path_factory.mktemp("world")
    torch.multiprocessing.spawn(_work, (str(folder),), nprocs=2)  # type: ignore[reportPrivateImportUsage] # documented
    # not weights alone, but written just above
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_processes_train_what_one_does_though_some_weights_have_no_gradient(
    ranks: list[dict[str, Any]],
) -> None:
    alone = _train_plain(seed=0)
    for seen in ranks:
        assert seen["history"] == pytest.approx(alone["history"], rel=1e-4)
        for name, tensor in alone["weights"].items():
            torch.testing.assert_close(seen["weights"][name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["norms", "sometimes"])
def test_two_processes_end_with_one_network_whose_loss_is_the_one_recorded(
    ranks: list[dict[str, Any]], name: str
) -> None:
    one, other = (seen[name] for seen in ranks)
    for key, tensor in one["weights"].items():
        assert torch.equal(tensor, other["weights"][key]), key
    assert one["val_mse"] == pytest.approx(one["mse"], rel=1e-5)


def test_a_buffer_that_is_the_same_in_all_processes_stays_as_it_is(ranks: list[dict[str, Any]]) -> None:
    constant = ranks[0]["sometimes"]["weights"]["module.between.constant"]
    assert constant.tolist() == torch.tensor([0.1, 1e30, float("inf")]).tolist()


def test_predictions_of_a_network_in_float64_are_float32() -> None:
    assert predict(external().double(), random_examples(3, 1).tokens).dtype == np.float32
