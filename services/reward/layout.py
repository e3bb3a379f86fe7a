"""How an engine's work is laid out on the machine: passes side by side, threads of each, and how large they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MOST_TOKENS = 8192
"""Padded tokens of a batch, where no engine wants fewer."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an engine likes its work.

    Attributes:
        lanes: Batches to be computed side by side.
        batch_tokens: Padded tokens of a batch beyond which it gets no faster per token.
    """

    lanes: int
    batch_tokens: int


@dataclass(frozen=True, slots=True)
class Threads:
    """CPU threads of a forward pass.

    Attributes:
        each: Where passes run side by side.
        alone: Of a pass beside which no other runs; never fewer.
    """

    each: int
    alone: int


class Passes:
    """Counts the forward passes that run; for engines that give more threads to one that runs alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0

    @contextmanager
    def one_more(self) -> Iterator[bool]:
        """A pass; whether none ran when it began."""
        with self._lock:
            self._running += 1
            alone = self._running == 1
        try:
            yield alone
        finally:
            with self._lock:
                self._running -= 1


ONE_THREAD = Threads(1, 1)


def share_threads(threads: int, lanes: int, *, strict: bool) -> Threads:
    """Shares out `threads` among `lanes`; in strict mode every pass has the same number, so that one proof holds."""
    each = max(1, threads // lanes)
    return Threads(each, each if strict else max(each, threads))
