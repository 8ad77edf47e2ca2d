"""What a search draws next follows from its trials, however they came to be known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import ray.tune
from optuna.trial import TrialState
from ray.tune.experiment import Trial

from jobs.tuning.sampler import KnownTrials, Sampler, TrialSource
from jobs.tuning.search import FailurePolicy
from jobs.tuning.trials import CrossValidationTrial
from promoter.errors import InputError
from promoter.models.build import NetworkConfig
from promoter.models.cnn import CNNConfig
from promoter.training.config import TrainingConfig
from promoter.training.search_space import SearchSpace
from promoter.training.study import new_study

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "training.batch_size": {"low": 8, "high": 64, "log": True},
    "training.jitter": {"low": 0, "high": 20, "step": 5},
    "training.early_stopping": {"choices": [None, 3]},
    "training.lr_factor": {"low": 0.1, "high": 0.5, "step": 0.1},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "model.blocks": {"choices": [1, 2]},
    "model.channels.0": {"choices": [4, 8, 16]},
    "model.channels.1": {"choices": [4, 8]},
}
LISTS = {"model.channels": {"choices": [[8, 16], [32, 8], [4, 4]]}, "model.dropout": {"low": 0.0, "high": 0.5}}


def refuse_large(model: NetworkConfig, training: TrainingConfig) -> NetworkConfig:
    """Make some draws invalid, so that they are drawn again."""
    if training.batch_size > 48:
        raise InputError("too large")
    return model


def space_of(space: dict[str, Any]) -> SearchSpace:
    base = CNNConfig(channels=(4, 4), kernel_sizes=(3, 3), pool_sizes=(2,))
    return SearchSpace(space, base, TrainingConfig(batch_size=32), refuse_large)


def sampler_of(space: SearchSpace, trials: list[Trial], algorithm: str = "tpe", **options: Any) -> Sampler:
    known = KnownTrials()
    known.on_step_begin(0, trials)
    return Sampler(
        space, algorithm, **{"points": None, "larger_is_better": True, "seed": 3} | options, known=known
    )


def trial_of(number: int, drawn: dict[str, Any], result: dict[str, Any] | None, status: str) -> Trial:
    """Return a trial as Ray Tune restores it, after its settings have been JSON."""
    trial = Trial("none", stub=True, config=json.loads(json.dumps(drawn)), experiment_tag=f"{number}_x")
    if result is not None:
        trial.update_last_result(result)
    trial.set_status(status)
    return trial


@pytest.mark.parametrize("larger_is_better", [True, False])
@pytest.mark.parametrize("complete_until", [4, 30])  # few complete trials: optuna ranks the stopped ones
@pytest.mark.parametrize("domains", [SPACE, LISTS])
def test_a_draw_is_that_of_a_study_that_lived_through_the_trials(
    domains: dict[str, Any], complete_until: int, larger_is_better: bool
) -> None:
    space, rng = space_of(domains), np.random.default_rng(1)
    direction = "maximize" if larger_is_better else "minimize"
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
    trials = []
    for number in range(1, 31):
        lived, settings = space.ask(study)
        result: dict[str, Any] | None = {"score": rng.random(), "epoch": int(rng.integers(1, 9)), "complete": True}
        status = Trial.TERMINATED
        match number % 6:
            case 0:  # failed, and said why
                result |= {"score": float("nan")}
                study.tell(lived, state=TrialState.FAIL)
            case 3 if number < 15:  # lost its process for good
                status = Trial.ERROR
                study.tell(lived, state=TrialState.FAIL)
            case 3:  # running, some before their first epoch
                status, result = Trial.RUNNING, result if number < 25 else None
            case 1 | 2 | 4 | 5:
                lived.report(result["score"], result["epoch"])
                result["complete"] = number % 6 > 3 and number <= complete_until  # else stopped early
                if result["complete"]:
                    study.tell(lived, result["score"])
                else:
                    study.tell(lived, state=TrialState.PRUNED)
        trials.append(trial_of(number, settings.drawn, result, status))
    study.sampler = new_study("tpe", direction, seed=3, draws=30).sampler
    drawn = sampler_of(space, trials[::-1], larger_is_better=larger_is_better).suggest("x")
    assert drawn == space.ask(study)[1].drawn


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_draws_do_not_depend_on_the_draws_that_one_process_has_made(algorithm: str) -> None:
    space = space_of(SPACE)
    trials: list[Trial] = []
    sampler, drawn = sampler_of(space, trials, algorithm), []
    for number in range(1, 15):
        drawn.append(sampler.suggest("x"))
        assert sampler_of(space, trials, algorithm).suggest("x") == drawn[-1]
        result = {"score": float(number % 5), "epoch": 3, "complete": True}
        trials.append(trial_of(number, drawn[-1], result, Trial.TERMINATED))
    assert len({one["training.learning_rate"] for one in drawn}) == len(drawn)
    other = sampler_of(space, [], algorithm, seed=4).suggest("x")
    assert other != drawn[0]


def test_the_next_point_of_a_grid_is_that_after_the_trials() -> None:
    space = space_of(
        {"model.channels": {"choices": [[8, 16], [32, 8]]}, "training.batch_size": {"choices": [8, 9]}}
    )
    points, trials = space.grid(), []
    sampler = sampler_of(space, trials, points=points)
    for number, point in enumerate(points, start=1):
        assert sampler.suggest("x") == point
        trials.append(trial_of(number, point, None, Trial.RUNNING))


def source_of(
    trials: list[Trial],
    folder: Path,
    max_concurrent_trials: int | None = None,
    *,
    capacity: int | None = 4,
    algorithm: str = "tpe",
    count: int = 4,
) -> TrialSource:
    source = TrialSource(sampler_of(space_of(SPACE), trials, algorithm), max_concurrent_trials, capacity)
    source.add_configurations(
        ray.tune.Experiment("search", CrossValidationTrial, num_samples=count, storage_path=str(folder))
    )
    return source


def draw_all(source: TrialSource, trials: list[Trial]) -> list[str]:
    """Add trials to the list, as Ray Tune does, until the source gives none; return the numbers of all."""
    while (trial := source.next_trial()) is not None:
        trials.append(trial)
    return [trial.experiment_tag.split("_")[0] for trial in trials]


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
@pytest.mark.parametrize("counter", [0, 2, 9])
def test_trials_are_numbered_and_counted_by_those_that_there_are(kept: int, counter: int, tmp_path: Path) -> None:
    trials: list[Trial] = []
    draw_all(source_of(trials, tmp_path), trials)
    restored = trials[:kept]
    source = source_of(restored, tmp_path)
    source.set_state({**source.get_state(), "counter": counter})
    assert source.is_finished() == (kept == 4)
    assert draw_all(source, restored) == ["1", "2", "3", "4"]
    assert source.is_finished()
    assert [trial.config for trial in restored] == [trial.config for trial in trials]


def test_as_many_trials_are_unfinished_as_may_be(tmp_path: Path) -> None:
    trials: list[Trial] = []
    source = source_of(trials, tmp_path, max_concurrent_trials=2)
    assert draw_all(source, trials) == ["1", "2"]
    assert not source.is_finished()
    for ended, numbers in ((0, ["1", "2", "3"]), (2, ["1", "2", "3", "4"])):
        trials[ended].update_last_result({"score": 0.5, "epoch": 1, "complete": True})
        trials[ended].set_status(Trial.TERMINATED)
        assert draw_all(source, trials) == numbers
    assert source.is_finished()
    one = source_of(trials[1:2], tmp_path, max_concurrent_trials=1)
    assert one.next_trial() is None  # the one of an interrupted run counts


@pytest.mark.parametrize(
    ("capacity", "algorithm", "running", "waiting"),
    [
        (1, "tpe", 0, 1),  # a machine that does not grow: beside what runs, one waits
        (1, "tpe", 2, 1),
        (8, "tpe", 0, 8),  # its autoscaler is asked for all nodes that it may start
        (8, "tpe", 3, 5),
        (8, "tpe", 8, 1),
        (None, "tpe", 0, 10),  # drawn at random in any case
        (None, "tpe", 4, 6),
        (None, "tpe", 10, 1),
        (None, "random", 10, 20),
    ],
)
def test_trials_wait_for_nodes_that_may_come_and_others_are_drawn_from_results(
    tmp_path: Path, capacity: int | None, algorithm: str, running: int, waiting: int
) -> None:
    drawn = sampler_of(space_of(SPACE), []).suggest("x")
    trials = [trial_of(number, drawn, None, Trial.RUNNING) for number in range(1, running + 1)]
    source = source_of(trials, tmp_path, capacity=capacity, algorithm=algorithm, count=30)
    assert len(draw_all(source, trials)) == running + waiting


def test_trials_that_could_not_be_restored_are_not_begun_anew_without_a_word(tmp_path: Path) -> None:
    source = source_of([], tmp_path)
    with pytest.raises(RuntimeError, match="could not restore the trials of the interrupted search; "):
        source.add_configurations([])


def test_a_trial_that_a_full_disk_ends_ends_the_search(tmp_path: Path) -> None:
    def end(text: str) -> None:
        (tmp_path / "error.txt").write_text(text)
        trial: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"))
        FailurePolicy().on_trial_error(1, [trial], trial)

    end("Traceback\nRuntimeError: its worker was lost")
    with pytest.raises(OSError, match="No space left on device"):
        end("Traceback\nOSError: [Errno 28] Error writing bytes to file: No space left on device")
