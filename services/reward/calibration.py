"""From raw scores to what is served: members into one score, how far they are apart, and the calibrated value.

Pure functions. Variances and standard deviations are those of the members themselves: divided by M, not by M - 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from palate.models.manifest import Calibration


class Aggregate(StrEnum):
    """How members become one score."""

    MEAN = "mean"
    MIN = "min"
    MEAN_MINUS_VARIANCE = "mean_minus_variance"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A way to make one score of several.

    Attributes:
        aggregate: Which.
        variance_weight: λ ≥ 0 of mean − λ·variance; 0 elsewhere.
    """

    aggregate: Aggregate = Aggregate.MEAN
    variance_weight: float = 0.0


MEAN = Aggregation()
"""What is meant where nothing is said."""


def aggregated(members: Sequence[float], aggregation: Aggregation) -> float:
    """One score of (M,) members' scores; of a single one, itself.

    Source: Coste et al. 2023 (2310.02743): mean, worst case (WCO) and uncertainty-weighted (UWO) optimisation.
    """
    if len(members) == 1:
        return members[0]
    if aggregation.aggregate is Aggregate.MIN:
        return min(members)
    return _mean(members) - aggregation.variance_weight * _variance(members)


def spread(members: Sequence[float]) -> float | None:
    """Standard deviation of (M,) members' scores; None where there is only one."""
    return math.sqrt(_variance(members)) if len(members) > 1 else None


def calibrated(score: float, calibration: Calibration | None) -> float | None:
    """(score − mean) / std over the reference samples; None where none were measured."""
    return None if calibration is None else (score - calibration.mean) / calibration.std


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / len(values)
