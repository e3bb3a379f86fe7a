"""Turns are taken, the first runs are checked and not timed, and ratios are what their name says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models import texts
from benchmarks.paired import Disagreement, Measurement, Ratio, Timed, Way, ratio, take_turns


class Recorded:
    """Two ways that take 3 s and 1 s on a clock of their own, and say when they ran on what."""

    def __init__(self, candidate_answer="same"):
        self.now, self.runs = 0.0, []
        self.measurement = Measurement(
            "asked",
            Way("slow", lambda number: self.run("slow", 3.0, number, "same")),
            Way("quick", lambda number: self.run("quick", 1.0, number, candidate_answer)),
            inputs=self.inputs,
            agree=lambda expected, found: expected == found,
        )

    def inputs(self, number):
        self.now += 100.0  # making inputs takes long, and is nobody's time
        return number

    def run(self, name, seconds, number, answer):
        self.runs.append((name, number))
        self.now += seconds
        return answer


def test_the_two_ways_take_turns_on_inputs_of_their_own():
    recorded, rounds = Recorded(), []
    timed = take_turns(
        recorded.measurement, 2, clock=lambda: recorded.now, after_round=lambda: rounds.append(len(recorded.runs))
    )
    checked = [("slow", 0), ("quick", 0)]
    assert recorded.runs == [*checked, ("slow", 1), ("quick", 2), ("slow", 3), ("quick", 4)]
    assert timed == Timed((3.0, 3.0), (1.0, 1.0))
    assert rounds == [4, 6]


def test_different_answers_are_not_compared():
    recorded = Recorded(candidate_answer="another")
    with pytest.raises(Disagreement, match="'slow' and 'quick' give different answers"):
        take_turns(recorded.measurement, 2)
    assert len(recorded.runs) == 2


def test_the_ratio_of_medians_ignores_one_disturbed_round():
    assert ratio(Timed((2.0, 2.0, 90.0), (1.0, 1.0, 1.5))) == Ratio(2.0, 2.0, 60.0)
    assert ratio(Timed((1.0, 3.0), (2.0, 2.0))) == Ratio(1.0, 0.5, 1.5)


seconds = st.floats(1e-3, 1e3)


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=9))
def test_the_ratio_lies_between_those_of_the_rounds(rounds):
    found = ratio(Timed(*map(tuple, zip(*rounds, strict=True))))
    assert found.lowest * (1 - 1e-9) <= found.value <= found.highest * (1 + 1e-9)


def test_texts_differ_in_words_and_never_in_length():
    first, second = texts(20, 4, 64, 1), texts(20, 4, 64, 2)
    lengths = [len(text.split()) for text in first]
    assert lengths == [len(text.split()) for text in second]
    assert (min(lengths), max(lengths)) == (4, 64)
    assert lengths != sorted(lengths)
    assert not set(first) & set(second)
