"""The configurations that ship with the project are what they say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.training import TrainingConfig

CONFIGS = Path(__file__).parents[1] / "configs"


def read(name: str) -> tuple[CNNConfig, TrainingConfig]:
    settings: dict[str, dict[str, Any]] = yaml.safe_load((CONFIGS / name).read_text())
    assert settings.keys() == {"model", "training"}
    model: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings["model"].items()
    }
    return CNNConfig(**model), TrainingConfig(**settings["training"])


def test_published_is_the_default_and_names_every_number_of_the_design() -> None:
    assert read("published.yaml") == (CNNConfig(), TrainingConfig())
    settings = yaml.safe_load((CONFIGS / "published.yaml").read_text())
    ours = {
        "crop",
        "bins",
        "both_strands",
        "n_targets",
        "early_stopping",
        "jitter",
        "precision",
        "compile",
        "seed",
    }
    assert settings["model"].keys() == asdict(CNNConfig()).keys() - ours
    assert settings["training"].keys() == asdict(TrainingConfig()).keys() - ours


@pytest.mark.parametrize("length", [500, 1000, 2000])
def test_small_genome_fits_windows_of_500_bases_and_more(length: int) -> None:
    model, training = read("small-genome.yaml")
    PromoterCNN(model, length)
    assert model.both_strands
    assert training.reverse_complement == 0  # a promoter turned round would leave the bins without meaning
