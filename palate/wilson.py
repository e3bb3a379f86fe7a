"""The interval of a share: Wilson's score interval, for successes that may hold halves."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """Ends of the 95 % score interval of `successes` among `trials` (Wilson 1927).

    Args:
        successes: From 0 to `trials`; a draw may count half, which SciPy's interval does not take.
        trials: At least one.

    Raises:
        ValueError: More successes than trials, or fewer than none.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes among {trials} trials")
    share, z2 = successes / trials, Z * Z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # At the ends the formula gives 0 and 1, and rounding does not.
    return middle - half if successes else 0.0, middle + half if successes < trials else 1.0
