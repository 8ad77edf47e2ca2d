from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

import promoter
from promoter.checkpoint import (
    ModelInfo,
    copy_model,
    deserialize_ensemble,
    deserialize_model,
    load_info,
    load_model,
    save_model,
    serialize_model,
    versions,
)
from promoter.errors import InputError
from promoter.models.build import Network
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import encode, one_hot
from promoter.splits.split import places
from promoter.storage.records import seal

DATA = Path(__file__).parents[1] / "data"
LENGTH = 48
CONFIG = CNNConfig((6, 5), (5, 3), (4,), hidden=8, n_targets=2)
INFO = ModelInfo(
    targets=["basal", "salt response"],
    window={"upstream": 40, "downstream": 8, "length": LENGTH},
    standardisation={"mean": [7.25, -1e-3], "sd": [0.1, 1e6]},
    transform="log1p",
    split={"train": ["chrI", "2"], "val": ["chrM"], "test": []},
    data={"sha256": "0" * 64},
    training={"epochs": 3, "best_epoch": 2},
    versions=versions(),
)


def network(config: CNNConfig = CONFIG) -> PromoterCNN:
    """A network with random weights and running statistics: what is not saved shows."""
    torch.manual_seed(1)
    model = PromoterCNN(config, LENGTH)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 2)
    return model.eval()


@torch.no_grad()
def predictions(model: Network) -> torch.Tensor:
    return model(one_hot(np.random.default_rng(2).integers(0, 5, (9, LENGTH)).astype(np.uint8)))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", network(), INFO)
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    """The message of the error, which must be one line that names the folder."""
    with pytest.raises(InputError) as error:
        load_model(folder)
    with pytest.raises(InputError):
        load_info(folder)
    message = str(error.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message


def rewrite_weights(folder: Path, content: bytes) -> None:
    """Replace the weights and their checksum, so that only their content is wrong."""
    (folder / "model.safetensors").write_bytes(content)
    description = yaml.safe_load((folder / "model.yaml").read_text())
    description["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "model.yaml").write_text(yaml.safe_dump(seal(description)))


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        CNNConfig((8,), (1,), (), hidden=4, dropout=0.0),
        CNNConfig((5, 7, 4, 6), (1, 3, 9, 3), (3, 1, 2), hidden=16, n_targets=3),
        CNNConfig(),
    ],
)
def test_a_loaded_model_predicts_bit_for_bit_what_was_saved(tmp_path: Path, config: CNNConfig) -> None:
    model = network(config).train()
    info = replace(INFO, targets=[f"t{i}" for i in range(config.n_targets)])
    save_model(tmp_path / "made" / "model", model, info)
    assert model.training
    loaded = load_model(tmp_path / "made" / "model")
    assert not any(module.training for module in loaded.modules())
    assert loaded.config == config
    assert torch.equal(predictions(loaded), predictions(model.eval()))
    assert predictions(loaded).unique().numel() > 9 * config.n_targets // 2
    assert load_info(tmp_path / "made" / "model") == info


def test_predictions_of_an_old_checkpoint_never_change() -> None:
    """`model-format-1` was written once by `save_model`, its predictions computed by numpy in float64."""
    expected = json.loads((DATA / "model-format-1.json").read_text())
    model, info = deserialize_model(serialize_model(DATA / "model-format-1"))
    found = model(one_hot(encode(expected["sequences"]))).detach().numpy()
    # float32 rounding of three layers; the sequences differ by 0.2 and 3 units
    np.testing.assert_allclose(found, expected["predictions"], rtol=1e-5)
    assert model.config == CNNConfig((5, 4), (5, 3), (3,), hidden=6, dropout=0.25, n_targets=2)
    assert info.targets == ["basal", "salt response"]
    assert info.window == {"upstream": 32, "downstream": 8, "length": 40}
    assert info.standardisation == {"mean": [6.25, -130.0], "sd": [1.5, 40.0]}
    assert info.split_of_chrom == {"chr1": "train", "chr2": "train", "chr3": "val", "chr4": "test"}
    assert (info.transform, info.training["best_epoch"]) == ("log2p1", 2)


