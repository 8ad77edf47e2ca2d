from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from promoter.errors import InputError
from promoter.models.cnn import CNNConfig, PromoterCNN, evaluating
from promoter.sequence import one_hot

CASES = [  # configuration, length; most lengths leave a remainder at the pools
    (CNNConfig((6,), (3,), (), hidden=16), 17),
    (CNNConfig((6, 5), (5, 3), (2,), hidden=16, n_targets=3), 31),
    (CNNConfig((8, 6, 5), (7, 5, 3), (4, 4), hidden=16), 67),
    (CNNConfig((5, 7, 4, 6), (1, 3, 9, 3), (3, 1, 2), hidden=16, n_targets=2), 50),
    (CNNConfig((4, 4), (21, 3), (4,), hidden=16), 9),  # a kernel wider than the window
]


def published(config: CNNConfig) -> nn.Sequential:
    """The design in the order and with the layers that one would write down first."""
    layers: list[nn.Module] = []
    inputs = 4
    for index, (channels, kernel) in enumerate(zip(config.channels, config.kernel_sizes, strict=True)):
        layers += [nn.Conv1d(inputs, channels, kernel, padding="same"), nn.BatchNorm1d(channels), nn.ReLU()]
        if index < len(config.pool_sizes):
            layers.append(nn.MaxPool1d(config.pool_sizes[index]))
        inputs = channels
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(inputs, config.hidden),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, config.n_targets),
    )


def pair(config: CNNConfig, dtype: torch.dtype) -> tuple[PromoterCNN, nn.Sequential]:
    """The network and the published one with equal weights and with biases before the batch norms."""
    torch.manual_seed(4)  # with 1 a four-channel network happens to be dead
    ours, theirs = PromoterCNN(config).to(dtype), published(config).to(dtype)
    convolutions = [layer for layer in theirs if isinstance(layer, nn.Conv1d)]
    norms = [layer for layer in theirs if isinstance(layer, nn.BatchNorm1d)]
    with torch.no_grad():
        for block, convolution, norm in zip(ours.blocks, convolutions, norms, strict=True):
            own = dict(block.named_children())
            own_convolution, own_norm = own["conv"], own["norm"]
            assert isinstance(own_convolution, nn.Conv1d)
            assert isinstance(own_norm, nn.BatchNorm2d)
            convolution.weight.copy_(own_convolution.weight)
            for source in (own_norm.weight, own_norm.bias):
                source.copy_(torch.randn_like(source))  # negative weights too: the ReLU must not slip before them
            own_norm.running_mean = 0.3 * torch.randn_like(own_norm.bias)
            own_norm.running_var = torch.rand_like(own_norm.bias) + 0.5
            norm.load_state_dict(own_norm.state_dict())
            assert norm.running_mean is not None
            assert convolution.bias is not None
            norm.running_mean += convolution.bias  # with a bias the mean of what is normalised moves by it
        nn.init.uniform_(ours.head[0].get_parameter("bias"), -0.5, 2)  # most hidden units are at work
    theirs[-4].load_state_dict(ours.head[0].state_dict())
    theirs[-1].load_state_dict(ours.head[3].state_dict())
    return ours, theirs


def random_one_hot(n: int, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return one_hot(np.random.default_rng(length).integers(0, 5, (n, length)).astype(np.uint8), dtype)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("config", "length"), CASES)
def test_outputs_and_gradients_are_those_of_the_published_order_of_layers(
    config: CNNConfig, length: int, training: bool
) -> None:
    ours, theirs = (model.train(training) for model in pair(config, torch.float64))
    x_BCL = random_one_hot(6, length, torch.float64)
    inputs = [x_BCL.clone().requires_grad_() for _ in range(2)]
    outputs = []
    for model, x in zip((ours, theirs), inputs, strict=True):
        torch.manual_seed(5)  # of the dropout
        outputs.append(model(x))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-10, atol=1e-10)
    assert inputs[0].grad is not None
    assert inputs[0].grad.abs().sum() > 0
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-10, atol=1e-10)
    ours_in_order = [p.grad for p in ours.parameters()]
    theirs_in_order = [p.grad for name, p in theirs.named_parameters() if not _is_convolution_bias(theirs, name)]
    for one, other in zip(ours_in_order, theirs_in_order, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def _is_convolution_bias(model: nn.Module, name: str) -> bool:
    layer, _, parameter = name.rpartition(".")
    return parameter == "bias" and isinstance(model.get_submodule(layer), nn.Conv1d)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("config", "length"), [*CASES, (CNNConfig((32, 16, 8)), 501)])
def test_float32_outputs_agree_with_float64_to_1e_5(config: CNNConfig, length: int, training: bool) -> None:
    results = []
    x_BCL = random_one_hot(6, length)
    for model in pair(config, torch.float32):
        model.train(training)
        torch.manual_seed(5)
        results.append(model(x_BCL))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


