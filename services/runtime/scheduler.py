"""A bounded queue before a blocking engine: urgent work first, dead work never, everything accepted answered.

Knows no model: it moves items with a size and gives back results. All methods belong to one event loop; the engine runs
in threads of its own, one batch at a time in each. A batch closes when a thread is free, so an idle server adds no
delay. The next batch lies ready while others are computed; until the engine takes it, a more urgent arrival replaces
it, and who gives up leaves it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from services.runtime.batching import BatchLimits
from services.runtime.dispatch import Dispatcher
from services.runtime.engine_thread import EngineThread, Run, RunBatch
from services.runtime.errors import Expired, NotReady, Overloaded
from services.runtime.handoff import Batch
from services.runtime.job_queue import JobQueue
from services.runtime.queue_admission import Need, QueueLimits, check_room, check_size, check_time
from services.runtime.reuse import Cache, InFlight
from services.runtime.work import (
    Done,
    Entry,
    FailureKind,
    Item,
    ItemFailure,
    Job,
    Observer,
    Outcome,
    Result,
    Reuse,
    Terms,
    Work,
)

logger = logging.getLogger(__name__)

_WINDOW_BATCHES = 4
"""A batch is chosen among so many batches' worth of the most urgent items."""

_QUANTUM_BATCHES = 4
"""Full batches by which one caller may be ahead of another; less would leave too few lengths to choose from."""


@dataclass(frozen=True, slots=True)
class ReuseLimits:
    """What is not computed again.

    Attributes:
        deduplicate: Equal items that wait or are being computed share one computation.
        cache_items: Results that are kept; 0 = none.
        keep: Whether a result may be kept.
    """

    deduplicate: bool = True
    cache_items: int = 0
    keep: Callable[[Any], bool] = lambda result: True


