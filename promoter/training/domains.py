"""The domain of a setting in a search space: its values checked, drawn and listed.

`promoter.training.search_space` describes how a domain is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from promoter.errors import InputError

_MAX_NUMBER = 2**53  # beyond which not every whole number is one for optuna


def distribution(name: str, domain: Mapping[str, Any]) -> BaseDistribution:
    """Build optuna's distribution of a domain, or raise InputError if the domain is invalid."""
    if not isinstance(domain, Mapping):
        raise InputError(f"search space: {name} {domain}: must be {{choices: […]}} or {{low: …, high: …}}")
    unknown = sorted(set(domain) - {"choices", "low", "high", "log", "step"})
    if unknown:
        raise InputError(f"search space: {name}: {unknown[0]} is not one of choices, low, high, log, step")
    if "choices" in domain:
        choices = domain["choices"]
        if set(domain) != {"choices"} or not isinstance(choices, (list, tuple)) or not choices:
            raise InputError(f"search space: {name}: choices must be a list that is not empty, and stand alone")
        if any(isinstance(choice, Mapping) for choice in choices):
            raise InputError(f"search space: {name}: choices must be single values or lists")
        if any(choice != choice for choice in choices):  # noqa: PLR0124 # NaN alone differs from itself
            raise InputError(f"search space: {name}: NaN is no choice")
        return CategoricalDistribution([hashable(choice) for choice in choices])
    if not {"low", "high"} <= set(domain):
        raise InputError(f"search space: {name}: needs choices, or low and high")
    low, high, log = domain["low"], domain["high"], bool(domain.get("log", False))
    step: Any = domain.get("step")
    if not isinstance(domain.get("log", False), bool):
        raise InputError(f"search space: {name}: log {domain['log']!r} must be true or false")
    numbers = (low, high, step) if "step" in domain else (low, high)
    if any(type(value) not in {int, float} or not abs(value) < _MAX_NUMBER for value in numbers):
        raise InputError(
            f"search space: {name}: low {low!r}, high {high!r} and step {step!r} must be finite numbers "
            "(YAML wants 1.0e-4, not 1e-4)"
        )
    if "step" in domain and not step > 0:
        raise InputError(f"search space: {name}: step {step} must be above 0")
    integer = all(isinstance(value, int) for value in numbers)
    try:
        if integer:
            return IntDistribution(low, high, log=log, step=step or 1)
        return FloatDistribution(low, high, log=log, step=step)
    except ValueError as error:
        raise InputError(f"search space: {name}: {error}") from error


def suggest(trial: optuna.Trial, name: str, domain: Mapping[str, Any]) -> Any:
    """Draw a value for a trial; a list comes as text."""
    match distribution(name, domain):
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)


def all_values(domain: Mapping[str, Any]) -> list[Any]:
    """Return all values of a domain with choices, or with steps, which are 1 where it names none."""
    if "choices" in domain:
        return list(domain["choices"])
    low, high, step = domain["low"], domain["high"], domain.get("step", 1)
    return [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]


def hashable(choice: Any) -> Any:
    """Return a list as text, since optuna's choices must be single values."""
    return repr(list(choice)) if isinstance(choice, (list, tuple)) else choice


def original_value(domain: Mapping[str, Any], suggested: Any) -> Any:
    """Return the choice that `hashable` made a suggested value of; any other value as it is."""
    for choice in domain.get("choices", ()):
        if hashable(choice) == suggested:
            return list(choice) if isinstance(choice, (list, tuple)) else choice
    return suggested
