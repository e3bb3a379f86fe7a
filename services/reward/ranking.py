"""Scores into comparisons and places; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def preference_probability(difference: float, logit_scale: float) -> float:
    """Bradley–Terry probability that the better-scored side is preferred: sigmoid(difference · logit_scale).

    Source: Bradley and Terry 1952; as in Ouyang et al. 2022, equation 1.
    """
    x = difference * logit_scale
    # Both branches keep the exponent negative, so that no difference overflows.
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def best_first(scores: Mapping[int, float]) -> list[int]:
    """Indices by falling score; equal scores keep their order."""
    return sorted(scores, key=lambda index: (-scores[index], index))


def ranks(scores: Mapping[int, float]) -> dict[int, int]:
    """1 = best; equal scores share the better place."""
    places: dict[int, int] = {}
    place, previous = 0, math.nan
    for position, index in enumerate(best_first(scores), start=1):
        if scores[index] != previous:
            place, previous = position, scores[index]
        places[index] = place
    return places


def z_scores(scores: Sequence[float]) -> list[float] | None:
    """(score − mean) / population standard deviation; None where scores do not differ."""
    if not scores or max(scores) == min(scores):
        return None
    mean = math.fsum(scores) / len(scores)
    std = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    return [(score - mean) / std for score in scores] if std > 0 else None
