"""How much of a gain in score is what longer completions get anyway: gains within equal lengths against the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BUCKETS = 10


@dataclass(frozen=True, slots=True)
class Scored:
    """(N,) lengths and (N,) scores of completions, and (N,) how much each counts; None = all alike."""

    lengths: Array
    scores: Array
    weights: Array | None = None

    def counts(self) -> Array:
        """(N,) how much each counts."""
        return np.ones(len(self.scores)) if self.weights is None else self.weights


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
    sides = before, after
    counted = [side.counts() for side in sides]
    gain = float(np.average(after.scores, weights=counted[1]) - np.average(before.scores, weights=counted[0]))
    lengths = np.concatenate([side.lengths for side in sides])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, buckets + 1)[1:-1]))
    places = [np.searchsorted(edges, side.lengths, side="right") for side in sides]
    counts = [np.bincount(place, each, len(edges) + 1) for place, each in zip(places, counted, strict=True)]
    sums = [
        np.bincount(place, each * side.scores, len(edges) + 1)
        for place, each, side in zip(places, counted, sides, strict=True)
    ]
    both = (counts[0] > 0) & (counts[1] > 0)
    weights = (counts[0] + counts[1])[both]
    covered = float(weights.sum() / (counts[0] + counts[1]).sum())
    if not both.any():
        return LengthShare(gain, None, None, covered)
    gains = sums[1][both] / counts[1][both] - sums[0][both] / counts[0][both]
    within = float(np.average(gains, weights=weights))
    return LengthShare(gain, within, 1 - within / gain if gain > 0 else None, covered)
