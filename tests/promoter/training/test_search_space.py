from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from promoter.errors import InputError, NoValidSettingsError
from promoter.models.build import NetworkConfig
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.training.config import TrainingConfig
from promoter.training.domains import distribution
from promoter.training.search_space import DEFAULT_SPACE, SearchSpace, SpaceValidator, leave_out
from promoter.training.study import importance, new_study

SMALL_GENOME = Path(__file__).parents[3] / "configs" / "small-genome.yaml"


def cnn(model: NetworkConfig) -> CNNConfig:
    assert isinstance(model, CNNConfig)
    return model


def fits(length: int):
    def fit(model: NetworkConfig, training: TrainingConfig) -> NetworkConfig:
        return PromoterCNN(cnn(model), length).config

    return fit


def space_of(space: dict[str, Any], length: int = 100, model: CNNConfig | None = None) -> SearchSpace:
    return SearchSpace(space, model or CNNConfig(), TrainingConfig(), fits(length))


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_the_default_space_draws_only_networks_for_the_window(algorithm: str) -> None:
    space = space_of(DEFAULT_SPACE, length=300)
    study = new_study(algorithm, "maximize", seed=1)
    crops, blocks = set(), set()
    for number in range(60):
        trial, settings = space.ask(study)
        study.tell(trial, float(number % 7))
        model = cnn(settings.model)
        PromoterCNN(model, 300)  # does not raise
        crops.add(model.crop)
        blocks.add(len(model.channels))
        depth = len(model.channels)
        assert ("model.channels.2" in settings.drawn) == (depth == 3)
        assert model.channels == tuple(settings.drawn[f"model.channels.{i}"] for i in range(depth))
        assert model.pool_sizes == tuple(settings.drawn[f"model.pool_sizes.{i}"] for i in range(depth - 1))
        assert settings.training.learning_rate == settings.drawn["training.learning_rate"]
        assert model.hidden == CNNConfig().hidden  # what the space leaves out stays
    assert crops == {None, 250}  # 500 and 1,000 mean the whole window
    assert blocks == {2, 3}


def test_the_default_space_never_turns_promoters_round_where_the_network_cannot_learn_from_it() -> None:
    space = space_of(DEFAULT_SPACE, length=500)
    validator = SpaceValidator(500, [(100, 100)])
    study = new_study("random", "maximize", seed=1)
    seen, kept = set(), set()
    for _ in range(100):
        settings = space.settings(space.draw(study.ask()))  # at the first draw, none is repeated
        model, training = cnn(settings.model), settings.training
        seen.add((model.bins > 1, model.both_strands, training.reverse_complement))
        assert ("training.reverse_complement" in settings.drawn) == (not model.both_strands and model.bins == 1)
        assert ("model.keep_strands" in settings.drawn) == model.both_strands
        kept.add((model.both_strands, model.keep_strands))
        validator(model, training)
    assert seen == {
        *((True, False, 0.0), (True, True, 0.0), (False, True, 0.0)),
        *((False, False, 0.0), (False, False, 0.5)),
    }
    assert kept == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize("length", [50, 110, 500, 2000])
def test_the_default_space_holds_the_design_of_small_genome_yaml(length: int) -> None:
    values: dict[str, dict[str, Any]] = yaml.safe_load(SMALL_GENOME.read_text())
    network: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["model"].items()}
    best = CNNConfig(**network)
    recipe = TrainingConfig(**values["training"])
    point: dict[str, Any] = {"model.blocks": 3}
    for name, domain in DEFAULT_SPACE.items():
        group, field, *index = name.split(".")
        if name not in ("model.blocks", "training.reverse_complement"):
            value = getattr(best if group == "model" else recipe, field)
            point[name] = value[int(index[0])] if index else value
            inside = distribution(name, domain)
            assert inside._contains(inside.to_internal_repr(point[name])), name  # optuna has no public way to ask
    space = SearchSpace(DEFAULT_SPACE, CNNConfig(), TrainingConfig(), SpaceValidator(length, [(100, 100)]))
    settings = space.settings(point)
    assert settings.model == best.for_window(length)
    assert settings.training == replace(recipe, early_stopping=20)  # which one_cycle does not heed


