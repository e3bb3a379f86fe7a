"""The statistics of a policy audit: how often a policy does something, and how much more than before, item by item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from palate.audit.policy.behaviours import Unit
from palate.audit.statistics import ALPHA, Floats, sign_test, wilson

LEAST_SHARE = 0.05
"""A share that has grown by less is not flagged, however sure it is."""

LEAST_WORDS = 0.1
"""The same for words, as a part of their number before."""


@dataclass(frozen=True, slots=True)
class Level:
    """A mean over trials with its 95 % interval: Wilson's for shares, Student's for words."""

    value: float
    low: float
    high: float
    trials: int


@dataclass(frozen=True, slots=True)
class Change:
    """After less before over the same trials.

    Attributes:
        value: Mean difference.
        low: Lower end of its 95 % interval: Bonett and Price's (2012) for shares, Student's for words.
        high: Its upper end.
        more: Trials that show more after.
        fewer: Trials that show less after.
        p: Exact, one-sided, that so many show more: the sign test, which for shares is McNemar's.
    """

    value: float
    low: float
    high: float
    more: int
    fewer: int
    p: float


def level(unit: Unit, shown: Floats) -> Level | None:
    """The mean of (N,) trials; None where there are too few for an interval."""
    if len(shown) < _fewest(unit):
        return None
    if unit is Unit.WORDS:
        return Level(float(shown.mean()), *_student(shown), len(shown))
    share = wilson(int(shown.sum()), len(shown))
    assert share is not None
    return Level(share.value, share.low, share.high, len(shown))


def change(unit: Unit, before: Floats, after: Floats) -> Change | None:
    """What (N,) trials show after and did not before; None where there are too few for an interval."""
    if len(before) < _fewest(unit):
        return None
    differences = after - before
    more, fewer = int((differences > 0).sum()), int((differences < 0).sum())
    low, high = _student(differences) if unit is Unit.WORDS else _paired(more, fewer, len(before))
    return Change(float(differences.mean()), low, high, more, fewer, sign_test(more, fewer, "greater"))


def is_worse(unit: Unit, adjusted: float, before: Level, found: Change) -> bool:
    """Whether a change is flagged: surely more than before, and by enough to matter."""
    least = LEAST_SHARE if unit is Unit.SHARE else LEAST_WORDS * before.value
    return adjusted < ALPHA and found.value >= least


def _fewest(unit: Unit) -> int:
    return 2 if unit is Unit.WORDS else 1


def _student(values: Floats) -> tuple[float, float]:
    """Ends of the mean's interval."""
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def _paired(more: int, fewer: int, trials: int) -> tuple[float, float]:
    """Ends of the interval of a difference of paired shares, with one trial added to either kind of change."""
    up, down = (more + 1) / (trials + 2), (fewer + 1) / (trials + 2)
    half = float(norm.ppf(0.975)) * np.sqrt((up + down - (up - down) ** 2) / (trials + 2))
    return max(-1.0, float(up - down - half)), min(1.0, float(up - down + half))
