"""The study of a search: what draws its settings, and how important each setting was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna
import pandas as pd

if TYPE_CHECKING:
    from promoter.training.search_space import SearchSpace

_MIN_TRIALS = 4  # the forest behind fANOVA needs some to fit
RANDOM_DRAWS = 10  # the first draws of a tree-structured Parzen estimator, which look at no results


def new_study(
    algorithm: str, direction: Literal["minimize", "maximize"], seed: int, *, draws: int = 0
) -> optuna.Study:
    """Create a study in memory.

    Args:
        algorithm: `random`, or `tpe` for the tree-structured Parzen estimator.
        direction: `maximize` if the largest score is the best.
        seed: random seed of the search.
        draws: number of the search's draws before; each has random numbers of its own.
    """
    random_state = int(np.random.SeedSequence([seed, draws]).generate_state(1)[0])
    if algorithm == "random":
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=random_state)
    else:
        # several trials run at a time: the liar keeps them from being alike
        sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_DRAWS, seed=random_state, constant_liar=True)
    return optuna.create_study(sampler=sampler, direction=direction)


def importance(space: SearchSpace, drawn: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> pd.DataFrame:
    """Compute each setting's share of the variance of the score, by fANOVA (Hutter et al. 2014).

    The share of a setting that only some trials have is computed on those, beside the settings that every trial
    has.

    Args:
        space: space that was searched.
        drawn: values of each trial, by setting.
        scores: score of each trial.

    Returns:
        Columns `setting`, `importance` (shares that add up to 1 within one number of trials; NaN where there
        are fewer than 4 trials or all scores are equal), `trials`; the most important first.
    """
    everywhere = [name for name in space.space if all(name in values for values in drawn)]
    shares = _shares(space, everywhere, drawn, scores)
    rows = []
    for name in space.space:
        having = [i for i, values in enumerate(drawn) if name in values]
        if name not in everywhere:
            trials = [drawn[i] for i in having], [scores[i] for i in having]
            shares[name] = _shares(space, [*everywhere, name], *trials)[name]
        rows.append((name, shares[name], len(having)))
    table = pd.DataFrame(rows, columns=pd.Index(["setting", "importance", "trials"]))
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _shares(
    space: SearchSpace, names: Sequence[str], drawn: Sequence[Mapping[str, Any]], scores: Sequence[float]
) -> dict[str, float]:
    """Return the share of each of the settings `names`, all of which every trial has."""
    if len(drawn) < _MIN_TRIALS or len(set(scores)) == 1:
        return dict.fromkeys(names, float("nan"))
    shares = dict.fromkeys(names, 0.0)
    varying = [name for name in names if len({repr(values[name]) for values in drawn}) > 1]
    if varying:
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            [space.past_trial(values, {0: score}) for values, score in zip(drawn, scores, strict=True)]
        )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares |= optuna.importance.get_param_importances(study, evaluator=evaluator, params=varying)
    return shares
