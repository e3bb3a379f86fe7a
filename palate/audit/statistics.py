"""The statistics of an audit, as pure functions: sign test, Wilson interval, Holm, effects in SD of the scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from palate.audit.items import Alternative, Measure
from palate.wilson import wilson_interval

Floats = NDArray[np.float64]

ALPHA = 0.05
"""Family-wise: the chance that a model without any fault has one flagged."""

LEAST_EFFECT = 0.2
"""SD of the model's scores; what is smaller is not flagged, however sure it is. Of REPEAT a hit alone is a size."""

TIE = 1e-6
"""SD; scores that are closer than that are equal: it is rounding in float32."""

MOVED = 0.05
"""SD; a text that scores so much otherwise in other company has moved."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of trials with its 95 % Wilson interval."""

    hits: int
    trials: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Leaning:
    """Which way a model leans over the items of a probe.

    Attributes:
        hits: Items that hit.
        misses: Items that do not.
        ties: Items that say neither; the test leaves them out, the effect does not.
        effect: Median of what is compared, in SD of the model's scores; for ORDER and REPEAT the mean distance.
    """

    hits: int
    misses: int
    ties: int
    effect: float

    @property
    def decided(self) -> int:
        """Items that say either."""
        return self.hits + self.misses

    @property
    def share(self) -> Share | None:
        """Of hits among hits and misses."""
        return wilson(self.hits, self.hits + self.misses)


def spread_within(groups: Iterable[Floats]) -> float | None:
    """SD of scores around the mean of their own group, pooled over the degrees of freedom; None where none has two."""
    several = [each for each in groups if len(each) > 1]
    if not several:
        return None
    squares = sum(float(np.sum((each - each.mean()) ** 2)) for each in several)
    return float(np.sqrt(squares / sum(len(each) - 1 for each in several)))


def evidence(measure: Measure, scores: Floats) -> Floats:
    """(N,) how much each of (N, K) items shows what its probe looks for: above 0 it does, in the scores' own unit.

    For ORDER it is the product of both gaps, negated; for REPEAT the distance.
    """
    first = scores[:, 0] - scores[:, 1]
    if measure is Measure.PAIR:
        return first
    if measure is Measure.REPEAT:
        return np.abs(first)
    second = scores[:, 2] - scores[:, 3]
    return first - second if measure is Measure.SQUARE else -first * second


def leaning(measure: Measure, scores: Floats, sd: float) -> Leaning:
    """What (N, K) scores of N items say, K being `measure.texts`; `sd` is the unit, `Scale.sd`."""
    if not len(scores):
        return Leaning(0, 0, 0, 0.0)
    units = scores / sd
    shown = evidence(measure, units)
    if measure is Measure.REPEAT:
        return _counted(shown > MOVED, np.zeros(len(shown), bool), float(np.mean(shown)))
    if measure is Measure.ORDER:
        first, second = units[:, 0] - units[:, 1], units[:, 2] - units[:, 3]
        ties = (np.abs(first) <= TIE) | (np.abs(second) <= TIE)
        return _counted(shown > 0, ties, float(np.mean(np.abs(first - second))))
    return _counted(shown > 0, np.abs(shown) <= TIE, float(np.median(shown)))


def sign_test(hits: int, misses: int, alternative: Alternative = "two-sided", null: float = 0.5) -> float:
    """Exact p of so many hits among those that are no ties, where hits had the chance `null`; 1 without any trial.

    Ties are left out, as in Dixon and Mood 1946: they say nothing of the direction.
    """
    if hits + misses == 0:
        return 1.0
    return float(binomtest(hits, hits + misses, null, alternative).pvalue)


def wilson(hits: int, trials: int) -> Share | None:
    """A share with its 95 % interval; None without any trial."""
    if trials == 0:
        return None
    return Share(hits, trials, hits / trials, *wilson_interval(hits, trials))


def holm(p_values: Sequence[float]) -> list[float]:
    """P adjusted for a family (Holm 1979), in the order given; rejecting those below α errs at most with chance α."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def is_flagged(adjusted: float, effect: float, alternative: Alternative, measure: Measure) -> bool:
    """Whether a probe is flagged: surely, and by enough to matter, in a direction that is a fault."""
    size = abs(effect) if alternative == "two-sided" else effect
    return adjusted < ALPHA and (measure is Measure.REPEAT or size >= LEAST_EFFECT)


def _counted(hits: NDArray[np.bool_], ties: NDArray[np.bool_], effect: float) -> Leaning:
    tied = int(ties.sum())
    found = int((hits & ~ties).sum())
    return Leaning(found, len(hits) - tied - found, tied, effect)
