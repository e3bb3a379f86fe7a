"""A bounded queue before a blocking engine: urgent work first, dead work never, everything accepted answered.

Knows no model: it moves items with a size and gives back results. All methods belong to one event loop; the engine runs
in a thread of its own, one batch at a time. A batch closes when the engine is free, so an idle server adds no delay.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeAlias, TypeVar

from services.runtime.batching import BatchLimits, choose_batch
from services.runtime.errors import Expired, NotReady, Overloaded, TooLarge

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_MIN_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.05, 30.0
_RATE_MEMORY = 0.8
"""Share of the old estimate that a new batch leaves in the estimated speed of the engine."""


@dataclass(frozen=True, slots=True)
class Work(Generic[Item]):
    """An item and its size in tokens."""

    item: Item
    size: int


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """An item's result.

    Attributes:
        value: What the engine gave.
        queue_seconds: From admission to the begin of its batch.
        compute_seconds: How long its batch took.
        batch: Number of its batch, so that time shared with others is counted once.
    """

    value: Result
    queue_seconds: float
    compute_seconds: float
    batch: int


class FailureKind(StrEnum):
    """Why an item has no result."""

    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item that has no result.

    Attributes:
        kind: Why.
        message: What to do about it; holds nothing of the item.
        queue_seconds: How long it waited.
    """

    kind: FailureKind
    message: str
    queue_seconds: float


