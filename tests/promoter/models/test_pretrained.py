"""The wrapped networks beside the libraries' own: numbers, bins, bases, strands; what is trained and saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support import hub
from torch import Tensor, nn

pytest.importorskip("enformer_pytorch")
pytest.importorskip("borzoi_pytorch")

import borzoi_pytorch
import enformer_pytorch
from enformer_pytorch import modeling_enformer
from enformer_pytorch.data import str_to_one_hot

from promoter.checkpoint import ModelInfo, load_model, save_model
from promoter.errors import InputError
from promoter.ism import saturation_mutagenesis
from promoter.models import enformer, pretrained
from promoter.models.cnn import CNNConfig
from promoter.models.config import PretrainedConfig
from promoter.models.pretrained import PretrainedHead, PretrainedModel, build_model, embed
from promoter.models.weights import SerializedTrunk, fetch_trunk
from promoter.sequence import encode, one_hot, reverse_complement
from promoter.training import Examples, TrainingConfig, TrainingState, fit, predict
from promoter.training.batches import require_orientation

LENGTH = 1024
NAMES = ("enformer", "borzoi")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("hub")
    return {"enformer": hub.enformer(where / "small"), "borzoi": hub.borzoi(where / "borzoi")}


@pytest.fixture(scope="module")
def trunks(folders: dict[str, Path]) -> dict[str, SerializedTrunk]:
    return {name: fetch_trunk(PretrainedConfig(name, str(folder))) for name, folder in folders.items()}  # type: ignore[arg-type] # a name


def network(
    trunks: dict[str, SerializedTrunk], name: str, length: int = LENGTH, **settings: Any
) -> PretrainedModel:
    torch.manual_seed(1)
    config = PretrainedConfig(name, trunks[name].source, **settings)  # type: ignore[arg-type] # a name
    return build_model(config, length, trunks[name]).eval()


def tokens(n: int, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)
    drawn[0, 100:110] = 4
    return drawn


@pytest.fixture
def distances_as_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library encode the distances of a short input as those in the middle of the whole context."""
    whole = modeling_enformer.get_positional_embed

    def middle(n: int, features: int, device: torch.device, use_tf_gamma: bool, dtype: Any = None) -> Tensor:
        found = whole(1536, features, device, use_tf_gamma)
        return found[1536 - n : 1536 + n - 1]

    monkeypatch.setattr(modeling_enformer, "get_positional_embed", middle)


@pytest.mark.parametrize("bins", [1, 3, 4, 8])
@pytest.mark.usefixtures("distances_as_trained")
def test_enformer_is_the_librarys_own_around_the_tss(
    folders: dict[str, Path], trunks: dict[str, SerializedTrunk], bins: int
) -> None:
    library = enformer_pytorch.Enformer.from_pretrained(str(folders["enformer"])).eval()
    letters = ["".join("ACGTN"[base] for base in row) for row in tokens(2)]
    with torch.no_grad():
        theirs = library(str_to_one_hot(letters), return_only_embeddings=True, target_length=-1)
        ours = network(trunks, "enformer", tss_bins=bins).embed(one_hot(encode(letters)))
    tss = LENGTH // 2 // 128  # the bin that holds the TSS, which is base LENGTH / 2
    expected = theirs[:, tss - bins // 2 : tss - bins // 2 + bins].mean(dim=1)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_enformer_at_its_whole_context_needs_no_help(
    folders: dict[str, Path], trunks: dict[str, SerializedTrunk]
) -> None:
    library = enformer_pytorch.Enformer.from_pretrained(str(folders["enformer"])).eval()
    x_BCL = one_hot(tokens(1, 196_608))
    with torch.no_grad():
        theirs = library(x_BCL.transpose(1, 2), return_only_embeddings=True)
        ours = network(trunks, "enformer", 196_608, tss_bins=4).embed(x_BCL)
    assert theirs.shape[1] == 896
    torch.testing.assert_close(ours, theirs[:, 446:450].mean(dim=1), rtol=1e-4, atol=1e-4)


