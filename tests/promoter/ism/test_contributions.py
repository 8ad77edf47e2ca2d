from __future__ import annotations

import numpy as np
import pytest

from promoter.ism import actual_contributions, hypothetical_contributions

TOKENS = np.array([[0, 3, 4, 1, 2], [4, 4, 2, 0, 3]], np.uint8)
SCORES = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)


def test_contributions_of_a_worked_example_are_as_computed_by_hand() -> None:
    scores = np.array([[[[0, 1], [4, 3], [-8, -3], [8, 3]]]], np.float32)  # A, then N
    assert hypothetical_contributions(scores)[0, 0].T.tolist() == [[-1, 3, -9, 7], [0, 2, -4, 2]]
    actual = actual_contributions(scores, np.array([[0, 4]], np.uint8))
    assert actual[0, 0].T.tolist() == [[-1, 0, 0, 0], [0, 0, 0, 0]]


def test_contributions_follow_their_definition_at_every_position() -> None:
    hypothetical, actual = hypothetical_contributions(SCORES), actual_contributions(SCORES, TOKENS)
    assert hypothetical.dtype == actual.dtype == np.float32
    assert hypothetical.shape == actual.shape == SCORES.shape
    for gene, target, base, position in np.ndindex(SCORES.shape):
        four = [float(SCORES[gene, target, other, position]) for other in range(4)]
        expected = four[base] - sum(four) / 4
        place = (gene, target, base, position)
        assert hypothetical[place] == pytest.approx(expected, abs=1e-6)  # float32 rounding of values of order 1
        if TOKENS[gene, position] == base:
            assert actual[place] == hypothetical[place] != 0
        else:
            assert actual[place] == 0


@pytest.mark.parametrize("index", [(0,), (1, 2)])
def test_hypothetical_contributions_take_any_leading_axes(index: tuple[int, ...]) -> None:
    assert np.array_equal(hypothetical_contributions(SCORES[index]), hypothetical_contributions(SCORES)[index])


def test_computing_contributions_leaves_the_scores_unchanged() -> None:
    scores = SCORES.copy()
    actual_contributions(scores, TOKENS)
    assert np.array_equal(scores, SCORES)
