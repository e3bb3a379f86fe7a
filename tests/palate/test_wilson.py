"""Wilson's interval: published numbers, SciPy's on whole successes, and what halves do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from palate.wilson import wilson_interval


@given(st.integers(1, 5000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_whole_successes_have_scipys_interval(counted):
    low, high = binomtest(*counted).proportion_ci(0.95, method="wilson")
    assert wilson_interval(*counted) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        *[(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],  # Newcombe 1998, table I
        *[(1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1.0)],
    ],
)
def test_published_intervals(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("trials", [1, 9, 10, 64, 299, 1999])
def test_none_and_all_end_exactly_at_0_and_1(trials):
    assert wilson_interval(0, trials)[0] == 0.0
    assert wilson_interval(trials, trials)[1] == 1.0


@pytest.mark.parametrize("successes", [-0.5, 10.5])
def test_more_than_all_is_no_count(successes):
    with pytest.raises(ValueError, match="among 10 trials"):
        wilson_interval(successes, 10)


def test_a_half_lies_between_its_neighbours():
    none, half, one = (wilson_interval(successes, 9) for successes in (4, 4.5, 5))
    assert none[0] < half[0] < one[0]
    assert none[1] < half[1] < one[1]
    assert half == pytest.approx((1 - half[1], 1 - half[0]))
