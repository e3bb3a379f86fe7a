"""Whether something grows: a line through block means, and how much of it chance does not explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_BLOCKS = 20


@dataclass(frozen=True, slots=True)
class Growth:
    """From begin to end, as a share of the mean.

    Attributes:
        share: By the line of least squares.
        upper: One-sided upper 95 % bound.
    """

    share: float
    upper: float


def growth_of(values: Sequence[float]) -> Growth:
    """The growth of evenly spaced samples, at least twenty; neighbours are alike, so means of blocks are fitted."""
    blocks = np.array([block.mean() for block in np.array_split(np.asarray(values, float), _BLOCKS)])
    fit = stats.linregress(np.linspace(0.0, 1.0, _BLOCKS), blocks)
    bound = fit.slope + stats.t.ppf(0.95, _BLOCKS - 2) * fit.stderr
    return Growth(float(fit.slope / blocks.mean()), float(bound / blocks.mean()))
