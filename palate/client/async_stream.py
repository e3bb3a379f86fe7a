"""Results of a stream, awaited; survives broken connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc

from palate.client import types as t
from palate.client.errors import CallError
from palate.client.stream_state import END_SECONDS, Pair, StreamState
from palate.v1 import reward_service_pb2 as reward

AsyncOpen: TypeAlias = Callable[[AsyncIterator[reward.ScoreStreamRequest]], Any]
"""Begins a call with these requests."""


@dataclass(frozen=True, slots=True)
class _Fed:
    """The pairs are at their end, with an error where reading them failed; `more`: the window is empty no longer."""

    error: Exception | None = None
    more: bool = False


_Event: TypeAlias = "reward.ScoreStreamResponse | CallError | t.StreamedResult | _Fed"


class AsyncScoreStream(AsyncIterator[t.StreamedResult]):
    """As `ScoreStream`; the pairs, of which an asynchronous iterable may be slow, are read while results come.

    Close it (or use `async with`) where not all results are read.
    """

    def __init__(self, open_call: AsyncOpen, pairs: Iterable[Pair] | AsyncIterable[Pair], state: StreamState) -> None:
        self._open_call = open_call
        self._pairs = pairs
        self._state = state
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._room = asyncio.Event()
        self._connection: _Connection | None = None
        self._results = self._run()

    @property
    def provenance(self) -> t.Provenance | None:
        """Which model answers; None before the first answer."""
        return self._state.provenance

    @property
    def unanswered(self) -> tuple[int, ...]:
        """As `ScoreStream.unanswered`."""
        return self._state.unanswered

    async def __anext__(self) -> t.StreamedResult:
        return await anext(self._results)

    async def aclose(self) -> None:
        """Ends the call; what is out is not computed."""
        await self._results.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self) -> AsyncGenerator[t.StreamedResult, None]:
        feeding, all_fed = asyncio.create_task(self._feed()), False
        try:
            while not all_fed or self._state.unanswered:
                event = await self._next_event()
                if isinstance(event, reward.ScoreStreamResponse):
                    yield self._made_room(self._state.answered(event))
                elif isinstance(event, CallError):
                    async for result in self._break(event):
                        yield result
                elif not isinstance(event, _Fed):
                    yield self._made_room(self._state.closed(event))
                elif event.error is not None:
                    raise event.error
                else:
                    all_fed = all_fed or not event.more
            await self._say_good_bye()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            self._disconnect()

    async def _feed(self) -> None:
        """Sends pairs while there is room."""
        try:
            async for pair in _each(self._pairs):
                if not self._state.unanswered:
                    self._events.put_nowait(_Fed(more=True))
                taken = self._state.take(pair)
                if not isinstance(taken, reward.ScoreStreamRequest):
                    self._events.put_nowait(taken)
                elif self._connection is not None:
                    self._connection.send(taken)
                while not self._state.has_room:
                    self._room.clear()
                    await self._room.wait()
            self._events.put_nowait(_Fed())
        except Exception as error:
            self._events.put_nowait(_Fed(error))

    async def _next_event(self) -> _Event:
        if not self._state.unanswered:
            return await self._events.get()
        if self._connection is None:
            self._connection = _Connection(self._open_call, self._state, self._events)
        try:
            return await asyncio.wait_for(self._events.get(), self._state.longest_silence)
        except TimeoutError:
            return self._state.silent()

    async def _break(self, error: CallError) -> AsyncIterator[t.StreamedResult]:
        self._disconnect()
        if not self._state.unanswered:
            return
        delay, given_up = self._state.broken(error, time.monotonic())
        for result in given_up:
            yield self._made_room(result)
        await asyncio.sleep(delay)

    def _made_room(self, result: t.StreamedResult) -> t.StreamedResult:
        self._room.set()
        return result

    async def _say_good_bye(self) -> None:
        if self._connection is not None:
            await self._connection.finish(END_SECONDS)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection:
    """One call: gRPC's task sends what is in the outbox, one of ours puts replies among the stream's events."""

    def __init__(self, open_call: AsyncOpen, state: StreamState, events: asyncio.Queue[_Event]) -> None:
        self._outbox: asyncio.Queue[reward.ScoreStreamRequest | None] = asyncio.Queue()
        for request in state.opening():
            self._outbox.put_nowait(request)
        self._call = open_call(self._outgoing())
        self._state = state
        self._closing = False
        self._receiving = asyncio.create_task(self._receive(events))

    def send(self, request: reward.ScoreStreamRequest) -> None:
        """Puts an item on its way."""
        self._outbox.put_nowait(request)

    async def finish(self, seconds: float) -> None:
        """Tells the server that no more items come, and waits for its end."""
        self._outbox.put_nowait(None)
        await asyncio.wait([self._receiving], timeout=seconds)

    def close(self) -> None:
        """Ends the call and its tasks."""
        self._closing = True
        self._outbox.put_nowait(None)
        self._receiving.cancel()
        self._call.cancel()

    async def _outgoing(self) -> AsyncIterator[reward.ScoreStreamRequest]:
        while (request := await self._outbox.get()) is not None:
            yield request

    async def _receive(self, events: asyncio.Queue[_Event]) -> None:
        try:
            async for response in self._call:
                events.put_nowait(response)
            events.put_nowait(self._state.ended())
        except grpc.RpcError as error:
            events.put_nowait(self._state.refused(error))
        except asyncio.CancelledError:
            if self._closing:
                raise
            events.put_nowait(self._state.ended())  # the channel was closed under the call


async def _each(pairs: Iterable[Pair] | AsyncIterable[Pair]) -> AsyncIterator[Pair]:
    if isinstance(pairs, AsyncIterable):
        async for pair in pairs:
            yield pair
    else:
        for pair in pairs:
            yield pair
