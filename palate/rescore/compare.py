"""How far two reward models agree about the same rollouts: in rank, in pairs, in who wins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.models.agreement import mean_ranks, spearman
from palate.wilson import Z

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

_FEWEST = 4
"""Below this the interval of a rank correlation is the whole line."""


@dataclass(frozen=True, slots=True, eq=False)
class Both:
    """Rollouts with two scores.

    Attributes:
        index: (N,) which of the stored rollouts each is, from 0.
        step: (N,) the step it was drawn in.
        prompt: (N,) a number that is the same for the same prompt.
        before: (N,) the score that the run has stored.
        after: (N,) the other one.
    """

    index: Ints
    step: Ints
    prompt: Ints
    before: Floats
    after: Floats

    def of_step(self, step: int) -> Both:
        """Those of one step."""
        rows = self.step == step
        return Both(self.index[rows], self.step[rows], self.prompt[rows], self.before[rows], self.after[rows])

    def groups(self) -> Ints:
        """(N,) a number for each prompt within each step."""
        pairs = np.stack([self.step, self.prompt])
        inverse: Ints = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
        return inverse


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Flips:
    """Pairs that both models order, those they order differently, and those that one of them does not order."""

    pairs: int
    flipped: int
    tied: int

    @property
    def share(self) -> float | None:
        """Of the ordered pairs; None where there are none."""
        return self.flipped / self.pairs if self.pairs else None


@dataclass(frozen=True, slots=True)
class Winners:
    """Groups of completions of one prompt in one step, and those whose best completion is another one afterwards."""

    groups: int
    changed: int


def rank_correlation(before: Floats, after: Floats) -> Correlation | None:
    """Of two (N,) scores; None where there are fewer than four, or one of them has no order.

    The interval is that of Bonett and Wright 2000, on Fisher's scale. It takes rollouts for independent of each other.
    """
    if len(before) < _FEWEST or (value := spearman(before, after)) is None:
        return None
    value = max(-1.0, min(1.0, value))
    if abs(value) == 1:
        return Correlation(value, value, value)
    half = Z * math.sqrt((1 + value * value / 2) / (len(before) - 3))
    return Correlation(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half))


def flips(before: Floats, after: Floats, groups: Ints) -> Flips:
    """Of all pairs within (N,) groups."""
    ordered = flipped = total = 0
    for rows in _members(groups):
        one, other = before[rows], after[rows]
        total += len(rows) * (len(rows) - 1) // 2
        for place in range(len(rows) - 1):  # row by row: all pairs of a large batch would fill the memory
            agreed = np.sign(one[place + 1 :] - one[place]) * np.sign(other[place + 1 :] - other[place])
            flipped += int((agreed < 0).sum())
            ordered += int((agreed != 0).sum())
    return Flips(ordered, flipped, total - ordered)


def winners(before: Floats, after: Floats, groups: Ints) -> Winners:
    """Of (N,) groups with two or more rollouts; one of several best ones that stays best is no change."""
    contests = [rows for rows in _members(groups) if len(rows) > 1]
    changed = sum(not (_best(before[rows]) & _best(after[rows])).any() for rows in contests)
    return Winners(len(contests), int(changed))


def percentiles(scores: Floats) -> Floats:
    """(N,) the share of scores that each is above, equal ones counting half; from 0 to 1."""
    found: Floats = (mean_ranks(scores) - 0.5) / len(scores)
    return found


def disagreements(both: Both, count: int) -> Ints:
    """Which rows the two models rank most differently among all, the worst first."""
    apart = np.abs(percentiles(both.before) - percentiles(both.after))
    worst: Ints = np.argsort(-apart, kind="stable")[:count]
    return worst


def _best(scores: Floats) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = scores == scores.max()
    return found


def _members(groups: Ints) -> Iterator[Ints]:
    """The rows of each group."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    yield from (rows for rows in np.split(order, starts) if len(rows))
