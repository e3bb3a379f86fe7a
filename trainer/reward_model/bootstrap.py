"""Draws data for a member of an ensemble: whole groups with replacement, as many as there are."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random


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
