"""Draws whole groups with replacement: for a member of an ensemble, and for how far other groups may differ."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random

import numpy as np

FEWEST_GROUPS = 5
"""Of fewer groups their draws say too little of others."""

_DRAWS, _SEED = 1000, 0


def draw_groups(groups: Sequence[Hashable], rng: Random) -> list[int]:
    """Places of what is drawn, group by group; about 63 % of the groups are there, some of them several times.

    Args:
        groups: What each place belongs to.
        rng: Source of the draw.
    """
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return [place for group in rng.choices(list(places), k=len(places)) for place in places[group]]


def interval_over_groups(credits: Sequence[float], groups: Sequence[Hashable]) -> tuple[float, float] | None:
    """Ends of a 95 % percentile bootstrap interval of the mean of `credits`, whole groups drawn with replacement.

    Args:
        credits: (H,) what is averaged.
        groups: (H,) what each belongs to.

    Returns:
        None where there are fewer than `FEWEST_GROUPS`, or all credits are equal, so that every draw gives the same.
    """
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    if len(number) < FEWEST_GROUPS or min(credits) == max(credits):
        return None
    places = np.array([number[group] for group in groups])
    sums, sizes = np.bincount(places, credits), np.bincount(places)
    rng = np.random.default_rng(_SEED)
    drawn = (rng.integers(len(sums), size=len(sums)) for _ in range(_DRAWS))  # one at a time: groups may be many
    low, high = np.quantile([sums[row].sum() / sizes[row].sum() for row in drawn], (0.025, 0.975))
    return float(low), float(high)