def test_settings_given_by_hand_keep_reverse_complements_apart_from_bins() -> None:
    left, _ = leave_out(DEFAULT_SPACE, ["model.bins", "model.both_strands"])
    space = space_of(left, 500, CNNConfig(bins=5))
    study = new_study("random", "maximize", seed=1)
    assert {space.ask(study)[1].training.reverse_complement for _ in range(10)} == {0}
    left, _ = leave_out(DEFAULT_SPACE, ["training.reverse_complement"])
    turned = SearchSpace(
        left, CNNConfig(), TrainingConfig(reverse_complement=0.5), SpaceValidator(500, [(100, 100)])
    )
    assert {cnn(turned.ask(study)[1].model).bins for _ in range(10)} == {1}


LISTS = {f"model.{name}.{i}" for name in ("channels", "kernel_sizes", "pool_sizes") for i in range(3)}


@pytest.mark.parametrize(
    ("given", "gone", "givers"),
    [
        ([], set(), []),
        (["model.crop", "training.batch_size"], {"model.crop", "training.batch_size"}, None),
        (["model.channels"], {"model.blocks", *(f"model.channels.{i}" for i in range(3))}, None),
        (["model.kernel_sizes"], {"model.blocks", *(f"model.kernel_sizes.{i}" for i in range(3))}, None),
        (["model.pool_sizes"], {"model.blocks", "model.pool_sizes.0", "model.pool_sizes.1"}, None),
        (["model.hidden", "training.lr_factor"], set(), []),  # are not in it
        (["model.channels", "model.kernel_sizes", "model.pool_sizes"], {"model.blocks"} | LISTS, None),
        ([name for name in DEFAULT_SPACE if name.count(".") == 1], set(DEFAULT_SPACE) - LISTS, None),
    ],
)
def test_given_settings_leave_a_space_with_those_of_their_blocks(
    given: list[str], gone: set[str], givers: list[str] | None
) -> None:
    left, found = leave_out(DEFAULT_SPACE, given)
    assert left == {name: domain for name, domain in DEFAULT_SPACE.items() if name not in gone}
    assert list(left) == [name for name in DEFAULT_SPACE if name in left]
    assert sorted(found) == sorted(given if givers is None else givers)


def test_a_given_list_leaves_a_space_of_complete_lists() -> None:
    space = {"model.channels": {"choices": [[4], [8]]}, "model.dropout": {"low": 0.0, "high": 0.5}}
    assert leave_out(space, ["model.channels"]) == ({"model.dropout": space["model.dropout"]}, ["model.channels"])


def test_what_is_left_of_a_space_keeps_the_given_values() -> None:
    model = CNNConfig(channels=(8, 4, 4), crop=64)
    left, _ = leave_out(DEFAULT_SPACE, ["model.channels", "model.crop"])
    space, study = space_of(left, 100, model), new_study("random", "maximize", 0)
    for _ in range(10):
        drawn = cnn(space.ask(study)[1].model)
        assert (drawn.channels, drawn.crop) == (model.channels, 64)
        assert len(drawn.kernel_sizes) == 3


