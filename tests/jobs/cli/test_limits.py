"""Every number that a flag takes has limits; past them a job is refused, by the flag, the value and the limit."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import fields
from typing import Any, get_args

import pytest

from jobs.__main__ import job_summaries
from jobs.cli.console import with_flags
from jobs.cli.run import _make_parser, _type_of, run
from promoter.dataset.prepare import centred_window, require_window
from promoter.errors import InputError
from promoter.limits import LIMITS, Limit
from promoter.models.config import CNNConfig, ExternalConfig, PretrainedConfig
from promoter.splits.config import SplitConfig
from promoter.training.batches import require_orientation
from promoter.training.config import TrainingConfig

CONFIGS = {
    "split": (SplitConfig,),
    "model": (CNNConfig, PretrainedConfig, ExternalConfig),
    "training": (TrainingConfig,),
}
REQUIRED = {
    "prepare": "--genome g --genes b --expression e --out o",
    "variants": "--variants v --model m --data d --out o",
    "train": "--data d --out o",
    "tune": "--data d --out o",
    "ism": "--model m --data d --out o",
    "attribute": "--model m --data d --out o --method gradient",
    "predict": "--model m --data d --out o.parquet",
    "motifs": "--scores s --out o",
    "report": "--model m --out o.html",
    "export": "--scores s --out o",
    "demo": "",
}


def is_number(hint: Any) -> bool:
    return hint in (int, float) or any(is_number(kind) for kind in get_args(hint))


def holds_list(hint: Any) -> bool:
    return "list" in str(hint) or "tuple" in str(hint)


def numeric_flags() -> list[tuple[str, str, Any]]:
    """Return (job, flag, type) of every flag of every job that takes a number or a list of numbers."""
    flags = []
    for name in job_summaries():
        parser = _make_parser(getattr(importlib.import_module(f"jobs.{name}"), name), name)
        flags += [(name, one.dest, hint) for one in parser._actions if is_number(hint := _type_of(one))]
    return flags


def settings_of(flag: str) -> list[str]:
    """Return the names by which LIMITS knows a flag: those of all networks that have the setting."""
    group, _, name = flag.rpartition(".")
    owners = [owner for owner in CONFIGS.get(group, ()) if name in {field.name for field in fields(owner)}]
    return [f"{owner.__name__}.{name}" for owner in owners] or [flag]


FLAGS = numeric_flags()
# of a flag that several jobs have, each is tried once: the same function checks all of them
ONCE = [*{flag: (job, flag, hint) for job, flag, hint in reversed(FLAGS)}.values()]


def test_every_numeric_flag_has_limits_and_every_limit_a_flag() -> None:
    named = {setting for _, flag, _ in FLAGS for setting in settings_of(flag)}
    assert len(FLAGS) > 60
    assert named == set(LIMITS)


def test_every_job_with_numbers_is_tried() -> None:
    assert {job for job, _, _ in FLAGS} <= set(REQUIRED)


def refusal(job: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        run(getattr(importlib.import_module(f"jobs.{job}"), job), [*REQUIRED[job].split(), *words])
    message = capsys.readouterr().err
    assert ended.value.code == 2, message
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(("job", "flag", "hint"), ONCE, ids=[f"{job}-{flag}" for job, flag, _ in ONCE])
def test_numbers_out_of_range_are_refused(
    job: str, flag: str, hint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = settings_of(flag)[0]
    limit = LIMITS[setting]
    network = ["--model.name", "enformer"] if setting.startswith("Pretrained") else []
    wrong = [limit.low - 1, limit.high + 1, 10**30, -(10**30)]
    for number in wrong:
        value = f"{number:d}" if isinstance(number, int) else f"{number:g}"
        message = refusal(
            job, [*network, f"--{flag}={f'[{value},{value}]' if holds_list(hint) else value}"], capsys
        )
        _, shown, given, rest = message.split(" ", 3)
        assert (shown, float(re.split("[:,]", given)[0])) == (f"--{flag}", float(value))
        too_large = number > limit.low
        assert f" {limit.high if too_large else limit.low:,}" in rest
        assert not too_large or with_flags(limit.reason) in rest
    for value in ("nan", ".nan", "inf", "-.inf"):
        message = refusal(job, [*network, f"--{flag}={f'[{value}]' if holds_list(hint) else value}"], capsys)
        assert message.startswith(f"error: --{flag} "), message


def test_defaults_lie_within_their_limits() -> None:
    for job in job_summaries():
        for name, parameter in inspect.signature(
            getattr(importlib.import_module(f"jobs.{job}"), job)
        ).parameters.items():
            if name in LIMITS and isinstance(parameter.default, (int, float)):
                assert LIMITS[name].problem(parameter.default) is None, (job, name)


@pytest.mark.parametrize(
    ("limit", "value", "problem"),
    [
        (Limit(0, 1, "why"), 0, None),
        (Limit(0, 1, "why"), 1, None),
        (Limit(0, 1, "why", above=True), 0, "must be above 0"),
        (Limit(0, 1, "why", below=True), 1, "must be below 1: why"),
        (Limit(1, 5000, "why"), 5001, "must be at most 5,000: why"),
        (Limit(1, 5000, "why"), float("nan"), "must be a number from 1 to 5,000"),
        (Limit(1, 5000, "why"), float("-inf"), "must be at least 1"),
    ],
)
def test_a_limit_says_which_end_was_passed(limit: Limit, value: float, problem: str | None) -> None:
    assert limit.problem(value) == problem


@pytest.mark.parametrize("window", ["9" * 5000, "1" + "0" * 29, "1048578", "3", "0", "00", "-2", "1e3", "²"])
def test_windows_that_no_network_reads_are_refused(window: str) -> None:
    with pytest.raises(InputError, match="`window="):
        centred_window(window, None, {})
    assert centred_window("1048576", None, {}) == (1 << 19, 1 << 19)


def test_python_code_gets_the_same_limits() -> None:
    with pytest.raises(InputError, match=r"`upstream=10{15}`: must be at most 1,048,576"):
        require_window(10**15, 0)
    with pytest.raises(InputError, match=r"`TrainingConfig.epochs=0`: must be at least 1"):
        TrainingConfig(epochs=0)


def test_a_shift_that_leaves_nothing_of_the_window_is_refused() -> None:
    require_orientation(CNNConfig(), TrainingConfig(jitter=99), 100)
    with pytest.raises(InputError, match=r"TrainingConfig.jitter=100`: leaves nothing of a window of 100 bases"):
        require_orientation(CNNConfig(), TrainingConfig(jitter=100), 100)
