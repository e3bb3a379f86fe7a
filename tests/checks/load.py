"""Calls of every kind through our own clients, without pause, until told to stop; every failure is kept."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from palate.client import AsyncRewardClient, PalateError, RewardClient, Scored

_TEXTS = 64
_SECONDS = 120.0
"""Deadline of a call; other people use the machine too."""

_PROMPT = "Is this honest?"


@dataclass
class Tally:
    """What happened so far.

    Attributes:
        answered: Calls by kind; of a stream, its items.
        failures: What a caller saw who got no answer.
        scores: Text → its score; another one for the same text is a failure.
    """

    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)

    def took(self, kind: str, text: str, result: object) -> None:
        """A result has come."""
        if not isinstance(result, Scored):
            self.failures.append(f"{kind}: {result}")
        elif self.scores.setdefault(text, result.score) != result.score:
            self.failures.append(f"{kind}: another score")
        else:
            self.answered[kind] += 1


@asynccontextmanager
async def load(target: str, workers: int = 4) -> AsyncIterator[Tally]:
    """Calls until the context ends: `workers` of each kind awaited, one stream, one blocking client in a thread."""
    tally, over = Tally(), threading.Event()
    async with AsyncRewardClient(target, timeout=_SECONDS) as client:
        tasks = [asyncio.create_task(_score(client, tally, over, each)) for each in range(workers)]
        tasks += [asyncio.create_task(_rank(client, tally, over, each)) for each in range(workers)]
        tasks += [asyncio.create_task(_stream(client, tally, over))]
        tasks += [asyncio.create_task(asyncio.to_thread(_block, target, tally, over))]
        try:
            yield tally
        finally:
            over.set()
            await asyncio.gather(*tasks)


async def more(tally: Tally, count: int) -> None:
    """Waits until every kind has been answered so many times more.

    Raises:
        RuntimeError: It is not, for minutes.
    """
    aims = {kind: tally.answered[kind] + count for kind in ("score", "rank", "stream", "blocking")}
    for _ in range(6000):
        if all(tally.answered[kind] >= aim for kind, aim in aims.items()):
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"no progress: {dict(tally.answered)}, failures: {tally.failures[:3]}")


def _texts(start: int) -> Iterator[str]:
    number = start
    while True:
        number += 1
        yield f"Text {number % _TEXTS} is honest."


async def _score(client: AsyncRewardClient, tally: Tally, over: threading.Event, number: int) -> None:
    for text in _texts(number):
        if over.is_set():
            return
        try:
            tally.took("score", text, (await client.score([_PROMPT], [text])).results[0])
        except PalateError as error:
            tally.failures.append(f"score: {error!r}")


async def _rank(client: AsyncRewardClient, tally: Tally, over: threading.Event, number: int) -> None:
    for text in _texts(number):
        if over.is_set():
            return
        try:
            ranked = (await client.rank(_PROMPT, [text, "No."])).results[0]
            tally.took("rank", text, getattr(ranked, "scored", ranked))
        except PalateError as error:
            tally.failures.append(f"rank: {error!r}")


async def _stream(client: AsyncRewardClient, tally: Tally, over: threading.Event) -> None:
    """One stream; another where it is lost."""
    while not over.is_set():
        sent: list[str] = []
        try:
            async for index, result in client.score_stream(_pairs(sent, over), window=16):
                tally.took("stream", sent[index], result)
        except PalateError as error:
            tally.failures.append(f"stream: {error!r}")


def _pairs(sent: list[str], over: threading.Event) -> Iterator[tuple[str, str]]:
    for text in _texts(0):
        if over.is_set():
            return
        sent.append(text)
        yield _PROMPT, text


def _block(target: str, tally: Tally, over: threading.Event) -> None:
    with RewardClient(target, timeout=_SECONDS) as client:
        for text in _texts(0):
            if over.is_set():
                return
            try:
                tally.took("blocking", text, client.score([_PROMPT], [text]).results[0])
            except PalateError as error:
                tally.failures.append(f"blocking: {error!r}")
