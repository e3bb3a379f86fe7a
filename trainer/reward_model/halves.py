"""Two halves of what was held out: what is fitted on the one is looked at on the other; no group is in both."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

_FEWEST = 10
"""A half of whole groups holds at least one of so many rows; what is fitted on fewer says little of the rest."""


@dataclass(frozen=True, slots=True)
class Halves:
    """Places of the rows of each half.

    Attributes:
        first: In the order of the rows.
        second: The others.
        by: "groups", or "rows" where one group holds so many that the other half would hold fewer than a tenth of all,
            so that both halves are of it.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    by: Literal["groups", "rows"]


def halved(groups: Sequence[Hashable]) -> Halves | None:
    """Halves of about as many rows, at worst one of a tenth; None where there are fewer than two rows.

    Args:
        groups: What each row belongs to.
    """
    if len(groups) < 2:
        return None
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    halves: tuple[list[int], list[int]] = ([], [])
    for rows in sorted(places.values(), key=len, reverse=True):  # the largest first, so that the rest evens them out
        min(halves, key=len).extend(rows)
    if min(map(len, halves)) * _FEWEST < len(groups):
        return Halves(tuple(range(0, len(groups), 2)), tuple(range(1, len(groups), 2)), "rows")
    return Halves(tuple(sorted(halves[0])), tuple(sorted(halves[1])), "groups")
