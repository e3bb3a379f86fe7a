"""Turns are taken, the first runs are checked and not kept, and intervals are what their name says."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models import texts
from benchmarks.paired import (
    Contest,
    Disagreement,
    Estimate,
    Run,
    Way,
    client_share,
    estimate,
    take_turns,
    times_as_fast,
)


class Recorded:
    """Three ways that take 3 s, 2 s and 1 s, and say when they ran on what."""

    def __init__(self, last_answer="same"):
        self.runs = []
        ways = (("slow", 3.0, "same"), ("middle", 2.0, "same"), ("quick", 1.0, last_answer))
        self.contest = Contest([self.way(*way) for way in ways], int, lambda expected, found: expected == found)

    def way(self, name, seconds, answer):
        def run(number):
            self.runs.append((name, number))
            return Run(seconds, answer)

        return Way(name, run)


def test_ways_take_turns_on_the_same_inputs_and_every_other_round_goes_backwards():
    recorded, rounds = Recorded(), []
    runs = take_turns(recorded.contest, 2, after_round=lambda: rounds.append(len(recorded.runs)))
    names = ["slow", "middle", "quick"]
    checked = [(name, 0) for name in names]
    assert recorded.runs == [*checked, *((name, 1) for name in names), *((name, 2) for name in reversed(names))]
    assert runs["middle"] == [Run(2.0, "same")] * 2
    assert rounds == [6, 9]


def test_different_answers_are_not_compared():
    recorded = Recorded(last_answer="another")
    with pytest.raises(Disagreement, match="'slow' and 'quick' give different answers"):
        take_turns(recorded.contest, 2)
    assert len(recorded.runs) == 3


def test_the_ratio_is_taken_within_rounds():
    runs = take_turns(Recorded().contest, 3)
    assert times_as_fast(runs["quick"], runs["slow"]) == Estimate(3.0, 3.0, 3.0, 3)
    assert times_as_fast(runs["slow"], runs["quick"]).value == pytest.approx(1 / 3)
    machine_slows_down = [Run(2.0**number, None) for number in range(5)]
    twice_as_slow = [Run(2 * run.seconds, None) for run in machine_slows_down]
    assert times_as_fast(machine_slows_down, twice_as_slow) == Estimate(2.0, 2.0, 2.0, 5)


def test_the_client_share_weighs_runs_by_their_length():
    assert client_share([Run(1.0, None, 0.5), Run(3.0, None, 0.5)]) == 0.25


positive = st.floats(1e-3, 1e3)


@given(st.lists(positive, min_size=1, max_size=15))
def test_the_interval_holds_the_median_and_is_held_by_the_values(values):
    found = estimate(values)
    assert found == estimate(values)
    assert found.value == statistics.median(values)
    assert min(values) <= found.low <= found.value <= found.high <= max(values)


def test_one_disturbed_round_moves_neither_the_value_nor_its_lower_bound():
    calm = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08]
    disturbed = [*calm[:-1], 50.0]
    assert estimate(disturbed).value == estimate(calm).value
    assert estimate(disturbed).low == estimate(calm).low


def test_the_interval_narrows_with_rounds_and_covers_nine_times_in_ten():
    rng = random.Random(0)
    few, many = ([estimate([rng.gauss(1, 0.1) for _ in range(n)]) for _ in range(60)] for n in (8, 32))
    width = [statistics.mean(one.high - one.low for one in estimates) for estimates in (few, many)]
    assert width[1] < 0.7 * width[0]
    assert sum(one.low <= 1 <= one.high for one in many) >= 48


def test_texts_differ_in_words_and_never_in_length():
    first, second = texts(20, 4, 64, 1), texts(20, 4, 64, 2)
    lengths = [len(text.split()) for text in first]
    assert lengths == [len(text.split()) for text in second]
    assert (min(lengths), max(lengths)) == (4, 64)
    assert lengths != sorted(lengths)
    assert not set(first) & set(second)
