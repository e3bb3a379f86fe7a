"""Results of a stream, waited for; survives broken connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc

from palate.client import types as t
from palate.client.errors import CallError
from palate.client.stream_state import END_SECONDS, Pair, StreamState
from palate.v1 import reward_service_pb2 as reward

Open: TypeAlias = Callable[[Iterator[reward.ScoreStreamRequest]], Any]
"""Begins a call with these requests."""


class ScoreStream(Iterator[t.StreamedResult]):
    """(index, result) of every pair, in the order in which they come; each pair is answered exactly once.

    The pairs are read in the calling thread, no further ahead than the window; results that are there go first.
    Close it (or use `with`) where not all results are read.

    Attributes:
        provenance: Which model answers; None before the first answer.
    """

    def __init__(self, open_call: Open, pairs: Iterable[Pair], state: StreamState) -> None:
        self._open_call = open_call
        self._pairs = iter(pairs)
        self._state = state
        self._connection: _Connection | None = None
        self._results = self._run()

    @property
    def provenance(self) -> t.Provenance | None:
        """Which model answers; one revision for the whole stream."""
        return self._state.provenance

    @property
    def unanswered(self) -> tuple[int, ...]:
        """Indices that were read from the pairs and have no result yet; after an error, those that will have none."""
        return self._state.unanswered

    def __next__(self) -> t.StreamedResult:
        return next(self._results)

    def close(self) -> None:
        """Ends the call; what is out is not computed."""
        self._results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> Generator[t.StreamedResult, None, None]:
        try:
            while (event := self._next_event()) is not None:
                if isinstance(event, reward.ScoreStreamResponse):
                    yield self._state.answered(event)
                elif isinstance(event, CallError):
                    yield from self._break(event)
                else:
                    yield self._state.closed(event)
            self._say_good_bye()
        finally:
            self._disconnect()

    def _next_event(self) -> reward.ScoreStreamResponse | CallError | t.StreamedResult | None:
        """A reply, how the connection ended, or the result of a pair that cannot be sent; None when all is done."""
        while True:
            if self._connection is None and self._state.unanswered:
                self._connection = _Connection(self._open_call, self._state)
            if self._connection is not None and (event := self._connection.receive(0.0)) is not None:
                return event
            if not self._state.has_room or (pair := next(self._pairs, None)) is None:
                break
            taken = self._state.take(pair)
            if not isinstance(taken, reward.ScoreStreamRequest):
                return taken
            if self._connection is not None:
                self._connection.send(taken)
        if self._connection is None or not self._state.unanswered:
            return None
        return self._connection.receive(self._state.longest_silence) or self._state.silent()

    def _break(self, error: CallError) -> Iterator[t.StreamedResult]:
        self._disconnect()
        if not self._state.unanswered:
            return
        delay, given_up = self._state.broken(error, time.monotonic())
        yield from given_up
        time.sleep(delay)

    def _say_good_bye(self) -> None:
        if self._connection is not None:
            self._connection.finish()
            self._connection.receive(END_SECONDS)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection:
    """One call: gRPC's thread sends what is in the outbox, one of ours puts replies into the inbox.

    Both hold no more than the window.
    """

    def __init__(self, open_call: Open, state: StreamState) -> None:
        self._outbox: SimpleQueue[reward.ScoreStreamRequest | None] = SimpleQueue()
        self._inbox: SimpleQueue[reward.ScoreStreamResponse | CallError] = SimpleQueue()
        for request in state.opening():
            self._outbox.put(request)
        self._call = open_call(iter(self._outbox.get, None))
        self._state = state
        threading.Thread(target=self._receive, name="palate-score-stream", daemon=True).start()

    def send(self, request: reward.ScoreStreamRequest) -> None:
        """Puts an item on its way."""
        self._outbox.put(request)

    def receive(self, seconds: float) -> reward.ScoreStreamResponse | CallError | None:
        """The next reply, or how the call ended; None when neither came in time."""
        try:
            return self._inbox.get(timeout=seconds) if seconds > 0 else self._inbox.get_nowait()
        except Empty:
            return None

    def finish(self) -> None:
        """Tells the server that no more items come."""
        self._outbox.put(None)

    def close(self) -> None:
        """Ends the call and its threads."""
        self.finish()
        self._call.cancel()

    def _receive(self) -> None:
        try:
            for response in self._call:
                self._inbox.put(response)
            self._inbox.put(self._state.ended())
        except grpc.RpcError as error:
            self._inbox.put(self._state.refused(error))
