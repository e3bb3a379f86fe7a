import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reward.ranking import best_first, preference_probability, ranks, z_scores

FINITE = st.floats(-1e6, 1e6)
SCORES = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0]) | FINITE, max_size=12)


def test_probability_is_the_sigmoid_of_the_scaled_difference():
    assert preference_probability(0.0, 3.0) == 0.5
    assert preference_probability(math.log(3), 1.0) == pytest.approx(0.75)
    assert preference_probability(2 * math.log(3), 0.5) == pytest.approx(0.75)
    assert preference_probability(1e9, 1.0) == 1.0
    assert preference_probability(-1e9, 1.0) == 0.0


@given(FINITE, st.floats(1e-3, 1e3))
def test_swapping_the_sides_gives_the_complement(difference: float, scale: float):
    swapped = preference_probability(-difference, scale)
    assert preference_probability(difference, scale) + swapped == pytest.approx(1.0)


@given(SCORES)
def test_order_and_ranks_agree_with_counting(values: list[float]):
    scores = dict(enumerate(values))
    order = best_first(scores)
    assert [values[index] for index in order] == sorted(values, reverse=True)
    assert all(a < b for a, b in pairwise(order) if values[a] == values[b])
    assert ranks(scores) == {index: 1 + sum(other > value for other in values) for index, value in scores.items()}


@given(SCORES)
def test_z_scores_have_mean_zero_and_deviation_one(values: list[float]):
    standardised = z_scores(values)
    if len(set(values)) < 2:
        assert standardised is None
        return
    if standardised is None:
        assert max(values) - min(values) < 1e-150  # the deviation underflows
        return
    assert math.fsum(standardised) / len(values) == pytest.approx(0.0, abs=1e-6)
    assert math.fsum(z * z for z in standardised) / len(values) == pytest.approx(1.0, rel=1e-6)
