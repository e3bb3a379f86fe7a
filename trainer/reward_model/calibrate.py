"""Where scores lie on reference samples, how sure a difference is, and whether that sureness is deserved."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.optimize import minimize_scalar

from palate.models.manifest import Calibration
from trainer.data.lines import DataError
from trainer.reward_model.halves import halved

_LOG_RANGE = (-6.0, 6.0)
_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose preferred side has about the same probability.

    Attributes:
        predicted: Mean probability of the side that the model prefers, in [½, 1].
        observed: Mean share of votes for that side.
        count: Pairs.
    """

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, slots=True)
class Sureness:
    """How far probabilities can be believed.

    Attributes:
        error: Expected calibration error: mean |predicted − observed| over bins, by their counts (Guo et al. 2017).
        bins: Of equal width over [½, 1], those that hold pairs.
        split: What the halves are of: whole groups, or rows where one group holds nearly all.
    """

    error: float
    bins: tuple[Bin, ...]
    split: Literal["groups", "rows"]


def sureness_of(
    differences: Sequence[float], preferences: Sequence[float], groups: Sequence[Hashable]
) -> Sureness | None:
    """Probabilities σ(t·Δ) against votes, each half of the groups with the t that is fitted on the other half.

    Args:
        differences: (H,) raw score(a) − score(b) of pairs that were not trained on.
        preferences: (H,) share of votes for a.
        groups: (H,) what each pair belongs to.

    Returns:
        None where a half is empty.
    """
    rows, halves = list(zip(differences, preferences, strict=True)), halved(groups)
    if halves is None:
        return None
    parts = [[rows[place] for place in half] for half in (halves.first, halves.second)]
    scales = [fitted_logit_scale(*zip(*part, strict=True)) for part in parts]
    logits = [(scales[1 - i] * difference, preference) for i in (0, 1) for difference, preference in parts[i]]
    bins = _binned([(_sigmoid(abs(z)), preference if z >= 0 else 1.0 - preference) for z, preference in logits])
    error = math.fsum(bin.count * abs(bin.predicted - bin.observed) for bin in bins) / len(rows)
    return Sureness(error, bins, halves.by)


def _binned(sure: Sequence[tuple[float, float]]) -> tuple[Bin, ...]:
    """(probability, votes) of each pair's preferred side, put together."""
    filled: dict[int, list[tuple[float, float]]] = {}
    for predicted, observed in sure:
        filled.setdefault(min(int((predicted - 0.5) * 2 * _BINS), _BINS - 1), []).append((predicted, observed))
    return tuple(
        Bin(statistics.fmean(p for p, _ in rows), statistics.fmean(o for _, o in rows), len(rows))
        for _, rows in sorted(filled.items())
    )


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


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))
