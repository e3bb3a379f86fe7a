import numpy as np
import pytest

from trainer.data.votes import Pair, Vote
from trainer.reward_model.annotators import judge_reliabilities, report_annotators
from trainer.reward_model.reliability import Prior, vote_table


def pair(number, **votes):
    return Pair("", f"x{number}", "y", tuple(Vote(name, label) for name, label in votes.items()))


def test_agreement_is_with_the_others_on_the_same_pair():
    pairs = [
        pair(0, ann="a", bob="a", eve="b"),
        pair(1, ann="b", bob="b", eve="a"),
        pair(2, ann="a", eve="tie"),  # for ann nobody decides; a tie is for neither side
        pair(3, ann="a"),
        Pair("", "x4", "y", (Vote("", "a"),)),
    ]
    found = {row.name: row for row in report_annotators(pairs)}
    assert list(found) == ["ann", "bob", "eve"]
    assert (found["ann"].votes, found["eve"].votes, found["eve"].ties) == (4, 3, 1)
    assert (found["eve"].agreement.value, found["eve"].agreement.count) == (0.0, 2)
    assert found["ann"].agreement is None  # beside ann one says a and one says b, or nobody decides
    assert found["bob"].agreement is None


@pytest.mark.parametrize(
    ("right", "wrong", "suspicion"), [(60, 4, "none"), (4, 60, "adversary"), (40, 40, "spammer"), (1, 0, "open")]
)
def test_suspicions_follow_from_intervals(right, wrong, suspicion):
    names = ["usual"] * 40 + ["fine"] * 40 + ["asked"] * (right + wrong)
    labels = ["a"] * 36 + ["b"] * 4 + ["a"] * 36 + ["b"] * 4 + ["a"] * right + ["b"] * wrong
    pairs = [pair(i, **{name: label}) for i, (name, label) in enumerate(zip(names, labels, strict=True))]
    rates = {"usual": 0.9, "fine": 0.9, "asked": right / (right + wrong)}
    found = judge_reliabilities(vote_table(pairs), rates, np.full(len(pairs), 30.0), Prior(4.0, 2.0))["asked"]
    assert found.suspicion == suspicion
    assert found.low < found.high
