"""Dawid–Skene: which completion is better and how each annotator errs, from votes alone; texts are not looked at.

The baseline that learns annotators before, and not with, the reward model. Source: Dawid & Skene 1979, EM. Here the
truth is a or b, and a vote is one of a, b, tie.
"""

from __future__ import annotations

import numpy as np

from trainer.reward_model.reliability import Array, VoteTable

_LEAST = 1e-10
"""Smallest probability of a vote; without it one vote that an annotator had never cast before would decide a pair."""

_KINDS = 3


def dawid_skene(votes: VoteTable, rounds: int = 100, tolerance: float = 1e-6) -> Array:
    """(P,) probability that a is the better one, each pair with at least one vote.

    Args:
        votes: What annotators said.
        rounds: At most so many, each an M step and an E step; the start is the share of votes, a tie for half of both.
        tolerance: Ends when no probability moves by more.
    """
    kind = (2 * votes.preference).astype(np.int64)  # (V,) 0 = b, 1 = tie, 2 = a
    counts = np.bincount(votes.pair)
    better = np.bincount(votes.pair, votes.preference) / counts
    for _ in range(rounds):
        former, better = better, _e_step(votes, kind, better)
        if np.abs(better - former).max() < tolerance:
            break
    return better


def _e_step(votes: VoteTable, kind: Array, better: Array) -> Array:
    """(P,) probabilities from the confusions and the prior that `better` gives."""
    log_odds = np.log(max(better.mean(), _LEAST)) - np.log(max(1.0 - better.mean(), _LEAST))
    truth_a = _confusion(votes, kind, better[votes.pair])
    truth_b = _confusion(votes, kind, 1.0 - better[votes.pair])
    told = np.log(truth_a[votes.annotator, kind]) - np.log(truth_b[votes.annotator, kind])
    found: Array = 1.0 / (1.0 + np.exp(-(log_odds + np.bincount(votes.pair, told))))
    return found


def _confusion(votes: VoteTable, kind: Array, truth: Array) -> Array:
    """(K, 3) how each annotator votes where one side is the better one, with (V,) probability `truth`."""
    cell = votes.annotator * _KINDS + kind
    seen = np.bincount(cell, truth, minlength=len(votes.names) * _KINDS).reshape(-1, _KINDS)
    floored = np.maximum(seen, _LEAST)
    found: Array = floored / floored.sum(axis=1, keepdims=True)
    return found
