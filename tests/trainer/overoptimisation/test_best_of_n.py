import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.overoptimisation.best_of_n import best_of_n, kl_of_best_of_n, selection


def brute_force(proxy, values, n):
    """Every subset of n; between samples that the proxy finds equal a fair draw."""
    found = []
    for subset in combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        tied = [values[i] for i in subset if proxy[i] == best]
        found.append(sum(tied) / len(tied))
    return sum(found) / len(found)


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.floats(-5, 5)), min_size=1, max_size=9).flatmap(
        lambda rows: st.tuples(st.just(rows), st.integers(1, len(rows)))
    )
)
def test_it_is_the_mean_over_all_subsets(drawn):
    rows, n = drawn
    proxy, values = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    assert best_of_n(proxy, values, n) == pytest.approx(brute_force(proxy, values, n), abs=1e-9)


def test_golden_values():
    proxy, gold = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 5.0, 2.0])
    # Of the six pairs the best by proxy is worth 1, 5, 2, 5, 2, 2.
    assert best_of_n(proxy, gold, 2) == pytest.approx(17 / 6)
    assert best_of_n(proxy, gold, 1) == pytest.approx(2.0)
    assert best_of_n(proxy, gold, 4) == 2.0


def test_many_samples_neither_overflow_nor_lose_weight():
    row = np.arange(20_000.0)
    assert best_of_n(row, np.ones(20_000), 5_000) == pytest.approx(1.0)
    # The expected largest of n of the numbers 0 … N − 1.
    assert best_of_n(row, row, 5_000) == pytest.approx(5_000 * 20_001 / 5_001 - 1)


def test_a_selection_is_a_distribution_over_the_samples():
    found = selection(np.array([1.0, 3.0, 3.0, 2.0]), 2)
    # Of the six pairs: 1 with 2 gives the last, all others one of the two equal ones.
    assert found == pytest.approx([0.0, 5 / 12, 5 / 12, 1 / 6])


@pytest.mark.parametrize(("n", "kl"), [(1, 0.0), (4, 0.636), (16, 1.835), (64, 3.175), (256, 4.549), (1024, 5.932)])
def test_kl_of_best_of_n(n, kl):
    assert kl_of_best_of_n(n) == pytest.approx(kl, abs=6e-4)
    # By definition: the best of n has density n F^(n−1) where a sample has 1.
    u = (np.arange(200_000) + 0.5) / 200_000
    density = n * u ** (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        integrand = np.where(density > 0, density * np.log(density), 0.0)
    assert integrand.mean() == pytest.approx(kl_of_best_of_n(n), abs=2e-3)


@pytest.mark.parametrize("n", [0, 5])
def test_what_cannot_be_estimated_is_refused(n):
    with pytest.raises(ValueError, match="cannot be estimated from 4 samples"):
        best_of_n(np.arange(4.0), np.arange(4.0), n)
    with pytest.raises(ValueError, match="not two rows of one length"):
        best_of_n(np.arange(4.0), np.arange(3.0), 1)
    assert math.isfinite(kl_of_best_of_n(1))