def test_a_model_directory_is_safetensors_and_plain_yaml_and_nothing_else(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["model.safetensors", "model.yaml"]
    weights = (saved / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])  # as the format's page defines it
    assert header.pop("__metadata__", {}) == {}
    assert header.keys() == network().state_dict().keys()
    description = yaml.safe_load((saved / "model.yaml").read_text())
    assert "!" not in (saved / "model.yaml").read_text()  # no tag that would make a Python object
    assert description["format"] == 1
    assert description["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert description["architecture"] == {
        "name": "promoter_cnn",
        **{name: list(v) if isinstance(v, tuple) else v for name, v in asdict(CONFIG).items()},
    }
    described = asdict(INFO)
    assert described.pop("split_of_gene") == described.pop("init") == {}
    for name, value in described.items():
        assert description[name] == value


def test_held_out_genes_are_named_where_chromosomes_do_not_tell_them(tmp_path: Path) -> None:
    of_gene = {"a": ("chr7", "test"), "NA": ("chr3", None), "b,\t": ("chr4", "train")}  # ids that tables mistake
    info = replace(INFO, split_of_gene=of_gene)
    save_model(tmp_path, network(), info)
    assert load_info(tmp_path) == info
    genes = pd.DataFrame(
        {"gene_id": ["a", "NA", "b,\t", "c", "d"], "chrom": ["chr7", "chr3", "chr4", "chrM", "chrX"]}
    )
    assert load_info(tmp_path).get_split(genes).tolist() == ["test", None, "train", "val", None]
    (tmp_path / "split.tsv").unlink()
    assert "split.tsv" in refusal(tmp_path)


def test_a_gene_in_the_training_set_of_any_member_is_in_that_of_the_ensemble(tmp_path: Path) -> None:
    split = {"train": ["chr1", "chr2"], "val": ["chr3"], "test": ["chr4"]}
    first = replace(
        INFO, split=split, split_of_gene={"a": ("chr1", "test"), "b": ("chr3", None), "c": ("chr9", None)}
    )
    second = replace(INFO, split={"train": ["chr3"], "val": ["chr4"], "test": ["chr1", "chr2"]})
    for name, info in (("first", first), ("second", second)):
        save_model(tmp_path / name, network(), info)
    _, together = deserialize_ensemble([serialize_model(tmp_path / name) for name in ("first", "second")])
    genes = pd.DataFrame({"gene_id": list("abcde"), "chrom": ["chr1", "chr3", "chr9", "chr2", "chr4"]})
    # a: test in both; b: left out by one, learned from by the other; c: met by none; d, e: by their chromosomes
    assert together.get_split(genes).tolist() == ["test", "train", None, "train", "val"]


def test_sequences_of_a_library_are_known_by_their_bases_and_not_by_ids_that_other_libraries_use_too(
    tmp_path: Path,
) -> None:
    def library(**sequences: str) -> pd.DataFrame:
        return pd.DataFrame({"gene_id": list(sequences), "chrom": None, "sequence": list(sequences.values())})

    learned_from = library(a="AACC", b="ACGA", c="TTTG", d="AACC", e="CCCC")
    split = ["train", "val", "test", "test", None]  # a and d are alike
    places_of = dict(zip(learned_from["gene_id"], zip(places(learned_from), split, strict=True), strict=True))
    window = {"upstream": None, "downstream": None, "length": 40}
    info = replace(
        INFO, window=window, split={name: [] for name in ("train", "val", "test")}, split_of_gene=places_of
    )
    for name in ("one", "other"):
        of_gene = info.split_of_gene | ({"b": (places_of["b"][0], "train")} if name == "other" else {})
        save_model(tmp_path / name, network(), replace(info, split_of_gene=of_gene))
    found = load_info(tmp_path / "one")
    assert found.get_split(learned_from).tolist() == split
    # other ids, other letters, the reverse complement, and ids with other bases
    other = library(x="aacc", y="GGTT", a="TTTG", z="GATTACA", b="CCCC", c="TCGT")
    assert found.get_split(other).tolist() == ["train", "train", "test", None, None, "val"]
    on_genome = other.assign(chrom="chr1")  # windows of a genome, one of which the library holds
    assert found.get_split(on_genome).tolist() == found.get_split(other).tolist()
    _, together = deserialize_ensemble([serialize_model(tmp_path / name) for name in ("one", "other")])
    assert together.get_split(learned_from).tolist() == ["train", "train", "test", "test", None]


