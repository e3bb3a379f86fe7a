import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from palate.models.agreement import Scored, agreement, close_pairs, spearman
from palate.models.tolerances import TOLERANCES, spread, tolerance_of

scores = arrays(np.float32, st.integers(2, 12), elements=st.floats(-8, 8, width=16))


def batch(places: list[int], values: np.ndarray) -> Scored:
    return Scored(np.array(places), values)


@given(scores, st.data())
def test_flips_are_the_pairs_of_one_batch_in_another_order(alone: np.ndarray, data: st.DataObject):
    places = data.draw(st.permutations(range(len(alone))))
    found = data.draw(arrays(np.float32, len(alone), elements=st.floats(-8, 8, width=16)))
    pairs = itertools.combinations(range(len(alone)), 2)
    turned = sum(np.sign(alone[places[a]] - alone[places[b]]) != np.sign(found[a] - found[b]) for a, b in pairs)
    assert agreement(alone, [batch(places, found)]).flips == turned


@given(scores, st.data())
def test_same_scores_in_any_company_agree_to_the_bit(alone: np.ndarray, data: st.DataObject):
    batches = data.draw(st.lists(st.lists(st.integers(0, len(alone) - 1), min_size=1), min_size=1, max_size=4))
    found = agreement(alone, [batch(places, alone[places]) for places in batches])
    assert (found.deviation, found.flips, found.is_bitwise) == (0.0, 0, True)


def test_deviation_is_the_largest_of_all_batches_in_standard_deviations():
    alone = np.array([0.0, 2.0], np.float32)  # their standard deviation is 1
    found = agreement(alone, [batch([0], alone[:1]), batch([0, 1], np.array([0.25, 1.5], np.float32))])
    assert (found.deviation, found.flips, found.is_bitwise) == (0.5, 0, False)


def test_last_bit_and_the_sign_of_zero_are_bits():
    alone = np.array([0.0, 1.0], np.float32)
    assert not agreement(alone, [batch([1], np.nextafter(alone[1:], np.float32(2)))]).is_bitwise
    assert not agreement(alone, [batch([0], np.array([-0.0], np.float32))]).is_bitwise


def test_where_all_score_alike_rounding_is_the_scale():
    assert spread(np.array([5.0, 5.0])) == pytest.approx(5e-3)
    assert spread(np.zeros(3)) == 1e-6


def test_close_pairs_are_close_and_not_equal():
    assert close_pairs(np.array([0.0, 0.0, 0.01, 1.0, 2.0])) == 2


@given(scores, st.data())
def test_spearman_is_that_of_scipy(first: np.ndarray, data: st.DataObject):
    second = data.draw(arrays(np.float32, len(first), elements=st.floats(-8, 8, width=16)))
    found = spearman(first, second)
    if len(set(first.tolist())) == 1 or len(set(second.tolist())) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)


def test_an_ensemble_is_allowed_what_its_widest_member_is():
    wide, narrow = TOLERANCES["bfloat16"], TOLERANCES["float32"]
    assert tolerance_of("float32+bfloat16") == wide
    assert tolerance_of("float32") == narrow
