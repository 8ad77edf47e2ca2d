"""Which trials ASHA compares, and when."""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from jobs.tuning.asha import ScheduleAwareASHA
from promoter.models.cnn import CNNConfig
from promoter.training.config import TrainingConfig
from promoter.training.search_space import SearchSpace

EPOCHS = 27
SPACE = {
    "training.schedule": {"choices": ["plateau", "one_cycle"]},
    "training.epochs": {"choices": [9, EPOCHS]},
}


@pytest.fixture
def asha() -> ScheduleAwareASHA:
    space = SearchSpace(SPACE, CNNConfig(), TrainingConfig(), lambda model, _: model)
    scheduler = ScheduleAwareASHA(space, EPOCHS)
    scheduler.set_search_properties("score", "max")
    return scheduler


def epochs_trained(asha: ScheduleAwareASHA, schedule: str, score: float, epochs: int = EPOCHS) -> int:
    """Run a trial whose score is always the same, and return the epochs after which it ended."""
    trial: Any = Trial("none", config={"training.schedule": schedule, "training.epochs": epochs}, stub=True)
    asha.on_trial_add(None, trial)
    for epoch in range(1, epochs + 1):
        result = {"epoch": epoch, "score": score}
        if asha.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            return epoch
    asha.on_trial_complete(None, trial, {"epoch": epochs, "score": score})
    return epochs


def test_plateau_trials_are_compared_at_a_ninth_and_a_third(asha: ScheduleAwareASHA) -> None:
    scores = [0.5, 0.6, 0.7]
    assert [epochs_trained(asha, "plateau", score) for score in scores] == [EPOCHS] * 3
    assert epochs_trained(asha, "plateau", 0.1) == EPOCHS // 9


def test_one_cycle_trials_are_not_stopped_by_plateau_trials_that_do_better(asha: ScheduleAwareASHA) -> None:
    for score in (0.5, 0.6, 0.7):
        epochs_trained(asha, "plateau", score)
    assert epochs_trained(asha, "one_cycle", 0.1) == EPOCHS


def test_one_cycle_trials_are_compared_once_their_rate_has_fallen(asha: ScheduleAwareASHA) -> None:
    for score in (0.5, 0.6, 0.7):
        assert epochs_trained(asha, "one_cycle", score) == EPOCHS
    assert epochs_trained(asha, "one_cycle", 0.1) == EPOCHS * 2 // 3
    assert epochs_trained(asha, "one_cycle", 0.1, epochs=9) == 9  # another cycle, and the first of its length


def test_one_epoch_leaves_nothing_to_stop() -> None:
    space = SearchSpace(SPACE, CNNConfig(), TrainingConfig(), lambda model, _: model)
    scheduler = ScheduleAwareASHA(space, 1)
    scheduler.set_search_properties("score", "max")
    for score in (0.5, 0.6, 0.7, 0.1):
        assert epochs_trained(scheduler, "plateau", score, epochs=1) == 1