def test_a_copy_of_the_official_enformer_has_the_distances_of_tensorflow(tmp_path: Path) -> None:
    folder = hub.enformer(tmp_path / "enformer-official-rough")
    assert fetch_trunk(PretrainedConfig("enformer", str(folder))).config["use_tf_gamma"]
    # which the library's table has for the official width only
    features = modeling_enformer.get_positional_embed(1536, 192, torch.device("cpu"), use_tf_gamma=True)
    linear = nn.Linear(192, 8, bias=False)
    keys = enformer.RelativePositionKeys(linear, features, 4, 0.0)(torch.zeros(7, 192))
    torch.testing.assert_close(keys, linear(features[1532:1539]))


def test_a_folder_says_whether_its_enformer_has_the_distances_of_tensorflow(tmp_path: Path) -> None:
    folder = hub.enformer(tmp_path / "mine")
    described = json.loads((folder / "config.json").read_text())
    for said in (True, False):
        (folder / "config.json").write_text(json.dumps(described | {"use_tf_gamma": said}))
        assert fetch_trunk(PretrainedConfig("enformer", str(folder))).config["use_tf_gamma"] is said
    del described["use_tf_gamma"]
    (folder / "config.json").write_text(json.dumps(described))
    assert not fetch_trunk(PretrainedConfig("enformer", str(folder))).config["use_tf_gamma"]
    # of the published size it may be a copy under another name
    (folder / "config.json").write_text(json.dumps(described | {"dim": 1536, "depth": 11}))
    with pytest.raises(InputError, match=r"mine'`: its config\.json must say \"use_tf_gamma\": true if these are"):
        fetch_trunk(PretrainedConfig("enformer", str(folder)))


