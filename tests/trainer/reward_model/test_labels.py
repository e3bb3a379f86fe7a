import numpy as np
import pytest
import torch

from trainer.data.lines import DataError
from trainer.data.votes import Pair, Vote
from trainer.reward_model.labels import check_annotators, labels_of
from trainer.reward_model.losses import bradley_terry_loss


def pair(*labels, names=("ann", "bob", "eve", "dan", "kim")):
    return Pair("p", f"x{labels}", "y", tuple(Vote(name, label) for name, label in zip(names, labels, strict=False)))


PAIRS = (pair("a", "a", "b"), pair("b"), pair("a", "b"), pair("tie", "a"))


@pytest.mark.parametrize(
    ("rule", "preference", "weight"),
    [
        ("votes", [2 / 3, 0.0, 0.5, 0.75], [1.5, 0.5, 1.0, 1.0]),
        ("soft", [2 / 3, 0.0, 0.5, 0.75], [1.0] * 4),
        ("majority", [1.0, 0.0, 0.5, 1.0], [1.0] * 4),
    ],
)
def test_golden_labels(rule, preference, weight):
    labels = labels_of(PAIRS, rule)
    assert labels.preference.tolist() == pytest.approx(preference)
    assert labels.weight.tolist() == pytest.approx(weight)


def test_counting_every_vote_is_the_loss_summed_over_votes():
    labels, differences = labels_of(PAIRS, "votes"), torch.tensor([0.7, -1.0, 2.0, 0.1], dtype=torch.float64)
    zeros = torch.zeros(4, dtype=torch.float64)
    losses = bradley_terry_loss(differences, zeros, torch.from_numpy(labels.preference))
    total = float((torch.from_numpy(labels.weight) * losses).sum())
    single = sum(
        float(
            bradley_terry_loss(d, torch.zeros_like(d), torch.tensor({"a": 1.0, "b": 0.0, "tie": 0.5}[v.label]).double())
        )
        for d, row in zip(differences, PAIRS, strict=True)
        for v in row.votes
    )
    assert total == pytest.approx(single / (8 / 4))  # weights are 1 on average


def test_dawid_skene_needs_pairs_that_two_have_judged():
    against_eve = [pair("a", "a", "b"), pair("b", "b", "a")] * 5
    labels = labels_of([*against_eve, pair("a", "b", names=("ann", "eve"))], "dawid-skene")
    assert labels.weight.tolist() == [1.0] * 11
    assert labels.preference[-1] > 0.9
    with pytest.raises(DataError, match="no pair was judged by two annotators"):
        labels_of([pair("a"), pair("b", names=("bob",))], "dawid-skene")


def test_annotators_that_cannot_be_compared_are_refused():
    with pytest.raises(DataError, match="1 of 2 votes do not say whose they are"):
        check_annotators([pair("a"), pair("b", names=("",))])
    with pytest.raises(DataError, match="one annotator cast all votes"):
        check_annotators([pair("a"), pair("b")])
    check_annotators(PAIRS)


def test_pairs_with_many_votes_do_not_change_the_mean_weight():
    labels = labels_of([pair("a", "b", "a", "b", "a"), pair("b")], "votes")
    assert np.mean(labels.weight) == pytest.approx(1.0)
