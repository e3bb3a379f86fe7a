"""What one identity may take beside its fair share: calls at once, and calls a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallLimits:
    """None = as many as the server takes.

    Attributes:
        max_calls: Calls in flight at once.
        calls_per_second: Calls begun, on average; what is left unused adds up to one second's worth, or one call.
    """

    max_calls: int | None = None
    calls_per_second: float | None = None


UNLIMITED = CallLimits()


class Rates:
    """How fast callers come: a bucket of calls for each, filled steadily.

    Callers with a rate are identities of a file, so there are few.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: str, per_second: float) -> float:
        """Lets a call begin, and gives 0; or gives the seconds after which one may."""
        most, now = max(1.0, per_second), self._clock()
        left, filled = self._buckets.get(caller, (most, now))
        left = min(most, left + (now - filled) * per_second)
        begins = left >= 1.0
        self._buckets[caller] = (left - begins, now)
        return 0.0 if begins else (1.0 - left) / per_second
