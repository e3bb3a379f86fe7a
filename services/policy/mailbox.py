"""From the engine's thread to the reader of a call: the engine never waits, and what waits for a reader is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

EventT = TypeVar("EventT")


@dataclass(slots=True)
class Piece:
    """Tokens of a completion that were drawn one after the other; grows while it waits for its reader.

    Attributes:
        prompt_index: Which of the call's prompts the completion continues.
        completion_index: Which of the prompt's completions it is.
        first_token: Place of the first of these tokens in the completion.
        token_ids: The tokens.
        logprobs: Of each, in nats.
        last: The completion ends with them.
    """

    prompt_index: int
    completion_index: int
    first_token: int
    token_ids: list[int]
    logprobs: list[float]
    last: bool

    @property
    def completion(self) -> tuple[int, int]:
        """Which completion of the call it is a piece of."""
        return self.prompt_index, self.completion_index

    def join(self, later: Piece) -> None:
        """Takes in the piece that follows."""
        self.token_ids.extend(later.token_ids)
        self.logprobs.extend(later.logprobs)
        self.last = later.last


class Mailbox(Generic[EventT]):
    """Events of one call, in order; pieces of one completion that wait together become one.

    So a reader that is slow, or does not read at all, costs at most the memory of the completions themselves.
    Make it in the event loop that reads it.

    Args:
        max_waiting: How many events may wait, joined pieces counted once.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._waiting: deque[EventT] = deque()
        self._pieces: dict[tuple[int, int], Piece] = {}  # those among `_waiting`
        self._ended = False
        self._error: Exception | None = None

    def put(self, events: Iterable[EventT]) -> None:
        """Hands events to the reader; called from the engine's thread.

        Raises:
            OverflowError: More wait than the call can cause, which is a bug.
        """
        with self._lock:
            for event in events:
                self._add(event)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Says that nothing more will come, and why; called from the engine's thread."""
        with self._lock:
            self._ended, self._error = True, error
        self._wake()

    async def events(self) -> AsyncIterator[EventT]:
        """What was put in, as it comes.

        Raises:
            Exception: What it was ended with, after all events.
        """
        while True:
            with self._lock:
                ended, found = self._ended, self._take() if self._waiting else None
            if found is not None:
                yield found
            elif ended:
                break
            else:
                await self._news.wait()
                self._news.clear()
        if self._error is not None:
            raise self._error

    def _add(self, event: EventT) -> None:
        if isinstance(event, Piece):
            if (waiting := self._pieces.get(event.completion)) is not None:
                waiting.join(event)
                return
            self._pieces[event.completion] = event
        if len(self._waiting) == self._max_waiting:
            raise OverflowError(f"more than {self._max_waiting} events wait for the reader of one call")
        self._waiting.append(event)

    def _take(self) -> EventT:
        event = self._waiting.popleft()
        if isinstance(event, Piece):
            del self._pieces[event.completion]
        return event

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)
