"""Models by name: directories, folders, and functions of other code with their weights."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from promoter.checkpoint import deserialize_ensemble, deserialize_model, load_model, save_model
from promoter.errors import InputError, InputNote
from promoter.model_argument import load_weights, open_models
from promoter.model_info import ModelInfo
from promoter.models.code import find_code
from promoter.models.external import ExternalModel, build_external
from promoter.training import predict

pytestmark = pytest.mark.filterwarnings("ignore::promoter.errors.InputNote")
TOKENS = np.random.default_rng(1).integers(0, 4, (6, 60), dtype=np.uint8)
NETS = """
import functools
import torch
from torch import nn
from promoter.models.external import ExternalModel

class Net(nn.Module):
    def __init__(self, outputs=2):
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 7)
        self.last = nn.Linear(8, outputs)
    def forward(self, x):
        return self.last(torch.relu(self.conv(x)).amax(2))

def random(length=None, n_targets=2):
    return Net(n_targets)

def fixed():
    torch.manual_seed(3)
    return Net()

def named():
    return ExternalModel(Net(), length=60, targets=["low", "high"])

def misnamed():
    return ExternalModel(Net(), targets=["only"])

@functools.cache
def cached():
    return Net()

def hidden():
    net = Net()
    net.more = [nn.Linear(2, 2)]
    net.forward = lambda x: net.more[0](Net.forward(net, x))
    return net

def closure():
    head = nn.Linear(2, 2)
    return ExternalModel(Net(), output=lambda y: head(y))

class Extra(Net):
    def get_extra_state(self):
        return {"step": 1}
    def set_extra_state(self, state):
        pass

def bug():
    return open("weights.h5")

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder with nets.py and weights of it, and leave imports as they were."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    path, finders = list(sys.path), list(sys.meta_path)
    for number in (1, 2):
        torch.manual_seed(number)
        safetensors.torch.save_model(build_external(find_code("nets:random")).module, f"w{number}.safetensors")
    yield
    sys.path[:], sys.meta_path[:] = path, finders
    sys.modules.pop("nets", None)


def network(seed: int) -> ExternalModel:
    torch.manual_seed(seed)
    return build_external(find_code("nets:random"))


def test_a_function_and_its_weights_make_a_model() -> None:
    with pytest.warns(InputNote, match=r"code of nets.py, sent to all nodes .*weights of w1.safetensors"):
        [packed] = open_models(["external:nets:named"], weights=["w1.safetensors"], trust_code=True, length=60)
    model, info = deserialize_model(packed)
    assert np.array_equal(predict(model, TOKENS), predict(network(1), TOKENS))
    assert (info.targets, info.window["length"]) == (["low", "high"], 60)


def test_several_weights_make_an_ensemble_with_checksums_of_their_own() -> None:
    files = ["w1.safetensors", "w2.safetensors"]
    first, second = open_models(["external:nets:random"], weights=files, trust_code=True, length=60)
    assert first.checksum != second.checksum
    assert np.array_equal(predict(deserialize_model(second)[0], TOKENS), predict(network(2), TOKENS))
    assert deserialize_ensemble([first, second])[1].targets == ["output_1", "output_2"]


def test_the_checksum_is_that_of_code_and_weights() -> None:
    def checksum(weights: str) -> str:
        return open_models(["external:nets:random"], weights=[weights], trust_code=True, length=60)[0].checksum

    first = checksum("w1.safetensors")
    assert checksum("w1.safetensors") == first
    assert checksum("w2.safetensors") != first
    Path("nets.py").write_text(NETS.replace("torch.relu", "torch.sigmoid"))
    assert checksum("w1.safetensors") != first


def test_another_version_of_a_library_makes_no_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def checksum() -> str:
        weights = ["w1.safetensors"]
        return open_models(["external:nets:named"], weights=weights, trust_code=True, length=60)[0].checksum

    first = checksum()
    monkeypatch.setattr(np, "__version__", "0.0.1")
    assert checksum() == first


