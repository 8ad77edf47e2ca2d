"""Mean and standard deviation over the members of an ensemble, without the values of all in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def mean_and_sd(members: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean and the standard deviation over arrays of one shape, by Welford's method.

    Four arrays are in memory, whatever the number of members. In float32 both differ from the exact values by some
    1e-7 of the largest value of a member.

    Args:
        members: arrays of floating-point numbers, one a member, which are taken one at a time and overwritten.

    Returns:
        The mean, and the standard deviation with one degree of freedom less than members, None for one member.
        Both are of the members' type and the same to the bit for the same members in the same order.
    """
    mean: np.ndarray | None = None
    squares: np.ndarray | None = None
    count = 0
    for count, values in enumerate(members, start=1):
        if mean is None:
            mean = values
            continue
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite shows in the mean
            difference = np.subtract(values, mean, out=values)
            mean += difference / count
            square = np.square(difference, out=difference)
            square *= (count - 1) / count
            squares = square if squares is None else np.add(squares, square, out=squares)
        del values, difference, square  # before the next one is made
    if mean is None:
        raise ValueError("an ensemble without members")
    if squares is None:
        return mean, None
    squares /= count - 1
    return mean, np.sqrt(squares, out=squares)
