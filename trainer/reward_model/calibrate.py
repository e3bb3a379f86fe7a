"""What is stored beside the weights: where scores lie on reference samples, and how sure a difference is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.optimize import minimize_scalar

from palate.models.manifest import Calibration
from trainer.data.lines import DataError

_LOG_RANGE = (-6.0, 6.0)


def calibration_of(scores: Sequence[float]) -> Calibration:
    """Mean and population standard deviation of raw scores, so that (score − mean) / std has 0 and 1 there.

    Raises:
        DataError: All scores are the same.
    """
    mean, std = statistics.fmean(scores), statistics.pstdev(scores)
    if not (math.isfinite(std) and std > 0):
        raise DataError(
            "every reference completion has the same score, so the model has learnt nothing; train longer, or look at "
            "the comparisons"
        )
    return Calibration(mean, std)


def fitted_logit_scale(differences: Sequence[float], preferences: Sequence[float]) -> float:
    """The factor t > 0 with which σ(t·Δ) fits the labels best (temperature scaling, Guo et al. 2017, T = 1/t).

    Args:
        differences: Raw score(a) − score(b) of comparisons that were not trained on.
        preferences: As labelled: 1, 0, or ½ for a tie.

    Returns:
        Within e⁻⁶ … e⁶: a model that is always right would ask for infinity.
    """
    rows = list(zip(differences, preferences, strict=True))

    def loss(log_scale: float) -> float:
        scale = math.exp(log_scale)
        return math.fsum(_loss(scale * difference, preference) for difference, preference in rows)

    return math.exp(float(minimize_scalar(loss, bounds=_LOG_RANGE, method="bounded").x))


def _loss(logit: float, preference: float) -> float:
    """−p log σ(z) − (1 − p) log σ(−z), without overflow."""
    return max(logit, 0.0) - preference * logit + math.log1p(math.exp(-abs(logit)))