@pytest.mark.parametrize("version", [0, 2, "1.5", None])
def test_another_format_version_is_refused_with_file_version_and_fix(saved: Path, version: object) -> None:
    description = yaml.safe_load((saved / "model.yaml").read_text())
    (saved / "model.yaml").write_text(yaml.safe_dump(description | {"format": version}))
    message = refusal(saved)
    assert f"format {version!r}," in message
    assert f"promoter {promoter.__version__} reads 1;" in message
    assert "use the version of promoter that wrote it" in message


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "hello", "a: [1", "\x00", "a: !!python/object:os.x {}"])
def test_a_model_yaml_that_is_no_mapping_is_refused(saved: Path, text: str) -> None:
    (saved / "model.yaml").write_text(text)
    assert "model" in refusal(saved)


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda description: description.pop(name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_without("targets"), "targets"),
        (_without("window"), "window"),
        (_without("architecture"), "architecture"),
        (_without("weights_sha256"), "weights_sha256"),
        (lambda d: d["window"].pop("length"), "length"),
        (lambda d: d["window"].update(length="long"), "model.yaml"),
        (lambda d: d["window"].update(length=3), "window of 3 bases"),
        (lambda d: d.update(window=[1]), "model.yaml"),
        (lambda d: d.update(architecture="cnn"), "model.yaml"),
        (lambda d: d["architecture"].update(name="transformer"), "transformer"),
        (lambda d: d["architecture"].update(heads=8), "heads"),
        (lambda d: d["architecture"].update(channels=8), "model.yaml"),
        (lambda d: d["architecture"].update(kernel_sizes=[5, 4]), "[4]"),
        (lambda d: d["architecture"].update(hidden=9), "model.safetensors does not fit"),
        (lambda d: d["architecture"].update(channels=[6, 5, 4], kernel_sizes=[5, 3, 3], pool_sizes=[2, 2]), "fit"),
        (lambda d: d.update(targets=["basal"]), "1 targets for 2 outputs"),
    ],
)
def test_a_model_yaml_that_does_not_fit_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    description = yaml.safe_load((saved / "model.yaml").read_text())
    change(description)
    (saved / "model.yaml").write_text(yaml.safe_dump(seal(description)))
    assert named in refusal(saved)


def test_a_model_yaml_of_an_earlier_version_has_no_seal_and_loads(saved: Path) -> None:
    description = yaml.safe_load((saved / "model.yaml").read_text())
    assert description == seal(description)
    del description["sha256"]
    (saved / "model.yaml").write_text(yaml.safe_dump(description))
    assert load_info(saved) == INFO


def test_a_model_yaml_that_was_changed_is_refused(saved: Path) -> None:
    text = (saved / "model.yaml").read_text()
    assert "best_epoch: 2" in text
    (saved / "model.yaml").write_text(text.replace("best_epoch: 2", "best_epoch: 3"))
    assert "model.yaml: is not what was written" in refusal(saved)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
