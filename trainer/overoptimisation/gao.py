"""How a reward goes with d = √KL: the forms of Gao et al. 2022 (2210.10760), fitted, with where they turn.

Best of n: R(d) = d (α − β d). Reinforcement learning: R(d) = d (α − β ln d). R is the gain over the start, 0 at d = 0.
Both are linear in α and β, so that least squares finds the one best fit. Intervals are of a bootstrap over units
(prompts, seeds, or the steps of a single run): whole units are drawn, since what belongs to one goes together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Form: TypeAlias = Literal["best_of_n", "rl"]

DRAWS = 1000
_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Unit:
    """Points that belong together: (K,) d = √KL and (K,) gains over the start."""

    d: Array
    gain: Array


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted form.

    Attributes:
        form: Which.
        alpha: Slope at the start (of best of n), in units of the reward.
        beta: How fast it bends; at most 0 where it does not turn.
        explained: 1 − squared residuals over squared deviations from the mean; None where gains do not differ.
    """

    form: Form
    alpha: float
    beta: float
    explained: float | None

    def at(self, d: float) -> float:
        """R(d)."""
        return d * self.alpha - float(_bend(self.form, np.array([d]))[0]) * self.beta

    def turning_point(self) -> float:
        """Beyond this d more optimisation costs reward: α/2β, or exp(α/β − 1); infinity where nothing turns."""
        if self.beta <= 0:
            return math.inf
        if self.form == "best_of_n":
            return max(0.0, self.alpha / (2 * self.beta))
        exponent = self.alpha / self.beta - 1
        return math.exp(exponent) if exponent < 700 else math.inf


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % bootstrap interval; ends may be infinite."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FitWithIntervals:
    """A fit of all units, and how far it moves when other units might have been seen.

    Attributes:
        fit: Of all.
        alpha: With its interval.
        beta: With its interval.
        turning_point: In d.
        turns: Share of the draws in which the form turns at all.
    """

    fit: Fit
    alpha: Interval
    beta: Interval
    turning_point: Interval
    turns: float


def fit(form: Form, units: Sequence[Unit]) -> Fit:
    """The least-squares fit of all points of all units.

    Raises:
        ValueError: There are fewer than two different d above 0, so that two numbers cannot be told.
    """
    solved = _solved(np.sum([_moments(form, unit) for unit in units], axis=0)[None])
    if not len(solved):
        raise ValueError("a fit needs at least two different d = √KL above 0")
    alpha, beta = map(float, solved[0])
    d, gain = (np.concatenate([getattr(unit, name) for unit in units]) for name in ("d", "gain"))
    residual, spread = gain - (d * alpha - _bend(form, d) * beta), gain - gain.mean()
    total = float(spread @ spread)
    return Fit(form, alpha, beta, 1 - float(residual @ residual) / total if total else None)


def fit_with_intervals(form: Form, units: Sequence[Unit], seed: int = 0, draws: int = DRAWS) -> FitWithIntervals:
    """The fit, and percentile intervals over draws of units with replacement.

    Raises:
        ValueError: As `fit`.
    """
    whole, times = fit(form, units), drawn_units(len(units), seed, draws)
    solved = _solved(times @ np.array([_moments(form, unit) for unit in units]))  # a draw of equal d tells nothing
    turning = [Fit(form, alpha, beta, None).turning_point() for alpha, beta in solved.tolist()]
    return FitWithIntervals(
        whole,
        interval_of(whole.alpha, solved[:, 0].tolist()),
        interval_of(whole.beta, solved[:, 1].tolist()),
        interval_of(whole.turning_point(), turning),
        sum(map(math.isfinite, turning)) / len(turning),
    )


def _moments(form: Form, unit: Unit) -> Array:
    """(5,) sums that least squares needs of a unit: x·x, x·z, z·z, x·y, z·y with x = d, z = −bend, y = gain."""
    x, z, y = unit.d, -_bend(form, unit.d), unit.gain
    return np.array([x @ x, x @ z, z @ z, x @ y, z @ y])


def _solved(moments: Array) -> Array:
    """(D, 2) α and β of (D, 5) moments, without those that fit any number of lines."""
    xx, xz, zz, xy, zy = moments.T
    determinant = xx * zz - xz * xz
    told = determinant > 1e-12 * np.maximum(xx * zz, np.finfo(float).tiny)
    found: Array = np.stack([zz * xy - xz * zy, xx * zy - xz * xy], axis=1)[told] / determinant[told, None]
    return found


def drawn_units(count: int, seed: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """(draws, U) how often each unit is in each draw with replacement of as many as there are."""
    places = np.random.default_rng(seed).integers(count, size=(draws, count))
    return np.stack([np.bincount(row, minlength=count) for row in places])


def interval_of(value: float, drawn: Sequence[float]) -> Interval:
    """A value with the percentiles of what draws gave."""
    ordered = sorted(drawn)
    return Interval(value, ordered[int(_TAIL * len(ordered))], ordered[math.ceil((1 - _TAIL) * len(ordered)) - 1])


def _bend(form: Form, d: Array) -> Array:
    """What β is multiplied with: d², or d ln d, which is 0 at 0."""
    if form == "best_of_n":
        return d * d
    return d * np.log(np.where(d > 0, d, 1.0))