@pytest.mark.parametrize("bins", [1, 4])
def test_borzoi_is_the_librarys_own_around_the_tss(
    folders: dict[str, Path], trunks: dict[str, SerializedTrunk], bins: int
) -> None:
    from borzoi_pytorch.pytorch_borzoi_transformer import get_positional_embed  # noqa: PLC0415

    library = borzoi_pytorch.Borzoi(
        borzoi_pytorch.Borzoi.config_class.from_pretrained(str(folders["borzoi"]))
    ).eval()
    library.load_state_dict(safetensors.torch.load_file(folders["borzoi"] / "model.safetensors"))
    cells = LENGTH // 128
    attention: Any = library.get_submodule("transformer.0.0.fn.1")
    attention.positions = get_positional_embed(4096, 32, "cpu")[4096 - cells : 4095 + cells]
    library.crop.target_length = -1
    library.add_module("human_head", nn.Identity())  # which would only look at what is asked for here
    library.add_module("final_softplus", nn.Identity())
    x_BCL = one_hot(tokens(2))
    with torch.no_grad():
        theirs = library(x_BCL)
        ours = network(trunks, "borzoi", tss_bins=bins).embed(x_BCL)
    assert theirs.shape == (2, 1920, LENGTH // 32)
    tss = LENGTH // 2 // 32
    expected = theirs[:, :, tss - bins // 2 : tss - bins // 2 + bins].mean(dim=2)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_the_folder_and_distances_have_values(
    folders: dict[str, Path], trunks: dict[str, SerializedTrunk], name: str
) -> None:
    model = network(trunks, name)
    assert not [key for key, value in model.trunk.named_buffers() if value.is_meta]
    file = folders[name] / ("pytorch_model.bin" if name == "enformer" else "model.safetensors")
    whole = torch.load(file, weights_only=True) if name == "enformer" else safetensors.torch.load_file(file)
    state = model.trunk.state_dict()
    prefix, own = ("_trunk.", "") if name == "enformer" else ("", "network.")
    assert {prefix + key.removeprefix(own) for key in state} == {
        key for key in whole if key.startswith(prefix) and not key.startswith("_heads")
    }
    assert all(torch.equal(value, whole[prefix + key.removeprefix(own)]) for key, value in state.items())


def test_the_bases_stand_in_the_order_that_enformer_was_trained_on() -> None:
    letters = "ACGTNacgtn"
    ours = one_hot(encode([letters]))[0].T
    torch.testing.assert_close(ours, str_to_one_hot(letters))  # N is zeros there too
    turned = one_hot(np.asarray(reverse_complement(encode([letters]))))[0].T
    torch.testing.assert_close(turned, str_to_one_hot(letters).flip(0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_an_even_number_of_bins_is_the_same_region_on_both_strands(
    trunks: dict[str, SerializedTrunk], name: str
) -> None:
    """Without attention, which reads everything, what is far from the bins cannot matter, on either strand."""
    model = network(trunks, name, 4096, tss_bins=2)
    for module in model.modules():
        if hasattr(module, "to_out"):
            nn.init.zeros_(module.to_out.weight)  # type: ignore[arg-type] # a parameter
            nn.init.zeros_(module.to_out.bias)  # type: ignore[arg-type] # a parameter
    known = tokens(1, 4096, seed=3)
    width = model.config.architecture.bin_width
    reach = 1024  # what convolutions see beyond a bin, generously
    low, high = 2048 - width - reach, 2048 + width + reach
    other = tokens(1, 4096, seed=4)
    other[:, low:high] = known[:, low:high]
    near = known.copy()
    near[:, 2048 - width] = (near[:, 2048 - width] + 1) % 4  # the first base of the first bin
    for turn in (False, True):
        seen = [
            embed(model, np.asarray(reverse_complement(x)) if turn else x, device="cpu")
            for x in (known, other, near)
        ]
        np.testing.assert_allclose(seen[0], seen[1], rtol=1e-4, atol=1e-4)
        assert np.abs(seen[0] - seen[2]).max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_pretrained_network_predicts_the_same_before_and_after_saving(
    trunks: dict[str, SerializedTrunk], tmp_path: Path, name: str, head: str
) -> None:
    model = network(trunks, name, 512, head=head, n_targets=2)
    info = ModelInfo(["a", "b"], {"upstream": 256, "downstream": 256, "length": 512})
    save_model(tmp_path / "model", model, info)
    again = load_model(tmp_path / "model")
    some = tokens(2, 512)
    assert np.array_equal(predict(model, some), predict(again, some))
    assert again.config == model.config
    assert isinstance(again, PretrainedModel)
    assert again.origin == model.origin


def examples(n: int, length: int = 256) -> Examples:
    some = tokens(n, length, seed=7)
    return Examples(some, ((some == 2).mean(axis=1, keepdims=True) * 20).astype(np.float32))


RECIPE = TrainingConfig(epochs=2, batch_size=4, learning_rate=1e-3, reverse_complement=0)


@pytest.mark.parametrize("adapt", ["head", "lora", "full"])
def test_a_resumed_lora_training_ends_where_an_uninterrupted_one_does(
    trunks: dict[str, SerializedTrunk], adapt: str
) -> None:
    train, val = examples(10), examples(4)
    saved: list[bytes] = []
    whole = network(trunks, "enformer", 256, adapt=adapt, tss_bins=2)
    before = {name: value.clone() for name, value in whole.trunk.state_dict().items()}
    fit(whole, train, val, config=RECIPE, on_epoch=lambda state: saved.append(state.to_bytes()))
    again = network(trunks, "enformer", 256, adapt=adapt, tss_bins=2)
    fit(again, train, val, config=RECIPE, state=TrainingState.from_bytes(saved[0]))
    assert np.array_equal(predict(whole, val.tokens), predict(again, val.tokens))
    after = whole.trunk.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert bool(changed) == (adapt != "head")
    assert not {name for name in changed if "running_" in name or "num_batches" in name}
    state = TrainingState.from_bytes(saved[0])
    if adapt != "full":  # a frozen trunk need not be kept with each epoch
        assert all("lora_" in name or name.startswith("head.") for name in state.model)


@pytest.mark.parametrize("adapt", ["lora", "full"])
def test_training_in_passes_is_training_on_the_whole_batch(
    trunks: dict[str, SerializedTrunk], adapt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = examples(8), examples(4)
    # dropout would be drawn otherwise
    found = []
    for size in (1 << 18, 256):
        monkeypatch.setattr(pretrained, "_BASES_PER_PASS", size)
        model = network(trunks, "enformer", 256, adapt=adapt, tss_bins=2, dropout=0.0)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, enformer.RelativePositionKeys):
                module.dropout = 0.0
        fit(model, train, val, config=replace(RECIPE, epochs=1))
        found.append(predict(model, val.tokens))
    # Adam divides by the size of a gradient, which magnifies the rounding of those near 0
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-3)


def test_activations_computed_anew_give_the_same_gradients(trunks: dict[str, SerializedTrunk]) -> None:
    x_BCL = one_hot(tokens(2, 256))
    gradients = []
    for anew in (False, True):
        model = network(trunks, "enformer", 256, adapt="full", tss_bins=2)
        if anew:
            model.begin_adapting()
            assert all("forward" in vars(block) for block in model.blocks)
        model.eval()
        model(x_BCL).sum().backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_learning_rates_fall_from_the_head_down(trunks: dict[str, SerializedTrunk]) -> None:
    for name in NAMES:
        model = network(trunks, name, adapt="full", layer_decay=0.5)
        model.begin_adapting()
        groups = model.parameter_groups(1.0)
        assert [group["lr"] for group in groups] == [0.5**i for i in range(len(groups))]
        held = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
        first = next(model.trunk.parameters())
        assert any(first is parameter for parameter in groups[-1]["params"])


def test_frozen_norms_stay_in_evaluation_mode(trunks: dict[str, SerializedTrunk]) -> None:
    for adapt, dropout_on in (("head", False), ("lora", False), ("full", True)):
        model = network(trunks, "borzoi", adapt=adapt).train()
        norms = [one for one in model.trunk.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        assert norms
        assert not any(norm.training for norm in norms)
        dropouts = [one for one in model.trunk.modules() if isinstance(one, nn.Dropout)]
        assert all(one.training == dropout_on for one in dropouts)


def test_a_head_trained_on_embeddings_is_one_trained_on_sequences(trunks: dict[str, SerializedTrunk]) -> None:
    train, val = examples(12), examples(5)
    model = network(trunks, "enformer", 256, tss_bins=2)
    embedded = [Examples(embed(model, one.tokens, device="cpu"), one.targets) for one in (train, val)]
    alone = PretrainedHead(model.config, embedded[0].tokens.shape[2])
    alone.load_state_dict(model.head.state_dict())
    fit(model, train, val, config=RECIPE)
    fit(alone, embedded[0], embedded[1], config=RECIPE)
    np.testing.assert_allclose(
        predict(alone, embedded[1].tokens), predict(model, val.tokens), rtol=1e-3, atol=1e-3
    )


def test_reverse_complements_of_embeddings_are_shown_with_their_probability(
    trunks: dict[str, SerializedTrunk],
) -> None:
    train = examples(6)
    model = network(trunks, "enformer", 256, tss_bins=2)
    both = embed(model, train.tokens, device="cpu", both_strands=True)
    turned = embed(model, np.asarray(reverse_complement(train.tokens)), device="cpu")
    np.testing.assert_array_equal(both[:, 1:], turned)
    heads = []
    for inputs, probability in ((both, 1.0), (turned, 0.0)):
        torch.manual_seed(0)
        head = PretrainedHead(replace(model.config, dropout=0.0), both.shape[2])
        val = Examples(turned, train.targets)
        fit(head, Examples(inputs, train.targets), val, config=replace(RECIPE, reverse_complement=probability))
        heads.append(predict(head, turned))
    np.testing.assert_array_equal(*heads)


def test_ism_of_a_pretrained_network_is_by_forward_passes_of_the_region(
    trunks: dict[str, SerializedTrunk],
) -> None:
    model = network(trunks, "enformer", 256, tss_bins=2, n_targets=2)
    some = tokens(2, 256)
    scores = saturation_mutagenesis(model, some, positions=(98, 103))
    assert scores.shape == (2, 2, 4, 5)
    for gene, base, position in ((0, 1, 100), (1, 3, 98), (1, 0, 102)):  # in gene 0 an N stands at 100
        changed = some[[gene]].copy()
        changed[0, position] = base
        expected = predict(model, changed)[0] - predict(model, some[[gene]])[0]
        np.testing.assert_allclose(scores[gene, :, base, position - 98], expected, rtol=1e-3, atol=1e-5)
    low = saturation_mutagenesis(model, some, positions=(98, 103), precision="bf16")
    scale = float(np.abs(predict(model, some)).max())
    assert 0 < np.abs(low - scores).max() < 0.05 * scale


@pytest.mark.parametrize(
    ("length", "window", "words"),
    [
        (2000, None, "`window='enformer'` `context=2048`"),
        (393_216, None, "takes 196,608 bases, or fewer in steps of 256, not a window of 393,216"),
        (256, None, "tss_bins=4`: as many bins of 128 bases are more than the window's 256"),
        (
            1024,
            {"upstream": 1024, "downstream": 0},
            "wants the TSS in the middle .*`window='enformer'` `context=1024`",
        ),
    ],
)
def test_windows_that_do_not_fit_a_pretrained_network_are_refused(length: int, window: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        PretrainedConfig("enformer").require_length(length, window)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "gpt"}, "name='gpt'`: must be one of enformer, borzoi"),
        ({"adapt": "half"}, "adapt='half'`: must be one of head, lora, full"),
        ({"tss_bins": 0}, "tss_bins=0`: must be at least 1"),
        ({"dropout": 1.0}, "dropout=1.0`: must be below 1"),
        ({"layer_decay": 0.0}, "layer_decay=0.0`: must be above 0"),
    ],
)
def test_values_that_make_no_pretrained_network_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PretrainedConfig(**settings)