@pytest.mark.parametrize("checksum_fits", [False, True])
def test_truncated_weights_are_refused(saved: Path, keep: int, checksum_fits: bool) -> None:
    content = (saved / "model.safetensors").read_bytes()[:keep]
    (saved / "model.safetensors").write_bytes(content)
    if checksum_fits:
        rewrite_weights(saved, content)
    assert "model.safetensors" in refusal(saved)


def test_weights_of_another_training_are_refused(saved: Path) -> None:
    other = network()
    other.rescale_output([1, 1], [2, 2])
    save_model(saved.parent / "other", other, INFO)
    shutil.copy(saved.parent / "other" / "model.safetensors", saved)  # as of a copy that ended half way
    assert "SHA-256 differs" in refusal(saved)


def test_pickled_weights_are_refused(saved: Path) -> None:
    torch.save(network().state_dict(), saved.parent / "weights.pt")
    rewrite_weights(saved, (saved.parent / "weights.pt").read_bytes())
    assert "model.safetensors does not fit" in refusal(saved)


@pytest.mark.parametrize("name", ["model.yaml", "model.safetensors"])
def test_a_missing_file_of_a_model_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert f"holds no {name}" in refusal(saved)


def test_a_missing_model_directory_is_named(saved: Path) -> None:
    assert "no such model directory" in refusal(saved.parent / "none")
    assert "no such model directory" in refusal(saved / "model.yaml")


def test_target_names_must_fit_the_outputs_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 target names for 2 outputs: \['one'\]"):
        save_model(tmp_path / "model", network(), replace(INFO, targets=["one"]))
    assert not (tmp_path / "model").exists()


def test_a_serialized_model_is_the_model_and_its_checksum_tells_it_apart(saved: Path) -> None:
    packed = serialize_model(saved)
    shutil.rmtree(saved)  # another process has no files
    model, info = deserialize_model(packed)
    assert torch.equal(predictions(model), predictions(network()))
    assert info == INFO
    assert packed.source == str(saved)
    others = [
        replace(packed, source="elsewhere"),
        replace(packed, weights=packed.weights + b"0"),
        replace(packed, description=packed.description + b"#"),
        replace(packed, description=packed.description + packed.weights[:1], weights=packed.weights[1:]),
    ]
    assert [other.checksum == packed.checksum for other in others] == [True, False, False, False]


@pytest.mark.parametrize("target", ["local", "memory"])
def test_a_copied_model_is_the_model_byte_for_byte(saved: Path, target: str) -> None:
    folder = f"memory://{saved.parent.name}/copy" if target == "memory" else str(saved.parent / "deep" / "copy")
    copy_model(saved, folder)
    assert serialize_model(folder).checksum == serialize_model(saved).checksum
    copy_model(folder, saved.parent / "back")
    assert {path.name: path.read_bytes() for path in (saved.parent / "back").iterdir()} == {
        path.name: path.read_bytes() for path in saved.iterdir()
    }
    assert torch.equal(predictions(load_model(folder)), predictions(network()))


def test_a_copy_has_the_kept_baselines_and_a_model_saved_again_has_not(saved: Path) -> None:
    checksum = serialize_model(saved).checksum
    (saved / "baselines.safetensors").write_bytes(b"kept")
    assert serialize_model(saved).checksum == checksum  # workers are not sent them
    copy_model(saved, saved.parent / "copy")
    assert (saved.parent / "copy" / "baselines.safetensors").read_bytes() == b"kept"
    save_model(saved, network(), INFO)
    assert not (saved / "baselines.safetensors").exists()
    copy_model(saved, saved.parent / "copy")
    assert not (saved.parent / "copy" / "baselines.safetensors").exists()


def test_saving_a_model_again_replaces_it(saved: Path) -> None:
    other = network()
    other.rescale_output([1, 1], [2, 2])
    save_model(saved, other, replace(INFO, transform=None))
    assert torch.equal(predictions(load_model(saved)), predictions(other))
    assert load_info(saved).transform is None
    assert len(list(saved.iterdir())) == 2
