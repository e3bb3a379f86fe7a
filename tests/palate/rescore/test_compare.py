"""How far two models agree, against naive loops and scipy."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from palate.rescore.compare import Both, Flips, Winners, disagreements, flips, percentiles, rank_correlation, winners

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3), st.integers(-3, 3)), max_size=24)


def columns(rows):
    groups, before, after = np.array(rows, dtype=float).reshape(-1, 3).T
    return before, after, groups.astype(int)


@given(ROWS)
def test_flips_are_those_of_a_loop_over_all_pairs(rows):
    before, after, groups = columns(rows)
    pairs = [(i, j) for i, j in combinations(range(len(rows)), 2) if groups[i] == groups[j]]
    products = [(before[i] - before[j]) * (after[i] - after[j]) for i, j in pairs]
    expected = Flips(sum(p != 0 for p in products), sum(p < 0 for p in products), sum(p == 0 for p in products))
    assert flips(before, after, groups) == expected


def test_flips_are_what_kendall_counts():
    draw = np.random.default_rng(0)
    before, after = draw.normal(size=60), draw.normal(size=60)
    found = flips(before, after, np.zeros(60, dtype=int))
    assert 1 - 2 * found.share == pytest.approx(kendalltau(before, after).statistic)


@given(ROWS)
def test_winners_are_those_of_a_loop_over_groups(rows):
    before, after, groups = columns(rows)
    contests = [[i for i in range(len(rows)) if groups[i] == group] for group in set(groups)]
    contests = [members for members in contests if len(members) > 1]

    def best(members, scores):
        return {i for i in members if scores[i] == max(scores[j] for j in members)}

    changed = sum(not best(members, before) & best(members, after) for members in contests)
    assert winners(before, after, groups) == Winners(len(contests), changed)


def test_rank_correlation_is_that_of_scipy_and_its_interval_holds_it():
    draw = np.random.default_rng(1)
    before = draw.normal(size=200)
    after = np.exp(before + draw.normal(size=200))
    found = rank_correlation(before, after)
    assert found.value == pytest.approx(spearmanr(before, after).statistic)
    assert found.low < found.value < found.high
    # Bonett and Wright 2000, written out on Fisher's scale
    half = 1.959964 * math.sqrt((1 + found.value**2 / 2) / 197)
    assert (math.atanh(found.high) - math.atanh(found.low)) / 2 == pytest.approx(half, rel=1e-6)


def test_the_interval_covers_what_it_says():
    """Of 400 samples of a known population, about 95 in 100 intervals hold its rank correlation."""
    draw, rho = np.random.default_rng(2), 0.6
    true = 6 / math.pi * math.asin(rho / 2)  # of a bivariate normal
    held = 0
    for _ in range(400):
        one, other = draw.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=80).T
        found = rank_correlation(one, other)
        held += found.low <= true <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_where_there_is_no_order_there_is_no_correlation():
    assert rank_correlation(np.zeros(9), np.arange(9.0)) is None
    assert rank_correlation(np.arange(3.0), np.arange(3.0)) is None
    assert rank_correlation(np.arange(9.0), np.arange(9.0)[::-1]).value == -1
    assert flips(np.zeros(0), np.zeros(0), np.zeros(0, dtype=int)).share is None


def test_percentiles_say_what_share_is_below():
    assert percentiles(np.array([3.0, 1.0, 1.0, 9.0])).tolist() == [0.625, 0.25, 0.25, 0.875]


def test_the_worst_disagreement_comes_first():
    before, after = np.arange(6.0), np.array([0.0, 1.0, 5.0, 3.0, 4.0, 2.0])
    steps = np.array([1, 1, 1, 2, 2, 2])
    both = Both(np.arange(6), steps, np.array([0, 0, 1, 0, 0, 1]), before, after)
    assert disagreements(both, 2).tolist() == [2, 5]
    assert disagreements(both, 9).size == 6
    assert len(np.unique(both.groups())) == 4
    assert both.of_step(2).before.tolist() == [3, 4, 5]
