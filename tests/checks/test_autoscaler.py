"""The autoscaler's decisions, on numbers that can be followed by hand."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.checks.autoscaler import Rules, State, decide, turns

RULES = Rules(target=10.0, least=1, most=8, down_window=100.0, up_period=30.0, down_period=20.0)


def run(state, totals, rules=RULES, step=10.0):
    """Replicas after each look."""
    found = []
    for number, total in enumerate(totals):
        state = decide(state, total, number * step, rules)
        found.append(state.replicas)
    return found


def test_as_many_replicas_as_the_target_asks_for():
    assert run(State(4), [55.0]) == [6]


def test_nothing_changes_within_the_tolerance():
    assert run(State(4), [36.5, 43.5]) == [4, 4]
    assert run(State(4), [44.5]) == [5]


def test_up_at_most_doubles_within_a_period():
    assert run(State(1), [80.0] * 7) == [2, 2, 2, 4, 4, 4, 8]


def test_down_waits_for_the_window_and_then_goes_one_by_one():
    assert run(State(4), [40.0] + [10.0] * 15) == [4] * 10 + [3, 3, 2, 2, 1, 1]


def test_a_short_lull_changes_nothing():
    assert run(State(4), [40.0, 0.0, 0.0, 40.0] * 10) == [4] * 40


def test_bounds():
    assert run(State(8), [1e9]) == [8]
    assert run(State(1), [0.0] * 20) == [1] * 20


@given(st.integers(1, 8), st.lists(st.floats(0, 200), min_size=1, max_size=60))
def test_replicas_stay_within_their_bounds_and_steps(begin, totals):
    counts = [begin, *run(State(begin), totals)]
    assert all(RULES.least <= count <= RULES.most for count in counts)
    assert all(before - after <= RULES.down_pods for before, after in pairwise(counts))
    assert all(after <= 2 * before for before, after in pairwise(counts))


@given(st.integers(1, 8), st.floats(0, 80))
def test_a_steady_metric_settles(begin, total):
    """The total does not depend on the replicas here: then there is a fixed point, and it is reached."""
    state = State(begin)
    for number in range(60):
        state = decide(state, total, number * 10.0, RULES)
    after = decide(state, total, 600.0, RULES)
    assert after.replicas == state.replicas
    assert turns(state.changes) <= 1
