"""The search space: which settings are tried, with what values.

A space maps the name of a setting, `model.FIELD` or `training.FIELD`, to its domain:

    {choices: [32, 64, 128]}                  any of these; items may be lists, for fields that hold one
    {low: 0, high: 0.5}                       a number in between; an integer if both ends are integers
    {low: 1.0e-4, high: 1.0e-2, log: true}    a number on a logarithmic scale
    {low: 8, high: 64, step: 8}               a number in steps

The lists of the network are searched as complete lists, or block by block as `model.channels.0`,
`model.channels.1` and so on; `model.blocks` is then the number of blocks, and the settings of blocks beyond it
are not drawn. `training.reverse_complement` is drawn only for networks that can learn from it; it is 0 for those
that read both strands themselves or have several bins. `model.keep_strands` is drawn only for networks that read
both strands. Combinations that make no network, or none for the window,
are drawn again, never tried.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from promoter.errors import InputError, NoValidSettingsError
from promoter.limits import require_limits
from promoter.models.build import NetworkConfig
from promoter.models.config import CNNConfig, ExternalConfig
from promoter.storage.schema import checked
from promoter.training.batches import require_enough_genes, require_orientation
from promoter.training.config import TrainingConfig
from promoter.training.domains import all_values, distribution, hashable, original_value, suggest
from promoter.training.study import new_study

optuna.logging.set_verbosity(optuna.logging.WARNING)

Space = Mapping[str, Mapping[str, Any]]
BLOCKS = "model.blocks"
REVERSE_COMPLEMENT = "training.reverse_complement"
KEEP_STRANDS = "model.keep_strands"
DEFAULT_SPACE: dict[str, dict[str, Any]] = {
    "training.learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
    "training.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    "training.batch_size": {"choices": [32, 64, 128]},
    "training.epochs": {"choices": [15, 30, 100]},
    "training.schedule": {"choices": ["plateau", "one_cycle"]},
    "training.jitter": {"choices": [0, 5, 10, 20, 40]},
    REVERSE_COMPLEMENT: {"choices": [0.0, 0.5]},
    BLOCKS: {"choices": [2, 3]},
    "model.channels.0": {"choices": [32, 64, 128, 256]},
    "model.channels.1": {"choices": [32, 64, 128]},
    "model.channels.2": {"choices": [32, 64, 128]},
    "model.kernel_sizes.0": {"choices": [7, 11, 15, 19]},
    "model.kernel_sizes.1": {"choices": [3, 5, 9]},
    "model.kernel_sizes.2": {"choices": [3, 5]},
    "model.pool_sizes.0": {"choices": [2, 4, 8]},
    "model.pool_sizes.1": {"choices": [2, 4]},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "model.crop": {"choices": [None, 250, 500, 1000]},
    "model.bins": {"choices": [1, 5, 10]},
    "model.both_strands": {"choices": [False, True]},
    KEEP_STRANDS: {"choices": [False, True]},
}
PRETRAINED_SPACE: dict[str, dict[str, Any]] = {
    "training.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
    "training.weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
    "training.batch_size": {"choices": [16, 32, 64]},
    "model.head": {"choices": ["linear", "mlp"]},
    "model.dropout": {"low": 0.0, "high": 0.5},
}
# the settings of the network itself are those of its function
EXTERNAL_SPACE: dict[str, dict[str, Any]] = {
    **{name: domain for name, domain in DEFAULT_SPACE.items() if name.startswith("training.")},
    "training.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},  # attention wants less than the CNN
}
_PER_BLOCK = ("channels", "kernel_sizes", "pool_sizes")
_FIXED = {"name", "weights", "revision", "adapt"}  # a pretrained network is one of these for the entire search
# set by the data and by the search; the unit of the score follows from the loss
_NOT_SEARCHED = {"model.n_targets", "training.seed", "training.loss"}
_MAX_DRAWS = 1000  # invalid combinations in a row before the space counts as holding no valid one
_MAX_BLOCKS = 100  # pools of 2 alone take 2^99 bases
_MAX_POINTS = 100_000  # a larger grid could never be tried, and listing it would fill the memory


@dataclass(frozen=True)
class Settings:
    """Hold a point of the space: the values drawn, by setting, and the configs that they make."""

    drawn: dict[str, Any]
    model: NetworkConfig
    training: TrainingConfig


@dataclass(frozen=True)
class SpaceValidator:
    """Fit a configuration to the window (bases), and check it against the genes of each fold (train, val)."""

    length: int
    genes_of_fold: list[tuple[int, int]]

    def __call__(self, model: NetworkConfig, training: TrainingConfig) -> NetworkConfig:
        """Return the network for the window, or raise InputError if it or the recipe does not suit the data."""
        model = model.for_window(self.length)
        require_orientation(model, training, self.length)
        for learned_from, validated in self.genes_of_fold:
            require_enough_genes(learned_from, validated, training, workers=1)
        return model


@dataclass(frozen=True)
class SearchSpace:
    """Check a space, and draw settings from it.

    Args:
        space: domain of each setting that is searched, as the module describes; not empty.
        model: config with the network's settings that are not searched.
        training: config with the training settings that are not searched.
        fit: function that returns the network for the data's windows, and raises InputError for configs that do
            not suit the data.

    Raises:
        InputError: an unknown setting, an invalid domain, or a number of blocks for which settings are missing.
        NoValidSettingsError: no combination is valid.
    """

    space: Space
    model: NetworkConfig
    training: TrainingConfig
    fit: Callable[[NetworkConfig, TrainingConfig], NetworkConfig]

    def __post_init__(self) -> None:
        """Raise InputError if the space is invalid."""
        if not self.space:
            raise InputError("the search space is empty; give at least one setting")
        for name, domain in self.space.items():
            if not isinstance(name, str):
                raise InputError(f"search space: {name!r} is no name of a setting, such as training.learning_rate")
            _require_setting(name, self.space, self.model)
            distribution(name, domain)
            self._require_limits(name, domain)
        self._require_blocks()
        self.ask(new_study("random", "maximize", seed=0))  # raises if no combination is valid

    def _require_limits(self, name: str, domain: Mapping[str, Any]) -> None:
        """Refuse a value past the limit of its setting, which would otherwise only never be drawn."""
        group, field = name.split(".")[:2]
        owner = type(self.model if group == "model" else self.training).__name__
        for value in domain.get("choices") or [domain["low"], domain["high"]]:
            try:
                require_limits({field: value}, owner)
            except InputError as error:
                raise InputError(f"search space: {name}: {error}") from error

    def ask(self, study: optuna.Study) -> tuple[optuna.Trial, Settings]:
        """Draw the next combination that is valid.

        Raises:
            NoValidSettingsError: none of many draws was valid; the message gives the reason of the last.
        """
        reason: InputError | None = None
        for _ in range(_MAX_DRAWS):
            trial = study.ask()
            try:
                return trial, self.settings(self.draw(trial))
            except InputError as error:
                reason = error
                study.tell(trial, state=TrialState.FAIL)
        raise NoValidSettingsError(
            f"the search space holds no valid settings, {_MAX_DRAWS} draws gave none; the last: {reason}"
        )

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw a value for each setting that applies; choices that are lists are returned as lists."""
        drawn: dict[str, Any] = {}
        for name in self._order():
            if self._applies(name, drawn):
                drawn[name] = original_value(self.space[name], suggest(trial, name, self.space[name]))
        return {name: drawn[name] for name in self.space if name in drawn}

    def past_trial(
        self, drawn: Mapping[str, Any], scores: Mapping[int, float], state: TrialState = TrialState.COMPLETE
    ) -> FrozenTrial:
        """Build the trial that a study would hold if it had drawn these values.

        Args:
            drawn: value of each setting that applies.
            scores: score after an epoch, by epoch; of a complete trial the last is its result.
            state: how far the trial has come.
        """
        return optuna.create_trial(
            state=state,
            params={name: hashable(value) for name, value in drawn.items()},
            distributions={name: distribution(name, self.space[name]) for name in drawn},
            value=scores[max(scores)] if state == TrialState.COMPLETE else None,
            intermediate_values=dict(scores),
        )

    def settings(self, drawn: Mapping[str, Any]) -> Settings:
        """Build the configs from the value of each setting that applies, the network fitted to the data's windows.

        Raises:
            InputError: the values are not valid together, or do not suit the data.
        """
        groups: dict[str, dict[str, Any]] = {"model": asdict(self.model), "training": asdict(self.training)}
        per_block: dict[str, dict[int, Any]] = {}
        for name, value in drawn.items():
            group, field, *index = name.split(".")
            if index:
                per_block.setdefault(field, {})[int(index[0])] = value
            elif name != BLOCKS:
                groups[group][field] = tuple(value) if isinstance(value, list) else value
        if REVERSE_COMPLEMENT in self.space and REVERSE_COMPLEMENT not in drawn:
            groups["training"]["reverse_complement"] = 0.0
        if KEEP_STRANDS in self.space and KEEP_STRANDS not in drawn:
            groups["model"]["keep_strands"] = False
        blocks = drawn.get(BLOCKS, self.model.n_blocks)
        for field in _PER_BLOCK if self.model.n_blocks else ():
            length = blocks - (field == "pool_sizes")
            values = dict(enumerate(groups["model"][field])) | per_block.get(field, {})
            if BLOCKS in drawn or field in per_block:
                groups["model"][field] = tuple(values[i] for i in range(length))
        source = f"settings {dict(drawn)}"
        model = checked(groups["model"], type(self.model), source, "give other values")
        training = checked(groups["training"], TrainingConfig, source, "give other values")
        return Settings(dict(drawn), self.fit(model, training), training)

    def grid(self) -> list[dict[str, Any]]:
        """Return the valid combinations in the order of the space; of those that make one network, the first.

        Raises:
            InputError: a setting has a range without steps, or there are too many combinations.
        """
        names = self._order()
        for name in names:
            domain = self.space[name]
            if "choices" not in domain and "step" not in domain:
                raise InputError(f"search space: {name} has a range; a grid wants choices, or a step")
            if "step" in domain and (domain["high"] - domain["low"]) / domain["step"] >= _MAX_POINTS:
                raise InputError(f"search space: {name} has more than {_MAX_POINTS:,} values; give a larger step")
        points: dict[tuple[NetworkConfig, TrainingConfig], dict[str, Any]] = {}
        for settings in self._combinations(names, {}):
            points.setdefault((settings.model, settings.training), settings.drawn)
            if len(points) > _MAX_POINTS:
                raise InputError(
                    f"search space: the grid has more than {_MAX_POINTS:,} points; give fewer choices"
                )
        return [{name: point[name] for name in self.space if name in point} for point in points.values()]

    def _combinations(self, names: Sequence[str], chosen: dict[str, Any]) -> Iterator[Settings]:
        if not names:
            try:
                settings = self.settings(chosen)
            except InputError:
                return
            yield settings
            return
        name, rest = names[0], names[1:]
        values = all_values(self.space[name]) if self._applies(name, chosen) else []
        for point in [chosen | {name: value} for value in values] or [chosen]:
            yield from self._combinations(rest, point)

    def _order(self) -> list[str]:
        """Return the settings; the number of blocks comes first, since others depend on it.

        Those that depend on others come last.
        """
        return sorted(self.space, key=lambda name: (name != BLOCKS, name in (KEEP_STRANDS, REVERSE_COMPLEMENT)))

    def _applies(self, name: str, drawn: Mapping[str, Any]) -> bool:
        """Tell whether the network has the block that the setting belongs to, or can learn from augmentation."""
        if name == REVERSE_COMPLEMENT and isinstance(self.model, CNNConfig):
            bins = drawn.get("model.bins", self.model.bins)
            return bins == 1 and not drawn.get("model.both_strands", self.model.both_strands)
        if name == KEEP_STRANDS:
            return drawn.get("model.both_strands", getattr(self.model, "both_strands", False))
        _, field, *index = name.split(".")
        blocks = drawn.get(BLOCKS, self.model.n_blocks)
        return not index or int(index[0]) < blocks - (field == "pool_sizes")

    def _require_blocks(self) -> None:
        """Raise InputError if the network's lists are too short for the largest number of blocks."""
        if BLOCKS not in self.space:
            return
        domain = self.space[BLOCKS]
        depths = domain["choices"] if "choices" in domain else [domain["low"], domain["high"]]
        if any(type(depth) is not int or not 1 <= depth <= _MAX_BLOCKS for depth in depths):
            raise InputError(f"search space: {BLOCKS} must be whole numbers from 1 to {_MAX_BLOCKS}, not {depths}")
        depth = max(depths)
        for field in _PER_BLOCK:
            given = len(getattr(self.model, field))
            for index in range(given, depth - (field == "pool_sizes")):
                if f"model.{field}.{index}" not in self.space:
                    raise InputError(
                        f"search space: {BLOCKS} may be {depth}, but nothing says what model.{field}.{index} is; "
                        f"add it to the space, or lengthen `CNNConfig.{field}`"
                    )


