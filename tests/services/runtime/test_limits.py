"""Rates of callers: never more than the bucket holds, never fewer than the rate allows."""

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.limits import Rates
from tests.services.runtime.bench import Clock


@given(
    st.floats(0.01, 100.0),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 5.0)), max_size=60),
)
def test_a_caller_begins_what_his_rate_allows(per_second, calls):
    clock = Clock()
    rates = Rates(clock)
    begun = {"a": 0, "b": 0}
    for caller, pause in calls:
        clock.now += pause
        wait = rates.take(caller, per_second)
        begun[caller] += wait == 0.0
        assert begun[caller] <= max(1.0, per_second) + per_second * clock.now + 1e-6
        if wait:
            clock.now += wait + 1e-6
            assert rates.take(caller, per_second) == 0.0  # who waits as long as he is told may begin
            begun[caller] += 1


def test_callers_have_buckets_of_their_own():
    rates = Rates(Clock())
    assert rates.take("a", 2.0) == rates.take("a", 2.0) == rates.take("b", 2.0) == 0.0
    assert rates.take("a", 2.0) == 0.5
