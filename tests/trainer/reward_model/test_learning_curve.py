import math
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.reward_model.learning_curve import learning_curve, pairs_needed


@given(st.floats(0.05, 0.8), st.floats(0.1, 1.0), st.floats(0.55, 0.99))
def test_a_power_law_is_found_again(scale, slope, target):
    sizes = [50, 100, 200, 400, 800]
    errors = scale * (np.array(sizes) / 50.0) ** -slope
    expected = 50.0 * ((1 - target) / scale) ** (-1 / slope)
    assert pairs_needed(sizes, 1 - errors, target) == pytest.approx(expected, rel=1e-6)


def test_an_error_that_does_not_fall_leads_nowhere():
    assert pairs_needed([10, 20, 40], np.array([0.7, 0.65, 0.6]), 0.8) == math.inf
    assert pairs_needed([10, 20, 40], np.array([0.7, 0.7, 0.7]), 0.8) == math.inf


def credits_of(errors):
    """Judges 1000 held-out pairs, of which so many wrongly: exactly, for every size."""
    seen = []

    def credits_at(indices):
        seen.append(set(indices))
        wrong = round(1000 * errors(len(indices)))
        return [0.0] * wrong + [1.0] * (1000 - wrong)

    return credits_at, seen


def test_parts_are_nested_and_the_estimate_has_an_interval():
    credits_at, seen = credits_of(lambda size: 0.5 * (size / 100) ** -0.5)
    curve = learning_curve(1600, credits_at, 0.9, Random(0))
    assert curve.pairs == (100, 200, 400, 800, 1600)
    assert all(smaller < larger for smaller, larger in pairwise(seen))
    assert curve.accuracies[0] == 0.5
    assert curve.needed == pytest.approx(2500, rel=0.02)
    assert curve.low < 2500 < curve.high


def test_what_is_too_far_or_too_little_is_no_number():
    flat, _ = credits_of(lambda _: 0.4)
    curve = learning_curve(1600, flat, 0.9, Random(0))
    assert (curve.needed, curve.high) == (None, None)
    assert learning_curve(100, flat, 0.9, Random(0)) is None
    assert learning_curve(1600, lambda _: [], 0.9, Random(0)) is None
