"""How much of a gain in score is what longer completions get anyway: gains within equal lengths against the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BUCKETS = 10


@dataclass(frozen=True, slots=True)
class Scored:
    """(N,) lengths and (N,) scores of completions."""

    lengths: Array
    scores: Array


@dataclass(frozen=True, slots=True)
class LengthShare:
    """What length explains.

    Attributes:
        gain: Mean score after − before.
        within: The same at equal length: mean over buckets of length, by how many of both lie there.
        share: 1 − within / gain; below 0 where gains are larger at equal length. None where nothing was gained.
        covered: Share of the completions in buckets that hold both kinds; of the others nothing is known.
    """

    gain: float
    within: float | None
    share: float | None
    covered: float


def length_share(before: Scored, after: Scored, buckets: int = _BUCKETS) -> LengthShare:
    """Compares completions of equal length before and after.

    Buckets hold about equally many of all completions. Source: Singhal et al. 2023 (2310.03716), section 3.

    Raises:
        ValueError: A side is empty.
    """
    if not len(before.scores) or not len(after.scores):
        raise ValueError("there are no completions on one side")
    gain = float(after.scores.mean() - before.scores.mean())
    edges = np.unique(
        np.quantile(np.concatenate([before.lengths, after.lengths]), np.linspace(0, 1, buckets + 1)[1:-1])
    )
    places = [np.searchsorted(edges, side.lengths, side="right") for side in (before, after)]
    counts, sums = zip(
        *[
            (np.bincount(place, minlength=len(edges) + 1), np.bincount(place, side.scores, minlength=len(edges) + 1))
            for place, side in zip(places, (before, after), strict=True)
        ],
        strict=True,
    )
    both = (counts[0] > 0) & (counts[1] > 0)
    weights = (counts[0] + counts[1])[both]
    covered = float(weights.sum()) / (len(before.scores) + len(after.scores))
    if not both.any():
        return LengthShare(gain, None, None, covered)
    gains = sums[1][both] / counts[1][both] - sums[0][both] / counts[0][both]
    within = float(np.average(gains, weights=weights))
    return LengthShare(gain, within, 1 - within / gain if gain > 0 else None, covered)