def test_equal_seeds_draw_the_same_trials() -> None:
    space = space_of(DEFAULT_SPACE, length=2000)
    drawn = []
    for seed in (3, 3, 4):
        study = new_study("random", "maximize", seed)
        drawn.append([space.ask(study)[1].drawn for _ in range(5)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_grid_is_every_valid_combination_once() -> None:
    space = {
        "model.blocks": {"choices": [1, 2]},
        "model.kernel_sizes.0": {"choices": [3, 4, 5]},  # 4 is never valid
        "model.pool_sizes.0": {"choices": [4, 64, 128]},  # 128 is more than the window
        "training.batch_size": {"low": 16, "high": 48, "step": 16},
    }
    base = CNNConfig(channels=(4, 4), kernel_sizes=(3, 3), pool_sizes=(2,))
    found = space_of(space, 100, base).grid()
    expected = [
        {"model.blocks": 1, "model.kernel_sizes.0": k, "training.batch_size": b}
        for k, b in product((3, 5), (16, 32, 48))
    ] + [
        {"model.blocks": 2, "model.kernel_sizes.0": k, "model.pool_sizes.0": p, "training.batch_size": b}
        for k, p, b in product((3, 5), (4, 64), (16, 32, 48))
    ]
    assert found == expected


def test_a_grid_tries_settings_that_make_the_same_network_for_the_window_once() -> None:
    space = {"model.crop": {"choices": [None, 64, 200, 300]}, "model.bins": {"choices": [1, 4, 6, 7]}}
    base = CNNConfig(channels=(4, 4), kernel_sizes=(3, 3), pool_sizes=(16,))
    search = space_of(space, 100, base)
    points = [(point["model.crop"], point["model.bins"]) for point in search.grid()]
    assert points == [(None, 1), (None, 4), (None, 6), (64, 1), (64, 4)]  # 100 bases leave 6 positions, 64 leave 4
    networks = [cnn(search.settings(point).model) for point in search.grid()]
    assert [(network.crop, network.bins) for network in networks] == points


def test_lists_and_integers_of_a_search_space_keep_their_types() -> None:
    space = space_of(
        {
            "model.channels": {"choices": [[8, 16, 4], [32, 8, 8]]},
            "training.batch_size": {"low": 8, "high": 64, "log": True},
            "training.early_stopping": {"choices": [None, 3]},
        }
    )
    study = new_study("random", "maximize", 0)
    seen = [space.ask(study)[1] for _ in range(30)]
    assert {cnn(one.model).channels for one in seen} == {(8, 16, 4), (32, 8, 8)}
    assert all(isinstance(one.training.batch_size, int) and 8 <= one.training.batch_size <= 64 for one in seen)
    assert {one.training.early_stopping for one in seen} == {None, 3}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "is empty"),
        ({"model.width": {"choices": [1]}}, "no setting 'model.width'"),
        ({"training.seed": {"choices": [1]}}, "no setting 'training.seed'"),
        ({"model.dropout": [0.1, 0.2]}, r"model.dropout \[0.1, 0.2\]: must be"),
        ({"model.dropout": {"choices": []}}, "model.dropout: choices must be a list that is not empty"),
        ({"model.dropout": {"choices": [{"a": 1}]}}, "model.dropout: choices must be single values or lists"),
        ({"model.dropout": {"low": 0.1}}, "model.dropout: needs choices, or low and high"),
        ({"model.dropout": {"low": 0.1, "hgih": 0.3}}, "model.dropout: hgih is not one of"),
        ({"model.dropout": {"low": 0.5, "high": 0.1}}, "model.dropout: .*low.*high"),
        ({"training.learning_rate": {"low": "1e-4", "high": 0.1}}, "low '1e-4'.* must be finite numbers .*1.0e-4"),
        ({"training.learning_rate": {"low": 0.0, "high": 0.1, "log": True}}, "training.learning_rate: "),
        ({"model.pool_sizes.1": {"choices": [30]}}, "no valid settings.* a window of 100 bases is too short for"),
        ({"model.kernel_sizes.0": {"choices": [4]}}, r"no valid settings.*\[4\] are not odd"),
        ({"model.dropout": {"choices": ["much"]}}, "model.dropout: .*must be a number"),
        (
            {"model.channels": {"choices": [[1, 1, 1]]}, "model.channels.0": {"choices": [1]}},
            "both model.channels and model.channels.0",
        ),
        ({"model.channels": {"choices": [[1]]}, "model.blocks": {"choices": [1]}}, "both model.blocks and"),
        ({"model.dropout": {"low": float("nan"), "high": 0.5}}, "model.dropout: low nan.* must be finite numbers"),
        (
            {"model.dropout": {"low": 0.1, "high": float("inf")}},
            "model.dropout: .*high inf .* must be finite numbers",
        ),
        ({"training.jitter": {"low": 0, "high": 10**20}}, "training.jitter: .* must be finite numbers"),
        ({"training.jitter": {"low": 0, "high": 9, "step": 0}}, "training.jitter: step 0 must be above 0"),
        ({"training.jitter": {"low": 0, "high": 9, "step": None}}, "training.jitter: .*step None must be finite"),
        (
            {"training.jitter": {"low": 1, "high": 9, "log": "no"}},
            "training.jitter: log 'no' must be true or false",
        ),
        ({"training.weight_decay": {"choices": [float("nan")]}}, "training.weight_decay: NaN is no choice"),
        ({"training.batch_size": {"low": 8.0, "high": 64}}, "batch_size: .* should be a valid integer"),
        ({1: {"choices": [1]}}, "1 is no name of a setting"),
        ({"model.channels.²": {"choices": [1]}}, "no setting 'model.channels.²'"),
        ({"model.blocks": {"low": 1, "high": 10**8}}, "model.blocks must be whole numbers from 1 to 100"),
        ({"model.blocks": {"low": 0, "high": 2}}, "model.blocks must be whole numbers from 1 to 100"),
        ({"model.blocks": {"choices": ["many"]}}, "model.blocks must be whole numbers from 1 to 100"),
        ({"model.blocks": {"choices": [3, 4]}}, "may be 4, but nothing says what model.channels.3 is"),
    ],
)
def test_an_invalid_search_space_is_refused_by_name(space: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        space_of(space)


def test_a_search_space_with_a_range_makes_no_grid() -> None:
    with pytest.raises(InputError, match=r"model\.dropout has a range; a grid wants choices"):
        space_of({"model.dropout": {"low": 0.0, "high": 0.5}}).grid()
    with pytest.raises(InputError, match=r"training\.batch_size has more than 100,000 values"):
        space_of({"training.batch_size": {"low": 8, "high": 10**6, "step": 1}}).grid()


def test_a_space_without_a_valid_combination_raises_no_valid_settings_error() -> None:
    with pytest.raises(NoValidSettingsError):
        space_of({"model.pool_sizes.0": {"choices": [1000]}})


def test_importance_points_at_the_setting_that_decides() -> None:
    space = space_of(
        {
            "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "model.dropout": {"low": 0.0, "high": 0.5},
            "model.blocks": {"choices": [2, 3]},
            "model.channels.2": {"choices": [8, 64]},
        }
    )
    study = new_study("random", "maximize", 0)
    drawn = [space.ask(study)[1].drawn for _ in range(60)]
    scores = [float(-np.log(one["training.learning_rate"]) + 0.01 * one["model.dropout"]) for one in drawn]
    table = importance(space, drawn, scores).set_index("setting")
    assert table.index[0] == "training.learning_rate"
    assert table["importance"].iloc[0] > 0.9
    deep = sum(one["model.blocks"] == 3 for one in drawn)
    trials = table["trials"]
    assert trials["model.channels.2"] == deep < trials["model.blocks"] == 60


def test_importance_of_too_few_or_equal_trials_is_not_a_number() -> None:
    space = space_of({"model.dropout": {"low": 0.0, "high": 0.5}})
    few = importance(space, [{"model.dropout": 0.1}] * 3, [1.0, 2.0, 3.0])
    equal = importance(space, [{"model.dropout": d / 10} for d in range(5)], [1.0] * 5)
    assert few["importance"].isna().all()
    assert equal["importance"].isna().all()


@pytest.mark.parametrize(
    ("name", "domain", "message"),
    [
        ("training.learning_rate", {"choices": [3e-3, 1e30]}, r"learning_rate=1e\+30`: must be at most 1,000,000"),
        ("training.epochs", {"low": 0, "high": 3}, r"epochs=0`: must be at least 1"),
        ("model.channels.0", {"choices": [4, 2_000_000_000]}, r"channels=2000000000`: must be at most 65,536"),
        (
            "model.channels",
            {"choices": [[4, 4, 4], [4, 4, 70_000]]},
            r"channels=.*70000\]`: must be at most 65,536",
        ),
        ("model.dropout", {"low": 0.0, "high": 1.0}, r"dropout=1\.0`: must be below 1"),
    ],
)
def test_a_value_past_the_limit_of_its_setting_is_refused_and_not_left_out(
    name: str, domain: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=rf"^search space: {name}: `\w+\.{message}"):
        space_of({name: domain})
