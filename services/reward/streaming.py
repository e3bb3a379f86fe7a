"""ScoreStream: reads items while there is room, answers each as soon as it is done, and ends kindly when told to."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.duration_pb2 import Duration

from palate.v1 import reward_service_pb2 as reward
from services.reward.metrics import ItemOutcome, RewardMetrics
from services.reward.options import check_priority
from services.reward.scoring import Demand, FailedItem, ItemResult, Scorer, Stages, Waiting
from services.runtime.errors import InvalidRequest, NotReady

_NO_STAGES = Stages(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class StreamReply:
    """An item's result; `number` is the id the caller gave it."""

    number: int
    result: ItemResult
    stages: Stages


@dataclass(slots=True)
class _Open:
    """An item that was read and has no result yet; `waiting` is None until it is in the queue."""

    waiting: Waiting | None = None
    timer: asyncio.TimerHandle | None = None


class ItemStream:
    """One call. At most `max_items` are read and not yet written back: no fast sender and no slow reader makes it grow.

    Args:
        scorer: What scores.
        demand: How; its deadline is the whole call's.
        max_items: Items that may be without a written reply.
        max_seconds: Longest time an item may have.
        metrics: Told about open items.
    """

    def __init__(
        self, scorer: Scorer, demand: Demand, *, max_items: int, max_seconds: float, metrics: RewardMetrics
    ) -> None:
        self._scorer = scorer
        self._demand = demand
        self._max_seconds = max_seconds
        self._metrics = metrics
        self._slots = asyncio.Semaphore(max_items)
        self._ready: asyncio.Queue[StreamReply | None] = asyncio.Queue()
        self._open: dict[int, _Open] = {}
        self._reading: asyncio.Task[None] | None = None
        self._all_read = False
        self._stopped = False
        self._between_items = False
        self._moved = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """How long nothing came and nothing was owed."""
        return 0.0 if self._open or not self._ready.empty() else time.monotonic() - self._moved

    async def replies(self, requests: AsyncIterator[reward.ScoreStreamRequest]) -> AsyncGenerator[StreamReply, None]:
        """Results in the order in which they come; leaving early drops what still waits.

        Raises:
            InvalidRequest: A message is not an item; raised after the items before it were answered.
            PermissionDenied: Its caller may not ask for its priority any more; raised likewise.
            NotReady: The stream was stopped; raised after everything that was read was answered.
        """
        self._reading = asyncio.create_task(self._read(requests))
        try:
            while (reply := await self._ready.get()) is not None:
                yield reply
                self._moved = time.monotonic()
                self._slots.release()
            await self._reading
        finally:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._drop_open()

    def stop(self) -> None:
        """Reads no further item."""
        self._stopped = True
        if self._between_items and self._reading is not None:
            self._reading.cancel()

    async def _read(self, requests: AsyncIterator[reward.ScoreStreamRequest]) -> None:
        try:
            while (item := await self._next(requests)) is not None:
                await self._begin(item)
        finally:
            self._all_read = True
            self._end_when_answered()

    async def _next(self, requests: AsyncIterator[reward.ScoreStreamRequest]) -> reward.StreamItem | None:
        """The next item, once there is a slot for it; None when the caller has sent all."""
        self._between_items = True
        try:
            if self._stopped:
                raise asyncio.CancelledError
            await self._slots.acquire()
            message = await anext(requests, None)
        except asyncio.CancelledError:
            if self._stopped:
                raise NotReady("this stream ends here; open another and send the items without an answer") from None
            raise
        finally:
            self._between_items = False
        if message is None:
            return None
        if message.WhichOneof("part") != "item":
            raise InvalidRequest("after the options every message of a stream holds an item")
        check_priority(self._demand.priority)  # roles may be taken away while a stream is open
        return message.item

    async def _begin(self, item: reward.StreamItem) -> None:
        self._moved = time.monotonic()
        if item.id in self._open:
            self._put(item.id, _invalid(f"id {item.id} is that of an item that has no result yet; number items apart"))
            return
        opened = self._open[item.id] = _Open()
        self._metrics.stream_items_changed(1)
        try:
            await self._enter(item, opened)
        except BaseException:  # the items before it are still answered
            self._forget(item.id)
            raise

    async def _enter(self, item: reward.StreamItem, opened: _Open) -> None:
        timeout = _seconds(item.timeout) if item.HasField("timeout") else self._max_seconds
        if timeout < 0:
            self._close(item.id, _invalid("the timeout is negative"))
            return
        deadline = min(time.monotonic() + min(timeout, self._max_seconds), self._demand.deadline)
        pair = (item.item.prompt, item.item.completion)
        entered = await self._scorer.enter(pair, replace(self._demand, deadline=deadline))
        if isinstance(entered, FailedItem):
            self._close(item.id, entered)
            return
        opened.waiting = entered
        opened.timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), self._expire, item.id)
        entered.entry.answer.add_done_callback(partial(self._done, item.id, entered))

    def _done(self, number: int, waiting: Waiting, answer: asyncio.Future[object]) -> None:
        if number in self._open and not answer.cancelled():  # the stream may have ended in this turn of the loop
            self._close(number, *self._scorer.read(waiting))

    def _expire(self, number: int) -> None:
        """Answers an item whose time is over, whether it still waits or is just being computed."""
        waiting = self._open[number].waiting
        assert waiting is not None
        if not waiting.entry.answer.done():
            self._scorer.forget([waiting], "expired")
            message = "its time was over before it was scored; allow more, or send less at once"
            self._close(number, FailedItem(ItemOutcome.EXPIRED, message))

    def _close(self, number: int, result: ItemResult, stages: Stages = _NO_STAGES) -> None:
        self._forget(number)
        self._put(number, result, stages)
        self._end_when_answered()

    def _forget(self, number: int) -> None:
        opened = self._open.pop(number)
        if opened.timer is not None:
            opened.timer.cancel()
        self._metrics.stream_items_changed(-1)

    def _put(self, number: int, result: ItemResult, stages: Stages = _NO_STAGES) -> None:
        self._scorer.count([result])
        self._ready.put_nowait(StreamReply(number, result, stages))

    def _end_when_answered(self) -> None:
        if self._all_read and not self._open:
            self._ready.put_nowait(None)

    def _drop_open(self) -> None:
        waiting = [opened.waiting for opened in self._open.values() if opened.waiting is not None]
        for number in tuple(self._open):
            self._forget(number)
        self._scorer.forget(waiting, "cancelled")


