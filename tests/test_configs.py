"""The configurations that ship with the project are what they say."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli.model_flags import ModelFlags, resolve_model
from promoter.errors import InputError
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.config import PretrainedConfig
from promoter.training import TrainingConfig

CONFIGS = Path(__file__).parents[1] / "configs"


def read(name: str) -> tuple[CNNConfig, TrainingConfig]:
    settings: dict[str, dict[str, Any]] = yaml.safe_load((CONFIGS / name).read_text())
    assert settings.keys() == {"model", "training"}
    model: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings["model"].items()
    }
    return CNNConfig(**model), TrainingConfig(**settings["training"])


def test_published_yaml_is_the_default_and_names_every_number_of_the_design() -> None:
    assert read("published.yaml") == (CNNConfig(), TrainingConfig())
    settings = yaml.safe_load((CONFIGS / "published.yaml").read_text())
    ours = {
        "crop",
        "bins",
        "both_strands",
        "keep_strands",
        "n_targets",
        "early_stopping",
        "loss",
        "jitter",
        "mixup",
        "precision",
        "compile",
        "seed",
    }
    assert settings["model"].keys() == asdict(CNNConfig()).keys() - ours
    assert settings["training"].keys() == asdict(TrainingConfig()).keys() - ours


@pytest.mark.parametrize(("length", "bins"), [(50, 1), (64, 2), (110, 3), (150, 4), (499, 5), (500, 5), (2000, 5)])
def test_small_genome_yaml_fits_windows_of_50_bases_and_more(length: int, bins: int) -> None:
    model, training = read("small-genome.yaml")
    assert PromoterCNN(model, length).config.bins == bins
    assert model.both_strands
    assert training.reverse_complement == 0  # a promoter turned round would leave the bins without meaning


@pytest.mark.parametrize(("length", "bins"), [(50, 6), (71, 8), (72, 9), (110, 9), (150, 9), (170, 9), (500, 9)])
def test_mpra_yaml_fits_short_sequences_and_keeps_their_strands(length: int, bins: int) -> None:
    model, training = read("mpra.yaml")
    assert PromoterCNN(model, length).config.bins == bins
    assert model.both_strands
    assert model.keep_strands
    assert training.jitter > 0
    model.require_augmentation(training.reverse_complement, training.jitter)


def test_model_flags_hold_the_settings_of_each_network_and_are_the_configuration_of_none() -> None:
    flags: Any = ModelFlags()
    assert not isinstance(flags, (CNNConfig, PretrainedConfig))
    assert resolve_model(flags) == CNNConfig()
    settings = {field.name: field.default for field in fields(flags)}
    of_external = {"name": "promoter_cnn", "factory": None}
    assert settings == asdict(PretrainedConfig()) | asdict(CNNConfig()) | of_external
    assert resolve_model(replace(flags, name="borzoi", tss_bins=8)) == PretrainedConfig("borzoi", tss_bins=8)
    assert resolve_model(replace(flags, crop=500)) == CNNConfig(crop=500)
    with pytest.raises(InputError, match=r"--model\.tss_bins 8: is a setting of enformer and borzoi"):
        replace(flags, tss_bins=8)
    with pytest.raises(InputError, match=r"--model\.channels 8,8: is a setting of promoter_cnn, not of enformer"):
        replace(flags, name="enformer", channels=(8, 8))


def test_each_model_flag_has_help_that_names_the_networks_it_is_of() -> None:
    text = ModelFlags.__doc__ or ""
    for field in fields(ModelFlags):  # type: ignore[arg-type] # a dataclass by its decorator
        assert f"    {field.name}: " in text
    assert "    crop: promoter_cnn only: number of bases" in text
    assert "    lora_rank: enformer and borzoi only: rank" in text
    assert "    n_targets: number of outputs." in text
