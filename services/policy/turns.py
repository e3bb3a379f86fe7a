"""One thread owns the engine: steps of what is drawn, then a slice, and so on; a call that is gone ends within one."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from services.policy.drawing import Drawing
from services.policy.jobs import Job
from services.policy.lanes import Happened
from services.policy.metrics import PolicyMetrics
from services.policy.precedence import SliceTurns
from services.runtime.errors import Expired, NotReady, Overloaded, ServiceError, TooLarge
from services.runtime.fairness import Holdings
from services.runtime.tracebacks import whereabouts

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (0.05, 30.0)

_FIRST_RATE = 1000.0
"""Tokens a second that are assumed before anything was measured."""

_MEMORY = 0.98
"""How much of what was measured is kept with every round."""


class Turns:
    """The calls before the engine's thread.

    Args:
        drawing: The completions of all calls.
        max_tokens: How many tokens may be waiting or running, shared among callers; a call that would pass it, or its
            caller's share, is refused at once.
        metrics: What is counted.
    """

    def __init__(self, drawing: Drawing, max_tokens: int, metrics: PolicyMetrics) -> None:
        self._drawing = drawing
        self._max_tokens = max_tokens
        self._metrics = metrics
        self._tokens = Holdings(max_tokens)
        self._worked, self._seconds = _FIRST_RATE, 1.0  # tokens that were open, and how long they took
        self._arrived: deque[Job[Any]] = deque()
        self._jobs: list[Job[Any]] = []
        self._sliced = SliceTurns()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job[Any]) -> None:
        """Puts a job into the queue.

        Raises:
            TooLarge: The queue could never hold it.
            Overloaded: The queue is too full for it now, or holds so much of its caller that the rest is for others.
        """
        tokens = job.open_tokens
        if tokens > self._max_tokens:
            raise TooLarge(
                f"the call may compute {tokens} tokens (prompts x completions x max_new_tokens); the server takes "
                f"{self._max_tokens} at once: split the call, or ask for shorter completions"
            )
        with self._wake:
            if self._closed:
                raise NotReady("the server is shutting down; another replica can take the call")
            if (excess := self._tokens.excess(job.caller, tokens)) > 0:
                raise self._overloaded(tokens, excess)
            self._count(job, tokens)
            self._arrived.append(job)
            self._wake.notify()

    def close(self) -> None:
        """Ends the thread after the step it is in; jobs that are left fail."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _overloaded(self, tokens: int, excess: int) -> Overloaded:
        low, high = _RETRY_SECONDS
        seconds = min(high, max(low, excess * self._seconds / self._worked))
        return Overloaded(
            f"{self._tokens.total} tokens are waiting or running, and {tokens} more do not fit: the server takes "
            f"{self._max_tokens} and keeps some for those who have few; come back in {seconds:.2g} s",
            retry_after=seconds,
        )

    def _run(self) -> None:
        while self._take_in():
            begin = time.monotonic()
            try:
                self._round()
            except Exception as error:  # a bug: all hear of it, and the next call finds an engine that works
                self._drawing.clear()
                for job in list(self._jobs):
                    self._fail(job, error)
            self._seconds = _MEMORY * (self._seconds + time.monotonic() - begin)
            self._worked *= _MEMORY
        for job in (*self._jobs, *self._arrived):
            job.mailbox.end(NotReady("the server shut down before the call was done; another replica can take it"))

    def _take_in(self) -> bool:
        """Waits until there is something to do, and adds what has arrived; whether to go on."""
        with self._wake:
            self._wake.wait_for(lambda: self._jobs or self._arrived or self._closed)
            arrived = list(self._arrived)
            self._arrived.clear()
        self._jobs += arrived
        for job in arrived:
            (self._sliced.add if job.slices else self._drawing.add)(job)
        return not self._closed

    def _round(self) -> None:
        """A step of everything that is drawn, and one slice; who is gone is dropped before each."""
        self._drop_gone()
        for step in self._drawing.round():
            for happened in step:
                self._apply(happened)
            self._drop_gone()
            if self._closed:
                return
        if self._sliced:
            self._apply(self._run_slice(self._sliced.take()))

    def _run_slice(self, job: Job[Any]) -> Happened:
        """The next slice of a job, which then stands behind its caller's others if it has more."""
        job.begun()
        part, begin = job.slices.popleft(), time.monotonic()
        happened = Happened(job, tokens=part.tokens)
        try:
            happened.events.extend(part.run())
        except Exception as error:
            happened.error = error
        happened.seconds = time.monotonic() - begin
        if job.slices and happened.error is None:
            self._sliced.add(job)
        return happened

    def _apply(self, happened: Happened) -> None:
        job = happened.job
        job.timing.compute_seconds += happened.seconds
        if happened.events:
            job.mailbox.put(happened.events)
        self._release(job, happened.tokens)
        self._worked += happened.tokens
        if happened.error is not None:
            self._fail(job, happened.error)
        elif job.done:
            self._metrics.queue_seconds.observe(job.timing.queue_seconds)
            self._metrics.compute_seconds.observe(job.timing.compute_seconds)
            self._forget(job)
            job.mailbox.end()

    def _fail(self, job: Job[Any], error: Exception) -> None:
        if not isinstance(error, ServiceError):
            logger.error("a step failed; its calls end with this error\n%s", whereabouts(error))
        self._forget(job)
        job.mailbox.end(error)

    def _drop_gone(self) -> None:
        for job in [job for job in self._jobs if job.gone]:
            self._forget(job)
            self._metrics.dropped.labels("cancelled" if job.cancelled else "expired").inc()
            if not job.cancelled:
                job.mailbox.end(
                    Expired("the deadline passed before the call was done; allow more time or ask for fewer tokens")
                )

    def _forget(self, job: Job[Any]) -> None:
        """Frees all that a job has, which may be over or not."""
        if job in self._jobs:
            self._jobs.remove(job)
            self._drawing.remove(job)
            self._sliced.remove(job)
            self._release(job, job.open_tokens)

    def _release(self, job: Job[Any], tokens: int) -> None:
        job.open_tokens -= tokens
        with self._wake:
            self._count(job, -tokens)

    def _count(self, job: Job[Any], tokens: int) -> None:
        self._tokens.change(job.caller, tokens)
        self._metrics.queue_tokens.set(self._tokens.total)
