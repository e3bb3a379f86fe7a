"""Open-loop load that follows a profile: calls begin when they are due, whether or not earlier ones are answered."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from palate.client import AsyncRewardClient, PalateError

_SECONDS = 120.0
"""Deadline of a call."""

Profile = Sequence[tuple[float, float]]
"""(seconds, calls a second) of corners; between them the rate changes evenly."""


@dataclass
class Calls:
    """What became of the calls; times count from the begin.

    Attributes:
        ended: (when it ended, how long it took), in seconds.
        failures: What callers saw who got no answer.
    """

    ended: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def p95(self, begin: float, end: float) -> float | None:
        """Of the calls that ended in between, seconds; None where none did."""
        took = sorted(seconds for at, seconds in self.ended if begin <= at < end)
        return took[int(0.95 * (len(took) - 1))] if took else None


def rate(profile: Profile, at: float) -> float:
    """Calls a second at that moment."""
    for (begin, low), (end, high) in itertools.pairwise(profile):
        if begin <= at < end:
            return low + (high - low) * (at - begin) / (end - begin)
    return profile[-1][1]


async def follow(
    profile: Profile, replicas: Callable[[], Sequence[AsyncRewardClient]], calls: Calls, seed: int
) -> None:
    """Calls the replicas in turn, at Poisson's moments, until the profile ends and all calls are answered."""
    begin, chance, turn, out = time.monotonic(), random.Random(seed), itertools.count(), set[asyncio.Task[None]]()
    due = 0.0
    while due < profile[-1][0]:
        await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
        there, number = replicas(), next(turn)
        task = asyncio.create_task(_call(there[number % len(there)], number, begin, calls))
        out.add(task)
        task.add_done_callback(out.discard)
        due += chance.expovariate(rate(profile, due))
    await asyncio.gather(*out)


async def _call(client: AsyncRewardClient, number: int, begin: float, calls: Calls) -> None:
    start = time.monotonic()
    try:
        (await client.score(["Is this text honest?"], [f"Text number {number:08d}."], timeout=_SECONDS)).scores()
    except PalateError as error:
        calls.failures.append(repr(error))
    else:
        now = time.monotonic()
        calls.ended.append((now - begin, now - start))
