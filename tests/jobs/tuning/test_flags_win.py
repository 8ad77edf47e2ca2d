"""Settings given by hand leave the space of a search, whether they are the default or not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.commands import outcome

from jobs.tune import tune
from promoter.errors import InputError
from promoter.models.config import CNNConfig
from promoter.training.search_space import DEFAULT_SPACE

pytestmark = pytest.mark.ray
QUICK = [
    "--workers",
    "0",
    "--folds",
    "1",
    "--split.test",
    "chr4",
    "--trials",
    "2",
    "--algorithm",
    "random",
    "--training.epochs",
    "1",
]
TOO_MANY = ["--cpus_per_worker", "999"]  # refused after the space is made, and before anything is trained
DEPTH = [f"model.channels.{block}" for block in range(3)] + ["model.blocks"]


def searched_settings(out: Path) -> list[str]:
    """Return the settings that the table of trials has, which are those that were drawn."""
    names = map(str, pd.read_csv(out / "trials.csv"))
    return [name for name in names if name.startswith(("model.", "training."))]


def test_flags_leave_the_default_space_though_they_give_default_values(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    by_hand = [
        "--model.crop",
        "60",
        "--training.batch_size=64",
        "--model.channels",
        "4,4,4",
        "--model.dropout",
        "0.1",
    ]
    words = ["--data", data, "--out", out, *QUICK, *by_hand]
    code, printed, error = outcome(capsys, tune, *words)
    assert code == 0, error
    expected = (
        "note: --training.batch_size 64, --training.epochs 1, --model.channels 4,4,4, --model.dropout 0.1, "
        "--model.crop 60: given by hand, so left out of the search space"
    )
    assert expected in printed.splitlines()
    gone = {"model.crop", "training.batch_size", "training.epochs", "model.dropout", *DEPTH}
    never = {"training.reverse_complement"}  # drawn where the network can learn from it
    assert set(searched_settings(out)) | never == set(DEFAULT_SPACE) - gone
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["space"] == {name: domain for name, domain in DEFAULT_SPACE.items() if name not in gone}
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert (best["model"]["crop"], best["model"]["channels"], best["model"]["dropout"]) == (60, [4, 4, 4], 0.1)
    assert best["training"]["batch_size"] == 64

    code, printed, _ = outcome(capsys, tune, *words)
    assert (code, "finished already" in printed) == (0, True)
    code, _, error = outcome(capsys, tune, *words[:-2])  # dropout is searched again
    assert code == 2
    assert "different: space.model.dropout, model.dropout 0.1, not 0.3" in error
    # what was written takes itself: all its settings are there beside the space, which stays as it is
    code, printed, error = outcome(capsys, tune, "--config", out / "config.yaml")
    assert (code, "finished already" in printed, "given by hand" in printed) == (0, True, False), error


def test_a_grid_of_the_default_space_without_its_ranges(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--training.learning_rate", "3e-3", "--training.weight_decay", "1e-4", "--model.dropout", "0.3"]
    given += ["--training.jitter", "0", "--training.batch_size", "64", "--model.crop", "null"]
    network = ["--model", '{"channels": [4, 4, 4], "kernel_sizes": [3, 3, 3]}']  # a group in one flag
    words = ["--data", data, "--out", tmp_path, *QUICK[:-4], "--training.epochs", "1", "--algorithm", "grid"]
    code, printed, error = outcome(capsys, tune, *words, *given, *network, *TOO_MANY)
    assert (code, "this machine has" in error) == (2, True), error  # and not that a setting has a range
    assert "--model.crop null: given by hand, so left out of the search space" in printed


def test_a_flag_leaves_a_space_by_hand_and_a_config_file_does_not(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(
        "model: {channels: [4], kernel_sizes: [5], pool_sizes: [], crop: 60}\ntraining: {batch_size: 32}"
    )
    space = tmp_path / "space.yaml"
    space.write_text("model.crop: {choices: [70, 80]}\ntraining.batch_size: {choices: [16]}\n"
                     "training.epochs: {choices: [3]}")  # fmt: skip
    words = ["--data", data, "--out", tmp_path / "out", "--config", base, "--space", space, *QUICK]
    code, printed, error = outcome(capsys, tune, *words, "--training.batch_size", "64")
    assert code == 0, error
    assert "note: --training.batch_size 64, --training.epochs 1: given by hand, so left out" in printed
    table = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert searched_settings(tmp_path / "out") == ["model.crop"]
    assert set(table["model.crop"]) <= {70, 80}
    assert set(table["epochs"]) == {1}


def test_settings_of_a_config_file_leave_the_default_space(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("model: {channels: [4, 4], kernel_sizes: [5, 3], pool_sizes: [4]}")
    words = ["--data", data, "--out", tmp_path / "out", "--config", base, *QUICK]
    code, printed, error = outcome(capsys, tune, *words, *TOO_MANY)
    assert (code, "this machine has" in error) == (2, True), error
    given = "--training.epochs 1, --model.channels 4,4, --model.kernel_sizes 5,3, --model.pool_sizes 4"
    assert f"note: {given}: given by hand" in printed


def test_settings_from_python_that_are_not_the_defaults_leave_the_default_space(
    ray_cluster: object, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = CNNConfig(channels=(4,), kernel_sizes=(5,), pool_sizes=(), crop=60)
    with (
        pytest.raises(InputError, match="this machine has"),
        pytest.warns(UserWarning, match=r"`CNNConfig\.crop=60`: given by hand") as notes,
    ):
        tune(str(data), str(tmp_path), trials=1, folds=1, model=model, algorithm="random", cpus_per_worker=999)
    assert not [note for note in notes if "batch_size" in str(note.message)]


def test_a_search_of_nothing_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_genome = Path(__file__).parents[3] / "configs" / "small-genome.yaml"
    words = ["--data", data, "--out", tmp_path / "out", "--config", small_genome]
    code, _, error = outcome(capsys, tune, *words)
    assert code == 2
    assert "given by hand, which leaves nothing of the default search space; leave one out, or search" in error
    assert error.count("\n") == 1
    space = "{training.epochs: {choices: [3, 5]}}"
    code, _, error = outcome(capsys, tune, *words, "--space", space, "--training.epochs", "4")
    assert code == 2
    assert "error: --training.epochs 4: given by hand, which leaves nothing of the search space" in error
    assert not list((tmp_path / "out").glob("*"))
