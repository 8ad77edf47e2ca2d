from __future__ import annotations

import numpy as np
import pytest

from promoter.ism.ensemble import mean_and_sd


@pytest.mark.parametrize("members", [2, 3, 5, 12])
@pytest.mark.parametrize("offset", [0.0, 100.0])  # members that nearly agree on a large value
def test_mean_and_spread_are_those_of_all_members_in_float64(members: int, offset: float) -> None:
    rng = np.random.default_rng(members)
    values = (offset + rng.normal(size=(members, 4, 3, 50)) * rng.exponential(size=(4, 3, 50))).astype(np.float32)
    exact = values.astype(np.float64)
    mean, sd = mean_and_sd(iter(values.copy()))
    assert sd is not None
    assert mean.dtype == sd.dtype == np.float32
    tolerance = 5e-7 * np.abs(exact).max()
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=0, atol=tolerance)
    np.testing.assert_allclose(sd, exact.std(axis=0, ddof=1), rtol=0, atol=tolerance)
    again = mean_and_sd(iter(values.copy()))
    assert again[0].tobytes() == mean.tobytes()


def test_one_member_is_its_own_mean_without_a_spread() -> None:
    values = np.arange(6, dtype=np.float32)
    mean, sd = mean_and_sd([values])
    assert mean is values
    assert sd is None


def test_what_is_not_finite_in_any_member_shows_in_the_mean() -> None:
    for bad in (np.inf, -np.inf, np.nan):
        members = np.ones((3, 2), np.float32)
        members[1, 0] = bad
        mean, _ = mean_and_sd(members)
        assert np.isfinite(mean).tolist() == [False, True]
