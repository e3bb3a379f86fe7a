"""How many labels an accuracy takes: an estimate, from accuracies at growing shares of the data.

The error is taken to fall as a power of the number of pairs, error = exp(intercept) · n^slope (Hestness et al. 2017,
without a floor, which a handful of points cannot tell). Beyond the data this is a guess, and it is reported as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from trainer.reward_model.reliability import Array

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
_FEWEST = 8
"""Pairs that the smallest share must hold."""

_DRAWS, _FURTHEST = 200, 1000.0
"""Resamples of the held-out pairs; an estimate of more than so many times the data is none."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Accuracy over pairs learnt from, and what it would take to reach another.

    Attributes:
        pairs: Sizes of the nested shares.
        accuracies: On all held-out pairs that are no tie.
        target: The accuracy that is asked for.
        needed: Pairs that give it; None where the curve does not lead there within 1000 times the data.
        low: Lower end of the 95 % bootstrap interval over held-out pairs.
        high: Its upper end; None where more than one in forty resamples do not lead there.
    """

    pairs: tuple[int, ...]
    accuracies: tuple[float, ...]
    target: float
    needed: int | None
    low: int | None
    high: int | None


def learning_curve(
    count: int, credits_at: Callable[[Sequence[int]], Sequence[float]], target: float, rng: Random
) -> LearningCurve | None:
    """Learns from growing parts of `count` pairs; None where they are too few for a curve.

    Args:
        count: Pairs that can be learnt from.
        credits_at: Learns from these indices; (H,) 1 for every held-out pair that is judged as labelled, 0 or ½ else.
        target: Accuracy to reach.
        rng: Source of the parts and the resamples.
    """
    order = rng.sample(range(count), count)
    sizes = [round(share * count) for share in SHARES]
    if sizes[0] < _FEWEST:
        return None
    credits = np.array([credits_at(sorted(order[:size])) for size in sizes])  # (S, H)
    if credits.shape[1] == 0:
        return None
    places = np.random.default_rng(rng.getrandbits(63)).integers(credits.shape[1], size=(_DRAWS, credits.shape[1]))
    drawn = sorted(pairs_needed(sizes, credits[:, row].mean(axis=1), target) for row in places)
    low, high = drawn[int(0.025 * _DRAWS)], drawn[math.ceil(0.975 * _DRAWS) - 1]
    accuracies = credits.mean(axis=1)
    values = [_whole(value, count) for value in (pairs_needed(sizes, accuracies, target), low, high)]
    return LearningCurve(tuple(sizes), tuple(accuracies.tolist()), target, *values)


def pairs_needed(sizes: Sequence[int], accuracies: Array, target: float) -> float:
    """Where the fitted power law reaches `target`; infinity where the error does not fall.

    Args:
        sizes: (S,) pairs learnt from.
        accuracies: (S,) what they gave; each error counts as at least one in a million.
        target: Accuracy below 1.
    """
    errors = np.log(np.maximum(1.0 - accuracies, 1e-6))
    slope, intercept = np.polyfit(np.log(sizes), errors, 1)
    if slope >= 0:
        return math.inf
    exponent = (math.log(1.0 - target) - intercept) / slope
    return math.exp(exponent) if exponent < 700 else math.inf


def _whole(pairs: float, count: int) -> int | None:
    return None if pairs > _FURTHEST * count else math.ceil(pairs)
