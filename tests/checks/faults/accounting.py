"""What became of calls: every one that was made is answered, refused, expired, cancelled or failed; none is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from palate.client import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
    PalateError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)


class Fate(StrEnum):
    """How a call ends for its caller."""

    ANSWERED = "answered"
    REFUSED = "refused"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


_REFUSALS = (Overloaded, InvalidArgument, FailedPrecondition, PermissionDenied, Unauthenticated)


def fate_of(error: BaseException) -> Fate:
    """What an exception means; one that is neither ours nor a cancellation is a bug, and raised."""
    if isinstance(error, DeadlineExceeded):
        return Fate.EXPIRED
    if isinstance(error, (Cancelled, asyncio.CancelledError)):
        return Fate.CANCELLED
    if isinstance(error, _REFUSALS) or (isinstance(error, Unavailable) and error.request_id):
        return Fate.REFUSED  # a server said so; without a request's id nobody did
    if isinstance(error, PalateError):
        return Fate.FAILED
    raise error


@dataclass
class Ledger:
    """Calls and their ends.

    Attributes:
        made: Calls that were begun.
        ended: How they ended.
        wrong: Answers that no caller should get, and errors without a remedy.
        latest: By how many seconds a call outlived its deadline at most.
        causes: What those said that were not answered.
    """

    made: int = 0
    ended: Counter[Fate] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    latest: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)

    async def enter(self, call: Awaitable[Any], seconds: float, check: Callable[[Any], str | None]) -> Fate:
        """Waits for a call and writes down how it ended.

        Args:
            call: Not begun.
            seconds: Its deadline.
            check: What is wrong with its answer; None = nothing.
        """
        self.made += 1
        begin = time.monotonic()
        try:
            answer = await call
            fate = Fate.ANSWERED
            if (wrong := check(answer)) is not None:
                self.wrong.append(wrong)
        except (PalateError, asyncio.CancelledError) as error:
            fate = fate_of(error)
            self.causes[f"{type(error).__name__}: {str(error)[:160]}"] += 1
        self.ended[fate] += 1
        self.latest = max(self.latest, time.monotonic() - begin - seconds)
        return fate

    @property
    def balanced(self) -> bool:
        """Whether every call has ended in one way."""
        return self.made == self.ended.total()

    def told(self) -> str:
        """One line."""
        return f"{self.made} = " + " + ".join(f"{self.ended[fate]} {fate}" for fate in Fate)