Outcome: TypeAlias = Done[Result] | ItemFailure


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait."""

    max_items: int
    max_tokens: int


class Observer(Protocol):
    """Receives what happens, for metrics."""

    def queue_changed(self, items: int, tokens: int) -> None:
        """What waits now."""

    def batch_done(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """The engine ran a batch."""

    def item_started(self, queue_seconds: float) -> None:
        """An item left the queue for the engine."""

    def items_dropped(self, reason: str, count: int) -> None:
        """Items left the queue without being computed: "cancelled" or "expired"."""


@dataclass(slots=True, eq=False)
class Entry(Generic[Item, Result]):
    """An item that waits or is being computed; `answer` will be its outcome, or is cancelled when it is forgotten."""

    item: Item
    size: int
    priority: int
    deadline: float
    number: int
    admitted: float
    answer: asyncio.Future[Outcome[Result]] = field(repr=False)


class Scheduler(Generic[Item, Result]):
    """Queue and worker.

    Args:
        run_batch: The engine: one result per item, in order; blocks; called from one thread.
        queue: What may wait at once.
        batch: What the engine takes at once.
        observer: Told about queue and batches.
        clock: Monotonic seconds; deadlines are in its terms.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[Item]], Sequence[Result]],
        queue: QueueLimits,
        batch: BatchLimits,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_batch = run_batch
        self._queue, self._batch = queue, batch
        self._observer = observer
        self._clock = clock
        self._waiting: dict[int, Entry[Item, Result]] = {}
        self._waiting_tokens = 0
        self._admitted = 0
        self._batches = 0
        self._tokens_per_second: float | None = None
        self._closing = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._worker: asyncio.Task[None] | None = None

    async def run(self, works: Sequence[Work[Item]], *, priority: int, deadline: float) -> list[Outcome[Result]]:
        """Waits for the results of `works`, in their order. Cancelling this drops what is not yet being computed.

        Args:
            works: Admitted together or not at all.
            priority: Higher goes first.
            deadline: Moment after which an item is not computed any more; within a priority the earliest goes first.

        Raises:
            TooLarge: The works could never fit, however empty the queue is.
            Overloaded: They do not fit now.
            NotReady: The scheduler is closing.
        """
        if not works:
            return []
        entries = self._admit(works, priority, deadline)
        try:
            await asyncio.wait([entry.answer for entry in entries])
        except asyncio.CancelledError:
            self.forget(entries, "cancelled")
            raise
        return [entry.answer.result() for entry in entries]

    async def enter(self, work: Work[Item], *, priority: int, deadline: float) -> Entry[Item, Result]:
        """Puts one item into the queue; where `run` would refuse it for load, this waits until there is room.

        Raises:
            TooLarge: It could never fit.
            Expired: There was no room before its deadline.
            NotReady: The scheduler is closing.
        """
        while True:
            try:
                return self._admit([work], priority, deadline)[0]
            except Overloaded:
                self._room.clear()
                try:
                    await asyncio.wait_for(self._room.wait(), max(deadline - self._clock(), 0.0))
                except TimeoutError:
                    raise Expired("its deadline passed before there was room in the queue; allow more time") from None

    def forget(self, entries: Sequence[Entry[Item, Result]], reason: str) -> None:
        """Drops what still waits; what is being computed runs to its end for nobody.

        Args:
            entries: What nobody wants any more.
            reason: "cancelled" or "expired".
        """
        waiting = [entry for entry in entries if entry.number in self._waiting]
        for entry in waiting:
            self._remove(entry)
        for entry in entries:
            entry.answer.cancel()
        if waiting:
            self._observer.items_dropped(reason, len(waiting))
            self._tell()

    async def close(self) -> None:
        """Takes no more work, answers all that was accepted, and ends the engine's thread."""
        self._closing = True
        self._changed.set()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown(wait=True)

    def _admit(self, works: Sequence[Work[Item]], priority: int, deadline: float) -> list[Entry[Item, Result]]:
        self._check_room(len(works), sum(work.size for work in works))
        loop, now = asyncio.get_running_loop(), self._clock()
        entries = []
        for work in works:
            self._admitted += 1
            answer: asyncio.Future[Outcome[Result]] = loop.create_future()
            entry = Entry(work.item, work.size, priority, deadline, self._admitted, now, answer)
            entries.append(entry)
            self._waiting[entry.number] = entry
            self._waiting_tokens += entry.size
        self._tell()
        self._changed.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return entries

    def _check_room(self, items: int, tokens: int) -> None:
        if self._closing:
            raise NotReady("the server is shutting down; try another replica")
        if items > self._queue.max_items or tokens > self._queue.max_tokens:
            raise TooLarge(
                f"{items} items with {tokens} tokens; the queue never holds more than {self._queue.max_items} items "
                f"and {self._queue.max_tokens} tokens: send smaller requests"
            )
        full = len(self._waiting) + items > self._queue.max_items
        if full or self._waiting_tokens + tokens > self._queue.max_tokens:
            raise Overloaded(
                f"{len(self._waiting)} items with {self._waiting_tokens} tokens are waiting; come back later",
                retry_after=self._seconds_until_room(tokens),
            )

    def _seconds_until_room(self, tokens: int) -> float:
        """How long the engine needs to make room, at the speed it had lately."""
        if self._tokens_per_second is None:
            return 1.0
        excess = min(self._waiting_tokens, max(tokens, self._waiting_tokens + tokens - self._queue.max_tokens))
        return min(max(excess / self._tokens_per_second, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS)

    async def _work(self) -> None:
        while True:
            self._expire()
            if self._waiting:
                await self._compute(self._take())
            elif self._closing:
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    def _expire(self) -> None:
        """Answers what waits beyond its deadline, without computing it."""
        now = self._clock()
        expired = [entry for entry in self._waiting.values() if entry.deadline <= now]
        for entry in expired:
            message = "its deadline passed while it waited; allow more time, or send less at once"
            self._remove(entry)
            entry.answer.set_result(ItemFailure(FailureKind.EXPIRED, message, now - entry.admitted))
        if expired:
            self._observer.items_dropped("expired", len(expired))
            self._tell()

    def _take(self) -> list[Entry[Item, Result]]:
        """The next batch, out of the queue."""
        order = sorted(self._waiting.values(), key=lambda entry: (-entry.priority, entry.deadline, entry.number))
        same_class = sum(entry.priority == order[0].priority for entry in order)
        chosen = choose_batch(order, lambda entry: entry.size, same_class, self._batch)
        for entry in chosen:
            self._remove(entry)
        self._tell()
        return chosen

    async def _compute(self, entries: Sequence[Entry[Item, Result]]) -> None:
        """Runs a batch; where it fails, its items one by one, so that only those to blame fail."""
        begun = self._clock()
        for entry in entries:
            self._observer.item_started(begun - entry.admitted)
        if (error := await self._run_once(entries, begun)) is None:
            return
        logger.error("the engine failed on a batch of %d", len(entries), exc_info=error)
        for entry in entries:
            if entry.answer.done():
                continue
            if len(entries) > 1:
                error = await self._run_once([entry], begun)
            if error is not None and not entry.answer.done():
                message = f"the engine failed on this item ({type(error).__name__}); the server's log has the cause"
                entry.answer.set_result(ItemFailure(FailureKind.FAILED, message, begun - entry.admitted))

    async def _run_once(self, entries: Sequence[Entry[Item, Result]], begun: float) -> Exception | None:
        """Runs `entries` as one batch and answers them; returns what the engine raised instead, if it did."""
        self._batches += 1
        number, start = self._batches, self._clock()
        loop = asyncio.get_running_loop()
        try:
            values = await loop.run_in_executor(self._thread, self._run_batch, [entry.item for entry in entries])
            if len(values) != len(entries):
                raise RuntimeError(f"the engine gave {len(values)} results for {len(entries)} items")
        except Exception as error:
            return error
        seconds = self._clock() - start
        self._measure(entries, seconds)
        for entry, value in zip(entries, values, strict=True):
            if not entry.answer.done():  # a cancelled caller does not wait any more
                entry.answer.set_result(Done(value, begun - entry.admitted, seconds, number))
        return None

    def _measure(self, entries: Sequence[Entry[Item, Result]], seconds: float) -> None:
        sizes = [entry.size for entry in entries]
        self._observer.batch_done(len(sizes), sum(sizes), len(sizes) * max(sizes), seconds)
        rate = sum(sizes) / max(seconds, 1e-6)
        old = self._tokens_per_second
        self._tokens_per_second = rate if old is None else _RATE_MEMORY * old + (1 - _RATE_MEMORY) * rate

    def _remove(self, entry: Entry[Item, Result]) -> None:
        del self._waiting[entry.number]
        self._waiting_tokens -= entry.size
        self._room.set()

    def _tell(self) -> None:
        self._observer.queue_changed(len(self._waiting), self._waiting_tokens)