def test_training_moves_the_running_statistics_as_the_published_layers_do() -> None:
    config, length = CASES[2]
    ours, theirs = (model.train() for model in pair(config, torch.float64))
    x_BCL = random_one_hot(6, length, torch.float64)
    for model in (ours, theirs):
        model(x_BCL)
    own_norms = [module for module in ours.modules() if isinstance(module, nn.BatchNorm2d)]
    for own, norm in zip(own_norms, (m for m in theirs.modules() if isinstance(m, nn.BatchNorm1d)), strict=True):
        torch.testing.assert_close(own.running_var, norm.running_var, rtol=1e-10, atol=1e-10)


def test_the_default_network_is_the_published_design() -> None:
    model = PromoterCNN(length=2000)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters() if tensor.dim() > 1}
    assert shapes == {
        "blocks.0.conv.weight": (256, 4, 15),
        "blocks.1.conv.weight": (128, 256, 5),
        "blocks.2.conv.weight": (64, 128, 3),
        "head.0.weight": (32, 64),
        "head.3.weight": (1, 32),
    }
    assert model.config.pool_sizes == (4, 4)
    assert isinstance(model.head[2], nn.Dropout)
    assert model.head[2].p == 0.3
    with torch.no_grad():
        assert model.eval()(random_one_hot(2, 2000)).shape == (2, 1)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("targets", [1, 3])
def test_the_network_gives_a_row_a_sequence_and_a_column_a_target(batch: int, targets: int) -> None:
    model = PromoterCNN(CNNConfig((4, 3), (3, 3), (2,), hidden=2, n_targets=targets)).eval()
    x_BCL = random_one_hot(5, 11)
    predicted = model(x_BCL[:batch])
    assert predicted.shape == (batch, targets)
    torch.testing.assert_close(predicted[0], model(x_BCL)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_targets", [1, 3])
def test_rescaling_the_output_is_the_affine_map_of_each_target(n_targets: int) -> None:
    model = PromoterCNN(CNNConfig((4,), (3,), (), hidden=8, n_targets=n_targets)).double().eval()
    x_BCL = random_one_hot(7, 12, torch.float64)
    mean, sd = [1000.0, -2.0, 0.0][:n_targets], [50.0, 0.1, 1.0][:n_targets]
    expected = model(x_BCL) * torch.tensor(sd).double() + torch.tensor(mean).double()
    model.rescale_output(mean, sd)
    torch.testing.assert_close(model(x_BCL), expected, rtol=1e-6, atol=1e-9)  # the SD 0.1 passes through float32


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ({"channels": ()}, ["channels=[]", "at least one block"]),
        (
            {"channels": (8, 8)},
            [
                "channels=[8, 8]`: wants 2 `CNNConfig.kernel_sizes` and 1 `CNNConfig.pool_sizes`",
                "[15, 5, 3]",
                "[4, 4]",
            ],
        ),
        ({"kernel_sizes": (15, 5)}, ["3 `CNNConfig.kernel_sizes`", "[15, 5]"]),
        ({"pool_sizes": (4, 4, 4)}, ["2 `CNNConfig.pool_sizes`", "[4, 4, 4]"]),
        ({"kernel_sizes": (15, 4, 2)}, ["[4, 2]", "odd"]),
        ({"kernel_sizes": (15, -1, 3)}, ["kernel_sizes=[15, -1, 3]", "at least 1"]),
        ({"channels": (256, 0, 64)}, ["channels=[256, 0, 64]", "at least 1"]),
        ({"pool_sizes": (4, 0)}, ["pool_sizes=[4, 0]", "at least 1"]),
        ({"hidden": 0}, ["hidden=0", "at least 1"]),
        ({"n_targets": 0}, ["n_targets=0", "at least 1"]),
        ({"dropout": 1.0}, ["dropout=1.0`", "below 1"]),
        ({"dropout": -0.1}, ["dropout=-0.1", "at least 0"]),
        ({"dropout": float("nan")}, ["dropout=nan"]),
    ],
)
def test_an_impossible_network_is_refused_with_its_numbers(values: dict, numbers: list[str]) -> None:
    with pytest.raises(InputError) as error:
        CNNConfig(**values)
    for number in numbers:
        assert number in str(error.value)


@pytest.mark.parametrize("pool_sizes", [(4, 4), (3, 5), (2, 1)])
def test_the_shortest_window_is_the_product_of_the_pools(pool_sizes: tuple[int, int]) -> None:
    config = CNNConfig((3, 3, 3), (3, 3, 3), pool_sizes, hidden=2)
    shortest = pool_sizes[0] * pool_sizes[1]
    assert PromoterCNN(config, length=shortest).eval()(random_one_hot(1, shortest)).isfinite().all()
    expected = rf"{shortest - 1} bases is too short.*{pool_sizes[0]}, {pool_sizes[1]}.*at least {shortest};"
    with pytest.raises(InputError, match=expected):
        PromoterCNN(config, length=shortest - 1)
    with pytest.raises(InputError, match=expected):
        PromoterCNN(config)(random_one_hot(2, shortest - 1))


