"""Limits of each number that a user can set, with the reason for the upper one.

A number past its limit would not end in a result: it fills memory, never ends, or is beyond what PyTorch, NumPy or
Ray take. The limits are generous, since they are there to catch slips: a digit too many, a power of ten, NaN.
Imports nothing heavy, so that a command line is refused at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from promoter.errors import InputError


@dataclass(frozen=True)
class Limit:
    """The range of a setting.

    Attributes:
        low: smallest value.
        high: largest value.
        reason: why a larger value is refused, as it follows `must be at most 1,000: `.
        above: whether `low` itself is refused (default false).
        below: whether `high` itself is refused (default false).
    """

    low: float
    high: float
    reason: str
    above: bool = False
    below: bool = False

    def problem(self, value: float) -> str | None:
        """Return what is wrong with a value, None if nothing is; NaN is always wrong."""
        if value != value:  # noqa: PLR0124 # NaN
            return f"must be a number from {_shown(self.low)} to {_shown(self.high)}"
        if value < self.low or (self.above and value == self.low):
            return f"must be {'above' if self.above else 'at least'} {_shown(self.low)}"
        if value > self.high or (self.below and value == self.high):
            return f"must be {'below' if self.below else 'at most'} {_shown(self.high)}: {self.reason}"
        return None


_MAX_WINDOW = 1 << 20
_WINDOW = "no network reads a longer window than 1,048,576 bases"
_SEED = Limit(0, 2**32 - 1, "NumPy takes no larger seed")
_SHARE = "it is a share"
_WAITING = Limit(0, 1_000_000, "give at most the number of epochs")
_EPOCHS = Limit(1, 1_000_000, "each is a row of history.csv, and a million end in no lifetime")
_WIDTH = Limit(1, 65_536, "the weights of two such layers would take 17 GB")
_TASKS = Limit(1, 10_000, "Ray is tested with 10,000 tasks at a time")
_TRAINING_SET = Limit(10, 1_000_000_000, "no library has more sequences")
_NETWORKS = Limit(1, 1_000, "each is a training of its own")

LIMITS: Mapping[str, Limit] = {
    # windows and genes
    "upstream": Limit(0, _MAX_WINDOW, _WINDOW),
    "downstream": Limit(0, _MAX_WINDOW, _WINDOW),
    "context": Limit(1, _MAX_WINDOW, _WINDOW),
    "window": Limit(1, _MAX_WINDOW, _WINDOW),
    "positions": Limit(-_MAX_WINDOW, _MAX_WINDOW, _WINDOW),
    "max_n": Limit(0, 1, _SHARE),
    "show": Limit(0, 1_000, "each is drawn on the page base by base"),
    "max_seqlets": Limit(1, 1_000_000, "no set of promoters has more, and time grows with the square"),
    "genes_per_chromosome": Limit(10, 100_000, "that is more than ten human genomes"),
    # what is split
    "SplitConfig.val_fraction": Limit(0, 1, _SHARE, above=True, below=True),
    "SplitConfig.test_fraction": Limit(0, 1, _SHARE, above=True, below=True),
    "SplitConfig.block_size": Limit(1, 10_000_000_000, "no chromosome is longer"),
    "SplitConfig.fold": Limit(1, _NETWORKS.high, _NETWORKS.reason),
    "SplitConfig.seed": _SEED,
    "SplitConfig.max_train": _TRAINING_SET,
    # networks
    "CNNConfig.channels": _WIDTH,
    "CNNConfig.kernel_sizes": Limit(1, 10_001, "a filter that wide learns windows by heart"),
    "CNNConfig.pool_sizes": Limit(1, 65_536, "a pool that wide leaves nothing of a window"),
    "CNNConfig.hidden": _WIDTH,
    "CNNConfig.dropout": Limit(0, 1, "nothing would be left to learn from", below=True),
    "CNNConfig.crop": Limit(1, _MAX_WINDOW, _WINDOW),
    "CNNConfig.bins": Limit(1, 65_536, "each bin has weights of its own for every filter"),
    "CNNConfig.n_targets": Limit(1, 1_000_000, "Parquet and memory hold no more columns"),
    "PretrainedConfig.tss_bins": Limit(1, 65_536, "no network has more output bins"),
    "PretrainedConfig.hidden": _WIDTH,
    "PretrainedConfig.dropout": Limit(0, 1, "nothing would be left to learn from", below=True),
    "PretrainedConfig.lora_rank": Limit(1, 4_096, "give `PretrainedConfig.adapt='full'` instead"),
    "PretrainedConfig.layer_decay": Limit(0, 1, "lower blocks learn no faster than the head", above=True),
    "ExternalConfig.n_targets": Limit(1, 1_000_000, "Parquet and memory hold no more columns"),
    "PretrainedConfig.n_targets": Limit(1, 1_000_000, "Parquet and memory hold no more columns"),
    # training
    "TrainingConfig.epochs": _EPOCHS,
    "TrainingConfig.batch_size": Limit(2, 1_000_000, "no genome has so many genes, and no GPU such a memory"),
    "TrainingConfig.learning_rate": Limit(0, 1_000_000, "training diverges long before", above=True),
    "TrainingConfig.weight_decay": Limit(0, 1_000, "all weights would be 0"),
    "TrainingConfig.lr_patience": _WAITING,
    "TrainingConfig.lr_factor": Limit(0, 1, "the rate must fall", above=True, below=True),
    "TrainingConfig.early_stopping": Limit(1, _WAITING.high, f"{_WAITING.reason}, or null to never stop early"),
    "TrainingConfig.gradient_clip": Limit(0, 1_000_000_000, "such a limit clips nothing", above=True),
    "TrainingConfig.reverse_complement": Limit(0, 1, "it is a probability"),
    "TrainingConfig.jitter": Limit(0, 65_536, "nothing of a window would be left"),
    "TrainingConfig.mixup": Limit(0, 0.5, "more than half of it would be another promoter"),
    "TrainingConfig.seed": _SEED,
    # jobs
    "epochs": _EPOCHS,
    "seed": _SEED,
    "steps": Limit(1, 10_000, "each is a pass, and a thousand leave nothing unexplained"),
    "shuffles": Limit(1, 10_000, "each is a pass, and a hundred give a good mean"),
    "learning_curve": _TRAINING_SET,
    "folds": _NETWORKS,
    "seeds": _NETWORKS,
    "trials": Limit(1, 100_000, "each is a training of its own"),
    "at_once": _TASKS,
    "workers": replace(_TASKS, low=0),  # 0: a training in this process
    "min_workers": _TASKS,
    "cpus_per_worker": Limit(0, 4_096, "no machine has more"),
    "gpus_per_worker": Limit(0, 128, "no machine has more"),
    "genes_per_task": Limit(1, 1_000_000, "the scores of a task are in memory at the same time"),
    "max_hours": Limit(0, 1_000_000, "that is a century; leave it out for no limit"),
}


def require_limits(settings: Mapping[str, Any], owner: str = "") -> None:
    """Raise InputError for the first number among settings that is past its limit.

    Args:
        settings: name -> value; each number of a list is checked. What has no limit passes.
        owner: class that the settings belong to, such as `TrainingConfig`; empty (default) for parameters.
    """
    for name, value in settings.items():
        setting = f"{owner}.{name}" if owner else name
        limit = LIMITS.get(setting)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if limit is None or number is None or isinstance(number, bool):
                continue
            if isinstance(number, (int, float)):
                problem = limit.problem(number)
            else:  # a parameter such as `window` may be a name as well
                problem = "must be a number" if owner else None
            if problem:
                given = list(value) if isinstance(value, tuple) else value
                raise InputError(problem, setting=setting, value=given)


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,g}"
