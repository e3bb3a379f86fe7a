"""How well scores agree that ought to be the same: in standard deviations, in order, and bit by bit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.models.tolerances import spread

Scores = NDArray[np.floating[Any]]

CLOSE = 0.1
"""Standard deviations; two texts that score closer are the ones whose order an error turns first."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What one batch or one call gave.

    Attributes:
        texts: (B,) which of the texts were in it.
        scores: (B,) their scores.
    """

    texts: NDArray[np.intp]
    scores: Scores


@dataclass(frozen=True, slots=True)
class Agreement:
    """How scores in company compare with those of the same texts alone.

    Attributes:
        deviation: Largest difference, in standard deviations of the scores alone.
        flips: Pairs within one batch that stand in another order than alone; a tie is an order of its own.
        is_bitwise: Whether all bits are the same.
    """

    deviation: float
    flips: int
    is_bitwise: bool


def agreement(alone: Scores, batches: Iterable[Scored]) -> Agreement:
    """Compares batches with the (N,) scores of all texts alone; at least one batch."""
    scale, each = spread(alone), [(alone[batch.texts], batch.scores) for batch in batches]
    return Agreement(
        max(float(np.abs(expected - found).max()) for expected, found in each) / scale,
        sum(map(_flips, *zip(*each, strict=True))),
        all(expected.tobytes() == found.tobytes() for expected, found in each),
    )


def close_pairs(scores: Scores) -> int:
    """How many pairs of (N,) scores are less than `CLOSE` apart, and not equal."""
    apart = np.abs(_differences(scores))
    return int(((apart > 0) & (apart < CLOSE * spread(scores))).sum())


def spearman(first: Scores, second: Scores) -> float | None:
    """Rank correlation of two (N,) scores of the same texts; None where one of them has no order."""
    ranks = np.stack([mean_ranks(first), mean_ranks(second)])
    return None if (ranks.std(axis=1) == 0).any() else float(np.asarray(np.corrcoef(ranks))[0, 1])


def _flips(expected: Scores, found: Scores) -> int:
    return int((np.sign(_differences(expected)) != np.sign(_differences(found))).sum())


def _differences(scores: Scores) -> Scores:
    """(N (N - 1) / 2,) of every pair."""
    apart: Scores = np.subtract.outer(scores, scores)
    return apart[np.triu_indices(len(scores), 1)]


def mean_ranks(scores: Scores) -> NDArray[np.float64]:
    """From 1; equal scores share the mean of their places."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    ranks: NDArray[np.float64] = middle[place]
    return ranks
