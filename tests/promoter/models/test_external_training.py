"""A user's network is tried before it is trained, and errors of its code are told from others."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from promoter.errors import InputError, InputNote, NetworkError
from promoter.models.code import ModelCode, find_code
from promoter.models.external import build_external
from promoter.models.external_training import explained, require_learnable

LENGTH = 24
MODULE = """
import numpy as np
import torch
from torch import nn
from promoter.models.external import ExternalModel, select_head


class Net(nn.Module):
    def __init__(self, n_targets=1, body=None, channels=8):
        super().__init__()
        self.conv = nn.Conv1d(4, channels, 5, padding=2)
        self.body = body or nn.Identity()
        self.head = nn.Linear(channels, n_targets)

    def forward(self, x):
        return self.head(torch.relu(self.body(self.conv(x))).amax(-1))


"""


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Find the code of a module with `Net` and a function `make(length, n_targets)` of the given text."""
    monkeypatch.chdir(tmp_path)

    def find_net(text: str) -> ModelCode:
        (tmp_path / "some_net.py").write_text(f"{MODULE}{text}\n")
        return find_code("some_net:make")

    return find_net


def make(body: str, arguments: str = "length, n_targets") -> str:
    return f"def make({arguments}):\n    {body}"


def learn(code: ModelCode, targets: tuple[str, ...] = ("a", "b")) -> list[str]:
    """Try the network, and return the notes."""
    tokens = torch.randint(4, (4, LENGTH), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", InputNote)
        require_learnable(code, tokens, targets)
    return [str(warning.message) for warning in said]


@pytest.mark.parametrize(
    "body",
    [
        "return Net(n_targets)",
        "return Net(n_targets).double()",
        "return Net(n_targets, nn.BatchNorm1d(8, momentum=None))",
        "return ExternalModel(Net(n_targets), bases='TGCA')",
        "n = Net(n_targets); n.conv = nn.LazyConv1d(8, 5, padding=2); n(torch.zeros(1, 4, length)); return n",
    ],
)
def test_networks_that_can_be_trained_pass_in_silence(find, body: str):
    assert learn(find(make(body))) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return Net(3)", r"has 3 outputs, the data 2 targets \(a, b\)"),
        ("return Net(n_targets, nn.Upsample(scale_factor=2)).conv", r"returns shape \(4, 8, 24\) for 4 sequences"),
        ("return Net(n_targets).requires_grad_(False)", "has no parameters to train"),
        ("return nn.AvgPool1d(length // n_targets)", "has no parameters to train"),
        ("return Net(n_targets).half()", "conv.weight is of torch.float16"),
        ("return Net(n_targets).bfloat16()", "conv.weight is of torch.bfloat16"),
        (
            "return Net(n_targets, nn.BatchNorm1d(8, track_running_stats=False))",
            "depends on the others in the batch",
        ),
        ("net = Net(n_targets); net.head = nn.LazyLinear(n_targets); return net", "layers without shapes"),
        (
            "return ExternalModel(Net(n_targets), length=100)",
            "takes sequences of 100 bases, the data has windows of 24",
        ),
        ("return Net(n_targets, nn.Linear(20, 20))", "fails at sequences of 24 bases"),
        ("return ExternalModel(Net(n_targets), output=torch.detach)", "cannot be trained"),
        ("raise KeyError('weights')", "failed .KeyError: 'weights'"),
        ("return n_targets", "returned int, not an nn.Module"),
        ("return Extra(n_targets)", "keeps module._extra_state, which is no tensor"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(find, body: str, problem: str):
    extra = "class Extra(Net):\n    def get_extra_state(self):\n        return [1]\n\n\n"
    with pytest.raises(InputError, match=f"some_net:make: .*{problem}"):
        learn(find(extra + make(body)))


def test_a_function_without_the_arguments_is_refused(find):
    with pytest.raises(InputError, match=r"some_net:make: failed .TypeError: .*length"):
        learn(find(make("return Net(1)", arguments="")))


def test_a_network_that_returns_more_heads_in_training_is_refused(find):
    heads = (
        "class Two(Net):\n    def forward(self, x):\n"
        "        y = super().forward(x)\n        return (y, y) if self.training else y\n\n"
    )
    with pytest.raises(InputError, match="some_net:make: in training mode returns a tuple of 2"):
        learn(find(heads + make("return Two(n_targets)")))


def test_weights_that_training_leaves_as_they_are_are_named(find):
    unused = "net = Net(n_targets); net.profile = nn.Linear(3, 3); net.conv.requires_grad_(False); return net"
    frozen, left = learn(find(make(unused)))
    assert "2 of its 6 weights are frozen" in frozen
    assert "2 of its 6 weights have no part in what it predicts" in left
    assert "profile.weight, profile.bias" in left


def test_weights_drawn_by_another_generator_are_announced(find):
    drawn = "net = Net(n_targets); net.head.bias.data += torch.tensor(np.random.rand(n_targets)); return net"
    (said,) = learn(find(make(drawn)))
    assert "other generators than torch's" in said


def test_names_of_outputs_that_give_way_to_those_of_the_data_are_announced(find):
    (said,) = learn(find(make("return ExternalModel(Net(n_targets), targets=['b', 'a'])")))
    assert "b, a" in said
    assert "a, b" in said


FAILING = (
    MODULE
    + """
class Failing(Net):
    def forward(self, x):
        self.check(x)
        return super().forward(x)

    def check(self, x):
        if len(x) > 4:
            raise ValueError("more than four")


"""
    + make("return Failing(n_targets)")
)


def test_an_error_of_the_users_code_names_the_function_and_the_line(find):
    code = find(FAILING.removeprefix(MODULE))
    model = build_external(code, length=LENGTH, n_targets=1)
    line = 1 + (MODULE + FAILING.removeprefix(MODULE)).split("\n").index(
        '            raise ValueError("more than four")'
    )
    expected = rf"^some_net:make: failed in check, line {line} of some_net.py \(ValueError: more than four\)$"
    with pytest.raises(NetworkError, match=expected), explained(code):
        model(torch.zeros(5, 4, LENGTH))


def test_an_error_of_a_layer_in_the_network_is_that_of_the_network(find):
    code = find(make("return nn.Sequential(nn.Flatten(), nn.Linear(4 * length, n_targets))"))
    model = build_external(code, length=LENGTH, n_targets=1)
    with (
        pytest.raises(NetworkError, match=r"some_net:make: failed in a layer .RuntimeError: mat1 and mat2"),
        explained(code),
    ):
        model(torch.zeros(2, 4, LENGTH + 1))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("can't allocate memory"), OSError(28, "full")]
)
def test_errors_of_other_code_and_of_memory_pass_as_they_are(find, error: Exception):
    code = find(FAILING.removeprefix(MODULE))
    with pytest.raises(type(error)) as raised, explained(code):
        raise error
    assert raised.value is error


def test_a_full_memory_in_the_users_code_passes_as_it_is(find):
    code = find(
        "def full(*_):\n    raise torch.OutOfMemoryError('full')\n\n"
        + make("return ExternalModel(Net(1), output=full)")
    )
    model = build_external(code, length=LENGTH, n_targets=1)
    with pytest.raises(torch.OutOfMemoryError), explained(code):
        model(torch.zeros(2, 4, LENGTH))


def test_refused_output_names_the_network_once(find):
    code = find(make("return Net(n_targets).conv"))
    model = build_external(code, length=LENGTH, n_targets=1)
    with pytest.raises(InputError, match=r"^some_net:make: returns shape"), explained(code):
        model(torch.zeros(2, 4, LENGTH))
