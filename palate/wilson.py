"""The interval of a share: Wilson's score interval, for successes that may hold halves."""

from __future__ import annotations

import math

_Z = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """Ends of the 95 % score interval of `successes` among `trials` (Wilson 1927).

    Args:
        successes: From 0 to `trials`; a draw may count half, which SciPy's interval does not take.
        trials: At least one.
    """
    share, z2 = successes / trials, _Z * _Z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)
