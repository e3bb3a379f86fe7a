"""What a stream remembers so that it can be opened again: which items are out, and for how long to try. No I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Generic, TypeVar

from palate.client.errors import CallError, Cancelled, DeadlineExceeded, Overloaded, Unavailable

T = TypeVar("T")

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 5.0
_FIRST_CONTACT = 5.0
"""Seconds after which a server that never answered counts as not there, however patient the caller is."""

_AWAY = (Unavailable, DeadlineExceeded, Cancelled)
"""How a connection ends whose server went, says nothing, or was stopped before it had answered."""


@dataclass(slots=True)
class _Out(Generic[T]):
    item: T
    size: int
    breaks: int = 0


class Window(Generic[T]):
    """The items that are out without an answer, bounded in number and bytes; each leaves it exactly once.

    Args:
        max_items: Items at once.
        max_bytes: Their bytes; a single item may have more.
        max_breaks: How often a connection that was answering may break over an item before the item is given up: one
            that kills every server must not be sent for ever.
    """

    def __init__(self, max_items: int, max_bytes: int, max_breaks: int) -> None:
        self._max_items, self._max_bytes, self._max_breaks = max_items, max_bytes, max_breaks
        self._out: dict[int, _Out[T]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._out)

    @property
    def has_room(self) -> bool:
        """Whether one more may be sent."""
        return not self._out or (len(self._out) < self._max_items and self._bytes < self._max_bytes)

    @property
    def indices(self) -> tuple[int, ...]:
        """The items that are out, oldest first."""
        return tuple(self._out)

    @property
    def items(self) -> list[T]:
        """What to send on a new connection, oldest first."""
        return [out.item for out in self._out.values()]

    def add(self, index: int, item: T, size: int) -> None:
        """Notes that an item goes out; `index` was never added before."""
        self._out[index] = _Out(item, size)
        self._bytes += size

    def answer(self, index: int) -> bool:
        """Takes an item out; False where it is not in."""
        out = self._out.pop(index, None)
        self._bytes -= out.size if out is not None else 0
        return out is not None

    def count_break(self) -> list[int]:
        """Notes that a connection broke over everything that is out; takes out and returns what is given up."""
        for out in self._out.values():
            out.breaks += 1
        given_up = [index for index, out in self._out.items() if out.breaks >= self._max_breaks]
        for index in given_up:
            self.answer(index)
        return given_up


class Patience:
    """How long a broken stream is opened again: while answers come for ever, without one for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._heard = False
        self._failures = 0
        self._since = 0.0

    def answered(self) -> None:
        """An answer came: all is forgiven."""
        self._heard = True
        self._failures = 0

    def delay(self, error: CallError, now: float) -> float:
        """Seconds to wait before the next connection: what the server said, else a growing time.

        Args:
            error: How the connection ended.
            now: Monotonic seconds.

        Raises:
            CallError: `error`, where another connection would not help, or no answer came for too long.
        """
        told = error.retry_after
        if not isinstance(error, _AWAY) and not (isinstance(error, Overloaded) and told):
            raise error
        if self._failures == 0:
            self._since = now
        self._failures += 1
        limit = self._seconds if self._heard or told is not None else min(self._seconds, _FIRST_CONTACT)
        if now - self._since > limit:
            raise error
        if told is not None:
            return told
        grown = _FIRST_BACKOFF * 2.0 ** min(self._failures - 1, 10)
        return float(min(grown, _LONGEST_BACKOFF) * random.uniform(0.8, 1.2))
