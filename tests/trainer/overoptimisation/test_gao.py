import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.overoptimisation.gao import Fit, Unit, fit, fit_with_intervals

D = np.linspace(0.0, 3.0, 25)


def planted(form, alpha, beta, noise=0.0, units=1, seed=0):
    rng = np.random.default_rng(seed)
    truth = Fit(form, alpha, beta, None)
    gains = np.array([truth.at(d) for d in D])
    return [Unit(D, gains + noise * rng.standard_normal(len(D))) for _ in range(units)]


@given(st.sampled_from(["best_of_n", "rl"]), st.floats(-3, 3), st.floats(-2, 2))
def test_planted_values_come_back(form, alpha, beta):
    found = fit(form, planted(form, alpha, beta))
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=1e-6)


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_the_turning_point_is_where_the_form_is_highest(form):
    found = Fit(form, 1.2, 0.5, None)
    top = found.turning_point()
    assert found.at(top) >= max(found.at(0.99 * top), found.at(1.01 * top))
    assert found.at(0.0) == 0.0
    assert Fit(form, 1.0, 0.0, None).turning_point() == Fit(form, 1.0, -1.0, None).turning_point() == math.inf


def test_golden_turning_points():
    assert Fit("best_of_n", 1.0, 0.25, None).turning_point() == pytest.approx(2.0)
    assert Fit("rl", 1.0, 0.5, None).turning_point() == pytest.approx(math.e)
    assert Fit("best_of_n", -1.0, 0.5, None).turning_point() == 0.0  # nothing was gained at any d
    assert Fit("rl", 1.0, 1e-6, None).turning_point() == math.inf  # beyond all numbers


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(form):
    alpha, beta = 1.0, 0.4
    top = Fit(form, alpha, beta, None).turning_point()
    held = np.zeros(3)
    for seed in range(100):
        found = fit_with_intervals(form, planted(form, alpha, beta, 0.3, units=20, seed=seed), seed, draws=200)
        truths = ((found.alpha, alpha), (found.beta, beta), (found.turning_point, top))
        held += [interval.low <= truth <= interval.high for interval, truth in truths]
    assert (held >= 85).all()
    assert found.turns == 1.0
    assert found.fit.explained > 0.2


def test_noise_alone_does_not_turn_for_sure():
    found = fit_with_intervals("best_of_n", planted("best_of_n", 1.0, 0.0, 0.3, units=10), draws=300)
    assert 0.0 < found.turns < 1.0
    assert found.turning_point.high == math.inf


def test_the_same_seed_gives_the_same_intervals():
    units = planted("rl", 1.0, 0.4, 0.3, units=5)
    assert fit_with_intervals("rl", units, 3, 100) == fit_with_intervals("rl", units, 3, 100)
    assert fit_with_intervals("rl", units, 3, 100) != fit_with_intervals("rl", units, 4, 100)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="two different d"):
        fit("rl", [Unit(np.array([0.0, 1.0]), np.array([0.0, 1.0]))])
    assert fit("rl", [Unit(np.array([1.0, 2.0]), np.array([0.0, 0.0]))]).explained is None