class Scheduler(Generic[Item, Result]):
    """Queue and worker.

    Args:
        run_batch: The engine; called from as many threads as there are lanes.
        queue: What may wait at once.
        batch: The most that the engine takes at once.
        observer: Told about queue and batches.
        reuse: What is not computed again.
        clock: Monotonic seconds, from any thread; deadlines are in its terms.
        lanes: Batches that the engine computes side by side, each in a thread of its own; `widen` asks for more.
        limits_of: What a batch of a group may hold, where that is less than `batch`; None = never.
        start_engine: Makes what takes batches from the handoff.
    """

    def __init__(
        self,
        run_batch: RunBatch[Item, Result],
        queue: QueueLimits,
        batch: BatchLimits,
        observer: Observer,
        reuse: ReuseLimits = ReuseLimits(),
        clock: Callable[[], float] = time.monotonic,
        lanes: int = 1,
        limits_of: Callable[[Hashable], BatchLimits] | None = None,
        start_engine: Callable[..., EngineThread[Item, Result]] = EngineThread,
    ) -> None:
        self._run_batch = run_batch
        self._limits = queue
        self._observer = observer
        self._reuse = reuse
        self._clock = clock
        self._start_engine = start_engine
        self._waiting: JobQueue[Item, Result] = JobQueue(
            queue.max_items,
            queue.max_tokens,
            quantum=_QUANTUM_BATCHES * batch.max_tokens,
            window=_WINDOW_BATCHES * batch.max_items,
        )
        self._in_flight: InFlight[Item, Result] = InFlight(self._reuse.deduplicate)
        self._cache: Cache[Result] = Cache(self._reuse.cache_items)
        self._dispatcher: Dispatcher[Item, Result] = Dispatcher(
            self._waiting, batch, clock, observer, self, lanes, limits_of or (lambda group: batch)
        )
        self._admitted = self._runs = 0
        self._planning = self._closing = False
        self._room, self._idle = asyncio.Event(), asyncio.Event()
        self._engine: list[EngineThread[Item, Result]] = []

    def widen(self, lanes: int) -> None:
        """Computes at least so many batches side by side from now on."""
        self._dispatcher.lanes = max(self._dispatcher.lanes, lanes)

    async def run(self, works: Sequence[Work[Item]], terms: Terms) -> list[Outcome[Result]]:
        """Waits for the results of `works`, in their order. Cancelling this drops what is not yet being computed.

        Args:
            works: Admitted together or not at all.
            terms: What could not have ended by their deadline is not computed.

        Raises:
            TooLarge: The works could never fit, however empty the queue is.
            Overloaded: They do not fit now, or what goes before them would make them late.
            NotReady: The scheduler is closing.
        """
        if not works:
            return []
        entries = self._admit(works, terms)
        try:
            return [await entry.answer for entry in entries]
        except asyncio.CancelledError:
            self.forget(entries, "cancelled")
            raise

    async def enter(self, work: Work[Item], terms: Terms) -> Entry[Item, Result]:
        """Puts one item into the queue; where `run` would refuse it for load, this waits until there is room.

        Raises:
            TooLarge: It could never fit.
            Expired: There was no room while it could have been in time.
            NotReady: The scheduler is closing.
        """
        while True:
            try:
                return self._admit([work], terms)[0]
            except Overloaded:
                outlook = self._dispatcher.outlook(work)
                self._room.clear()
                try:
                    left = terms.deadline - outlook.now - outlook.item_seconds
                    await asyncio.wait_for(self._room.wait(), max(left, 0.0))
                except TimeoutError:
                    raise Expired("its deadline passed before there was room in the queue; allow more time") from None

    def forget(self, entries: Sequence[Entry[Item, Result]], reason: str) -> None:
        """Drops what still waits and nobody else waits for; what is being computed runs to its end.

        Args:
            entries: What nobody wants any more.
            reason: "cancelled" or "expired".
        """
        dropped = 0
        for entry in entries:
            job, entry.job = entry.job, None
            if job is None or not (entry.answer.cancel() or entry.answer.cancelled()):
                continue
            if self._dispatcher.handoff.withdraw(job):
                self._waiting.leave(job, [entry])
                dropped += 1
            if all(other.answer.done() for other in job.entries):
                job.abandoned = True
                self._in_flight.remove(job)
        if dropped:
            self._observer.items_dropped(reason, dropped)
            self.made_room()
            self._plan_soon()

    async def close(self) -> None:
        """Takes no more work, answers all that was accepted, and ends the engine's thread."""
        self._closing = True
        if not self._dispatcher.idle:
            await self._idle.wait()
        self._dispatcher.handoff.stop()
        for lane in self._engine:
            lane.join()

    def _admit(self, works: Sequence[Work[Item]], terms: Terms) -> list[Entry[Item, Result]]:
        if self._closing:
            raise NotReady("the server is shutting down; try another replica")
        check_size(self._limits, len(works), sum(work.size for work in works))
        now = self._clock()
        known = [self._cache.find(work) if now < terms.deadline else None for work in works]
        self._check([work for work, found in zip(works, known, strict=True) if found is None], terms)
        entries = [
            self._wait(work, terms, now) if found is None else self._known(found[0], terms, now)
            for work, found in zip(works, known, strict=True)
        ]
        self._tell()
        return entries

    def _check(self, works: Sequence[Work[Item]], terms: Terms) -> None:
        """Refuses works, none of which is known, for which there is no room or no time."""
        if not works:
            return
        new = [work for work in works if self._in_flight.find(work) is None]
        need = Need(len(works), sum(work.size for work in new))
        outlook = self._dispatcher.outlook(max(new or works, key=lambda work: work.size))
        check_room(self._waiting, need, terms.caller, outlook)
        if new:
            check_time(self._waiting, need, terms, outlook)

    def _wait(self, work: Work[Item], terms: Terms, now: float) -> Entry[Item, Result]:
        """Joins the job that computes the same, or makes one."""
        entry: Entry[Item, Result] = Entry(terms, now, asyncio.get_running_loop().create_future())
        if (job := self._in_flight.find(work)) is None:
            self._admitted += 1
            job = Job(work, self._admitted, terms)
            self._in_flight.add(job)
            self._waiting.join(job, entry)
        else:
            self._observer.item_reused(Reuse.DEDUPLICATED)
            self._follow(job, entry)
        if self._dispatcher.improved_by(job):
            self._plan_soon()
        return entry

    def _follow(self, job: Job[Item, Result], entry: Entry[Item, Result]) -> None:
        if job.queued:
            self._waiting.join(job, entry)
        else:
            job.join(entry)
            self._observer.item_started(0.0)

    def _known(self, value: Result, terms: Terms, now: float) -> Entry[Item, Result]:
        self._observer.item_reused(Reuse.CACHED)
        entry: Entry[Item, Result] = Entry(terms, now, asyncio.get_running_loop().create_future())
        entry.answer.set_result(Done(value, 0.0, 0.0, 0))
        return entry

    def _plan_soon(self) -> None:
        """Plans once for everything that happens in this turn of the loop."""
        loop = asyncio.get_running_loop()
        while len(self._engine) < self._dispatcher.lanes:
            handoff, post = self._dispatcher.handoff, loop.call_soon_threadsafe
            self._engine.append(self._start_engine(self._run_batch, handoff, self._clock, self._dispatcher, post))
        if not self._planning:
            self._planning = True
            loop.call_soon(self._plan)

    def _plan(self) -> None:
        self._planning = False
        self._dispatcher.plan()
        self._tell()
        if self._dispatcher.idle:
            self.emptied()

    def expired(self, job: Job[Item, Result], entry: Entry[Item, Result]) -> None:
        """`entry` could not be in time any more; it has left the queue."""
        message = "it could not be computed before its deadline; allow more time, or send less at once"
        entry.answer.set_result(ItemFailure(FailureKind.EXPIRED, message, self._clock() - entry.admitted))
        self._observer.items_dropped("expired", 1)
        if not job.entries:
            self._in_flight.remove(job)
        self.made_room()

    def computed(self, batch: Batch[Item, Result], run: Run[Item, Result]) -> None:
        """The engine gave results, or failed."""
        self._runs += 1
        if run.error is not None:
            logger.error("the engine failed on a batch of %d", len(run.jobs), exc_info=run.error)
        if not run.final:
            return
        for index, job in enumerate(run.jobs):
            self._in_flight.remove(job)
            if run.error is None and self._reuse.keep(run.values[index]):
                self._cache.put(job.work, run.values[index])
            for entry in job.entries:
                if not entry.answer.done():  # who was cancelled does not wait any more
                    entry.answer.set_result(self._outcome(run, index, max(batch.begun - entry.admitted, 0.0)))

    def _outcome(self, run: Run[Item, Result], index: int, queue_seconds: float) -> Outcome[Result]:
        if run.error is None:
            return Done(run.values[index], queue_seconds, run.seconds, self._runs)
        cause = type(run.error).__name__
        message = f"the engine failed on this item ({cause}); the server's log has the cause"
        return ItemFailure(FailureKind.FAILED, message, queue_seconds)

    def made_room(self) -> None:
        """Something has left the queue."""
        self._room.set()
        self._tell()

    def emptied(self) -> None:
        """Nothing waits, and the engine is idle."""
        if self._closing:
            self._idle.set()

    def _tell(self) -> None:
        self._observer.queue_changed(self._waiting.items.total, self._waiting.tokens.total)
