"""What an ensemble can be used as: each member alone, and what a server makes of all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.aggregate import AggregateName

Array = NDArray[np.float64]

SINGLE = "single"
"""Each member alone, and the mean of what that gives: what one model of the same kind would do."""


def objectives(members: Array, variance_weight: float) -> dict[str, Array]:
    """Name → (V, N) what is chosen by, from (N, M) members' scores; the aggregates are those of a reward service."""
    mean = members.mean(axis=1)
    return {
        SINGLE: members.T,
        AggregateName.MEAN.value: mean[None],
        AggregateName.MIN.value: members.min(axis=1)[None],
        AggregateName.MEAN_MINUS_VARIANCE.value: (mean - variance_weight * members.var(axis=1))[None],
    }
