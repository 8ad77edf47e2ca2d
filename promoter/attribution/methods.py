"""The methods and their settings; imports no torch, so that a command line is refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from promoter.errors import InputError
from promoter.limits import require_limits

MethodName = Literal["gradient", "integrated_gradients", "deeplift"]
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gradient": {},
    # 20 nodes: of a CNN with ReLUs, whose gradient jumps along the path, about 1% of the difference is left over
    "integrated_gradients": {"steps": 20},
    "deeplift": {"shuffles": 20, "seed": 0},  # as many as tangermeme and bpnet-lite take
}
_MEANING = (
    "TARGET_scores: {name}'s estimate of f(sequence with base at position) - f(sequence), in target units, "
    "base-major (all A, then C, G, T), 0 at the reference base"
)


@dataclass(frozen=True)
class Method:
    """A method and its settings; make it by `Method.of`, which checks them.

    Attributes:
        name: name of the method.
        settings: its settings by name: `steps` of integrated gradients, `shuffles` and `seed` of DeepLIFT.
    """

    name: MethodName
    settings: Mapping[str, int]

    @classmethod
    def of(
        cls, name: str, *, steps: int | None = None, shuffles: int | None = None, seed: int | None = None
    ) -> Method:
        """Return a method with its settings.

        Args:
            name: gradient, integrated_gradients or deeplift.
            steps: number of points between baseline and sequence, for integrated_gradients; None means 20.
            shuffles: number of shuffled references of each sequence, for deeplift; None means 20.
            seed: random seed of the shuffles, for deeplift; None means 0.

        Raises:
            InputError: there is no such method, or a setting is out of range or is that of another method.
        """
        if name not in _DEFAULTS:
            fix = f"there are {', '.join(_DEFAULTS)}"
            raise InputError("there is no such method", setting="method", value=name, fix=fix)
        given = {"steps": steps, "shuffles": shuffles, "seed": seed}
        given = {setting: value for setting, value in given.items() if value is not None}
        for setting, value in given.items():
            if setting not in _DEFAULTS[name]:
                owner = next(method for method, settings in _DEFAULTS.items() if setting in settings)
                problem = f"is a setting of {owner}, not of {name}"
                raise InputError(
                    problem, setting=setting, value=value, fix=f"leave it out, or take `method={owner!r}`"
                )
        require_limits(given)
        chosen: MethodName = next(known for known in get_args(MethodName) if known == name)
        return cls(chosen, {**_DEFAULTS[name], **given})

    @property
    def passes(self) -> int:
        """Number of passes, forward and back, that a sequence and target take; of DeepLIFT, of pairs."""
        return self.settings.get("steps") or self.settings.get("shuffles") or 1

    @property
    def is_complete(self) -> bool:
        """Whether its attributions should add up to a difference of predictions."""
        return self.name != "gradient"

    def single_pass(self) -> Method:
        """Return the method with one pass a sequence, to measure how long that takes."""
        return Method(self.name, {name: 0 if name == "seed" else 1 for name in self.settings})

    def describe(self) -> dict[str, Any]:
        """Return the method and its settings as a manifest has them."""
        return {"method": self.name, **self.settings}

    @property
    def meaning(self) -> str:
        """What a score of this method is, for the metadata of a part file."""
        return _MEANING.format(name=self.name)
