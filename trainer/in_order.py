"""Calls that run side by side and are answered in their order, a bounded number ahead of who takes the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def in_order(call: Callable[[Asked], Answer], asked: Iterable[Asked], concurrency: int) -> Generator[Answer]:
    """What `call` answers to each, at most `concurrency` of them begun and not yet taken; the first error ends it.

    Closed early, it begins no more and waits for those that run.
    """
    with ThreadPoolExecutor(concurrency) as pool:
        running: deque[Future[Answer]] = deque()
        try:
            for each in asked:
                running.append(pool.submit(call, each))
                if len(running) == concurrency:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
