"""Choose the target whose scores are read."""

from __future__ import annotations

from collections.abc import Sequence

from promoter.errors import InputError


def choose_target(targets: Sequence[str], target: str | None) -> str:
    """Return the one target to read scores of.

    Args:
        targets: names of the targets that the scores have.
        target: name of the wanted target; None means the only one that there is.

    Raises:
        InputError: the scores lack the target, or have several and none was named.
    """
    if target is None and len(targets) == 1:
        return targets[0]
    if target is None or target not in targets:
        problem = "is missing" if target is None else "is not in the scores"
        fix = f"there are {', '.join(targets)}"
        raise InputError(problem, setting="target", value=... if target is None else target, fix=fix)
    return target