def test_weights_that_the_function_loads_itself_are_taken_and_said() -> None:
    with pytest.warns(InputNote, match="the weights with which it returns the network"):
        [packed] = open_models(["external:nets:fixed"], trust_code=True, length=60)
    assert np.array_equal(predict(deserialize_model(packed)[0], TOKENS), predict(network(3), TOKENS))


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("external:nets:random", None, r"returns other weights each time \(conv.weight\), drawn at random"),
        ("external:nets:bug", None, "nets:bug: failed .FileNotFoundError.* on every node"),
        ("external:nets:number", None, "returned int, not an nn.Module"),
        ("external:nets:cached", ["w1.safetensors"], "returns the same layers each time"),
        ("external:nets:cached", None, "returns the same layers each time"),
        ("external:nets:hidden", ["w1.safetensors"], "has weights that its state_dict does not hold"),
        ("external:nets:closure", ["w1.safetensors"], "has weights that its state_dict does not hold"),
        ("external:nets:Extra", ["w1.safetensors"], "keeps module._extra_state, which is no tensor"),
        ("external:nets:misnamed", ["w1.safetensors"], r"has 2 outputs for 1 targets \(only\)"),
        ("external:nets:named", ["absent.safetensors"], "absent.safetensors"),
        ("external:nets:named", ["nets.py"], "is not in the format of safetensors"),
        ("model", ["w1.safetensors"], "`model_weights=.*model has weights of its own"),
    ],
)
def test_what_makes_no_model_is_refused_in_a_line(name: str, weights: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        open_models([name], weights=weights, trust_code=True, length=60)
    assert "\n" not in str(raised.value)


def test_another_length_than_the_network_takes_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes sequences of 60 bases, the data has windows of 80"):
        open_models(["external:nets:named"], weights=["w1.safetensors"], trust_code=True, length=80)


def test_code_does_not_run_unless_it_is_trusted(tmp_path: Path) -> None:
    Path("nets.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{NETS}")
    with pytest.raises(InputError, match=r"`trust_code=True`"):
        open_models(["external:nets:fixed"])
    assert not (tmp_path / "ran").exists()
    [packed] = open_models(["external:nets:fixed"], trust_code=True, length=60)
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    sys.modules.pop("nets")
    with pytest.raises(InputError, match=r"network of other code.*`trust_code=True`"):
        deserialize_model(dataclasses.replace(packed, trusted=False))
    assert not (tmp_path / "ran").exists()


def test_a_saved_external_model_brings_its_code(tmp_path: Path) -> None:
    model = network(1)
    model.rescale_output([1.0, 2.0], [3.0, 4.0])
    info = ModelInfo(["a", "b"], {"upstream": 60, "downstream": 0, "length": 60})
    model.name_outputs(info.targets)
    save_model(tmp_path / "model", model, info)
    Path("nets.py").unlink()
    sys.modules.pop("nets")
    with pytest.raises(InputError, match=r"`trust_code=True`"):
        load_model(tmp_path / "model")
    loaded = load_model(tmp_path / "model", trust_code=True)
    assert np.array_equal(predict(loaded, TOKENS), predict(model, TOKENS))


def test_tied_weights_are_kept_once_in_the_file(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

    saved, loaded = Tied(), Tied()
    safetensors.torch.save_model(saved, str(tmp_path / "tied.safetensors"))
    load_weights(loaded, str(tmp_path / "tied.safetensors"))
    assert torch.equal(loaded.second.weight, saved.first.weight)
    assert torch.equal(loaded.second.bias, saved.second.bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv.bias"), "lacks conv.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "has what the network lacks: extra"),
        (lambda state: state.update({"last.bias": torch.zeros(5)}), "has other shapes of last.bias"),
        (
            lambda state: [state.update({f"model.{name}": state.pop(name)}) for name in list(state)],
            r"lacks conv.weight.* and has model\..*; take 'model.' off the names",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    state = network(1).module.state_dict()
    change(state)
    safetensors.torch.save_file(state, "w.safetensors")
    with pytest.raises(InputError, match=message):
        open_models(["external:nets:named"], weights=["w.safetensors"], trust_code=True, length=60)
