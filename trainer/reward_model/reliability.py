"""How reliable annotators are, given how two completions differ: Crowd-BT's model of a vote, its EM steps, intervals.

P(annotator k prefers a) = η_k σ(Δ) + (1 − η_k) σ(−Δ), Δ = score(a) − score(b): with probability η_k an annotator says
what Bradley–Terry says, else the contrary. A tie counts as half a vote for each side. Source: Chen et al. 2013,
"Pairwise ranking aggregation in a crowdsourced setting", section 4.

Turning all scores and all η around gives the same likelihood, so a Beta prior with more weight above one half says
which of the two is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.special import expit

from trainer.data.comparisons import PREFERENCE
from trainer.data.votes import Pair

Array: TypeAlias = np.ndarray

_GRID = (np.arange(1000) + 0.5) / 1000
"""Values of η on which its posterior is computed."""

_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Prior:
    """Beta(right, wrong) of η: as many votes known beforehand, less one each, that were right and that were wrong."""

    right: float
    wrong: float

    def most_likely(self, right: Array, votes: Array) -> Array:
        """(K,) η at the posterior's maximum, where `right` of `votes` said what they should, each (K,)."""
        return (right + self.right - 1.0) / (votes + self.right + self.wrong - 2.0)


@dataclass(frozen=True, slots=True)
class VoteTable:
    """Votes as columns.

    Attributes:
        names: (K,) annotators, in alphabetical order; one whom nobody names is "".
        pair: (V,) which pair a vote is on.
        annotator: (V,) index into `names`.
        preference: (V,) 1 for a, 0 for b, ½ for a tie.
    """

    names: tuple[str, ...]
    pair: Array
    annotator: Array
    preference: Array

    def per_annotator(self, values: Array) -> Array:
        """(K,) sums of (V,) values over each annotator's votes."""
        return np.bincount(self.annotator, values, minlength=len(self.names))


def vote_table(pairs: Sequence[Pair]) -> VoteTable:
    """The votes on `pairs`, in their order."""
    votes = [(index, vote) for index, pair in enumerate(pairs) for vote in pair.votes]
    names = tuple(sorted({vote.annotator for _, vote in votes}))
    place = {name: index for index, name in enumerate(names)}
    return VoteTable(
        names,
        np.array([index for index, _ in votes], dtype=np.int64),
        np.array([place[vote.annotator] for _, vote in votes], dtype=np.int64),
        np.array([PREFERENCE[vote.label] for _, vote in votes]),
    )


def chance_right(difference: Array, preference: Array, reliability: Array) -> Array:
    """(V,) probability that a vote says what Bradley–Terry says rather than the contrary: the E step.

    Args:
        difference: (V,) Δ of the pair that a vote is on.
        preference: (V,) the vote.
        reliability: (V,) η of who cast it.
    """
    for_a, for_b = _right_for_a(difference, reliability), _right_for_a(-difference, reliability)
    found: Array = preference * for_a + (1.0 - preference) * for_b
    return found


def meant(difference: Array, preference: Array, reliability: Array) -> Array:
    """(V,) what Bradley–Terry says, given what was voted: the labels that scores learn in the M step."""
    for_a, for_b = _right_for_a(difference, reliability), _right_for_a(-difference, reliability)
    found: Array = preference * for_a + (1.0 - preference) * (1.0 - for_b)
    return found


def _right_for_a(difference: Array, reliability: Array) -> Array:
    """(V,) that a vote for a is right, by Bayes' rule."""
    right, wrong = reliability * expit(difference), (1.0 - reliability) * expit(-difference)
    found: Array = right / (right + wrong)
    return found


def learn_jointly(
    votes: VoteTable, prior: Prior, fit: Callable[[Array, Array], Array], rounds: int = 30, tolerance: float = 1e-3
) -> Array:
    """Expectation maximisation over scores and reliabilities.

    Args:
        votes: What annotators said.
        prior: Of every reliability.
        fit: Learns scores from (P,) preferences with (P,) weights, and returns (P,) differences.
        rounds: At most so many.
        tolerance: Ends when no reliability moves by more.

    Returns:
        (K,) reliabilities; the last call of `fit` belongs to them.
    """
    counts, weights = votes.per_annotator(np.ones(len(votes.pair))), np.bincount(votes.pair).astype(float)
    zeros = np.zeros(len(votes.names))
    reliability = prior.most_likely(zeros, zeros)
    difference = np.zeros(len(weights))
    for _ in range(rounds):
        told = meant(difference[votes.pair], votes.preference, reliability[votes.annotator])
        difference = fit(np.bincount(votes.pair, told) / weights, weights)
        right = chance_right(difference[votes.pair], votes.preference, reliability[votes.annotator])
        former, reliability = reliability, prior.most_likely(votes.per_annotator(right), counts)
        if np.abs(reliability - former).max() < tolerance:
            break
    return reliability


def interval(difference: Array, preference: Array, prior: Prior) -> tuple[float, float]:
    """95 % credible interval of one annotator's η, with the differences of the pairs taken as known.

    Where scores leave a pair open, a vote on it says little, and the interval is wide.

    Args:
        difference: (N,) Δ of the pairs that the annotator has judged.
        preference: (N,) what the annotator said.
        prior: Of η.
    """
    sigma = expit(difference)[:, None]  # (N, 1)
    for_a = _GRID * sigma + (1.0 - _GRID) * (1.0 - sigma)  # (N, G)
    votes = preference[:, None] * np.log(for_a) + (1.0 - preference[:, None]) * np.log1p(-for_a)
    before = (prior.right - 1.0) * np.log(_GRID) + (prior.wrong - 1.0) * np.log1p(-_GRID)
    log_posterior = votes.sum(axis=0) + before
    mass = np.exp(log_posterior - log_posterior.max()).cumsum()
    low, high = np.interp([_TAIL, 1.0 - _TAIL], mass / mass[-1], _GRID)
    return float(low), float(high)