def default_space(model: NetworkConfig) -> Space:
    """Return the space that is searched where none is given."""
    if isinstance(model, ExternalConfig):
        return EXTERNAL_SPACE
    return PRETRAINED_SPACE if model.pretrained else DEFAULT_SPACE


def leave_out(space: Space, given: Collection[str]) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """Take the settings that have a given value out of a space.

    A list with an entry for each block, such as `model.channels`, takes out the settings of its single blocks. Its
    length is the number of blocks, so it takes out `model.blocks` too.

    Args:
        space: domain of each setting that would be searched.
        given: names of settings with a given value, whether they are in the space or not.

    Returns:
        The space that is left, and those of `given` that took something out of it.
    """
    lists = sorted({f"model.{field}" for field in _PER_BLOCK}.intersection(given))
    giver: dict[str, str] = {}
    for name in space:
        complete_list = name.rpartition(".")[0]
        if name in given:
            giver[name] = name
        elif complete_list in lists:
            giver[name] = complete_list
        elif name == BLOCKS and lists:
            giver[name] = lists[0]
    return {name: domain for name, domain in space.items() if name not in giver}, list(
        dict.fromkeys(giver.values())
    )


def _require_setting(name: str, space: Space, model: NetworkConfig) -> None:
    """Raise InputError if a setting is unallowed, or given twice."""
    allowed = {f"model.{field.name}" for field in fields(model)} | {
        f"training.{field.name}" for field in fields(TrainingConfig)
    }
    if (pretrained := model.pretrained) is not None:
        fixed = _FIXED | ({"tss_bins"} if pretrained.adapt == "head" else set())  # embeddings are computed once
        allowed -= {f"model.{field}" for field in fixed}
        if name not in allowed:
            raise InputError(
                f"search space: {name!r} is not to be searched with `PretrainedConfig.name={pretrained.name!r}` "
                f"and `PretrainedConfig.adapt={pretrained.adapt!r}`",
                fix=f"there are {', '.join(sorted(allowed - _NOT_SEARCHED))}",
            )
    if isinstance(model, ExternalConfig) and name.startswith("model."):
        raise InputError(
            f"search space: {name!r} is not to be searched with `ExternalConfig.name='external'`, whose function "
            "is told length and n_targets only",
            fix="search settings of training, or write a function for each network and search each",
        )
    allowed -= _NOT_SEARCHED
    per_block = {f"model.{field}" for field in _PER_BLOCK}
    complete_list, _, index = name.rpartition(".")
    if complete_list in per_block and index.isascii() and index.isdigit():
        if complete_list in space:
            raise InputError(f"search space: holds both {complete_list} and {name}; give one of them")
        return
    if name == BLOCKS:
        both = sorted(per_block & set(space))
        if both:
            raise InputError(f"search space: holds both {BLOCKS} and {both[0]}; give one of them")
        return
    if name not in allowed:
        raise InputError(
            f"search space: there is no setting {name!r}; there are {BLOCKS}, {', '.join(sorted(allowed))}, and "
            "model.channels.0 and the like"
        )