def test_evaluating_puts_every_module_back_in_its_own_mode() -> None:
    model = PromoterCNN(CNNConfig((4,), (3,), ())).train()
    model.blocks.eval()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before

    def fail() -> None:
        with evaluating(model):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert [module.training for module in model.modules()] == before
    assert {True, False} == set(before)


def test_a_crop_sees_the_last_bases_only():
    cropped = PromoterCNN(CNNConfig((6, 5), (5, 3), (2,), crop=20), length=50).eval()
    x = one_hot(np.random.default_rng(0).integers(0, 4, (3, 50)).astype(np.uint8))
    whole = PromoterCNN(CNNConfig((6, 5), (5, 3), (2,))).eval()
    whole.load_state_dict(cropped.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(cropped(x), whole(x[..., 30:]), rtol=0, atol=0)
        torch.testing.assert_close(cropped(x[..., 30:]), cropped(x), rtol=0, atol=0)


def test_a_crop_that_the_pools_use_up_is_refused():
    with pytest.raises(
        InputError, match=r"`CNNConfig\.crop=15`: is too short for pool_sizes \[4, 4\], which need at least 16"
    ):
        CNNConfig(crop=15)


@pytest.mark.parametrize("training", [False, True])
def test_a_network_that_keeps_the_strands_gives_the_head_the_bins_of_each(training: bool) -> None:
    config = CNNConfig((6, 5), (5, 3), (2,), hidden=16, bins=3, both_strands=True, keep_strands=True)
    torch.manual_seed(4)
    model = PromoterCNN(config).double().train(training)
    forward = PromoterCNN(replace(config, both_strands=False, keep_strands=False)).double().train(training)
    forward.blocks.load_state_dict(model.blocks.state_dict())
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x_BCL = random_one_hot(4, 31, torch.float64)
    other_BCL = x_BCL.flip(2)[:, [3, 2, 1, 0]]
    model(x_BCL)
    both = torch.cat([x_BCL, other_BCL])
    expected_BCG, other_BCG = forward._features(both).chunk(2)
    assert seen[0].shape == (4, 2 * 5 * 3)
    found_BCG, found_other_BCG = seen[0].view(4, 2, 5, 3).unbind(1)
    torch.testing.assert_close(found_BCG, expected_BCG, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found_other_BCG, other_BCG.flip(2), rtol=1e-10, atol=1e-10)  # read from its end
    assert not torch.allclose(model.eval()(x_BCL), model(other_BCL))


def test_one_strand_is_not_to_be_kept_nor_two_to_be_turned_round() -> None:
    with pytest.raises(InputError, match=r"`CNNConfig\.keep_strands=True`: needs `CNNConfig\.both_strands=True`"):
        CNNConfig(keep_strands=True)
    config = CNNConfig(both_strands=True, keep_strands=True)
    with pytest.raises(InputError, match=r"keep_strands=True` with `TrainingConfig\.reverse_complement=0\.5`"):
        config.require_augmentation(0.5, 0)
    config.require_augmentation(0, 5)


def test_a_network_for_a_window_crops_and_bins_no_more_than_it_has() -> None:
    config = CNNConfig((4, 4, 4), (7, 3, 3), (8, 4), crop=500, bins=5, both_strands=True)
    fitted = {}
    for length in (32, 50, 64, 95, 96, 110, 150, 160, 499, 500, 501, 2000):
        network = PromoterCNN(config, length).eval()
        assert network.config == config.for_window(length)
        assert network(random_one_hot(2, length)).isfinite().all()
        features = network._features(random_one_hot(2, length)[..., -500:])
        positions = min(length, 500) // 8 // 4
        assert features.shape[2] == network.config.bins == min(5, positions)
        fitted[length] = (network.config.crop, network.config.bins)
    assert fitted == {
        **{32: (None, 1), 50: (None, 1), 64: (None, 2), 95: (None, 2), 96: (None, 3), 110: (None, 3)},
        **{150: (None, 4), 160: (None, 5), 499: (None, 5), 500: (500, 5), 501: (500, 5), 2000: (500, 5)},
    }
    assert config.for_window(2000) is not config
    assert config.for_window(2000) == config
    assert replace(config, crop=100).for_window(2000).bins == 3  # of the crop, not of the window
    with pytest.raises(InputError, match=r"31 bases is too short for pool_sizes \[8, 4\].*at least 32; "):
        config.for_window(31)


def test_a_network_fitted_to_a_window_refuses_shorter_ones() -> None:
    network = PromoterCNN(CNNConfig((4, 4), (7, 3), (8,), bins=5), length=48)
    assert network.config.bins == 5
    with pytest.raises(InputError, match=r"39 bases is too short for pool_sizes \[8\] and 5 bins.*at least 40"):
        network(random_one_hot(1, 39))
    cropped = PromoterCNN(CNNConfig((4,), (3,), (), crop=20), length=20)
    with pytest.raises(InputError, match=r"`CNNConfig\.crop=20`: is more than the window has, 19 bases"):
        cropped(random_one_hot(1, 19))


def test_configurations_import_no_pytorch_and_nothing_that_reads_files() -> None:
    code = "import sys, promoter.models.config; print({'torch', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
