"""Which calls a server takes on, and when all of them are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import grpc

from services.runtime.callers import current_caller
from services.runtime.errors import NotReady, Overloaded
from services.runtime.fairness import Holdings
from services.runtime.health import Health
from services.runtime.limits import UNLIMITED, CallLimits, Rates

_MOMENT_SECONDS = 0.05
_MOMENTS = 10

_ELSEWHERE_SECONDS = 0.6
"""When a caller who is refused may try again: by then his connection is closed, and another replica is asked."""


class Admission:
    """Takes calls on and counts them until their last message is sent. Belongs to one event loop.

    Args:
        health: Says when there is something to serve.
        max_calls: Calls that may be open at once; shared among callers as the queue is.
    """

    def __init__(self, health: Health, max_calls: int) -> None:
        self._health = health
        self._calls = Holdings(max_calls)
        self._max_calls = max_calls
        self._rates = Rates()
        self._refusing = False
        self._asked = 0
        self._none_open = asyncio.Event()
        self._none_open.set()

    @property
    def loading(self) -> bool:
        """Whether there is nothing to serve yet."""
        return not self._health.loaded

    def admit(self, context: grpc.aio.ServicerContext, limits: CallLimits = UNLIMITED) -> Callable[[], None]:
        """Takes a call on; it is open until its answer is sent or its caller is gone, or what is given is called.

        Args:
            context: The call's.
            limits: Of its caller.

        Raises:
            NotReady: The server loads, or takes no more calls.
            Overloaded: Too many calls are open, or so many of this caller's that the rest is kept for others; or he has
                reached a limit of his own.
        """
        self._asked += 1
        if self._refusing:
            message = "the server is shutting down; another replica can take the call"
            raise NotReady(message, retry_after=_ELSEWHERE_SECONDS)
        if self.loading:
            waiting_for = ", ".join(self._health.missing())
            raise NotReady(f"the server is still loading (waiting for {waiting_for}); try again soon", retry_after=1.0)
        caller = current_caller()
        self._check_limits(caller, limits)
        if self._calls.excess(caller, 1) > 0:
            raise Overloaded(
                f"{self._calls.total} calls are in flight, the server takes {self._max_calls} and keeps some for those "
                "who have few; come back later, or send more items in a call",
                retry_after=0.1,
            )
        self._calls.change(caller, 1)
        self._none_open.clear()
        taken = [caller]

        def end(*_: object) -> None:
            if taken:
                self._ended(taken.pop())

        context.add_done_callback(end)
        return end

    def _check_limits(self, caller: str, limits: CallLimits) -> None:
        if limits.max_calls is not None and self._calls.of(caller) >= limits.max_calls:
            message = f"{limits.max_calls} calls at once are all that this identity may have; wait for one to end"
            raise Overloaded(message, retry_after=_MOMENT_SECONDS)
        if limits.calls_per_second is not None and (wait := self._rates.take(caller, limits.calls_per_second)) > 0:
            message = f"this identity may begin {limits.calls_per_second:g} calls a second; send more items in a call"
            raise Overloaded(message, retry_after=wait)

    def refuse(self) -> None:
        """Takes no call on any more."""
        self._refusing = True

    async def quiet(self) -> None:
        """Waits until nobody has asked for a moment, half a second at most.

        When a server is stopped, gRPC cancels the calls that it has received and not looked at. In a burst these are
        many, and few clients try a cancelled call again; a call that is refused first goes elsewhere.
        """
        for _ in range(_MOMENTS):
            before = self._asked
            await asyncio.sleep(_MOMENT_SECONDS)
            if before == self._asked:
                return

    async def answered(self, seconds: float) -> bool:
        """Waits until every call that was taken on is answered, `seconds` at most; whether that is so."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none_open.wait(), seconds)
        return self._none_open.is_set()

    def _ended(self, caller: str) -> None:
        self._calls.change(caller, -1)
        if not self._calls.total:
            self._none_open.set()
