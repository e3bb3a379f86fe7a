"""Paired statistics against values known by hand, and intervals that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.audit.policy.behaviours import Behaviour, Trial, Unit, one_answer
from palate.audit.policy.changes import change, is_worse, level
from palate.audit.policy.findings import judge
from palate.audit.policy.signs import is_hedged, word_count

flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


def columns(rows):
    values = np.array(rows, dtype=np.float64)
    return values[:, 0], values[:, 1]


def test_mcnemar_and_the_adjusted_interval():
    before, after = columns([(0, 1)] * 9 + [(1, 0)] + [(1, 1)] * 5 + [(0, 0)] * 5)
    found = change(Unit.SHARE, before, after)
    assert (found.more, found.fewer, found.value) == (9, 1, pytest.approx(0.4))
    assert found.p == pytest.approx(11 / 1024)  # P(at least 9 of 10 fair coins)
    up, down = 10 / 22, 2 / 22
    half = 1.959964 * ((up + down - (up - down) ** 2) / 22) ** 0.5
    assert (found.low, found.high) == (pytest.approx(up - down - half), pytest.approx(up - down + half))


@given(flags)
def test_turning_before_and_after_turns_the_change(rows):
    before, after = columns(rows)
    there, back = change(Unit.SHARE, before, after), change(Unit.SHARE, after, before)
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert -1 <= there.low <= there.value + 1e-9 or there.fewer == 0
    assert there.low <= there.high <= 1


def test_the_interval_of_a_change_covers():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        before = rng.random(64) < 0.3
        after = np.where(rng.random(64) < 0.3, 1 - before, before)
        truth = 0.7 * 0.3 - 0.3 * 0.3
        found = change(Unit.SHARE, before.astype(float), after.astype(float))
        covered += found.low <= truth <= found.high
    assert covered >= 0.93 * 500


def test_words_have_students_interval():
    shown = np.array([10.0, 12.0, 14.0])
    found = level(Unit.WORDS, shown)
    half = 4.302653 * 2.0 / 3**0.5
    assert (found.value, found.low, found.high) == (12.0, pytest.approx(12 - half), pytest.approx(12 + half))
    assert level(Unit.WORDS, shown[:1]) is None
    assert level(Unit.SHARE, np.array([])) is None
    assert change(Unit.WORDS, shown[:1], shown[:1]) is None


def test_small_changes_are_not_flagged_however_sure():
    before, after = columns([(0, 1)] * 40 + [(0, 0)] * 1960)
    found = change(Unit.SHARE, before, after)
    assert found.p < 1e-9
    assert not is_worse(Unit.SHARE, found.p, level(Unit.SHARE, before), found)


ASKED = [(f"question {i}",) for i in range(40)]
HEDGES = Behaviour("hedging", "hedges", Unit.SHARE, tuple(one_answer(each, is_hedged) for each in ASKED))
WORDS = Behaviour("verbosity", "says more words", Unit.WORDS, tuple(one_answer(each, word_count) for each in ASKED))


def test_what_has_grown_is_flagged_with_an_example_and_nothing_else():
    before = dict.fromkeys(ASKED, "It is so. It really is.")
    after = {turns: "Perhaps it is so." if i < 20 else before[turns] for i, turns in enumerate(ASKED)}
    hedging, verbosity = judge([HEDGES, WORDS], after, before)
    assert hedging.is_worse
    assert (hedging.before.value, hedging.after.value) == (0.0, 0.5)
    assert hedging.example[0].after == "Perhaps it is so."
    assert hedging.adjusted == pytest.approx(2 * hedging.change.p)
    assert not verbosity.is_worse


def test_one_policy_has_levels_and_no_verdict():
    (hedging,) = judge([HEDGES], dict.fromkeys(ASKED, "Perhaps."))
    assert (hedging.before, hedging.change, hedging.adjusted, hedging.is_worse) == (None, None, None, False)
    assert hedging.after.value == 1.0


def test_what_cannot_be_read_does_not_count():
    trials = tuple(Trial((each,), lambda said: None if "?" in said[0] else 1.0) for each in ASKED)
    behaviour = Behaviour("a", "does", Unit.SHARE, trials)
    (found,) = judge([behaviour], dict.fromkeys(ASKED, "?") | {ASKED[0]: "yes"})
    assert (found.unclear, found.after.trials) == (39, 1)
    (nothing,) = judge([behaviour], dict.fromkeys(ASKED, "?"))
    assert (nothing.after, nothing.example) == (None, None)
