import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.cost import Cost, Costs, Pace
from services.runtime.job_queue import JobQueue
from services.runtime.work import Entry, Job, Terms, Work

PADDED = st.integers(1, 10_000)
BATCHES = st.lists(st.tuples(PADDED, st.floats(0.0, 1e3)), max_size=40)


def learned(batches: list[tuple[int, float]]) -> Cost:
    cost = Cost()
    for padded, seconds in batches:
        cost = cost.after(padded, seconds)
    return cost


@given(
    st.floats(0.0, 0.01),
    st.floats(1e-6, 1e-3),
    st.lists(st.tuples(st.integers(20, 200), st.integers(1000, 8000)), min_size=3, max_size=20),
)
def test_a_line_is_found_exactly(fixed: float, per_token: float, sizes: list[tuple[int, int]]):
    cost = learned([(size, fixed + per_token * size) for pair in sizes for size in pair])
    for size in (20, 700, 8000):
        assert cost.expected(size) == pytest.approx(fixed + per_token * size, rel=1e-3)


def test_noise_is_averaged_and_covered():
    noise = random.Random(3)
    truth = [(size, 0.004 + 2e-5 * size) for size in (noise.randint(20, 8000) for _ in range(200))]
    cost = learned([(size, seconds * noise.lognormvariate(0, 0.1)) for size, seconds in truth])
    for size, seconds in ((200, 0.008), (1000, 0.024), (8000, 0.164)):
        assert cost.expected(size) == pytest.approx(seconds, rel=0.15)
    ended = [seconds * noise.lognormvariate(0, 0.1) <= cost.safe(size) for size, seconds in truth]
    assert sum(ended) >= 0.95 * len(ended)


@given(BATCHES, PADDED)
def test_predictions_are_never_negative_and_grow_with_the_batch(batches: list[tuple[int, float]], padded: int):
    cost = learned(batches)
    assert 0.0 <= cost.expected(padded) <= cost.expected(padded + 100) + 1e-9
    assert cost.safe(padded) >= cost.expected(padded)


def test_one_pause_of_the_machine_changes_little():
    steady = [(100 * n, 0.002 * n) for n in range(1, 40)]
    cost = learned([*steady, (1000, 100.0)])
    assert cost.expected(1000) < 1.3 * 0.02


def test_a_slower_machine_is_noticed():
    cost = learned([(1000, 0.01)] * 100 + [(1000, 0.1)] * 60)
    assert cost.expected(1000) == pytest.approx(0.1, rel=0.1)


def test_nothing_is_known_at_first():
    assert Cost().expected(1000) == Cost().safe(1000) == Pace().token_seconds == 0.0


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(1e-3, 10.0)), min_size=1, max_size=30))
def test_the_pace_lies_between_the_fastest_and_the_slowest_batch(batches: list[tuple[int, float]]):
    pace = Pace()
    for tokens, seconds in batches:
        pace = pace.after(tokens, seconds)
    rates = [seconds / tokens for tokens, seconds in batches]
    assert min(rates) * 0.999 <= pace.token_seconds <= max(rates) * 1.001


def test_belief_that_keeps_work_away_is_weakened_after_a_while():
    costs = Costs()
    costs.learn("a", 100, 8.0, now=0.0)
    costs.doubt("a", now=1.0)
    assert costs.of("a").expected(100) == pytest.approx(8.0)
    for now in (5.0, 6.0, 10.0):
        costs.doubt("a", now)
    assert costs.of("a").expected(100) == pytest.approx(2.0)


def test_groups_are_learned_apart_and_their_number_is_bounded():
    costs = Costs()
    for number in range(200):
        costs.learn(number, 100, 1.0 + number, now=0.0)
    assert costs.of(199).expected(100) == pytest.approx(200.0)
    assert costs.of(0) == Cost()


def test_every_group_has_a_pace_of_its_own():
    costs = Costs()
    assert costs.token_seconds("fast", 1000) == 0.0
    costs.learn("fast", 1000, 0.1, now=0.0)
    assert costs.token_seconds("fast", 1000) == pytest.approx(1e-4)  # by its cost, until there was a backlog
    costs.follow("fast", 500, 0.1)
    costs.follow("slow", 500, 5.0)
    assert costs.token_seconds("fast", 1000) == pytest.approx(2e-4)
    assert costs.token_seconds("slow", 1000) == pytest.approx(1e-2)
    costs.doubt("slow", now=100.0)
    assert costs.token_seconds("slow", 1000) == pytest.approx(1e-2)


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 2)), max_size=12
    )
)
def test_what_waits_takes_what_its_groups_take(drawn: list[tuple[int, str, str, int]]):
    """Of what goes before the last in line, each token counts at its own group's pace; nothing is left behind."""
    pace = {"x": 0.25, "y": 8.0}
    waiting: JobQueue[int, int] = JobQueue(100, 10_000, quantum=10**9, window=100)
    jobs = []
    for number, (size, caller, group, priority) in enumerate(drawn):
        terms = Terms(priority, 10.0, caller)
        job, entry = Job(Work(number, size, group, number), number, terms), Entry(terms, 0.0, None)
        waiting.join(job, entry)
        jobs.append((job, entry))
    expected = sum(size * pace[group] for size, _, group, _ in drawn)
    assert waiting.seconds_ahead(Terms(-1, 99.0, "c"), 1, pace.__getitem__) == expected
    assert waiting.token_seconds(pace.__getitem__) == expected / max(sum(size for size, *_ in drawn), 1)
    last = waiting.seconds_ahead(Terms(0, 99.0, "c"), 1, pace.__getitem__)
    assert last == pytest.approx(expected)  # nobody is ahead by more than the quantum: deadlines decide
    assert all(waiting.holds(group) == any(each[2] == group for each in drawn) for group in pace)
    for job, entry in jobs:
        waiting.leave(job, [entry])
    assert not any(map(waiting.holds, pace))
    assert waiting.token_seconds(pace.__getitem__) == 0.0
