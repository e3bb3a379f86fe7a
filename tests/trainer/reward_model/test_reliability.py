from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from trainer.data.comparisons import Comparison
from trainer.data.votes import Pair, Vote, pairs_of
from trainer.reward_model.reliability import (
    Prior,
    chance_right,
    interval,
    learn_jointly,
    meant,
    vote_table,
)

PRIOR = Prior(4.0, 2.0)


def naive_chance(delta, vote, eta):
    """Bayes' rule, one vote at a time; a tie is half a vote for each side."""
    sigma = 1 / (1 + np.exp(-delta))
    if vote == 0.5:
        return 0.5 * naive_chance(delta, 1.0, eta) + 0.5 * naive_chance(delta, 0.0, eta)
    says_so = sigma if vote == 1.0 else 1 - sigma
    return eta * says_so / (eta * says_so + (1 - eta) * (1 - says_so))


votes = st.tuples(st.floats(-8, 8), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.01, 0.99))


@given(st.lists(votes, min_size=1, max_size=6))
def test_the_e_step_is_bayes_rule(drawn):
    columns = (np.array(column) for column in zip(*drawn, strict=True))
    expected = [naive_chance(*vote) for vote in drawn]
    assert chance_right(*columns) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("delta", "vote", "eta", "chance"),
    [
        (0.0, 1.0, 0.8, 0.8),  # an open pair tells nothing of the vote
        (np.log(3.0), 1.0, 0.5, 0.75),
        (np.log(3.0), 0.0, 0.5, 0.25),
        (np.log(3.0), 1.0, 0.8, 12 / 13),  # 0.8 · 3 : 0.2 · 1
    ],
)
def test_golden_chances(delta, vote, eta, chance):
    assert chance_right(np.array([delta]), np.array([vote]), np.array([eta]))[0] == pytest.approx(chance)


@given(st.lists(votes, min_size=1, max_size=6))
def test_what_a_vote_means_is_bayes_rule_too(drawn):
    expected = [
        vote * naive_chance(d, 1.0, eta) + (1 - vote) * (1 - naive_chance(d, 0.0, eta)) for d, vote, eta in drawn
    ]
    columns = (np.array(column) for column in zip(*drawn, strict=True))
    assert meant(*columns) == pytest.approx(expected, abs=1e-12)


def test_a_tie_of_somebody_who_errs_does_not_hide_a_clear_difference():
    assert meant(np.array([30.0]), np.array([0.5]), np.array([0.8]))[0] == pytest.approx(1.0)


def test_the_priors_maximum_is_that_of_the_beta_posterior():
    assert PRIOR.most_likely(np.array([0.0, 7.0]), np.array([0.0, 8.0])).tolist() == pytest.approx([0.75, 10 / 12])


def test_votes_become_columns_in_the_order_of_the_pairs():
    pairs = [Pair("p", "x", "y", (Vote("bob", "b"), Vote("ann", "tie"))), Pair("p", "x", "z", (Vote("bob", "a"),))]
    table = vote_table(pairs)
    assert table.names == ("ann", "bob")
    assert (table.pair.tolist(), table.annotator.tolist()) == ([0, 0, 1], [1, 0, 1])
    assert table.preference.tolist() == [0.0, 0.5, 1.0]
    assert table.per_annotator(table.preference).tolist() == [0.5, 1.0]


@given(st.integers(0, 30), st.integers(0, 30))
def test_where_pairs_are_clear_the_interval_is_that_of_the_beta_posterior(right, wrong):
    from scipy.stats import beta

    differences, preference = np.full(right + wrong, 40.0), np.array([1.0] * right + [0.0] * wrong)
    expected = beta.ppf([0.025, 0.975], right + PRIOR.right, wrong + PRIOR.wrong)
    assert interval(differences, preference, PRIOR) == pytest.approx(tuple(expected), abs=2e-3)


def test_open_pairs_leave_the_interval_to_the_prior():
    some = interval(np.zeros(50), np.ones(50), PRIOR)
    assert some == pytest.approx(interval(np.zeros(0), np.zeros(0), PRIOR))


def crowd(rng, reliabilities, count):
    """Items on a line judged by annotators who err; each pair by three of them."""
    quality = [rng.gauss(0, 2) for _ in range(30)]
    rows = []
    for _ in range(count):
        x, y = rng.sample(range(30), 2)
        for k in rng.sample(range(len(reliabilities)), 3):
            prefers_x = rng.random() < expit(quality[x] - quality[y])
            told = prefers_x == (rng.random() < reliabilities[k])
            rows.append(Comparison("", f"item {x}", f"item {y}", "a" if told else "b", f"w{k}"))
    return rows


class Line:
    """One score an item: Bradley–Terry by gradient descent, as a naive twin of what models do."""

    def __init__(self, pairs):
        self.sides = [(int(pair.a.split()[1]), int(pair.b.split()[1])) for pair in pairs]
        self.scores = np.zeros(30)

    def fit(self, preference, weight):
        first, second = np.array(self.sides).T
        for _ in range(200):
            error = weight * (preference - expit(self.scores[first] - self.scores[second]))
            gradient = np.bincount(first, error, 30) - np.bincount(second, error, 30) - 0.1 * self.scores
            self.scores = self.scores + 0.02 * gradient
        return self.scores[first] - self.scores[second]


@pytest.mark.parametrize("seed", [0, 1])
def test_reliabilities_are_recovered_together_with_scores_adversaries_too(seed):
    reliabilities = [0.95, 0.9, 0.85, 0.75, 0.6, 0.5, 0.3, 0.1]
    pairs = pairs_of(crowd(Random(seed), reliabilities, 600))
    learnt = learn_jointly(vote_table(pairs), PRIOR, Line(pairs).fit)
    assert np.abs(learnt - reliabilities).max() < 0.12


def test_the_prior_says_which_of_two_mirror_images_is_meant():
    """All sides turned: annotators stay as reliable as they were, and only the scores turn."""
    rows = crowd(Random(3), [0.9, 0.9, 0.8, 0.2], 300)
    turned = [Comparison(r.prompt, r.a, r.b, "b" if r.label == "a" else "a", r.annotator) for r in rows]
    (one, line), (other, mirror) = (
        (learn_jointly(vote_table(pairs), PRIOR, line.fit), line)
        for pairs in (pairs_of(rows), pairs_of(turned))
        for line in [Line(pairs)]
    )
    assert one == pytest.approx(other, abs=1e-6)
    assert one[0] > 0.8 > 0.4 > one[3]
    assert line.scores == pytest.approx(-mirror.scores, abs=1e-6)
