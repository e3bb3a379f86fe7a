"""One thread owns the engine; calls take turns on it slice by slice, and a call that is gone ends within one step."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic

from services.policy.mailbox import EventT, Mailbox
from services.policy.metrics import PolicyMetrics
from services.runtime.errors import Expired, NotReady, Overloaded, ServiceError, TooLarge

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (0.05, 30.0)
_FIRST_RATE = 1000.0
"""Tokens a second that are assumed before anything was measured."""

_MEMORY = 0.8
"""How much of the measured rate is kept with every slice."""


@dataclass(frozen=True, slots=True)
class Slice(Generic[EventT]):
    """A part of a call that runs in one go.

    Attributes:
        tokens: At most so many tokens are computed.
        steps: Starts it; every item is one engine step and holds the events that it caused.
    """

    tokens: int
    steps: Callable[[], Iterator[Iterable[EventT]]]


class Job(Generic[EventT]):
    """A call's work: slices going in, events coming out. Make it in the event loop that reads it.

    Args:
        slices: Run one after the other, between those of other calls.
        max_events: How many events all slices cause at most, the pieces of one completion counted once.
        deadline: `time.monotonic` seconds after which it is worth nothing.
    """

    def __init__(self, slices: Iterable[Slice[EventT]], max_events: int, deadline: float) -> None:
        self.slices = deque(slices)
        self.deadline = deadline
        self.queue_seconds = 0.0
        self.compute_seconds = 0.0
        self.submitted = time.monotonic()
        self.mailbox: Mailbox[EventT] = Mailbox(max_events)
        self._cancelled = False

    @property
    def tokens(self) -> int:
        """Tokens still to be computed at most."""
        return sum(part.tokens for part in self.slices)

    @property
    def cancelled(self) -> bool:
        """Whether its reader has left."""
        return self._cancelled

    @property
    def gone(self) -> bool:
        """Whether its work is worth nothing any more."""
        return self._cancelled or time.monotonic() >= self.deadline

    def events(self) -> AsyncIterator[EventT]:
        """What the slices caused, as it happens.

        Raises:
            Expired: The deadline passed.
            Exception: What a slice raised.
        """
        return self.mailbox.events()

    def cancel(self) -> None:
        """Says that nobody reads any more; the engine leaves the job after the step it is in."""
        self._cancelled = True


class Turns:
    """The queue of calls before the engine's thread.

    Args:
        max_tokens: How many tokens may be waiting or running; a call that would pass it is refused at once.
        metrics: What is counted.
    """

    def __init__(self, max_tokens: int, metrics: PolicyMetrics) -> None:
        self._max_tokens = max_tokens
        self._metrics = metrics
        self._tokens = 0
        self._rate = _FIRST_RATE
        self._jobs: deque[Job[Any]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job[Any]) -> None:
        """Puts a job into the queue.

        Raises:
            TooLarge: The queue could never hold it.
            Overloaded: The queue is too full for it now.
        """
        tokens = job.tokens
        if tokens > self._max_tokens:
            raise TooLarge(
                f"the call may compute {tokens} tokens (prompts x completions x max_new_tokens); the server takes "
                f"{self._max_tokens} at once: split the call, or ask for shorter completions"
            )
        with self._wake:
            if self._closed:
                raise NotReady("the server is shutting down; another replica can take the call")
            if self._tokens + tokens > self._max_tokens:
                raise self._overloaded(tokens)
            self._count(tokens)
            self._jobs.append(job)
            self._wake.notify()

    def close(self) -> None:
        """Ends the thread after the step it is in; jobs that are left fail."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _overloaded(self, tokens: int) -> Overloaded:
        excess = self._tokens + tokens - self._max_tokens
        low, high = _RETRY_SECONDS
        seconds = min(high, max(low, excess / self._rate))
        return Overloaded(
            f"{self._tokens} tokens are waiting or running, and {tokens} more would pass the limit of "
            f"{self._max_tokens}; come back in {seconds:.2g} s",
            retry_after=seconds,
        )

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._take_turn(job)
        for job in self._jobs:
            job.mailbox.end(NotReady("the server shut down before the call was done; another replica can take it"))

    def _next(self) -> Job[Any] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._jobs or self._closed)
            return None if self._closed else self._jobs.popleft()

    def _take_turn(self, job: Job[Any]) -> None:
        """Runs the next slice of a job, and puts the job back behind the others if it has more."""
        part = job.slices.popleft()
        begin = time.monotonic()
        job.queue_seconds = job.queue_seconds or begin - job.submitted
        try:
            if not job.gone:
                self._run_slice(job, part)
                job.compute_seconds += time.monotonic() - begin
            self._after(job, part)
        except Exception as error:
            if not isinstance(error, ServiceError):
                logger.exception("a slice failed; its call ends with this error")
            self._release(part.tokens + job.tokens)
            job.mailbox.end(error)

    def _run_slice(self, job: Job[Any], part: Slice[Any]) -> None:
        begin = time.monotonic()
        for events in part.steps():
            job.mailbox.put(events)
            if job.gone or self._closed:
                return
        measured = part.tokens / max(time.monotonic() - begin, 1e-6)
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * measured

    def _after(self, job: Job[Any], part: Slice[Any]) -> None:
        """Decides what becomes of a job whose slice has run."""
        if job.gone or self._closed:
            self._release(part.tokens + job.tokens)
            self._drop(job)
        elif job.slices:
            with self._wake:
                self._count(-part.tokens)
                self._jobs.append(job)
        else:
            self._release(part.tokens)
            self._metrics.queue_seconds.observe(job.queue_seconds)
            self._metrics.compute_seconds.observe(job.compute_seconds)
            job.mailbox.end()

    def _drop(self, job: Job[Any]) -> None:
        if job.cancelled:
            self._metrics.dropped.labels("cancelled").inc()
        elif not job.gone:
            job.mailbox.end(NotReady("the server shut down before the call was done; another replica can take it"))
        else:
            self._metrics.dropped.labels("expired").inc()
            job.mailbox.end(
                Expired("the deadline passed before the call was done; allow more time or ask for fewer tokens")
            )

    def _release(self, tokens: int) -> None:
        with self._wake:
            self._count(-tokens)

    def _count(self, tokens: int) -> None:
        self._tokens += tokens
        self._metrics.queue_tokens.set(self._tokens)
