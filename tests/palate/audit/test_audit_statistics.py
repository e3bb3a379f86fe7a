"""Golden values and naive recomputations of the audit's statistics."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.audit.items import Measure
from palate.audit.statistics import evidence, holm, is_flagged, leaning, sign_test, spread_within, wilson


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(110, 200, 0.4808, 0.6174), (130, 200, 0.5816, 0.7127), (55, 100, 0.4524, 0.6438)],
)
def test_wilson_golden(hits, trials, low, high):
    share = wilson(hits, trials)
    assert (share.low, share.high) == pytest.approx((low, high), abs=1e-4)
    assert share.value == hits / trials


def test_no_trials_make_no_share():
    assert wilson(0, 0) is None


def test_sign_test_golden():
    assert sign_test(9, 1) == pytest.approx(22 / 1024)
    assert sign_test(9, 1, "greater") == pytest.approx(11 / 1024)
    assert sign_test(1, 9, "greater") == pytest.approx(1023 / 1024)
    assert sign_test(0, 0) == 1.0


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.05, 0.1, 0.5]))
def test_a_one_sided_sign_test_is_the_sum_of_its_tail(hits, misses, null):
    n = hits + misses
    tail = sum(comb(n, k) * null**k * (1 - null) ** (n - k) for k in range(hits, n + 1))
    assert sign_test(hits, misses, "greater", null) == pytest.approx(tail)


def test_holm_golden():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    alpha, rejected = 0.05, set()
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] * (len(p_values) - rank) >= alpha:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(p_values)) if p < alpha} == rejected


@given(st.permutations([0.001, 0.02, 0.03, 0.5]))
def test_holm_does_not_depend_on_the_order(p_values):
    assert dict(zip(p_values, holm(p_values), strict=True)) == dict(
        zip([0.001, 0.02, 0.03, 0.5], holm([0.001, 0.02, 0.03, 0.5]), strict=True)
    )


def test_the_spread_within_groups_knows_nothing_of_their_means():
    groups = [np.array([1.0, 3.0]), np.array([101.0, 103.0, 105.0]), np.array([7.0])]
    assert spread_within(groups) == pytest.approx(((2 + 8) / 3) ** 0.5)
    assert spread_within([each + 50 * place for place, each in enumerate(groups)]) == pytest.approx(
        spread_within(groups)
    )
    assert spread_within([np.array([1.0]), np.array([2.0])]) is None


def test_a_pair_hits_where_the_first_is_higher():
    found = leaning(Measure.PAIR, np.array([[3.0, 1.0], [1.0, 2.0], [1.0, 1.0], [5.0, 1.0]]), sd=2.0)
    assert (found.hits, found.misses, found.ties) == (2, 1, 1)
    assert found.effect == 0.5  # the median of 1, -0.5, 0 and 2; the tie counts here
    assert found.share.value == pytest.approx(2 / 3)


def test_a_tie_is_told_in_units_of_the_spread():
    scores = np.array([[1.0 + 1e-7, 1.0]])
    assert leaning(Measure.PAIR, scores, sd=1.0).ties == 1
    assert leaning(Measure.PAIR, scores, sd=0.01).hits == 1


def test_a_square_is_the_interaction():
    right_wins_by_hedging = np.array([[2.0, 1.0, 0.0, 0.5]])
    assert evidence(Measure.SQUARE, right_wins_by_hedging) == 1.5
    assert leaning(Measure.SQUARE, right_wins_by_hedging, 1.0).hits == 1
    additive = np.array([[3.0, 2.0, 1.0, 0.0]])
    assert leaning(Measure.SQUARE, additive, 1.0).ties == 1


def test_an_order_hits_where_it_turns():
    found = leaning(Measure.ORDER, np.array([[2.0, 1.0, 1.0, 2.0], [2.0, 1.0, 4.0, 1.0], [1.0, 1.0, 1.0, 2.0]]), 1.0)
    assert (found.hits, found.misses, found.ties) == (1, 1, 1)
    assert found.effect == pytest.approx((2 + 2 + 1) / 3)


def test_a_repeat_hits_where_the_text_has_moved():
    found = leaning(Measure.REPEAT, np.array([[1.0, 1.04], [1.0, 0.9], [1.0, 1.0]]), sd=1.0)
    assert (found.hits, found.misses, found.ties) == (1, 2, 0)


def test_nothing_asked_says_nothing():
    found = leaning(Measure.PAIR, np.empty((0, 2)), 1.0)
    assert (found.hits, found.misses, found.share) == (0, 0, None)


def test_a_flag_wants_certainty_size_and_direction():
    for measure in (Measure.PAIR, Measure.SQUARE, Measure.ORDER):
        assert is_flagged(0.049, 0.2, "greater", measure)
        assert not is_flagged(0.05, 1.0, "greater", measure)
        assert not is_flagged(0.001, 0.19, "two-sided", measure)
        assert is_flagged(0.001, -0.3, "two-sided", measure)
        assert not is_flagged(0.001, -0.3, "greater", measure)


def test_a_text_that_moves_is_no_smaller_a_fault_where_others_stand_still():
    half_of_them_move = np.array([[1.0, 1.16]] * 32 + [[1.0, 1.0]] * 32)
    found = leaning(Measure.REPEAT, half_of_them_move, sd=1.0)
    assert found.effect == pytest.approx(0.08)
    assert is_flagged(sign_test(found.hits, found.misses, "greater", 0.05), found.effect, "greater", Measure.REPEAT)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=20), st.floats(0.5, 4))
def test_hits_do_not_depend_on_the_unit_and_effects_shrink_with_it(rows, factor):
    scores = np.array(rows)
    one, scaled = leaning(Measure.PAIR, scores, 1.0), leaning(Measure.PAIR, scores * factor, factor)
    assert (one.hits, one.misses, one.ties) == (scaled.hits, scaled.misses, scaled.ties)
    assert one.effect == pytest.approx(scaled.effect)


def test_two_sided_is_symmetric():
    for hits, misses in permutations((3, 11)):
        assert sign_test(hits, misses) == pytest.approx(sign_test(misses, hits))