def test_jitter_is_refused_for_a_head_on_embeddings() -> None:
    with pytest.raises(InputError, match=r"`TrainingConfig.jitter=3` with `PretrainedConfig.adapt='head'`"):
        require_orientation(PretrainedConfig(), TrainingConfig(jitter=3), 100)
    require_orientation(PretrainedConfig(adapt="lora"), TrainingConfig(jitter=3), 100)
    require_orientation(CNNConfig(), TrainingConfig(jitter=3), 100)


def test_missing_pretrained_weights_are_asked_for_in_one_line(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub  # noqa: PLC0415

    def no_network(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)  # whether or not there is one here
    with pytest.raises(InputError) as refused:
        fetch_trunk(PretrainedConfig("borzoi"))
    assert "\n" not in str(refused.value)
    for word in (
        "johahi/borzoi-replicate-0",
        "hf download johahi/borzoi-replicate-0 --local-dir borzoi-replicate-0",
        "`PretrainedConfig.weights='borzoi-replicate-0'`",
    ):
        assert word in str(refused.value)
    with pytest.raises(InputError, match="neither a local folder nor a name on the hub"):
        fetch_trunk(PretrainedConfig("borzoi", str(tmp_path / "nothing")))
    with pytest.raises(InputError, match=r"must hold config\.json and model.safetensors"):
        fetch_trunk(PretrainedConfig("borzoi", str(tmp_path)))
    with pytest.raises(InputError, match="holds borzoi, not enformer"):
        fetch_trunk(PretrainedConfig("enformer", str(folders["borzoi"])))
    lacking = hub.borzoi(tmp_path / "lacking")
    state = safetensors.torch.load_file(lacking / "model.safetensors")
    del state["conv_dna.conv_layer.weight"]
    safetensors.torch.save_file(state, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks weights of borzoi"):
        fetch_trunk(PretrainedConfig("borzoi", str(lacking)))


def test_the_hub_is_asked_for_the_revision_and_its_commit_is_kept(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub  # noqa: PLC0415

    snapshot = tmp_path / "snapshots" / "0123abc"
    snapshot.parent.mkdir()
    snapshot.symlink_to(folders["borzoi"])
    asked: list[Any] = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    trunk = fetch_trunk(PretrainedConfig("borzoi", revision="main"))
    assert asked == [("johahi/borzoi-replicate-0", "main")]
    assert trunk.revision == "0123abc"
    assert trunk.source == "johahi/borzoi-replicate-0"
    assert json.loads(json.dumps(trunk.origin)) == trunk.origin


def test_the_extra_is_named_where_the_library_of_a_pretrained_network_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, "enformer_pytorch", None)
    with pytest.raises(InputError, match=r"pip install -c constraints.txt -e '\.\[pretrained\]'"):
        fetch_trunk(PretrainedConfig("enformer"))
