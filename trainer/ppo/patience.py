"""How long a service is waited for: so many tries, or so many seconds."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config import PPOConfig

_LONGEST_SECONDS = 5.0
"""A pause grows to this; a service that restarts is back in seconds."""

_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class Patience:
    """When trying again ends.

    Attributes:
        tries: At most so many; None = no limit.
        seconds: No new try after so many.
    """

    tries: int | None
    seconds: float = math.inf

    def pauses(self, first: float) -> Iterator[float]:
        """Seconds to wait before each further try, twice as long each time; ends where the patience does."""
        end = time.monotonic() + self.seconds
        for number in itertools.count(1):
            if number == self.tries or time.monotonic() >= end:
                return
            yield min(first * 2 ** min(number - 1, _DOUBLINGS), _LONGEST_SECONDS)

    def __str__(self) -> str:
        return f"{self.seconds:g} s" if self.tries is None else f"{self.tries} attempts"


def patience_of(config: PPOConfig) -> Patience:
    """How long a run waits: in strict mode for so long, else so many times."""
    services = config.services
    return Patience(None, services.patience) if config.strict else Patience(services.attempts)