class OpenStreams:
    """The streams of a server: each ends when it is old, so that clients spread over new replicas; all end at a drain.

    Args:
        max_age: Seconds; below the time that a connection too old leaves to its calls.
        max_idle: Seconds without an item after which a stream ends.
        metrics: Told about open streams.
    """

    def __init__(self, max_age: float, max_idle: float, metrics: RewardMetrics) -> None:
        self._max_age = max_age
        self._max_idle = max_idle
        self._metrics = metrics
        self._streams: set[ItemStream] = set()
        self._draining = False

    @contextmanager
    def holding(self, stream: ItemStream) -> Iterator[None]:
        """Keeps `stream` among the open ones."""
        age = self._max_age * random.uniform(0.8, 1.0)  # streams that began together shall not end together
        timer = asyncio.get_running_loop().call_later(age, stream.stop)
        watch = asyncio.create_task(self._end_when_idle(stream))
        self._streams.add(stream)
        self._metrics.streams_changed(1)
        if self._draining:
            stream.stop()
        try:
            yield
        finally:
            timer.cancel()
            watch.cancel()
            self._streams.discard(stream)
            self._metrics.streams_changed(-1)

    async def _end_when_idle(self, stream: ItemStream) -> None:
        while (left := self._max_idle - stream.idle_seconds) > 0:
            await asyncio.sleep(left)
        stream.stop()

    def drain(self) -> None:
        """Ends all streams, and every one that still begins."""
        self._draining = True
        for stream in self._streams:
            stream.stop()


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _invalid(message: str) -> FailedItem:
    return FailedItem(ItemOutcome.INVALID, message)
